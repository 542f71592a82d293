"""The claim about a director that is a real server of its own service ("local node")."""

from __future__ import annotations

from lvsctl.claims.base import CheckResult, ClaimTable, inconclusive, passed_if
from lvsctl.claims.trace import Trace
from lvsctl.model.frame import Direction

CLAIMS = ClaimTable()


def _has_local(trace: Trace) -> bool:
    return bool(trace.run.service.local)


@CLAIMS.add(
    "local.delivered-at-director",
    "requests that the director gives to itself are delivered there: no interface forwards them",
    unbroken="the kernel delivers what is for a local address, whatever the forwarding method is",
    applies=_has_local,
)
def delivered_at_director(trace: Trace) -> CheckResult:
    """Positive control: the requests came in at the director, and their replies left it."""
    (node, *_) = (server.node for server in trace.run.service.local)
    expected = f"requests answered by {node} come in there, leave it nowhere, replies leave it"
    own = [c for c in trace.conversations if c.exchange.node == node]
    requests = [frame for c in own for frame in c.requests if frame.tap.node == node]
    came = [frame for frame in requests if frame.direction is Direction.IN]
    forwarded = [frame for frame in requests if frame.direction is Direction.OUT]
    replied = [
        frame
        for c in own
        for frame in c.replies
        if frame.tap.node == node and frame.direction is Direction.OUT
    ]
    if not came or not replied:
        return inconclusive(expected, f"no request that {node} answered was captured there")
    wrong = [frame for frame in replied if frame.flow is None or frame.flow.src != trace.vip]
    observed = f"{len(came)} packets in, {len(forwarded)} forwarded, {len(replied)} replies"
    if wrong:
        observed += f", {len(wrong)} not from {trace.vip}"
    shown = (forwarded or wrong or came)[:1]
    return passed_if(not forwarded and not wrong, expected, observed, shown)
