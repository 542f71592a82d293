"""Claims judged on evidence: pure, so that every verdict can be computed again.

Neither the kernel nor a capture is asked here; evidence is a model type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lvsctl.claims import dr, every, kernel, nat, tun
from lvsctl.claims.distribution import NO_ROOM, room_for
from lvsctl.claims.every import Judge
from lvsctl.claims.trace import Trace, traces
from lvsctl.model.claim import Claim
from lvsctl.model.evidence import Evidence
from lvsctl.model.finding import Finding, Judgement, Verdict
from lvsctl.model.service import ForwardingMethod
from lvsctl.modes import dr as dr_mode
from lvsctl.modes import every as every_mode
from lvsctl.modes import nat as nat_mode
from lvsctl.modes import tun as tun_mode

BY_MODE: Mapping[ForwardingMethod, Mapping[Claim, Judge]] = {
    ForwardingMethod.NAT: nat.JUDGES,
    ForwardingMethod.TUN: tun.JUDGES,
    ForwardingMethod.DR: dr.JUDGES,
}
"""Who decides each forwarding method's own claims."""


def findings(evidence: Evidence) -> Iterator[Finding]:
    """What the evidence says of every claim about every service, in the order shown."""
    for trace in traces(evidence):
        judges = {**BY_MODE[trace.run.service.forward], **every.JUDGES}
        for claim, judge in judges.items():
            if _applies(claim, trace):
                yield _finding(claim, trace, judge(trace))


def _applies(claim: Claim, trace: Trace) -> bool:
    """Whether the topology makes the claim at all: no claim about ports that are not mapped."""
    service, lab = trace.run.service, trace.evidence.lab
    if claim in (dr_mode.ARP_ANSWERS, dr_mode.ARP_QUESTIONS):
        return service.vip.version == 4  # IPv6 asks no ARP questions
    if claim is nat_mode.PORTS:
        return any(server.port != service.key.port for server in service.real_servers)
    if claim in tun_mode.COST.values():
        return claim is tun_mode.COST[service.encapsulation]
    if claim is tun_mode.ROUTED:
        here = set(lab.node(trace.director).networks)
        return any(not here & set(lab.node(s.node).networks) for s in service.real_servers)
    return True


_STANDING = frozenset({dr_mode.HOLD_VIP, dr_mode.ARP_ANSWERS, nat_mode.PLAIN})
"""Claims that need no request."""

_ON_STATE = frozenset({dr_mode.HOLD_VIP, nat_mode.PLAIN, *every.JUDGES} - {every_mode.FRAMES})
"""Claims about what the kernel holds and the client saw: lost frames take nothing from them."""


def _finding(claim: Claim, trace: Trace, judgement: Judgement) -> Finding:
    verdict = judgement.verdict
    observed = judgement.observed
    run = trace.run
    refused = not run.answered and room_for(run.service, run.before) == 0
    if verdict is Verdict.FAIL and refused and claim not in _STANDING:
        verdict = Verdict.INCONCLUSIVE
        observed += f"; {NO_ROOM}"
    on_frames = bool(judgement.frames) or claim not in _ON_STATE
    if trace.evidence.dropped and on_frames and verdict is not Verdict.INCONCLUSIVE:
        verdict = Verdict.INCONCLUSIVE
        observed += f"; but the capture lost {trace.evidence.dropped} frames"
    lost = claim is every_mode.ANSWERS and verdict is Verdict.FAIL
    return Finding(
        claim,
        trace.run.service.name,
        verdict,
        judgement.expected,
        observed,
        judgement.frames,
        kernel=tuple(kernel.everything(trace.evidence)) if lost else (),
    )
