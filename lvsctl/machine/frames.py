"""The frames that client, broker and agent exchange, and the credit that bounds them.

A frame is a kind (1 byte), a session (4 bytes, 0 where none is meant), a length
(4 bytes) and a payload. Pure: no I/O. The guest imports this module as process 1 of a
slow machine, so it imports nothing that costs milliseconds (no enum, no dataclasses).
"""

from __future__ import annotations

import struct

PROTOCOL = 2
"""Incremented with every incompatible change; client and broker check that it is equal."""

LINK_WINDOW = 2048
"""Maximum of unread bytes on the way to the guest.

User-Mode Linux's serial line stops working for good beyond about 4,000 unread bytes.
"""

STREAM_CREDIT = 32 * 1024
"""Maximum of bytes of one output stream on the way to a client."""

STDIN_CREDIT = 8 * 1024
"""Maximum of bytes of standard input on the way to a command."""

MAX_CHUNK = 4096
"""Maximum of bytes of a stream in one frame, small enough that sessions interleave."""

MAX_PAYLOAD = 4 * 1024 * 1024
"""Maximum of bytes of a payload: a larger length means a damaged stream."""

# Broker and agent only.
BOOTED = 1  # agent → broker: the link is open
CONFIG = 2  # broker → agent: JSON, what to set up
HELLO = 3  # agent → broker: JSON, the machine is ready
ACK = 4  # agent → broker: number, bytes read from the link
QUIT = 5  # broker → agent: power off

# Client and broker only.
WELCOME = 10  # broker → client: JSON {"protocol": PROTOCOL}
STATUS = 11  # client → broker: empty; broker → client: JSON
STOP = 12  # client → broker, in every version: stop the machine, then close the connection
DIED = 13  # broker → client: JSON {"message": ..., "hint": ...}, the machine has ended

# Client and agent, through the broker.
RUN = 20  # → agent: JSON, start a command
STDIN = 21  # → agent: bytes; empty means end of file
SIGNAL = 22  # → agent: number, for the command's process group
RESIZE = 23  # → agent: rows, columns
CLOSE = 24  # → agent: stream, its reader has closed it
HANGUP = 25  # → agent: the client has disconnected
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
    """The bytes are not frames: the peer is damaged, or another program."""


def frame(kind: int, session: int = 0, payload: bytes = b"") -> bytes:
    """Encode one frame."""
    return _HEADER.pack(kind, session, len(payload)) + payload


def number(value: int) -> bytes:
    """Encode the payload of a frame with one number (0 to 2**32 - 1)."""
    return _NUMBER.pack(value)


def pair(first: int, second: int) -> bytes:
    """Encode the payload of a frame with two numbers."""
    return _PAIR.pack(first, second)


def number_of(payload: bytes) -> int:
    """Decode the number in a payload. Raises FrameError."""
    try:
        (value,) = _NUMBER.unpack(payload)
    except struct.error as error:
        raise FrameError(f"not a number: {payload[:16]!r}") from error
    return int(value)


def pair_of(payload: bytes) -> tuple[int, int]:
    """Decode the two numbers in a payload. Raises FrameError."""
    try:
        first, second = _PAIR.unpack(payload)
    except struct.error as error:
        raise FrameError(f"not a pair of numbers: {payload[:16]!r}") from error
    return int(first), int(second)


class Decoder:
    """Decodes a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Return the frames that ``data`` completes, as tuples. Raises FrameError."""
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
    """The number of bytes that a sender may still send."""

    def __init__(self, initial: int) -> None:
        self.available = initial

    def spend(self, wanted: int) -> int:
        """Take up to ``wanted`` bytes; return how many were taken."""
        taken = min(wanted, self.available)
        self.available -= taken
        return taken

    def grant(self, amount: int) -> None:
        """Add bytes that the receiver has consumed."""
        self.available += amount


class Returns:
    """Credit that a receiver returns to its sender, in portions of at least ``lump`` bytes.

    A frame for every few bytes would cost more than the bytes. Less than ``lump`` bytes are
    never returned, so the sender needs more credit than that to begin with.
    """

    def __init__(self, lump: int) -> None:
        self._lump = lump
        self._owed = 0

    def consumed(self, amount: int) -> int:
        """Record ``amount`` consumed bytes; return the credit to send now (often 0)."""
        self._owed += amount
        if self._owed < self._lump:
            return 0
        due, self._owed = self._owed, 0
        return due
