"""The frames that client, broker and agent exchange, and the credit that bounds them.

A frame is a kind (1 byte), a session (4 bytes, 0 where none is meant), a length
(4 bytes) and a payload. Pure: no I/O. The guest imports this module as process 1 of a
slow machine, so it imports nothing that costs milliseconds (no enum, no dataclasses).
"""

from __future__ import annotations

import struct

PROTOCOL = 2
"""Changes with every incompatible change; client and broker refuse to talk across it."""

LINK_WINDOW = 2048
"""Bytes that may be unread on the way to the guest.

UML's serial line dies for good somewhere beyond 4,000 unread bytes.
"""

STREAM_CREDIT = 32 * 1024
"""Bytes of one output stream that may be on their way to a client."""

STDIN_CREDIT = 8 * 1024
"""Bytes of standard input that may be on their way to a command."""

MAX_CHUNK = 4096
"""Bytes of a stream in one frame: small enough that sessions interleave."""

MAX_PAYLOAD = 4 * 1024 * 1024
"""Anything larger is a broken stream, not a frame."""

# Broker and agent only.
BOOTED = 1  # agent → broker: the line is open
CONFIG = 2  # broker → agent: JSON, what to set up
HELLO = 3  # agent → broker: JSON, the machine is ready
ACK = 4  # agent → broker: number, bytes read from the line
QUIT = 5  # broker → agent: power off

# Client and broker only.
WELCOME = 10  # broker → client: JSON {"protocol": PROTOCOL}
STATUS = 11  # client → broker: empty; broker → client: JSON
STOP = 12  # client → broker, of any version: end the machine; its end ends the connection
DIED = 13  # broker → client: JSON {"message": ..., "hint": ...}, the machine is gone

# Client and agent, through the broker.
RUN = 20  # → agent: JSON, start a command
STDIN = 21  # → agent: bytes; empty means end of file
SIGNAL = 22  # → agent: number, for the command's process group
RESIZE = 23  # → agent: rows, columns
CLOSE = 24  # → agent: stream, nobody reads it any more
HANGUP = 25  # → agent: the client is gone
PING = 26  # → agent; the agent answers PONG
STDOUT = 30  # agent →: bytes
STDERR = 31  # agent →: bytes
EXIT = 32  # agent →: number, the exit status; the session's last frame
PONG = 33  # agent →: JSON, the agent's view of the machine
CREDIT = 34  # both ways: stream, number of bytes that may be sent in addition

_HEADER = struct.Struct("!BII")
_NUMBER = struct.Struct("!I")
_PAIR = struct.Struct("!II")


class FrameError(ValueError):
    """The bytes cannot be frames: the peer is broken or is not a peer at all."""


def frame(kind: int, session: int = 0, payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    return _HEADER.pack(kind, session, len(payload)) + payload


def number(value: int) -> bytes:
    """The payload of a frame that carries one number (0 to 2**32 - 1)."""
    return _NUMBER.pack(value)


def pair(first: int, second: int) -> bytes:
    """The payload of a frame that carries two numbers."""
    return _PAIR.pack(first, second)


def number_of(payload: bytes) -> int:
    """The number in a payload. Raises FrameError."""
    try:
        (value,) = _NUMBER.unpack(payload)
    except struct.error as error:
        raise FrameError(f"not a number: {payload[:16]!r}") from error
    return int(value)


def pair_of(payload: bytes) -> tuple[int, int]:
    """The two numbers in a payload. Raises FrameError."""
    try:
        first, second = _PAIR.unpack(payload)
    except struct.error as error:
        raise FrameError(f"not a pair of numbers: {payload[:16]!r}") from error
    return int(first), int(second)


class Decoder:
    """Cuts a byte stream into frames, however it is chopped up."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Frames completed by ``data``, as (kind, session, payload). Raises FrameError."""
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            kind, session, length = _HEADER.unpack_from(self._buffer, start)
            if length > MAX_PAYLOAD:
                raise FrameError(f"a frame of {length} bytes")
            end = start + _HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((kind, session, bytes(self._buffer[start + _HEADER.size : end])))
            start = end
        del self._buffer[:start]
        return frames


class Credit:
    """How much a sender may still send."""

    def __init__(self, initial: int) -> None:
        self.available = initial

    def spend(self, wanted: int) -> int:
        """Take up to ``wanted``; returns what was taken."""
        taken = min(wanted, self.available)
        self.available -= taken
        return taken

    def grant(self, amount: int) -> None:
        """The receiver has made room."""
        self.available += amount


class Returns:
    """Credit that a receiver owes its sender, paid back in lumps.

    A frame per few bytes would cost more than the bytes. At most ``lump`` - 1 stays
    unpaid, so a sender with more credit than that never starves.
    """

    def __init__(self, lump: int) -> None:
        self._lump = lump
        self._owed = 0

    def consumed(self, amount: int) -> int:
        """``amount`` bytes were used up; returns the credit to send now (often 0)."""
        self._owed += amount
        if self._owed < self._lump:
            return 0
        due, self._owed = self._owed, 0
        return due
