"""Evidence as it would have been if something had gone wrong: recorded, then changed.

A frame's bytes are changed and decoded again, so that the decoder is under test too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

from lvsctl.capture.decode import decode_all
from lvsctl.model.evidence import Evidence, Run
from lvsctl.model.frame import Direction, Frame, Tap
from lvsctl.model.state import NodeState

Which = Callable[[Frame], bool]
Change = Callable[[Evidence], Evidence]


def at(node: str, direction: Direction | None = None) -> Which:
    """Frames at a node's taps."""
    return lambda f: f.tap.node == node and direction in (None, f.direction)


def both(*which: Which) -> Which:
    return lambda frame: all(one(frame) for one in which)


def tcp(frame: Frame) -> bool:
    return frame.tcp is not None


def opening(frame: Frame) -> bool:
    """A segment that opens a connection."""
    return frame.tcp is not None and frame.tcp.is_syn


def accepting(frame: Frame) -> bool:
    """A segment that accepts a connection."""
    return frame.tcp is not None and frame.tcp.is_syn_ack


def arp_request(frame: Frame) -> bool:
    return frame.arp is not None and frame.arp.is_request


def arp_reply(frame: Frame) -> bool:
    return frame.arp is not None and frame.arp.is_reply


def solicitation_of(address: str) -> Which:
    """Neighbour solicitations for an address."""
    return lambda f: f.nd is not None and f.nd.is_solicit and str(f.nd.target) == address


def advertisement_of(address: str) -> Which:
    """Neighbour advertisements of an address."""
    return lambda f: f.nd is not None and not f.nd.is_solicit and str(f.nd.target) == address


def icmp(frame: Frame) -> bool:
    return frame.icmp is not None


def wrapped(frame: Frame) -> bool:
    return len(frame.ips) > 1


def from_port(port: int) -> Which:
    return lambda f: f.flow is not None and f.flow.src.port == port


def to_port(port: int) -> Which:
    return lambda f: f.flow is not None and f.flow.dst.port == port


def without(which: Which) -> Change:
    """These frames were not seen."""
    return lambda e: _framed(e, [f for f in e.frames if not which(f)])


def seen_also_at(which: Which, tap: Tap, direction: Direction) -> Change:
    """These frames were seen at another tap too."""

    def change(evidence: Evidence) -> Evidence:
        found = []
        for frame in evidence.frames:
            found.append(frame)
            if which(frame):
                found.append(replace(frame, raw=replace(frame.raw, tap=tap, direction=direction)))
        return _framed(evidence, found)

    return change


def sent_again(which: Which) -> Change:
    """The first of these segments had been sent before, and got lost."""

    def change(evidence: Evidence) -> Evidence:
        first = next(f for f in evidence.frames if which(f) and f.tcp is not None)
        data = bytearray(first.raw.data)
        _ip(first, data, {4: 4}, b"\x4c\x56")  # each copy has an identification of its own
        raw = replace(first.raw, time=first.time - 100, data=bytes(data))
        return _framed(evidence, [replace(first, raw=raw), *evidence.frames])

    return change


def duplicated(which: Which, nanoseconds: int) -> Change:
    """These frames were seen once more, so much later."""

    def change(evidence: Evidence) -> Evidence:
        copies = (
            replace(f, raw=replace(f.raw, time=f.time + nanoseconds))
            for f in evidence.frames
            if which(f)
        )
        return _framed(evidence, sorted([*evidence.frames, *copies], key=lambda f: f.time))

    return change


def delayed(which: Which, nanoseconds: int) -> Change:
    """These frames were seen so much later."""

    def change(evidence: Evidence) -> Evidence:
        late = [
            replace(f, raw=replace(f.raw, time=f.time + nanoseconds)) if which(f) else f
            for f in evidence.frames
        ]
        return _framed(evidence, sorted(late, key=lambda f: f.time))

    return change


def with_bytes(which: Which, edit: Callable[[Frame, bytearray], None]) -> Change:
    """These frames had other bytes."""

    def changed(frame: Frame) -> Frame:
        if not which(frame):
            return frame
        data = bytearray(frame.raw.data)
        edit(frame, data)
        return replace(frame, raw=replace(frame.raw, data=bytes(data)))

    return lambda e: _framed(e, [changed(frame) for frame in e.frames])


def with_ttl(which: Which, ttl: int) -> Change:
    return with_bytes(which, lambda f, data: _ip(f, data, {4: 8, 6: 7}, bytes([ttl])))


def with_source(which: Which, address: str) -> Change:
    packed = ip_address(address).packed
    return with_bytes(which, lambda f, data: _ip(f, data, {4: 12, 6: 8}, packed))


def with_destination(which: Which, address: str) -> Change:
    packed = ip_address(address).packed
    return with_bytes(which, lambda f, data: _ip(f, data, {4: 16, 6: 24}, packed))


def with_destination_mac(which: Which, mac: str) -> Change:
    def edit(_: Frame, data: bytearray) -> None:
        data[0:6] = bytes.fromhex(mac.replace(":", ""))

    return with_bytes(which, edit)


def with_payload(which: Which) -> Change:
    """The last byte of these frames was another one."""

    def edit(_: Frame, data: bytearray) -> None:
        data[-1] ^= 0xFF

    return with_bytes(which, edit)


def with_asker(which: Which, address: str) -> Change:
    """These ARP requests were asked from another address."""

    def edit(_: Frame, data: bytearray) -> None:
        data[28:32] = IPv4Address(address).packed

    return with_bytes(which, edit)


def with_run(change: Callable[[Run], Run]) -> Change:
    return lambda e: replace(e, runs=tuple(map(change, e.runs)))


def with_state(node: str, change: Callable[[NodeState], NodeState]) -> Change:
    return lambda e: replace(e, states={**e.states, node: change(e.states[node])})


def nothing_answered(run: Run) -> Run:
    failed = (replace(exchange, error="timed out") for exchange in run.exchanges)
    return replace(run, exchanges=tuple(failed))


def with_drops(evidence: Evidence) -> Evidence:
    return replace(evidence, drops={"director": 3})


def _ip(frame: Frame, data: bytearray, offsets: Mapping[int, int], value: bytes) -> None:
    """Write a field of the outermost IP header, and IPv4's checksum that goes with it.

    ``offsets`` are where the field is, by IP version.
    """
    outer = frame.ips[0]
    start, offset = outer.at, offsets[outer.version]
    data[start + offset : start + offset + len(value)] = value
    if outer.version == 6:
        return
    data[start + 10 : start + 12] = b"\0\0"
    header = data[start : start + outer.header_length]
    total = sum(int.from_bytes(header[i : i + 2]) for i in range(0, len(header), 2))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    data[start + 10 : start + 12] = (~total & 0xFFFF).to_bytes(2)


def _framed(evidence: Evidence, frames: list[Frame]) -> Evidence:
    return replace(evidence, frames=decode_all(frame.raw for frame in frames))
