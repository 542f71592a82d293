"""Claims decided on evidence. Pure, so that every verdict can be recomputed from a saved report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lvsctl.claims import (
    dr,
    ecmp,
    every,
    ha,
    joined,
    links,
    local_node,
    nat,
    packet_loss,
    segments,
    tun,
    udp,
)
from lvsctl.claims.asking import Unsuitable, unsuitable_client
from lvsctl.claims.base import CheckedClaim, CheckResult, ClaimTable
from lvsctl.claims.distribution import no_room, room_for
from lvsctl.claims.keepalived import as_decided
from lvsctl.claims.trace import Trace, traces
from lvsctl.model.claim import Finding, Verdict
from lvsctl.model.evidence import Evidence
from lvsctl.model.lab import Role
from lvsctl.model.service import ForwardingMethod

BY_MODE: Mapping[ForwardingMethod, ClaimTable] = {
    ForwardingMethod.NAT: nat.CLAIMS,
    ForwardingMethod.TUN: tun.CLAIMS,
    ForwardingMethod.DR: dr.CLAIMS,
}
"""Each forwarding method's own claims; those of ``COMMON`` hold for all of them."""

COMMON: tuple[ClaimTable, ...] = (
    udp.CLAIMS,
    joined.CLAIMS,
    local_node.CLAIMS,
    segments.CLAIMS,
    links.CLAIMS,
    ha.CLAIMS,
    ecmp.CLAIMS,
    every.CLAIMS,
)
"""Claims that do not depend on the forwarding method: of a protocol, and of every service."""


def tables() -> Iterator[ClaimTable]:
    """Yield every table of claims."""
    yield from BY_MODE.values()
    yield from COMMON


def findings(evidence: Evidence) -> Iterator[Finding]:
    """Decide every claim about every virtual service, in the order in which they are shown."""
    for trace in traces(as_decided(evidence)):
        unsuitable = unsuitable_client(trace)
        elsewhere = trace.run.service.remote or not trace.run.service.local
        ways = [(trace.by(*way), BY_MODE[way[0]]) for way in trace.run.service.ways if elsewhere]
        for judged, claims in (*ways, *((trace, table) for table in COMMON)):
            for row in claims:
                if row.applies(judged):
                    yield _finding(row, judged, row.check(judged), unsuitable)


def notes(evidence: Evidence) -> Iterator[str]:
    """Say of each service why its claims could not be decided where the client is no client."""
    if all(evidence.lab.node(run.client).role is Role.CLIENT for run in evidence.runs):
        return
    for trace in traces(evidence):
        found = unsuitable_client(trace)
        if found is not None:
            client = trace.run.client
            yield (
                f"{trace.run.service.name}, asked from {client}: {found.text}. "
                f"{'; '.join(found.facts)}. So {found.consequence}; the claims hold for clients "
                f"such as {trace.evidence.lab.default_client.name}."
            )


def _finding(
    row: CheckedClaim, trace: Trace, result: CheckResult, unsuitable: Unsuitable | None = None
) -> Finding:
    verdict = result.verdict
    observed = result.observed
    run = trace.run
    refused = not run.answered and room_for(run.service, run.before) == 0
    if verdict is Verdict.FAIL and refused and row.needs_requests:
        verdict = Verdict.INCONCLUSIVE
        observed += f"; {no_room(run.service)}"
    elif (
        verdict is Verdict.FAIL
        and row.needs_requests
        and unsuitable is not None
        and (row.needs_frames or not unsuitable.crosses_only)
    ):
        verdict = Verdict.INCONCLUSIVE
        observed += f"; {unsuitable.text}"
    elif verdict is Verdict.FAIL and row.needs_requests and trace.damaged:
        verdict = Verdict.INCONCLUSIVE
        observed += f"; the topology itself asks for {trace.damaged:g} % damaged frames"
    elif verdict is Verdict.FAIL and row.needs_requests and trace.fails_by_planned_loss:
        verdict = Verdict.INCONCLUSIVE
        observed += f"; the topology itself asks for {trace.planned_loss:g} % loss"
    on_frames = row.needs_frames or bool(result.frames)
    if trace.evidence.dropped and on_frames and verdict is not Verdict.INCONCLUSIVE:
        verdict = Verdict.INCONCLUSIVE
        observed += f"; but the capture lost {trace.evidence.dropped} frames"
    unanswered = row.check is every.requests_answered and verdict is Verdict.FAIL
    return Finding(
        row.about(trace),
        run.service.name,
        verdict,
        result.expected,
        observed,
        result.frames,
        kernel=tuple(packet_loss.everything(trace.evidence)) if unanswered else (),
    )
