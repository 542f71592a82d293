"""Asking the kernel over a netlink socket: one request, every message of its answer.

``kernel.wire`` sends what changes things, many at once; this is for what is read.
The codec is forty lines of ``struct`` on purpose: importing any part of pyroute2
imports all of it (150 ms), and decoding a device with it costs a millisecond, a
hundred times what the handful of attributes we read costs here.

Sources: linux/netlink.h, netlink(7), Documentation/userspace-api/netlink/intro.rst.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
import sys

from lvsctl.errors import KernelError
from lvsctl.kernel.wire import ACK, HEADER, REQUEST, ROOT_DUMP

ATTRIBUTE = struct.Struct("=HH")
"""struct nlattr: length, type."""

SOCK_DIAG = 4
"""The netlink protocol of socket diagnostics, beside wire.ROUTE and wire.GENERIC."""

_DUMP_INTR = 0x10
_ERROR, _DONE = 2, 3
_TYPE_MASK = 0x3FFF  # the two high bits of an attribute's type are flags
_RECEIVE = 1 << 17
_PATIENCE = 10  # dumps that the kernel says changed under it, before the last one is taken

_GENL_ID_CTRL = 0x10
_CTRL_GETFAMILY = struct.pack("=BBH", 3, 1, 0)  # struct genlmsghdr
_CTRL_ATTR_FAMILY_ID = 1
_CTRL_ATTR_FAMILY_NAME = 2

_sequence = itertools.count(1)


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to the next four bytes."""
    length = ATTRIBUTE.size + len(payload)
    return ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


def attributes(data: memoryview, offset: int = 0) -> dict[int, memoryview]:
    """The attributes of ``data`` from ``offset`` on, by type; the last of a type wins."""
    found: dict[int, memoryview] = {}
    end = len(data)
    while offset + ATTRIBUTE.size <= end:
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[offset + ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def text(value: memoryview | None) -> str:
    """A NUL-terminated string; empty where there is none."""
    return bytes(value).rstrip(b"\0").decode(errors="replace") if value is not None else ""


def number(value: memoryview | None, default: int = 0) -> int:
    """An unsigned integer in host order, as wide as the attribute is."""
    return int.from_bytes(value, sys.byteorder) if value is not None else default


def packed(kind: int, payload: bytes = b"", flags: int = ROOT_DUMP) -> bytearray:
    """A request of type ``kind`` that is ready but for its sequence number."""
    length = HEADER.size + len(payload)
    return bytearray(HEADER.pack(length, kind, REQUEST | flags, 0, 0) + payload)


def ask(sock: socket.socket, request: bytearray) -> list[memoryview]:
    """Send ``request`` and return its answer: whole messages, without the closing one.

    Works for dumps and, through an acknowledgement asked for on the way, for
    everything else. A dump that changed while it was read is taken again.

    Raises KernelError, with the kernel's errno, where it refuses.
    """
    for attempt in range(_PATIENCE):
        messages, interrupted = _ask_once(sock, request)
        if not interrupted or attempt == _PATIENCE - 1:
            break
    return messages


def _ask_once(sock: socket.socket, request: bytearray) -> tuple[list[memoryview], bool]:
    length, kind, flags, _, pid = HEADER.unpack_from(request)
    if flags & ROOT_DUMP != ROOT_DUMP:
        flags |= ACK
    sequence = next(_sequence) & 0xFFFFFFFF
    HEADER.pack_into(request, 0, length, kind, flags, sequence, pid)
    sock.send(request)
    answer: list[memoryview] = []
    interrupted = False
    while True:
        data = memoryview(sock.recv(_RECEIVE))
        offset = 0
        while offset + HEADER.size <= len(data):
            length, kind, flags, got, _ = HEADER.unpack_from(data, offset)
            message = data[offset : offset + length]
            offset += (length + 3) & ~3
            if got != sequence:
                continue  # the tail of an answer that an earlier caller gave up on
            interrupted |= bool(flags & _DUMP_INTR)
            if kind in (_ERROR, _DONE):
                _check(message)
                return answer, interrupted
            answer.append(message)


def _check(message: memoryview) -> None:
    """Raise where the closing message of an answer carries an error."""
    if len(message) < HEADER.size + 4:
        return
    (code,) = struct.unpack_from("=i", message, HEADER.size)
    if code < 0:
        raise KernelError(f"the kernel refused a request: {os.strerror(-code)}", errno=-code)


def genl_family(sock: socket.socket, name: str) -> int | None:
    """The number of a generic netlink family; None where the kernel does not have it."""
    asked = attribute(_CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0")
    try:
        answer = ask(sock, packed(_GENL_ID_CTRL, _CTRL_GETFAMILY + asked, flags=0))
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    found = attributes(answer[0], HEADER.size + len(_CTRL_GETFAMILY))
    return number(found.get(_CTRL_ATTR_FAMILY_ID))
