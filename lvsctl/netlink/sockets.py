"""Netlink sockets: many messages in one send, requests with their answers, events.

The kernel processes the messages of one send in order and answers before the send returns.
Only the last message asks for an acknowledgement; a message that fails is answered with an
error that carries its sequence number, and **later messages still apply**.

A socket belongs to the network namespace in which it was opened, whatever thread uses it.

Sources: netlink(7), linux/netlink.h, net/netlink/af_netlink.c (netlink_rcv_skb).
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence

from lvsctl.errors import KernelError

ROUTE, SOCK_DIAG, NETFILTER, GENERIC = 0, 4, 12, 16
"""Netlink protocols, NETLINK_*."""

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
ADD, SET = CREATE | EXCL, CREATE | REPLACE
"""Flags of a message, NLM_F_*."""

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port id."""

_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_ERROR, _DONE = 2, 3
_DUMP_INTR, _ACK_TLVS = 0x10, 0x200
_MESSAGE_ATTRIBUTE = 1  # NLMSGERR_ATTR_MSG
_SOL_NETLINK, _ADD_MEMBERSHIP, _CAP_ACK, _EXT_ACK, _STRICT = 270, 1, 10, 11, 12
_SO_RCVBUFFORCE = 33

SEND_BYTES = 128 * 1024
"""The most that goes into one send: a default send buffer takes 208 KiB."""
SEND_MESSAGES = 1024
"""The most messages in one send: if all of them fail, their answers fit the receive buffer."""
_RECEIVE_BUFFER = 4 << 20
_RECEIVE = 1 << 17
_DUMP_ATTEMPTS = 10

_sequence = itertools.count(1)


class NetlinkError(OSError):
    """The kernel rejected a message: the ``index``-th of those sent, counted from 0.

    ``text`` is the kernel's explanation (its extended acknowledgement), often empty.
    """

    def __init__(self, index: int, number: int, text: str = "") -> None:
        plain = os.strerror(number)
        super().__init__(number, f"{plain} ({text.rstrip('.')})" if text else plain)
        self.index = index
        self.text = text

    def __str__(self) -> str:
        return str(self.strerror)


def open_socket(protocol: int = ROUTE) -> socket.socket:
    """Open a netlink socket in the calling thread's network namespace. Raises OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        sock.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        if protocol == ROUTE:  # dumps then filter by what the request says, such as a table
            sock.setsockopt(_SOL_NETLINK, _STRICT, 1)
    except OSError:
        sock.close()
        raise
    return sock


def open_reader(protocol: int = ROUTE) -> socket.socket:
    """Open a netlink socket for ``request`` only, with fewer system calls. Raises OSError.

    One answer is read before the next is asked for, so the default receive buffer is enough.
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        if protocol == ROUTE:
            sock.setsockopt(_SOL_NETLINK, _STRICT, 1)
    except OSError:
        sock.close()
        raise
    return sock


def message(number: int, flags: int, body: bytes) -> bytearray:
    """Return a message of type ``number`` without a sequence number; REQUEST is implied."""
    length = HEADER.size + len(body)
    return bytearray(HEADER.pack(length, number, REQUEST | flags, 0, 0) + body)


def send_all(sock: socket.socket, messages: Sequence[bytearray]) -> list[NetlinkError]:
    """Send ``messages`` in order and return the errors; an empty list: all were applied.

    Sequence numbers and the ACK flag are filled in here, in place.
    Raises OSError where the socket itself fails.
    """
    errors: list[NetlinkError] = []
    start = 0
    while start < len(messages):
        size, end = 0, start
        while end < len(messages) and end - start < SEND_MESSAGES:
            one = messages[end]
            if size and size + len(one) > SEND_BYTES:
                break
            struct.pack_into("=I", one, 8, end + 1)
            size += len(one)
            end += 1
        last = messages[end - 1]
        struct.pack_into("=H", last, 6, struct.unpack_from("=H", last, 6)[0] | ACK)
        sock.send(b"".join(messages[start:end]))
        errors += read_errors(sock, end)
        start = end
    return errors


def read_errors(sock: socket.socket, last: int) -> list[NetlinkError]:
    """Return the errors among the answers up to that of sequence number ``last``."""
    errors: list[NetlinkError] = []
    while True:
        try:
            data = sock.recv(_RECEIVE, socket.MSG_DONTWAIT)
        except InterruptedError:
            continue
        except OSError:
            if errors:  # so many that the buffer overflowed: the first ones are enough
                return errors
            raise
        for kind, flags, sequence, whole in _split(data):
            if kind != _ERROR:
                continue
            number = _error_number(whole)
            if number:
                errors.append(NetlinkError(sequence - 1, number, _explanation(flags, whole)))
            if sequence == last:
                return errors


def _split(data: bytes) -> Iterator[tuple[int, int, int, memoryview]]:
    """Yield the messages in ``data``: type, flags, sequence number, the whole message."""
    view, offset = memoryview(data), 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, view[offset : offset + length]
        offset += max(HEADER.size, (length + 3) & ~3)


def _error_number(whole: memoryview) -> int:
    """Return the errno in the answer that ends a request; 0: none."""
    if len(whole) < HEADER.size + 4:
        return 0
    return -int(struct.unpack_from("=i", whole, HEADER.size)[0])


def _explanation(flags: int, whole: memoryview) -> str:
    """Return the text in an extended acknowledgement (the socket has NETLINK_CAP_ACK)."""
    if not flags & _ACK_TLVS:
        return ""
    offset = HEADER.size + 4 + HEADER.size  # the error number and the header of what failed
    while offset + _ATTRIBUTE.size <= len(whole):
        length, kind = _ATTRIBUTE.unpack_from(whole, offset)
        if length < _ATTRIBUTE.size:
            break
        if kind == _MESSAGE_ATTRIBUTE:
            text = bytes(whole[offset + _ATTRIBUTE.size : offset + length])
            return text.rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return ""


def request(sock: socket.socket, asked: bytearray) -> list[bytes]:
    """Send ``asked`` and return the answer: whole messages, without the one that ends it.

    Works for dumps and, through an acknowledgement, for everything else. A dump that the
    kernel marks as changed while it was read is repeated.
    Raises KernelError with the errno where the kernel rejects it.
    """
    for _ in range(_DUMP_ATTEMPTS):
        answer, interrupted = _request_once(sock, asked)
        if not interrupted:
            break
    return answer


def _request_once(sock: socket.socket, asked: bytearray) -> tuple[list[bytes], bool]:
    length, kind, flags, _, port = HEADER.unpack_from(asked)
    if flags & DUMP != DUMP:
        flags |= ACK
    mine = next(_sequence) & 0xFFFFFFFF
    HEADER.pack_into(asked, 0, length, kind, flags, mine, port)
    sock.send(asked)
    answer: list[bytes] = []
    interrupted = False
    while True:
        for kind, flags, sequence, whole in _split(sock.recv(_RECEIVE)):
            if sequence != mine:
                continue  # the rest of an answer that an earlier caller did not read
            interrupted |= bool(flags & _DUMP_INTR)
            if kind not in (_ERROR, _DONE):
                answer.append(bytes(whole))
                continue
            if (number := _error_number(whole)) > 0:
                raise KernelError(
                    f"the kernel rejected a request: {os.strerror(number)}", errno=number
                )
            return answer, interrupted


def subscribe(sock: socket.socket, *groups: int) -> None:
    """Have the kernel send ``sock`` the changes of multicast groups, RTNLGRP_*."""
    sock.bind((0, 0))
    for group in groups:
        sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)


def events(sock: socket.socket, deadline: float) -> Iterator[bytes]:
    """Yield the messages that a subscribed socket receives, until ``deadline``.

    ``deadline`` is on the clock of time.monotonic().
    """
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while poll.poll(max(0, (deadline - time.monotonic()) * 1000)):
        for _, _, _, whole in _split(sock.recv(_RECEIVE)):
            yield bytes(whole)


def message_type(whole: bytes) -> int:
    """Return the type in a message's header."""
    return int(HEADER.unpack_from(whole)[1])
