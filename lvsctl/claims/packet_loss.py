"""Packet losses that the nodes' kernels counted, with drop reasons where they report them.

This supplements frames and state. It may be missing (older reports and kernels).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from lvsctl.model.evidence import Evidence
from lvsctl.model.state import LOSSES, MARTIANS, REASONS


def everything(evidence: Evidence) -> Iterator[str]:
    """All losses that the kernels counted, reported or logged."""
    yield from lost(evidence)
    yield from reasons(evidence)
    yield from martians(evidence)


def lost(
    evidence: Evidence, counters: Collection[str] = LOSSES.keys(), nodes: Collection[str] = ()
) -> Iterator[str]:
    """Loss counters that grew while requests were sent, by node (of ``nodes``, if any)."""
    for node, grown in evidence.counters.items():
        if nodes and node not in nodes:
            continue
        for counter, count in grown.items():
            if counter in counters and counter in LOSSES:
                yield f"{node}: its kernel counted {counter} +{count} ({LOSSES[counter]})"


def reasons(
    evidence: Evidence, wanted: Collection[str] = REASONS.keys() | MARTIANS.keys()
) -> Iterator[str]:
    """Drop reasons of the nodes' kernel meanwhile, of all its namespaces."""
    for drop in evidence.kernel_drops:
        if drop.reason in wanted and drop.text:
            times = "packet" if drop.count == 1 else "packets"
            why = f"{drop.reason} ({drop.text})"
            yield f"the kernel that all nodes share dropped {drop.count} {times}: {why}"


def martians(evidence: Evidence) -> Iterator[str]:
    """Martians that the nodes' kernel logged meanwhile."""
    for line in evidence.kernel_log:
        yield f'the kernel that all nodes share logged "{line}"'
