"""Where packets of the requests were lost: the node or network that captured them last.

Packets pass a capture before anything in the receiving node can drop them, and after everything
in the sending node could. So a packet that was last seen coming in was lost in that node, and
one that was last seen going out was lost on the network, in its switch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from lvsctl.claims.losses import sent_again
from lvsctl.claims.trace import Conversation, identity
from lvsctl.diagnosis.base import Case
from lvsctl.model.addresses import IPAddress
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Role
from lvsctl.model.packet import Tcp

_FORWARDING = frozenset({Role.DIRECTOR, Role.ROUTER})


def lost_at(case: Case) -> dict[str, tuple[Frame, ...]]:
    """Return the nodes and networks where packets may have been lost, with those packets.

    The place of a request's last frame comes first. A node that receives a request is among
    them if no answer to it was captured, for then the request may have been lost there.
    """
    found: dict[str, dict[Frame, None]] = {}
    for conversation in case.conversations:
        answered = conversation.exchange.answered
        for frame in (_first_copies if answered else _ends)(case, conversation):
            found.setdefault(place(frame), {})[frame] = None
        if not answered and not conversation.requests:
            found.setdefault(case.client, {})
    for node, frame in _unresolved(case):
        found.setdefault(node, {})[frame] = None
    return {name: tuple(frames) for name, frames in found.items()}


def place(frame: Frame) -> str:
    """Return the node that received a frame; the network, if a node sent it."""
    return frame.tap.device if frame.direction is Direction.OUT else frame.tap.node


def _ends(case: Case, conversation: Conversation) -> Iterator[Frame]:
    yield from _last_frames(conversation)
    yield from _not_forwarded(case, conversation)
    yield from _untold(case, conversation)


def _untold(case: Case, conversation: Conversation) -> Iterator[Frame]:
    """ICMP errors about a request that came into a node on their way, and did not leave it."""
    told = [
        frame
        for frame in case.evidence.frames
        if frame.icmp is not None
        and frame.icmp.quoted is not None
        and frame.icmp.quoted.flow is not None
        and frame.icmp.quoted.flow.src == conversation.client
    ]
    left = {frame.tap.node for frame in told if frame.direction is Direction.OUT}
    for frame in told:
        on_way = case.lab.node(frame.tap.node).role in _FORWARDING
        if frame.direction.inward and on_way and frame.tap.node not in left:
            yield frame


def _last_frames(conversation: Conversation) -> Iterable[Frame]:
    """The last frame of each direction, the very last one first."""
    ends = [
        max(seen, key=lambda frame: frame.time)
        for frames in (conversation.requests, conversation.replies)
        if (seen := [frame for frame in frames if frame.direction is not Direction.OTHER])
    ]
    return sorted(ends, key=lambda frame: -frame.time)


def _not_forwarded(case: Case, conversation: Conversation) -> Iterator[Frame]:
    """Packets that came into a node that forwards, and did not leave it."""
    for node in case.lab.nodes:
        if node.role not in _FORWARDING:
            continue
        for frames in (conversation.requests, conversation.replies):
            last = {
                identity(frame): frame
                for frame in frames
                if frame.tap.node == node.name and frame.direction is not Direction.OTHER
            }
            yield from (one for one in last.values() if one.direction is not Direction.OUT)


def _first_copies(case: Case, conversation: Conversation) -> Iterator[Frame]:
    """The last captures of segments that had to be sent again."""
    for again in sent_again(case.trace, conversation):
        copies: dict[object, Frame] = {}
        for frame in chain(conversation.requests, conversation.replies):
            if _same_segment(frame, again) and frame.time < again.time:
                copies[identity(frame)] = frame
        yield from copies.values()


def _same_segment(one: Frame, other: Frame) -> bool:
    first, second = one.packet.transport, other.packet.transport
    if not isinstance(first, Tcp) or not isinstance(second, Tcp):
        return False
    return (first.seq, first.flags, one.payload) == (second.seq, second.flags, other.payload)


def _unresolved(case: Case) -> Iterator[tuple[str, Frame]]:
    """Questions for MAC addresses without an answer: the network, who heard and who asked."""
    seen = [(frame, *_question(frame)) for frame in case.evidence.frames]
    answered = {
        target
        for frame, target, is_question in seen
        if not is_question and frame.direction is not Direction.OUT
    }
    for frame, target, is_question in sorted(seen, key=lambda one: not one[0].direction.inward):
        if not is_question or target in answered:
            continue
        if frame.direction is Direction.OUT:
            yield frame.tap.device, frame
            yield frame.tap.node, frame
        elif target is not None and _has(case, frame, target):
            yield frame.tap.node, frame


def _question(frame: Frame) -> tuple[IPAddress | None, bool]:
    """The address that an ARP or ND message is about, and whether it asks for its MAC address."""
    arp, nd = frame.arp, frame.icmp.nd if frame.icmp is not None else None
    if arp is not None and not arp.is_gratuitous:
        return (arp.target_ip, True) if arp.is_request else (arp.sender_ip, False)
    if nd is not None:
        return nd.target, nd.is_solicit
    return None, False


def _has(case: Case, frame: Frame, address: IPAddress) -> bool:
    """Whether the node that received a question should answer it."""
    node, device = frame.tap.node, frame.tap.device
    own = any(held.ip == address for held in case.lab.node(node).addresses_on(device))
    return own or case.network.answers(node, device, address)
