"""Packet sockets: one per namespace, all read by whoever owns the listener.

An AF_PACKET socket bound to no device hears every device of the namespace in which
it was opened, tunnel devices and later ones included, wherever it is read. So one
process captures at every tap of a lab.

Source: packet(7).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lvsctl.capture import bpf, sockets
from lvsctl.capture.shared import as_on_the_wire
from lvsctl.capture.sockets import (
    ANCILLARY,
    AUXDATA,
    PACKET_AUXDATA,
    PACKET_STATISTICS,
    SO_TIMESTAMPNS,
    SOL_PACKET,
    STATISTICS,
    TIMESPEC,
)
from lvsctl.errors import UsageError
from lvsctl.kernel import netns
from lvsctl.model.frame import Direction, LinkType, RawFrame, Tap

_STATUS_CSUMNOTREADY, _STATUS_VLAN, _STATUS_VLAN_PROTOCOL = 0x8, 0x10, 0x40

_DIRECTIONS = {direction.value: direction for direction in Direction}
_ETHERNET_LIKE = (bpf.ARPHRD_ETHER, bpf.ARPHRD_LOOPBACK)

RawRecord = tuple[int, Tap, int, int, int, bytes, bool]
"""What is noted while frames rush in: time, tap, packet type, hardware type, length on the
wire, bytes, checksum pending. A tuple, because making a RawFrame takes ten times as long."""


def raw_frame(seen: RawRecord) -> RawFrame:
    """The same, as everyone else knows it."""
    moment, tap, kind, hardware, length, data, pending = seen
    direction = _DIRECTIONS.get(kind, Direction.UNKNOWN)
    link = link_type(hardware)
    if link is LinkType.ETHERNET:
        data = as_on_the_wire(data, length)
    return RawFrame(moment, tap, direction, link, length, data, pending)


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


class PacketSocket:
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
        raw = self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, STATISTICS.size)
        self.dropped += STATISTICS.unpack(raw)[1]  # reading sets the kernel's own count to 0


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
        self._packet_sockets: dict[int, PacketSocket] = {}
        self._ready: list[PacketSocket] = []
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
        ready: list[PacketSocket] = []
        for name, node in nodes.items():
            if node not in wanted:
                continue
            with netns.enter(name):
                packet_socket = PacketSocket(node, sockets.packet_socket())
                self._packet_sockets[packet_socket.sock.fileno()] = packet_socket
                sockets.prepare(packet_socket.sock, instructions, self._options.buffer)
                self.taps.update(self._devices(packet_socket))
            self._epoll.register(packet_socket.sock, select.EPOLLIN)
            ready.append(packet_socket)
        sockets.await_timestamps()
        for packet_socket in ready:
            sockets.bind_everywhere(packet_socket.sock)

    def _devices(self, packet_socket: PacketSocket) -> Iterator[tuple[Tap, LinkType]]:
        for _, device in socket.if_nameindex():
            hardware = sockets.hardware_type(packet_socket.sock, device)
            tap = packet_socket.tap(device)
            if self._hears(tap) and (hardware != bpf.ARPHRD_LOOPBACK or self._options.loopback):
                yield tap, link_type(hardware)

    def _hears(self, tap: Tap) -> bool:
        return not self._options.taps or tap in self._options.taps

    def wait(self, seconds: float | None) -> bool:
        """Wait for frames; whether there are any. ``None`` waits until there are or for a bell."""
        ready = self._epoll.poll(-1 if seconds is None else seconds)
        self._ready = [self._packet_sockets[fd] for fd, _ in ready if fd != self._bell]
        return bool(self._ready)

    def interrupt(self) -> None:
        """End a ``wait``, and every later one, at once. For any thread and signal handlers."""
        with suppress(BlockingIOError):
            os.eventfd_write(self._bell, 1)

    @property
    def interrupted(self) -> bool:
        """Whether the bell has rung."""
        return sockets.readable(self._bell, 0)

    def forget_interrupt(self) -> None:
        """Let ``wait`` wait again."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)

    def read(self, moment: int, *, everywhere: bool = False) -> list[RawRecord]:
        """All that has come until ``moment`` (ns since the epoch), in no order.

        From the namespaces that the last ``wait`` heard of, or from all. One later frame
        from each may be among it: there is no way to put it back.
        """
        found: list[RawRecord] = []
        for packet_socket in self._packet_sockets.values() if everywhere else self._ready:
            self._read_from(packet_socket, found, moment)
        return found

    def _read_from(self, packet_socket: PacketSocket, found: list[RawRecord], moment: int) -> None:
        receive = packet_socket.sock.recvmsg_into
        buffers = [self._buffer]
        while True:
            try:
                size, ancillary, _, address = receive(buffers, ANCILLARY)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENETDOWN:  # said once, when a device goes down
                    raise
                continue
            seen = _seen(
                packet_socket.tap(address[0]), address, ancillary, bytes(self._view[:size])
            )
            if self._hears(seen[1]):
                found.append(seen)
            if seen[0] > moment:  # without end, where frames come faster than they are read
                return

    def drops(self) -> dict[str, int]:
        """How many frames were lost so far, by node."""
        for packet_socket in self._packet_sockets.values():
            packet_socket.count_drops()
        return {
            packet_socket.node: packet_socket.dropped
            for packet_socket in self._packet_sockets.values()
        }

    def close(self) -> None:
        """Hear no more."""
        sockets.close_together(
            [packet_socket.sock for packet_socket in self._packet_sockets.values()]
        )
        self._packet_sockets.clear()
        self._ready.clear()
        self._epoll.close()
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1


def _seen(tap: Tap, address: tuple[str, int, int, int, bytes],
          ancillary: list[tuple[int, int, bytes]], data: bytes) -> RawRecord:  # fmt: skip
    moment, length, pending = 0, len(data), False
    for level, kind, value in ancillary:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, length, _, _, _, tci, protocol = AUXDATA.unpack_from(value)
            pending = bool(status & _STATUS_CSUMNOTREADY)
            if status & _STATUS_VLAN and len(data) >= 12:
                if not status & _STATUS_VLAN_PROTOCOL:
                    protocol = 0x8100
                data = data[:12] + struct.pack(">HH", protocol, tci) + data[12:]
                length += 4
        elif level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = TIMESPEC.unpack_from(value)
            moment = seconds * 1_000_000_000 + nanoseconds
    return moment, tap, address[2], address[3], length, data, pending
