"""Write and read captures as pcapng, which Wireshark, tshark and tcpdump open.

One interface for each tap, under its name (``director:lan``), with its own link type,
times in nanoseconds, each frame with its direction; at the end, for each interface,
how many frames its node's socket lost.

A file to read may come from anywhere: memory stays in proportion to its size, and whatever is
wrong is one error, CaptureFileError.

Source: draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lvsctl.errors import LvsctlError
from lvsctl.model.frame import Direction, LinkType, RawFrame, Recording, Tap

SECTION, INTERFACE, SIMPLE, STATISTICS, ENHANCED = 0x0A0D0D0A, 1, 3, 5, 6
"""Block types."""
BYTE_ORDER = 0x1A2B3C4D
OPTION_END, OPTION_COMMENT = 0, 1
SHB_APPLICATION = 4
IF_NAME, IF_TSRESOL, IF_TSOFFSET = 2, 9, 14
EPB_FLAGS = 2
ISB_RECEIVED, ISB_DROPPED = 4, 5

DIRECTION_FLAGS = {
    Direction.UNKNOWN: 0,
    Direction.IN: 0b001_01,
    Direction.MULTICAST: 0b010_01,
    Direction.BROADCAST: 0b011_01,
    Direction.OTHER: 0b100_01,
    Direction.OUT: 0b000_10,
}
"""epb_flags: inbound or outbound in bits 0 and 1, to whom it was addressed in bits 2 to 4."""
CHECKSUM_PENDING = 1 << 9

_OPTION = struct.Struct("<HH")
_LONGEST_COMMENT = 4096


class PcapngWriter:
    """Writes frames as they come; the file can be read at any time.

    ``taps`` get their interfaces first, in this order, so that those without a frame are in the
    file too; others follow with their first frame. ``finish`` adds the statistics.
    With ``flush`` the stream is flushed after each frame, for a reader at the other end of a pipe.
    It is never closed. Raises its OSErrors.
    """

    def __init__(
        self,
        stream: BinaryIO,
        taps: Mapping[Tap, LinkType] | None = None,
        *,
        snaplen: int = 262144,
        flush: bool = False,
        comment: str = "",
    ) -> None:
        self._stream = stream
        self._snaplen = snaplen
        self._flush = flush
        self._interfaces: dict[tuple[Tap, LinkType], int] = {}
        self._received: list[int] = []
        self._last = 0
        options = [(SHB_APPLICATION, b"lvsctl")]
        options += [(OPTION_COMMENT, _text(comment))] if comment else []
        self._block(SECTION, struct.pack("<IHHq", BYTE_ORDER, 1, 0, -1), options)
        for tap, link in (taps or {}).items():
            self._interface(tap, link)
        self._stream.flush()

    def write(self, frame: RawFrame, comment: str = "") -> None:
        """Write a frame. Frames are numbered from 1 in the order of writing."""
        index = self._interface(frame.tap, frame.link)
        self._received[index] += 1
        self._last = max(self._last, frame.time)
        captured = len(frame.data)
        head = struct.pack("<I", index) + _split(frame.time)
        head += struct.pack("<II", captured, max(captured, frame.length))
        flags = DIRECTION_FLAGS[frame.direction]
        flags |= CHECKSUM_PENDING if frame.checksum_pending else 0
        options = [(EPB_FLAGS, struct.pack("<I", flags))]
        options += [(OPTION_COMMENT, _text(comment))] if comment else []
        self._block(ENHANCED, head + frame.data + bytes(-captured % 4), options)
        if self._flush:
            self._stream.flush()

    def finish(self, drops: Mapping[str, int]) -> None:
        """Write how many frames each interface has in the file, and how many its node lost.

        One socket serves all taps of a node, so a lost frame may belong to any of them.
        """
        for (tap, _), index in self._interfaces.items():
            options = [(ISB_RECEIVED, struct.pack("<Q", self._received[index]))]
            if tap.node in drops:
                options.append((ISB_DROPPED, struct.pack("<Q", drops[tap.node])))
                text = f"dropped: by the socket that serves all taps of {tap.node}"
                options.append((OPTION_COMMENT, _text(text)))
            self._block(STATISTICS, struct.pack("<I", index) + _split(self._last), options)
        self._stream.flush()

    def _interface(self, tap: Tap, link: LinkType) -> int:
        """Return the interface's number in the file; describe the interface on first use."""
        found = self._interfaces.get((tap, link))
        if found is None:
            found = self._interfaces[tap, link] = len(self._interfaces)
            self._received.append(0)
            options = [(IF_NAME, _text(str(tap))), (IF_TSRESOL, b"\x09")]
            self._block(INTERFACE, struct.pack("<HHI", link, 0, self._snaplen), options)
        return found

    def _block(self, kind: int, body: bytes, options: Iterable[tuple[int, bytes]]) -> None:
        for code, value in options:
            body += _OPTION.pack(code, len(value)) + value + bytes(-len(value) % 4)
        body += _OPTION.pack(OPTION_END, 0)
        length = struct.pack("<I", len(body) + 12)
        self._stream.write(struct.pack("<I", kind) + length + body + length)


def write_recording(stream: BinaryIO, recording: Recording, *, comment: str = "") -> None:
    """Write a recording; frame numbers in the file are those of its decoded frames."""
    writer = PcapngWriter(stream, recording.taps, comment=comment)
    for number, frame in enumerate(recording.frames, 1):
        writer.write(frame, recording.comments.get(number, ""))
    writer.finish(recording.drops)


def _split(moment: int) -> bytes:
    """Encode a timestamp: the high 32 bits first."""
    return struct.pack("<II", moment >> 32 & 0xFFFFFFFF, moment & 0xFFFFFFFF)


def _text(text: str) -> bytes:
    return text.encode(errors="replace")[:_LONGEST_COMMENT]


LONGEST_BLOCK = 16 << 20
MOST_INTERFACES = 65536
_LINKS = {1: LinkType.ETHERNET} | dict.fromkeys((101, 12, 14, 228, 229), LinkType.RAW)
"""LINKTYPE_RAW has had other numbers; 228 and 229 are IPv4 and IPv6 alone."""
_DIRECTIONS = {flags: direction for direction, flags in DIRECTION_FLAGS.items()}


class CaptureFileError(LvsctlError):
    """A file is not valid pcapng; ``message`` says where and why."""


@dataclass(frozen=True, slots=True)
class _Interface:
    """An interface of a file. ``link`` None: not supported. ``offset`` in nanoseconds."""

    tap: Tap
    link: LinkType | None
    snaplen: int
    resolution: int
    offset: int

    def time(self, ticks: int) -> int:
        """Convert ``ticks`` to nanoseconds since the epoch; ``resolution`` is if_tsresol's byte."""
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
        """Parse one block; unknown ones are skipped, as the format requires."""
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
            # Each interface of a node has the same number, because one socket serves them.
            self.drops[node] = max(self.drops.get(node, 0), dropped)


def read_recording(source: Path | BinaryIO, *, most: int | None = None) -> Recording:
    """Read a recording. Frames keep the file's order. ``most`` limits their number.

    Taps of other programs' files have no node's name. Frames of link types other than Ethernet and
    plain IP are left out.

    Raises CaptureFileError, OSError.
    """
    if isinstance(source, Path):
        with source.open("rb") as stream:
            return read_recording(stream, most=most)
    reader = _Reader()
    for kind, body, order in _blocks(source):
        reader.take(kind, body, order)
        if most is not None and len(reader.frames) > most:
            raise CaptureFileError(f"more than {most} frames")
    return Recording(reader.taps, tuple(reader.frames), reader.drops, reader.comments)


def _blocks(stream: BinaryIO) -> Iterator[tuple[int, bytes, str]]:
    """Yield every block's type, body and byte order. A file may end between two blocks only."""
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
    """Return the options from ``at`` on, by code; the first one of each code."""
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
