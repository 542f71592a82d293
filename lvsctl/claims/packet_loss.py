"""What the nodes' kernels say of packets that got no further: their own counters, and reasons.

Evidence beside frames and state. Where it is missing (an older report, a kernel that does
not tell) nothing changes but the words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from lvsctl.model.counted import LOSSES, MARTIANS, REASONS
from lvsctl.model.evidence import Evidence


def everything(evidence: Evidence) -> Iterator[str]:
    """All that the kernels say of packets that they did not carry on."""
    yield from lost(evidence)
    yield from reasons(evidence)
    yield from martians(evidence)


def lost(
    evidence: Evidence, counters: Collection[str] = LOSSES.keys(), nodes: Collection[str] = ()
) -> Iterator[str]:
    """Counters of losses that grew while requests were sent, node by node (``nodes``: these)."""
    for node, grown in evidence.counters.items():
        if nodes and node not in nodes:
            continue
        for counter, count in grown.items():
            if counter in counters and counter in LOSSES:
                yield f"{node}: its kernel counted {counter} +{count} ({LOSSES[counter]})"


def reasons(
    evidence: Evidence, wanted: Collection[str] = REASONS.keys() | MARTIANS.keys()
) -> Iterator[str]:
    """Why the host's kernel dropped packets meanwhile: all of the host, not of a node."""
    for drop in evidence.kernel_drops:
        if drop.reason in wanted and drop.says:
            times = "packet" if drop.count == 1 else "packets"
            yield f"the host's kernel dropped {drop.count} {times}: {drop.reason} ({drop.says})"


def martians(evidence: Evidence) -> Iterator[str]:
    """What the host's kernel logged of martians meanwhile."""
    for line in evidence.kernel_log:
        yield f'the host\'s kernel logged "{line}"'
