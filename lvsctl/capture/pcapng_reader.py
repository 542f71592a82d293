"""Reading pcapng: lvsctl's own captures, and what Wireshark or tcpdump made of them.

The file may be anybody's: nothing in it is believed, memory stays in proportion to
its size, and whatever is wrong ends in one error, CaptureFileError.

Source: draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lvsctl.capture.pcapng import (
    BYTE_ORDER,
    CHECKSUM_PENDING,
    DIRECTION_FLAGS,
    ENHANCED,
    EPB_FLAGS,
    IF_NAME,
    IF_TSOFFSET,
    IF_TSRESOL,
    INTERFACE,
    ISB_DROPPED,
    OPTION_COMMENT,
    OPTION_END,
    SECTION,
    SIMPLE,
    STATISTICS,
)
from lvsctl.errors import LvsctlError
from lvsctl.model.frame import Direction, LinkType, RawFrame, Recording, Tap

LONGEST_BLOCK = 16 << 20
MOST_INTERFACES = 65536
_LINKS = {1: LinkType.ETHERNET} | dict.fromkeys((101, 12, 14, 228, 229), LinkType.RAW)
"""LINKTYPE_RAW has had other numbers; 228 and 229 are IPv4 and IPv6 alone."""
_DIRECTIONS = {flags: direction for direction, flags in DIRECTION_FLAGS.items()}


class CaptureFileError(LvsctlError):
    """A file is not the pcapng that it should be: ``message`` says where and why."""


@dataclass(frozen=True, slots=True)
class _Interface:
    """``link`` None: of a link type that is not read. ``offset`` in nanoseconds."""

    tap: Tap
    link: LinkType | None
    snaplen: int
    resolution: int
    offset: int

    def time(self, ticks: int) -> int:
        """Nanoseconds since the epoch; ``resolution`` is if_tsresol's byte."""
        exponent = self.resolution & 0x7F
        per_second: int = 2**exponent if self.resolution & 0x80 else 10**exponent
        return ticks * 1_000_000_000 // per_second + self.offset


@dataclass(slots=True)
class _Reader:
    taps: dict[Tap, LinkType] = field(default_factory=dict)
    frames: list[RawFrame] = field(default_factory=list)
    drops: dict[str, int] = field(default_factory=dict)
    comments: dict[int, str] = field(default_factory=dict)
    interfaces: list[_Interface] = field(default_factory=list)

    def take(self, kind: int, body: bytes, order: str) -> None:
        """Take one block; unknown ones are skipped, as the format wants it."""
        if kind == SECTION:
            self.interfaces = []
        elif kind == INTERFACE:
            self._interface(body, order)
        elif kind == ENHANCED:
            self._frame(body, order)
        elif kind == SIMPLE:
            self._simple(body, order)
        elif kind == STATISTICS:
            self._statistics(body, order)

    def _interface(self, body: bytes, order: str) -> None:
        if len(self.interfaces) == MOST_INTERFACES:
            raise CaptureFileError(f"more than {MOST_INTERFACES} interfaces")
        link, _, snaplen = _unpack(order + "HHI", body, 0, "an interface")
        options = _options(body, 8, order)
        name = options.get(IF_NAME, b"").decode(errors="replace")
        offset = options.get(IF_TSOFFSET, b"")
        seconds = _unpack(order + "q", offset, 0, "if_tsoffset")[0] if offset else 0
        interface = _Interface(
            Tap.parse(name or f"if{len(self.interfaces)}"),
            _LINKS.get(link),
            snaplen,
            (options.get(IF_TSRESOL) or b"\x06")[0],
            seconds * 1_000_000_000,
        )
        self.interfaces.append(interface)
        if interface.link is not None:
            self.taps.setdefault(interface.tap, interface.link)

    def _of(self, index: int) -> _Interface:
        if index >= len(self.interfaces):
            raise CaptureFileError(f"interface {index} is not described")
        return self.interfaces[index]

    def _frame(self, body: bytes, order: str) -> None:
        index, high, low, captured, length = _unpack(order + "5I", body, 0, "a frame")
        interface = self._of(index)
        if captured > len(body) - 20:
            raise CaptureFileError(f"a frame of {captured} bytes in a block of {len(body)}")
        if interface.link is None:
            return
        options = _options(body, 20 + captured + -captured % 4, order)
        raw = options.get(EPB_FLAGS, b"")
        flags = _unpack(order + "I", raw, 0, "epb_flags")[0] if raw else 0
        direction = _DIRECTIONS.get(flags & 0x1F) or _DIRECTIONS.get(flags & 3 | (flags & 1) << 2)
        frame = RawFrame(
            interface.time(high << 32 | low),
            interface.tap,
            direction or Direction.UNKNOWN,
            interface.link,
            max(length, captured),
            body[20 : 20 + captured],
            bool(flags & CHECKSUM_PENDING),
        )
        self.frames.append(frame)
        if OPTION_COMMENT in options:
            comment = options[OPTION_COMMENT].decode(errors="replace")
            self.comments[len(self.frames)] = comment

    def _simple(self, body: bytes, order: str) -> None:
        interface = self._of(0)
        (length,) = _unpack(order + "I", body, 0, "a frame")
        if interface.link is None:
            return
        captured = min(length, interface.snaplen or length, len(body) - 4)
        frame = RawFrame(0, interface.tap, Direction.UNKNOWN, interface.link, length,
                         body[4 : 4 + captured])  # fmt: skip
        self.frames.append(frame)

    def _statistics(self, body: bytes, order: str) -> None:
        (index,) = _unpack(order + "I", body, 0, "statistics")
        node = self._of(index).tap.node
        raw = _options(body, 12, order).get(ISB_DROPPED, b"")
        if raw:
            (dropped,) = _unpack(order + "Q", raw, 0, "isb_ifdrop")
            # The same number stands at each interface of a node: one socket serves them.
            self.drops[node] = max(self.drops.get(node, 0), dropped)


def read_recording(source: Path | BinaryIO) -> Recording:
    """What ``write_recording`` wrote. Frames keep the file's order.

    Taps without a node's name come from another program's file. Frames of link types
    other than Ethernet and plain IP are left out.

    Raises CaptureFileError, OSError.
    """
    if isinstance(source, Path):
        with source.open("rb") as stream:
            return read_recording(stream)
    reader = _Reader()
    for kind, body, order in _blocks(source):
        reader.take(kind, body, order)
    return Recording(reader.taps, tuple(reader.frames), reader.drops, reader.comments)


def _blocks(stream: BinaryIO) -> Iterator[tuple[int, bytes, str]]:
    """Type, body and byte order of every block. A file may end between two blocks only."""
    order = ""
    at = 0
    while head := stream.read(8):
        if len(head) < 8:
            raise CaptureFileError(f"the file is cut off at byte {at}")
        if head[:4] == b"\x0a\x0d\x0d\x0a":
            magic = stream.read(4)
            order = {struct.pack(e + "I", BYTE_ORDER): e for e in "<>"}.get(magic, "")
            head += magic
        if not order:
            raise CaptureFileError("not a pcapng file" if at == 0 else f"no byte order at {at}",
                                   hint="`tshark -r FILE -w NEW.pcapng` converts other formats"
                                   )  # fmt: skip
        kind, length = struct.unpack(order + "II", head[:8])
        if length < len(head) + 4 or length % 4 or length > LONGEST_BLOCK:
            raise CaptureFileError(f"the block at byte {at} has length {length}")
        rest = stream.read(length - len(head))
        if len(rest) < length - len(head):
            raise CaptureFileError(f"the file is cut off within the block at byte {at}")
        if rest[-4:] != struct.pack(order + "I", length):
            raise CaptureFileError(f"the block at byte {at} does not end as it begins")
        yield kind, head[8:] + rest[:-4], order
        at += length
    if not order:
        raise CaptureFileError("the file is empty")


def _options(body: bytes, at: int, order: str) -> dict[int, bytes]:
    """The options from ``at`` on, by code; the first of a code counts."""
    found: dict[int, bytes] = {}
    while at + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        at += 4
        if code == OPTION_END:
            break
        if at + length > len(body):
            raise CaptureFileError(f"option {code} is longer than its block")
        found.setdefault(code, body[at : at + length])
        at += length + -length % 4
    return found


def _unpack(layout: str, data: bytes, at: int, what: str) -> tuple[int, ...]:
    if len(data) - at < struct.calcsize(layout):
        raise CaptureFileError(f"{what} is cut off")
    return struct.unpack_from(layout, data, at)
