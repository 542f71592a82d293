"""Packet sockets: one per namespace, all read by whoever owns the listener.

An AF_PACKET socket bound to no device hears every device of the namespace in which
it was opened, tunnel devices and later ones included, wherever it is read. So one
process captures at every tap of a lab.

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lvsctl.errors import HostError, UsageError
from lvsctl.kernel import netns
from lvsctl.model.frame import Direction, LinkType, RawFrame, Tap
from lvsctl.observe import bpf

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA = 263, 6, 8
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_SIOCGIFHWADDR = 0x8927
_SOCKADDR_LL = struct.Struct("=HHiHBB8s")
_TIMESPEC = struct.Struct("@ll")
_AUXDATA = struct.Struct("=IIIHHHH")  # status, len, snaplen, mac, net, vlan tci, vlan protocol
_STATISTICS = struct.Struct("=II")
_STATUS_CSUMNOTREADY, _STATUS_VLAN, _STATUS_VLAN_PROTOCOL = 0x8, 0x10, 0x40
_ANCILLARY = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(_AUXDATA.size)
_STAMP_PATIENCE = 1.0  # seconds
_CLOSERS = 64  # threads

_DIRECTIONS = {direction.value: direction for direction in Direction}
_ETHERNET_LIKE = (bpf.ARPHRD_ETHER, bpf.ARPHRD_LOOPBACK)

Seen = tuple[int, Tap, int, int, int, bytes, bool]
"""What is noted while frames rush in: time, tap, packet type, hardware type, length on the
wire, bytes, checksum pending. A tuple, because making a RawFrame takes ten times as long."""


def raw_frame(seen: Seen) -> RawFrame:
    """The same, as everyone else knows it."""
    moment, tap, kind, hardware, length, data, pending = seen
    direction = _DIRECTIONS.get(kind, Direction.UNKNOWN)
    return RawFrame(moment, tap, direction, link_type(hardware), length, data, pending)


def link_type(hardware: int) -> LinkType:
    """How frames of a device of this hardware type (ARPHRD_*) begin.

    The others in a lab are tunnel devices: 768, 769, 776 begin with the inner IP header,
    778 (gre) and 823 (ip6gre) with the outer one where they accept any sender.
    """
    return LinkType.ETHERNET if hardware in _ETHERNET_LIKE else LinkType.RAW


@dataclass(frozen=True, slots=True)
class Options:
    """What to listen for. ``snaplen`` and ``buffer`` (one per namespace) in bytes.

    ``filter`` as in pcap-filter(7). ``loopback`` lets frames of ``lo`` in: it is no
    wire, and what a node says to itself proves nothing about a forwarding method.
    ``taps`` are the only ones wanted; empty: all.
    """

    filter: str = ""
    snaplen: int = 262144
    buffer: int = 16 << 20
    loopback: bool = False
    taps: frozenset[Tap] = frozenset()


class _Ear:
    """The socket of one namespace, and what was lost at it."""

    __slots__ = ("_taps", "dropped", "node", "sock")

    def __init__(self, node: str, sock: socket.socket) -> None:
        self.node = node
        self.sock = sock
        self.dropped = 0
        self._taps: dict[str, Tap] = {}

    def tap(self, device: str) -> Tap:
        tap = self._taps.get(device)
        if tap is None:
            tap = self._taps[device] = Tap(self.node, device)
        return tap

    def count_drops(self) -> None:
        raw = self.sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        self.dropped += _STATISTICS.unpack(raw)[1]  # reading sets the kernel's own count to 0


class Listener:
    """The open sockets of a capture. Frames wait in the kernel until ``read`` is called.

    ``taps`` are the devices that were there at the beginning. Not for several threads at
    once, but for ``interrupt``.
    """

    def __init__(self, nodes: Mapping[str | Path, str], options: Options) -> None:
        """Listen in the namespaces of ``nodes`` (name or path → the node's name).

        Raises UsageError (the filter), LabError (no such namespace), HostError.
        """
        self._options = options
        self._buffer = bytearray(options.snaplen)
        self._view = memoryview(self._buffer)
        self._ears: dict[int, _Ear] = {}
        self._ready: list[_Ear] = []
        self.taps: dict[Tap, LinkType] = {}
        instructions = bpf.program(
            options.filter, snaplen=options.snaplen, loopback=options.loopback
        )
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._bell, select.EPOLLIN)
        try:
            netns.in_thread(lambda: self._open(nodes, instructions))
        except BaseException:
            self.close()
            raise

    def _open(self, nodes: Mapping[str | Path, str], instructions: bytes) -> None:
        wanted = {tap.node for tap in self._options.taps} or set(nodes.values())
        if strangers := wanted.difference(nodes.values()):
            raise UsageError(f"no node {', '.join(sorted(strangers))} to capture at",
                             hint=f"the nodes are {', '.join(nodes.values())}")  # fmt: skip
        ready: list[_Ear] = []
        for name, node in nodes.items():
            if node not in wanted:
                continue
            with netns.enter(name):
                ear = _Ear(node, _packet_socket())
                self._ears[ear.sock.fileno()] = ear
                _prepare(ear.sock, self._options, instructions)
                self.taps.update(self._devices(ear))
            self._epoll.register(ear.sock, select.EPOLLIN)
            ready.append(ear)
        _await_timestamps()
        for ear in ready:
            _bind_everywhere(ear.sock)

    def _devices(self, ear: _Ear) -> Iterator[tuple[Tap, LinkType]]:
        for _, device in socket.if_nameindex():
            hardware = _hardware_type(ear.sock, device)
            tap = ear.tap(device)
            if self._hears(tap) and (hardware != bpf.ARPHRD_LOOPBACK or self._options.loopback):
                yield tap, link_type(hardware)

    def _hears(self, tap: Tap) -> bool:
        return not self._options.taps or tap in self._options.taps

    def wait(self, seconds: float | None) -> bool:
        """Wait for frames; whether there are any. ``None`` waits until there are or for a bell."""
        ready = self._epoll.poll(-1 if seconds is None else seconds)
        self._ready = [self._ears[fd] for fd, _ in ready if fd != self._bell]
        return bool(self._ready)

    def interrupt(self) -> None:
        """End a ``wait``, and every later one, at once. For any thread and signal handlers."""
        with suppress(BlockingIOError):
            os.eventfd_write(self._bell, 1)

    @property
    def interrupted(self) -> bool:
        """Whether the bell has rung."""
        return _readable(self._bell, 0)

    def forget_interrupt(self) -> None:
        """Let ``wait`` wait again."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)

    def read(self, moment: int, *, everywhere: bool = False) -> list[Seen]:
        """All that has come until ``moment`` (ns since the epoch), in no order.

        From the namespaces that the last ``wait`` heard of, or from all. One later frame
        from each may be among it: there is no way to put it back.
        """
        found: list[Seen] = []
        for ear in self._ears.values() if everywhere else self._ready:
            self._read_from(ear, found, moment)
        return found

    def _read_from(self, ear: _Ear, found: list[Seen], moment: int) -> None:
        receive = ear.sock.recvmsg_into
        buffers = [self._buffer]
        while True:
            try:
                size, ancillary, _, address = receive(buffers, _ANCILLARY)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENETDOWN:  # said once, when a device goes down
                    raise
                continue
            seen = _seen(ear.tap(address[0]), address, ancillary, bytes(self._view[:size]))
            if self._hears(seen[1]):
                found.append(seen)
            if seen[0] > moment:  # without end, where frames come faster than they are read
                return

    def drops(self) -> dict[str, int]:
        """How many frames were lost so far, by node."""
        for ear in self._ears.values():
            ear.count_drops()
        return {ear.node: ear.dropped for ear in self._ears.values()}

    def close(self) -> None:
        """Hear no more."""
        _close_together([ear.sock for ear in self._ears.values()])
        self._ears.clear()
        self._ready.clear()
        self._epoll.close()
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1


def _readable(fd: int, seconds: float) -> bool:
    """Whether ``fd`` can be read within ``seconds``; select(2) knows no descriptor over 1023."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _seen(tap: Tap, address: tuple[str, int, int, int, bytes],
          ancillary: list[tuple[int, int, bytes]], data: bytes) -> Seen:  # fmt: skip
    moment, length, pending = 0, len(data), False
    for level, kind, value in ancillary:
        if level == _SOL_PACKET and kind == _PACKET_AUXDATA:
            status, length, _, _, _, tci, protocol = _AUXDATA.unpack_from(value)
            pending = bool(status & _STATUS_CSUMNOTREADY)
            if status & _STATUS_VLAN and len(data) >= 12:
                if not status & _STATUS_VLAN_PROTOCOL:
                    protocol = 0x8100
                data = data[:12] + struct.pack(">HH", protocol, tci) + data[12:]
                length += 4
        elif level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack_from(value)
            moment = seconds * 1_000_000_000 + nanoseconds
    return moment, tap, address[2], address[3], length, data, pending


def _close_together(sockets: Sequence[socket.socket]) -> None:
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


def _packet_socket() -> socket.socket:
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


def _prepare(sock: socket.socket, options: Options, instructions: bytes) -> None:
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, options.buffer)
    except PermissionError:  # root of a user namespace only: as much as rmem_max lets us
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options.buffer)
    try:
        bpf.attach(sock, instructions)
    except OSError as error:
        raise HostError(f"the kernel does not take the filter: {error.strerror}",
                        hint="`sysctl net.core.optmem_max` limits its size") from error  # fmt: skip


def _bind_everywhere(sock: socket.socket) -> None:
    """Begin to hear all protocols at all devices: ifindex 0, which Python's bind cannot say."""
    address = _SOCKADDR_LL.pack(socket.AF_PACKET, socket.htons(_ETH_P_ALL), 0, 0, 0, 0, b"")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(sock.fileno(), address, len(address)):
        number = ctypes.get_errno()
        raise HostError(f"cannot bind a packet socket: {os.strerror(number)}")


def _hardware_type(sock: socket.socket, device: str) -> int:
    try:
        found = fcntl.ioctl(sock, _SIOCGIFHWADDR, struct.pack("16s24x", device.encode()))
    except OSError:  # gone in this instant
        return bpf.ARPHRD_ETHER
    return int(struct.unpack_from("=H", found, 16)[0])


def _await_timestamps() -> None:
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
        ours.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        ours.bind(("127.0.0.1", 0))
        ours.connect(ours.getsockname())
        deadline = time.monotonic() + _STAMP_PATIENCE
        while time.monotonic() < deadline:
            ours.send(b"?")
            if not _readable(ours.fileno(), _STAMP_PATIENCE):
                return
            before = time.clock_gettime_ns(time.CLOCK_REALTIME)
            _, ancillary, _, _ = ours.recvmsg(1, _ANCILLARY)
            for _, _, value in ancillary:
                seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                if seconds * 1_000_000_000 + nanoseconds <= before:
                    return
        raise HostError("the kernel does not stamp frames when they come")
