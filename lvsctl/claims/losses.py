"""Packets of a connection that had to be sent again, because they were lost on the way."""

from __future__ import annotations

from collections.abc import Sequence

from lvsctl.claims.trace import Conversation, Trace
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.packet import Tcp, TcpFlag


def sent_again(trace: Trace, conversation: Conversation) -> tuple[Frame, ...]:
    """The frames that repeat a segment, because no reply to its first copy came in time.

    A copy is not counted if what answers the first one had reached its sender by then, or if the
    other end answered the first one before it received the second: then the packets were only
    late, as on a machine that is short of processor time. Nor is it counted if the link made it:
    a link that duplicates frames sends the same bytes at once, and TCP does neither.
    """
    client = trace.run.client
    servers = {server.node for server in trace.real_servers}
    return (
        *_repeated(conversation.requests, conversation.replies, {client}, servers),
        *_repeated(conversation.replies, conversation.requests, servers, {client}),
    )


def _repeated(
    sent: Sequence[Frame], answers: Sequence[Frame], senders: set[str], receivers: set[str]
) -> list[Frame]:
    copies: dict[tuple[object, ...], list[Frame]] = {}
    for frame in sent:
        if frame.tap.node in senders and frame.direction is Direction.OUT and len(frame.ips) == 1:
            segment = _segment(frame)
            if segment is not None:
                copies.setdefault((frame.tap.node, *segment), []).append(frame)
    return [
        again
        for (_, *segment), (first, *others) in copies.items()
        for again in [one for one in others if not is_duplicate(first, one)][:1]
        if not _was_answered(first, again, tuple(segment), sent, answers, senders, receivers)
    ]


_SOONEST = 200_000_000
"""Nanoseconds after which TCP sends the same bytes again at the earliest (TCP_RTO_MIN).

A probe of TCP for the last segment comes sooner, with another IP ID (tcp_send_loss_probe).
"""


def is_duplicate(first: Frame, other: Frame) -> bool:
    """Whether ``other`` is a copy of the frame ``first`` itself, which the link made."""
    return first.raw.data == other.raw.data and other.time - first.time < _SOONEST


def _segment(frame: Frame) -> tuple[object, ...] | None:
    """What names a segment that must be acknowledged; None for a mere acknowledgement."""
    tcp = frame.packet.transport
    if not isinstance(tcp, Tcp):
        return None
    if not frame.payload and not tcp.flags & (TcpFlag.SYN | TcpFlag.FIN):
        return None
    return tcp.seq, len(frame.payload), bool(tcp.flags & TcpFlag.SYN)


def _was_answered(
    first: Frame,
    again: Frame,
    segment: tuple[object, ...],
    sent: Sequence[Frame],
    answers: Sequence[Frame],
    senders: set[str],
    receivers: set[str],
) -> bool:
    back = (f for f in answers if f.tap.node in senders and f.direction is Direction.IN)
    if any(first.time < f.time < again.time for f in back):
        return True
    arrivals = [
        f.time
        for f in sent
        if f.tap.node in receivers
        and f.direction.inward
        and len(f.ips) == 1
        and _segment(f) == segment
    ]
    if len(arrivals) < 2:
        return False  # one of the copies was lost
    left = [f.time for f in answers if f.tap.node in receivers and f.direction is Direction.OUT]
    return any(arrivals[0] < time < max(arrivals) for time in left)
