"""Writing captures as pcapng, which Wireshark, tshark and tcpdump open.

One interface for each tap, under its name (``director:lan``), with its own link type,
times in nanoseconds, each frame with its direction; at the end, for each interface,
how many frames its node's socket lost. ``pcapng_reader`` reads it back.

Source: draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import BinaryIO

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

    ``taps`` get their interfaces first, in this order, so that silent ones are in the
    file too; others follow when first seen. ``finish`` adds what is known at the end.
    The stream is flushed after each frame where ``flush`` is set, for a reader at the
    other end of a pipe, and never closed. Errors of the stream are its own (OSError).
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
        """Add a frame. Its number in the file is its place in the order of writing, from 1."""
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
        """Add, for each interface, how many frames it has in the file and its node lost.

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
        """The interface's number in the file; its description is written on first use."""
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
    """A whole recording; frame numbers in the file are those of its decoded frames."""
    writer = PcapngWriter(stream, recording.taps, comment=comment)
    for number, frame in enumerate(recording.frames, 1):
        writer.write(frame, recording.comments.get(number, ""))
    writer.finish(recording.drops)


def _split(moment: int) -> bytes:
    """A timestamp as the format has it: the high 32 bits first."""
    return struct.pack("<II", moment >> 32 & 0xFFFFFFFF, moment & 0xFFFFFFFF)


def _text(text: str) -> bytes:
    return text.encode(errors="replace")[:_LONGEST_COMMENT]
