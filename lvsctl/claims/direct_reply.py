"""The claim that DR and TUN share: replies bypass the director."""

from __future__ import annotations

from lvsctl.claims.base import CheckResult, inconclusive, passed_if
from lvsctl.claims.trace import Trace
from lvsctl.model.frame import Direction


def reply_is_direct(trace: Trace) -> CheckResult:
    """Replies leave a real server with the VIP as source and never pass a director.

    Positive control: a director's taps were live, because they captured the requests.
    """
    vip = trace.run.endpoint.vip
    directors = trace.directors
    expected = "replies from the VIP reach the client, and none is captured at the director"
    controlled = [
        c
        for c in trace.conversations
        # A frame that the switch floods to the director is not addressed to it.
        if any(f.tap.node in directors and f.direction is Direction.IN for f in c.requests)
    ]
    if not controlled:
        return inconclusive(
            expected,
            "no request was captured at the director, so the absence of replies proves nothing",
        )
    astray = [
        f
        for c in controlled
        for f in c.replies
        if f.tap.node in directors and f.direction is not Direction.OTHER
    ]
    if astray:
        return passed_if(
            False,
            expected,
            f"{len(astray)} reply frames captured at {astray[0].tap.node}",
            astray[:2],
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
        return passed_if(
            False, expected, "a reply left with a source other than the VIP", wrong[:1]
        )
    unanswered = [
        c
        for c in controlled
        if not any(f.tap.node in trace.clients and f.direction.inward for f in c.replies)
    ]
    if unanswered:
        return passed_if(
            False,
            expected,
            f"{len(unanswered)} of {len(controlled)} connections got no reply",
            unanswered[0].requests[:1],
        )
    return passed_if(
        True, expected, f"{len(sent)} replies from {vip}, none at {', '.join(directors)}", sent[:1]
    )
