"""Capture at all taps: one packet socket a namespace, all read in one loop.

An AF_PACKET socket that is bound to no device receives the frames of every device of the namespace
in which it was opened, tunnel devices and later ones included, whichever thread reads it. So one
process captures at every tap of a lab.

Source: packet(7).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lvsctl.capture import sockets
from lvsctl.capture.batches import FRAMES, BatchReceiver, Received
from lvsctl.capture.headers import U16
from lvsctl.capture.sockets import PACKET_STATISTICS, SOL_PACKET, STATISTICS
from lvsctl.errors import UsageError
from lvsctl.kernel import netns
from lvsctl.model.addresses import IPAddress
from lvsctl.model.frame import Direction, LinkType, RawFrame, Tap
from lvsctl.netlink import devices
from lvsctl.netlink import sockets as netlink

_STATUS_CSUMNOTREADY, _STATUS_VLAN, _STATUS_VLAN_PROTOCOL = 0x8, 0x10, 0x40

_DIRECTIONS = {direction.value: direction for direction in Direction}
_ETHERNET_LIKE = (sockets.ARPHRD_ETHER, sockets.ARPHRD_LOOPBACK)

RawRecord = tuple[int, Tap, int, int, int, bytes, bool]
"""A received frame: time, tap, packet type, hardware type, length on the wire, bytes, checksum
pending. A tuple, because creating a RawFrame takes longer than receiving one."""


def raw_frame(seen: RawRecord) -> RawFrame:
    """Convert a record to a RawFrame."""
    moment, tap, kind, hardware, length, data, pending = seen
    direction = _DIRECTIONS.get(kind, Direction.UNKNOWN)
    link = link_type(hardware)
    if link is LinkType.ETHERNET:
        data = restore_total_length(data, length)
    return RawFrame(moment, tap, direction, link, length, data, pending)


def link_type(hardware: int) -> LinkType:
    """Return how frames of a device of this hardware type (ARPHRD_*) begin.

    The others in a lab are tunnel devices: 768, 769, 776 begin with the inner IP header,
    778 (gre) and 823 (ip6gre) with the outer one where they accept any sender.
    """
    return LinkType.ETHERNET if hardware in _ETHERNET_LIKE else LinkType.RAW


@dataclass(frozen=True, slots=True)
class Options:
    """What to capture. ``snaplen`` and ``buffer`` (one per namespace) in bytes.

    ``filter`` is as in pcap-filter(7). ``loopback`` includes frames of ``lo``: they cross no wire,
    and prove nothing about a forwarding method. ``taps`` are the only ones to capture at; empty:
    all. ``known``: at a node that is a key, of the requests that all nodes receive (ARP requests,
    neighbour solicitations) only those about these addresses, and its own: with every real server
    asking for the client, the frames would otherwise grow with the square of their number.
    """

    filter: str = ""
    snaplen: int = 262144
    buffer: int = 16 << 20
    loopback: bool = False
    taps: frozenset[Tap] = frozenset()
    known: Mapping[str, Collection[IPAddress]] = field(default_factory=dict)


_GATHERING = 0.01, 0.2
"""Seconds: at first, and at most. The buffer of a namespace holds some ten thousand frames."""


class PacketSocket:
    """The socket of one namespace, and how many frames it lost."""

    __slots__ = ("_taps", "dropped", "node", "sock")

    def __init__(self, node: str, sock: socket.socket) -> None:
        self.node = node
        self.sock = sock
        self.dropped = 0
        self._taps: dict[int, Tap] = {}

    def tap(self, index: int) -> Tap:
        """The tap at the device with an index. It keeps the name that the device had at first."""
        known = self._taps.get(index)
        if known is None:
            known = self.named(index, sockets.device_name(self.sock, index))
        return known

    def named(self, index: int, name: str) -> Tap:
        """The tap at the device with an index, whose name is known."""
        self._taps[index] = tap = Tap(self.node, name)
        return tap

    def count_drops(self) -> None:
        raw = self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, STATISTICS.size)
        self.dropped += STATISTICS.unpack(raw)[1]  # reading sets the kernel's own count to 0


class Listener:
    """The open sockets of a capture. Frames wait in the kernel until ``read`` is called.

    ``taps`` are the devices that existed at the beginning. Not thread-safe, except ``interrupt``.
    """

    def __init__(self, nodes: Mapping[str | Path, str], options: Options) -> None:
        """Start capturing in the namespaces of ``nodes`` (name or path → the node's name).

        Raises UsageError (the filter), LabError (no such namespace), HostError.
        """
        self._options = options
        self._receiver = BatchReceiver(options.snaplen)
        self._gathering = _GATHERING[0]
        self._packet_sockets: dict[int, PacketSocket] = {}
        self._ready: list[PacketSocket] = []
        self.taps: dict[Tap, LinkType] = {}
        programs = {node: self._program(node) for node in nodes.values()}
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        try:
            netns.in_thread(lambda: self._open(nodes, programs))
        except BaseException:
            self.close()
            raise

    def _program(self, node: str) -> bytes:
        options = self._options
        known = options.known.get(node, ())
        return sockets.filter_program(
            options.filter, snaplen=options.snaplen, loopback=options.loopback, known=known
        )

    def _open(self, nodes: Mapping[str | Path, str], programs: Mapping[str, bytes]) -> None:
        wanted = {tap.node for tap in self._options.taps} or set(nodes.values())
        if unknown := wanted.difference(nodes.values()):
            raise UsageError(f"no node {', '.join(sorted(unknown))} to capture at",
                             hint=f"the nodes are {', '.join(nodes.values())}")  # fmt: skip
        ready: list[PacketSocket] = []
        for name in netns.each(one for one, node in nodes.items() if node in wanted):
            node = nodes[name]
            packet_socket = PacketSocket(node, sockets.packet_socket())
            self._packet_sockets[packet_socket.sock.fileno()] = packet_socket
            sockets.prepare(packet_socket.sock, programs[node], self._options.buffer)
            self.taps.update(self._devices(packet_socket))
            self._epoll.register(packet_socket.sock, select.EPOLLIN)
            ready.append(packet_socket)
        sockets.await_timestamps()
        for packet_socket in ready:
            sockets.bind_everywhere(packet_socket.sock)

    def _devices(self, packet_socket: PacketSocket) -> Iterator[tuple[Tap, LinkType]]:
        with netlink.open_reader() as sock:
            found = devices.dump_names(sock)
        for one in found:
            tap = packet_socket.named(one.ifindex, one.name)
            if self._wanted(tap) and (
                one.hardware != sockets.ARPHRD_LOOPBACK or self._options.loopback
            ):
                yield tap, link_type(one.hardware)

    def _wanted(self, tap: Tap) -> bool:
        return not self._options.taps or tap in self._options.taps

    def wait(self, seconds: float | None) -> bool:
        """Wait for frames (None: without a timeout); return whether there are any."""
        ready = self._epoll.poll(-1 if seconds is None else seconds)
        self._ready = [self._packet_sockets[fd] for fd, _ in ready if fd != self._wake]
        return bool(self._ready)

    def let_frames_gather(self) -> None:
        """Leave the frames in the kernel for a moment, in order to read many at once.

        The fewer there were, the longer.
        """
        sockets.readable(self._wake, self._gathering)

    def interrupt(self) -> None:
        """End a ``wait``, and every later one, at once. From any thread or a signal handler."""
        with suppress(BlockingIOError):
            os.eventfd_write(self._wake, 1)

    @property
    def interrupted(self) -> bool:
        """Whether ``interrupt`` was called."""
        return sockets.readable(self._wake, 0)

    def forget_interrupt(self) -> None:
        """Undo ``interrupt``."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def read(self, moment: int, *, everywhere: bool = False) -> list[RawRecord]:
        """Return the frames received until ``moment`` (ns since the epoch), in no order.

        From the namespaces that the last ``wait`` found ready, or from all. Some later frames
        from each may be included, because they cannot be put back.
        """
        found: list[RawRecord] = []
        self._gathering = min(_GATHERING[1], 2 * self._gathering)
        for packet_socket in self._packet_sockets.values() if everywhere else self._ready:
            self._read_from(packet_socket, found, moment, to_the_end=everywhere)
        return found

    def _read_from(
        self, packet_socket: PacketSocket, found: list[RawRecord], moment: int, *, to_the_end: bool
    ) -> None:
        while True:
            try:
                batch = self._receiver.receive(packet_socket.sock)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENETDOWN:  # reported once, when a device goes down
                    raise
                continue
            seen = [_seen(packet_socket.tap(one.ifindex), one) for one in batch]
            found += [one for one in seen if self._wanted(one[1])]
            if len(batch) == FRAMES:
                self._gathering = _GATHERING[0]
            elif not to_the_end:
                return
            if seen[-1][0] > moment:  # otherwise endless if frames come faster than they are read
                return

    def drops(self) -> dict[str, int]:
        """Return how many frames were lost so far, by node."""
        for packet_socket in self._packet_sockets.values():
            packet_socket.count_drops()
        return {
            packet_socket.node: packet_socket.dropped
            for packet_socket in self._packet_sockets.values()
        }

    def close(self) -> None:
        """Close the sockets."""
        sockets.close_together(
            [packet_socket.sock for packet_socket in self._packet_sockets.values()]
        )
        self._packet_sockets.clear()
        self._ready.clear()
        self._epoll.close()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1


def _seen(tap: Tap, one: Received) -> RawRecord:
    data, length, pending = one.data, len(one.data), False
    if one.auxiliary is not None:
        status, length, _, _, _, tci, protocol = one.auxiliary
        pending = bool(status & _STATUS_CSUMNOTREADY)
        if status & _STATUS_VLAN and len(data) >= 12:
            if not status & _STATUS_VLAN_PROTOCOL:
                protocol = 0x8100
            data = data[:12] + struct.pack(">HH", protocol, tci) + data[12:]
            length += 4
    return one.moment, tap, one.kind, one.hardware, length, data, pending


_ETHERNET = 14
_IPV4_TYPE, _IPV6_TYPE, _UDP = b"\x08\x00", b"\x86\xdd", 17
_NO_OPTIONS = 0x45  # IPv4 with a header of 20 bytes


def restore_total_length(data: bytes, length: int) -> bytes:
    """Restore the IP length that an Ethernet frame of ``length`` bytes had on the wire.

    A packet socket does not copy a frame when it is captured: it shares the bytes with the rest of
    the kernel until it is read. The kernel copies before it writes, with one exception: when GUE
    or FOU is decapsulated, the outer header's total length is lowered in place
    (net/ipv4/fou_core.c, fou_recv_pull and gue_udp_recv).

    Only a length that something else on the wire confirms is restored: in IPv4 the header's
    checksum, in IPv6 the length of the UDP header. Everything else is returned unchanged.
    """
    if data[12:14] == _IPV6_TYPE:
        return _restore_payload_length(data, length)
    if len(data) < _ETHERNET + 20 or data[14] != _NO_OPTIONS or data[23] != _UDP:
        return data
    wire = length - _ETHERNET
    if data[12:14] != _IPV4_TYPE or U16(data, 16)[0] == wire or wire > 0xFFFF or wire < 28:
        return data
    restored = data[:16] + wire.to_bytes(2, "big") + data[18:]
    if _header_sum(data) == 0xFFFF or _header_sum(restored) != 0xFFFF:
        return data
    return restored


def _restore_payload_length(data: bytes, length: int) -> bytes:
    if len(data) < _ETHERNET + 48 or data[20] != _UDP:
        return data
    wire = length - _ETHERNET - 40
    if U16(data, 58)[0] != wire or U16(data, 18)[0] >= wire:
        return data
    return data[:18] + wire.to_bytes(2, "big") + data[20:]


def _header_sum(data: bytes) -> int:
    """Return the ones' complement sum of the IPv4 header: 0xffff if its checksum is right."""
    total = sum(int(U16(data, at)[0]) for at in range(_ETHERNET, _ETHERNET + 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)
