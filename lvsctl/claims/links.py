"""The claim about links: they carry frames as the topology says, decided on captured frames.

A capture sees what leaves a node after its queueing discipline (dev_queue_xmit_nit in
net/core/dev.c): frames that netem delays, repeats, damages or reorders are seen so there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from lvsctl.claims.base import CheckResult, ClaimTable, inconclusive, passed_if
from lvsctl.claims.losses import is_duplicate
from lvsctl.claims.trace import Conversation, Trace
from lvsctl.model.frame import Direction, Frame, Tap
from lvsctl.model.lab import Impairment
from lvsctl.model.packet import TCP, UDP, Tcp, TcpFlag
from lvsctl.model.service import Protocol

CLAIMS = ClaimTable()

LATE = 50.0
"""Milliseconds in which every kernel answers a SYN, also one that shares its processor."""

_SAMPLES = 3
"""Handshakes by which a delay is judged: the first one may wait for ARP."""


class _Oddity(NamedTuple):
    """What a link did that the topology does not ask for, with the frames that show it."""

    text: str
    frames: tuple[Frame, ...]


def _can_be_judged(trace: Trace) -> bool:
    """Whether the topology leaves anything to look at.

    Where it asks for damaged frames: copies of datagrams, or delays of TCP's handshakes.
    """
    wanted = trace.evidence.lab.impairments
    if not _any(wanted, "corrupt"):
        return True
    return not _any(wanted, "duplicate" if _datagrams(trace) else "rate")


@CLAIMS.add(
    "all.links-as-described",
    "links carry frames as the topology says: in time, in order, undamaged, and datagrams once",
    broken_by=("frames-delayed", "frames-reordered", "frames-duplicated", "frames-damaged"),
    applies=_can_be_judged,
)
def links_as_described(trace: Trace) -> CheckResult:
    """Look at what clients and real servers sent: checksums, copies, TCP's order, its handshakes.

    What the topology itself asks for somewhere (duplicate, reorder, jitter, corrupt) is not held
    against a link. Copies of TCP's segments harm nothing and are only counted.
    """
    sent = list(_own(trace, _ends(trace)))
    wanted = trace.evidence.lab.impairments
    checks: dict[str, Iterable[_Oddity]] = {}
    handshakes = _handshakes(trace)
    slow = min(map(_unplanned, handshakes)) if len(handshakes) > 1 else 0.0
    if handshakes:
        checks["in time"] = _delayed(handshakes, slow)
    if not _any(wanted, "corrupt"):
        checks["undamaged"] = chain(_damaged(sent), _damaged_arp(trace))
    copies = () if _any(wanted, "duplicate") else tuple(_duplicated(sent))
    if _datagrams(trace) and not _any(wanted, "duplicate"):
        checks["once"] = copies
    over_tcp = any(isinstance(frame.packet.transport, Tcp) for frame in sent)
    if over_tcp and not _any(wanted, "reorder", "jitter", "loss", "corrupt"):
        checks["in order"] = _reordered(trace)
    expected = f"packets leave clients and real servers {', '.join(checks) or 'in time'}"
    if not checks:
        return inconclusive(expected, "too few handshakes were captured")
    if not sent:
        return inconclusive(expected, "no packet of a client or real server was captured")
    for odd in chain.from_iterable(checks.values()):
        return passed_if(False, expected, odd.text, odd.frames[:2])
    if slow > LATE:
        observed = f"every end answered at least {slow:.0f} ms late: the machine may be too busy"
        return inconclusive(expected, observed)
    observed = f"{len(sent)} packets, {', '.join(checks)}"
    if "once" not in checks:
        observed = "; ".join((observed, *(f"{one.text}, which harms nothing" for one in copies)))
    return passed_if(True, expected, observed)


def _datagrams(trace: Trace) -> bool:
    """Whether the service uses UDP, which does not discard copies of datagrams."""
    return trace.run.endpoint.protocol is Protocol.UDP


def _own(trace: Trace, ends: Collection[str]) -> Iterator[Frame]:
    """What the ends sent for the run's own requests: another program may send what it likes."""
    return (
        frame
        for conversation in trace.everything
        for frame in (*conversation.requests, *conversation.replies)
        if frame.tap.node in ends and frame.direction is Direction.OUT and frame.ips
    )


def _ends(trace: Trace) -> set[str]:
    """The client and the real servers, but for directors: what these send is also others'."""
    ends = {trace.run.client, *(server.node for server in trace.real_servers)}
    return ends.difference(trace.directors)


def _any(impairments: Iterable[Impairment], *names: str) -> bool:
    return any(getattr(one, name) for one in impairments for name in names)


def _damaged(sent: Iterable[Frame]) -> Iterator[_Oddity]:
    """Frames of ``sent`` whose checksum is wrong as they leave: a bit was inverted."""
    wrong = [frame for frame in sent if _wrong_checksum(frame)]
    if wrong:
        places = ", ".join(sorted({frame.tap.node for frame in wrong}))
        yield _Oddity(f"{len(wrong)} packets left {places} with a wrong checksum", tuple(wrong))


def _damaged_arp(trace: Trace) -> Iterator[_Oddity]:
    """ARP packets of clients and real servers with another MAC address than their frame's.

    ARP has no checksum: a node that receives such a packet learns an address that no node has.
    """
    wrong = [
        frame
        for frame in chain.from_iterable(map(trace.at, sorted(_ends(trace))))
        if frame.direction is Direction.OUT
        and frame.arp is not None
        and frame.ethernet is not None
        and frame.arp.sender_mac != frame.ethernet.src
    ]
    if wrong:
        places = ", ".join(sorted({frame.tap.node for frame in wrong}))
        text = f"{len(wrong)} ARP packets left {places} with another sender's MAC address"
        yield _Oddity(text, tuple(wrong))


def _wrong_checksum(frame: Frame) -> bool:
    """Whether the checksum of an IPv4 header, or of whole TCP or UDP, is wrong (RFC 1071)."""
    raw, outer = frame.raw, frame.ips[0]
    if not outer.checksum_ok:
        return True
    start, end = outer.at + outer.header_length, outer.at + outer.total_length
    if outer.protocol not in (TCP, UDP) or outer.is_fragment or raw.checksum_pending:
        return False
    if raw.length > len(raw.data) or end > len(raw.data):
        return False
    segment = raw.data[start:end]
    if outer.protocol == UDP and segment[6:8] == b"\0\0":
        return False  # none (RFC 768)
    pseudo = outer.src.packed + outer.dst.packed + bytes((0, outer.protocol))
    whole = pseudo + len(segment).to_bytes(2, "big") + segment + b"\0" * (len(segment) % 2)
    return int.from_bytes(whole, "big") % 0xFFFF != 0


def _duplicated(sent: Iterable[Frame]) -> Iterator[_Oddity]:
    """Frames that leave a node twice, the same bytes at once."""
    first: dict[tuple[object, bytes], Frame] = {}
    twice: list[Frame] = []
    for frame in sent:
        earlier = first.setdefault((frame.tap, frame.raw.data), frame)
        if earlier is not frame and _carries(frame) and is_duplicate(earlier, frame):
            twice += [] if twice else [earlier]
            twice.append(frame)
    if twice:  # what an end answers twice, it was asked twice
        node = twice[0].tap.node
        count = sum(frame.tap.node == node for frame in twice[1:])
        yield _Oddity(f"{count} packets left {node} twice", tuple(twice))


def _carries(frame: Frame) -> bool:
    """Whether a frame is no mere acknowledgement or SYN+ACK, of which TCP may send equal ones.

    A SYN+ACK is sent by a timer, and for a SYN that comes again, with the identification 0.
    """
    tcp = frame.packet.transport
    if not isinstance(tcp, Tcp):
        return True
    return bool(frame.payload or tcp.is_syn or tcp.flags & TcpFlag.FIN)


def _reordered(trace: Trace) -> Iterator[_Oddity]:
    """Segments that leave an end after later ones: TCP sends them in order (RFC 9293, 3.4)."""
    ends = _ends(trace)
    late = [pair for c in trace.everything for pair in _overtaken(ends, c)]
    if late:
        places = ", ".join(sorted({second.tap.node for _, second in late}))
        yield _Oddity(f"{len(late)} segments left {places} after later ones", late[0])


def _overtaken(ends: Collection[str], conversation: Conversation) -> Iterator[tuple[Frame, Frame]]:
    """Yield a later segment and an earlier one that left after it, at an end of the connection.

    An end's acknowledgement number never decreases; without data it sends the next sequence
    number.
    """
    last: dict[object, Frame] = {}
    for frame in (*conversation.requests, *conversation.replies):
        tcp = frame.packet.transport
        if not isinstance(tcp, Tcp) or frame.direction is not Direction.OUT or len(frame.ips) != 1:
            continue
        if frame.tap.node not in ends or tcp.flags & TcpFlag.RST:
            continue
        if tcp.flags & TcpFlag.SYN:  # of another connection, where the port was used before
            last.pop((frame.tap, frame.flow), None)
            continue
        before = last.get((frame.tap, frame.flow))
        later = before.packet.transport if before is not None else None
        if before is not None and isinstance(later, Tcp):
            behind = _less(tcp.ack, later.ack) or (
                not frame.payload
                and _less(tcp.seq, (later.seq + len(before.payload)) % _MODULUS)
                and not tcp.flags & TcpFlag.FIN
            )
            if behind and not is_duplicate(before, frame):
                yield before, frame
                continue
        last[frame.tap, frame.flow] = frame


_MODULUS = 1 << 32


def _less(one: int, other: int) -> bool:
    """Whether a sequence number is before another, modulo 2**32 (RFC 9293, section 3.4)."""
    return 0 < (other - one) % _MODULUS < _MODULUS // 2


class _Handshakes(NamedTuple):
    """How long a node's kernel took to answer on one of its links, in milliseconds."""

    tap: Tap
    planned: Impairment
    measured: list[tuple[float, Frame]]


def _handshakes(trace: Trace) -> list[_Handshakes]:
    """Return the handshakes of the links by which a delay can be judged."""
    lab = trace.evidence.lab
    networks = {network.name for network in lab.networks}
    ends = _ends(trace)
    by_tap: dict[Tap, list[tuple[float, Frame]]] = defaultdict(list)
    resolved = _resolved(trace)
    for conversation in trace.everything:
        for milliseconds, frame in _turnarounds(conversation):
            came = frame.time - round(milliseconds * 1e6)
            waited = any(came <= when <= frame.time for when in resolved.get(frame.tap, ()))
            if frame.tap.node in ends and not waited:
                by_tap[frame.tap].append((milliseconds, frame))
    found = []
    for tap, measured in by_tap.items():
        known = next((one for one in lab.nodes if one.name == tap.node), None)
        if known is None or len(measured) < _SAMPLES:
            continue
        if tap.device in networks.intersection(known.networks):
            planned = lab.impairment_of(known, tap.device)
            if not planned.rate:  # else frames wait for others
                found.append(_Handshakes(tap, planned, measured))
    return found


def _resolved(trace: Trace) -> dict[Tap, list[int]]:
    """When a reply of ARP or neighbour discovery came in: what waited for it was not delayed."""
    found: dict[Tap, list[int]] = defaultdict(list)
    for frame in trace.evidence.frames:
        if frame.direction.inward and frame.answers_for is not None:
            found[frame.tap].append(frame.time)
    return found


def _unplanned(one: _Handshakes) -> float:
    """How much later than planned an end answers, in milliseconds, but for its slowest third."""
    planned = one.planned.delay + one.planned.jitter
    found = sorted(max(0.0, taken - planned) for taken, _ in one.measured)
    return found[2 * len(found) // 3]


def _delayed(handshakes: Sequence[_Handshakes], slow: float) -> Iterator[_Oddity]:
    """Ends whose kernel answers a third of SYNs or SYN+ACKs later, or sooner, than planned.

    ``slow`` is by how many milliseconds even the promptest end is late.
    """
    for tap, planned, measured in handshakes:
        most = planned.delay + planned.jitter + LATE + slow
        least = 0.0 if planned.reorder else (planned.delay - planned.jitter) / 2
        odd = [(taken, frame) for taken, frame in measured if not least <= taken <= most]
        if 3 * len(odd) > len(measured):
            times = sorted(taken for taken, _ in odd)
            text = f"{len(odd)} of {len(measured)} handshakes of {tap.node} on {tap.device} were "
            text += f"answered after {times[0]:.0f} to {times[-1]:.0f} ms, not {planned.delay:g}"
            yield _Oddity(text, tuple(frame for _, frame in odd))


def _turnarounds(conversation: Conversation) -> Iterator[tuple[float, Frame]]:
    """Milliseconds from a SYN or SYN+ACK that came in at an end to what its kernel answered.

    Only of the first one: a kernel answers copies that come later by timers of its own. Not of one
    that came again before an answer: that had to wait for something else, such as ARP.
    """
    came: dict[str, tuple[int, bool]] = {}
    over: set[str] = set()
    frames = (*conversation.requests, *conversation.replies)
    for frame in sorted(frames, key=lambda one: one.time):
        tcp, node = frame.packet.transport, frame.tap.node
        if node in over or not isinstance(tcp, Tcp) or len(frame.ips) != 1:
            continue
        if frame.direction.inward and (tcp.is_syn or tcp.is_syn_ack):
            if node in came:
                over.add(node)
            came[node] = frame.time, tcp.is_syn_ack
        elif frame.direction is Direction.OUT and node in came:
            when, from_server = came[node]
            if tcp.is_syn_ack if not from_server else not (tcp.is_syn or tcp.is_syn_ack):
                over.add(node)
                yield (frame.time - when) / 1e6, frame
