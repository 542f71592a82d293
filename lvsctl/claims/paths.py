"""What several forwarding methods' judges look at: who holds the VIP, which way replies go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lvsctl.claims.trace import Trace
from lvsctl.model.finding import Judgement, judged, undecided
from lvsctl.model.frame import Direction


def names(nodes: Sequence[str]) -> str:
    """Nodes in a sentence; beyond five, how many more."""
    if len(nodes) > 5:
        return f"{', '.join(nodes[:4])} and {len(nodes) - 4} more"
    return ", ".join(nodes)


def vip_holders(trace: Trace, nodes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The devices on which each of ``nodes`` has the service's VIP."""
    return {node: trace.holds(node, trace.run.service.vip) for node in nodes}


def reply_direct(trace: Trace) -> Judgement:
    """Replies leave a real server from the VIP and never touch the director.

    Control: the director's taps were live, because they saw these connections' requests.
    """
    vip = trace.run.service.vip
    expected = "replies from the VIP reach the client, and none is seen at the director"
    controlled = [
        c
        for c in trace.conversations
        # What a switch floods to the director is not for it.
        if any(f.tap.node == trace.director and f.direction is Direction.IN for f in c.requests)
    ]
    if not controlled:
        return undecided(expected, "the director saw no request, so its silence proves nothing")
    astray = [
        f
        for c in controlled
        for f in c.replies
        if f.tap.node == trace.director and f.direction is not Direction.OTHER
    ]
    if astray:
        return judged(
            False, expected, f"{len(astray)} reply frames seen at {trace.director}", astray[:2]
        )
    sent = [
        frame
        for c in controlled
        for frame in c.replies
        if frame.direction is Direction.OUT
        and frame.tap.node in {server.node for server in trace.real_servers}
    ]
    wrong = [f for f in sent if f.inner is not None and f.inner.src != vip]
    if wrong:
        return judged(False, expected, "a reply left with another source than the VIP", wrong[:1])
    unanswered = [
        c
        for c in controlled
        if not any(f.tap.node in trace.clients and f.direction.inward for f in c.replies)
    ]
    if unanswered:
        return judged(
            False,
            expected,
            f"{len(unanswered)} of {len(controlled)} connections got no reply",
            unanswered[0].requests[:1],
        )
    return judged(
        True, expected, f"{len(sent)} replies from {vip}, none at {trace.director}", sent[:1]
    )
