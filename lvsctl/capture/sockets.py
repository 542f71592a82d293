"""Packet sockets, one at a time: opened, set up, bound to every device, closed.

Sources: packet(7), linux/if_packet.h, Documentation/networking/timestamping.rst.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from lvsctl.capture import bpf
from lvsctl.errors import HostError

SOL_PACKET, PACKET_STATISTICS, PACKET_AUXDATA = 263, 6, 8
SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_ETH_P_ALL = 3
_SIOCGIFHWADDR = 0x8927
_SOCKADDR_LL = struct.Struct("=HHiHBB8s")
_STAMP_PATIENCE = 10.0  # seconds: a worker of the kernel's sees to it, which others may delay
_LOOP_PATIENCE = 1.0  # seconds
_CLOSERS = 64  # threads

TIMESPEC = struct.Struct("@ll")
AUXDATA = struct.Struct("=IIIHHHH")  # status, len, snaplen, mac, net, vlan tci, vlan protocol
STATISTICS = struct.Struct("=II")  # frames, and of those the dropped
ANCILLARY = socket.CMSG_SPACE(TIMESPEC.size) + socket.CMSG_SPACE(AUXDATA.size)
"""Bytes that one frame's timestamp and auxiliary data take."""


def packet_socket() -> socket.socket:
    """One that hears nothing yet (protocol 0), so that no frame passes it by unfiltered."""
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except PermissionError as error:
        raise HostError("capturing needs root (CAP_NET_RAW)",
                        hint="run it as root, or in the throwaway kernel with --where machine"
                        ) from error  # fmt: skip
    except OSError as error:
        hint = "the kernel needs CONFIG_PACKET"
        if error.errno == errno.EMFILE:
            hint = "raise the limit of open files: `ulimit -n 65536`"
        raise HostError(f"cannot open a packet socket: {error.strerror}", hint=hint) from error


def prepare(sock: socket.socket, instructions: bytes, buffer: int) -> None:
    """Timestamps, auxiliary data, a receive buffer of so many bytes, and a filter."""
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
    except PermissionError:  # root of a user namespace only: as much as rmem_max lets us
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    try:
        bpf.attach(sock, instructions)
    except OSError as error:
        raise HostError(f"the kernel does not take the filter: {error.strerror}",
                        hint="`sysctl net.core.optmem_max` limits its size") from error  # fmt: skip


def bind_everywhere(sock: socket.socket) -> None:
    """Begin to hear all protocols at all devices: ifindex 0, which Python's bind cannot say."""
    address = _SOCKADDR_LL.pack(socket.AF_PACKET, socket.htons(_ETH_P_ALL), 0, 0, 0, 0, b"")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(sock.fileno(), address, len(address)):
        number = ctypes.get_errno()
        raise HostError(f"cannot bind a packet socket: {os.strerror(number)}")


def close_together(sockets: Sequence[socket.socket]) -> None:
    """Close each, many at a time.

    Closing a packet socket waits until no CPU can be using it (packet_release calls
    synchronize_net): 16 ms each, one after the other, but those that wait at the same
    time wait for the same thing.
    """

    def close(some: Sequence[socket.socket]) -> None:
        for one in some:
            one.close()

    threads = [
        threading.Thread(target=close, args=(sockets[first::_CLOSERS],), name="lvsctl-close")
        for first in range(min(_CLOSERS, len(sockets)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def hardware_type(sock: socket.socket, device: str) -> int:
    """ARPHRD_* of a device in the socket's namespace; Ethernet's where it is gone."""
    try:
        found = fcntl.ioctl(sock, _SIOCGIFHWADDR, struct.pack("16s24x", device.encode()))
    except OSError:  # gone in this instant
        return bpf.ARPHRD_ETHER
    return int(struct.unpack_from("=H", found, 16)[0])


def await_timestamps() -> None:
    """Wait until the kernel stamps frames when they come, not only when they are read.

    The first socket that asks for timestamps starts that in the background
    (net_enable_timestamp); frames from before are stamped when read, which orders them
    wrongly across namespaces. A datagram to ourselves shows it: the worker thread is
    in the caller's own namespace. Where ``lo`` is down there, nothing can be told.
    """
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ours,
        suppress(OSError),
    ):
        ours.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        ours.bind(("127.0.0.1", 0))
        ours.connect(ours.getsockname())
        deadline = time.monotonic() + _STAMP_PATIENCE
        while time.monotonic() < deadline:
            ours.send(b"?")
            if not readable(ours.fileno(), _LOOP_PATIENCE):
                return
            before = time.clock_gettime_ns(time.CLOCK_REALTIME)
            _, ancillary, _, _ = ours.recvmsg(1, ANCILLARY)
            for _, _, value in ancillary:
                seconds, nanoseconds = TIMESPEC.unpack_from(value)
                if seconds * 1_000_000_000 + nanoseconds <= before:
                    return
        raise HostError("the kernel does not stamp frames when they come")


def readable(fd: int, seconds: float) -> bool:
    """Whether ``fd`` can be read within ``seconds``; select(2) knows no descriptor over 1023."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
