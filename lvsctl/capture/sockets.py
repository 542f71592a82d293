"""Packet sockets and their filters: opened, set up, bound to every device, closed.

The filter is classic BPF, run by the kernel. A namespace has devices whose frames begin with
Ethernet and tunnel devices whose frames begin with IP, and one socket receives both. So a filter
expression is compiled twice, and a few instructions in front choose by the device's hardware type.

Sources: packet(7), linux/if_packet.h, Documentation/networking/timestamping.rst, filter.rst,
linux/filter.h, pcap-filter(7).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import lru_cache

from lvsctl.errors import HostError, UsageError
from lvsctl.model.addresses import IPAddress
from lvsctl.model.frame import LinkType

ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772

_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, if false, operand
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30
_JUMP_IF_EQUAL, _JUMP, _RETURN = 0x15, 0x05, 0x06
_PACKET_TYPE = 0xFFFFF000 + 4  # SKF_AD_OFF + SKF_AD_PKTTYPE
_OUTGOING = 4  # PACKET_OUTGOING
_HARDWARE_TYPE = 0xFFFFF000 + 28  # SKF_AD_OFF + SKF_AD_HATYPE
_MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_SO_ATTACH_FILTER = 26
_PCAP_HEADER = struct.Struct("=IHHiIII")
_COMPILE_TIMEOUT = 20.0  # seconds; a host name in the expression is looked up in the DNS


_Instruction = tuple[int, int, int, int]


def filter_program(
    expression: str, *, snaplen: int, loopback: bool, known: Collection[IPAddress] = ()
) -> bytes:
    """Compile a filter that keeps the frames that match ``expression`` (pcap-filter(7)); '': all.

    ``snaplen`` bytes of each are kept. Frames of ``lo`` are dropped unless ``loopback``.
    An expression that only applies to Ethernet (``arp``) keeps no frame of tunnel devices. VLAN
    tags cannot match: the kernel has removed them by then. ``known``: if any, ARP requests and
    neighbour solicitations that arrive and ask for another address are dropped.

    Raises UsageError for an invalid expression, HostError without tcpdump.
    """
    if expression.strip():
        ethernet = _compiled(expression, LinkType.ETHERNET, snaplen)
        try:
            raw = _compiled(expression, LinkType.RAW, snaplen)
        except UsageError:
            raw = [(_RETURN, 0, 0, 0)]
    else:
        ethernet = raw = [(_RETURN, 0, 0, snaplen)]
    if known and len(known) <= _MOST_KNOWN:
        ethernet = [*_only_questions_about(known), *ethernet]
    choose = [
        (_LOAD_WORD, 0, 0, _HARDWARE_TYPE),
        (_JUMP_IF_EQUAL, 0, 1, ARPHRD_LOOPBACK),
        (_JUMP, 0, 0, 2) if loopback else (_RETURN, 0, 0, 0),
        (_JUMP_IF_EQUAL, 1, 0, ARPHRD_ETHER),
        (_JUMP, 0, 0, len(ethernet)),
    ]
    whole = [*choose, *ethernet, *raw]
    if len(whole) > _MOST_INSTRUCTIONS:
        raise UsageError(f"the filter is too long: {len(whole)} instructions,"
                         f" the kernel takes {_MOST_INSTRUCTIONS}")  # fmt: skip
    return b"".join(_INSTRUCTION.pack(*one) for one in whole)


_MOST_KNOWN = 1000
"""Addresses that a filter compares: more might not fit. Then questions about all are kept."""


def _only_questions_about(known: Collection[IPAddress]) -> list[_Instruction]:
    """Drop what arrives and asks all nodes for an address that is not among ``known``.

    Of an IPv6 address, the last 32 bits are compared: they may keep one question too many.
    """
    lasts = {version: {int(a) & 0xFFFFFFFF for a in known if a.version == version}
             for version in (4, 6)}  # fmt: skip
    arp = [(_LOAD_HALF, 12, 0x0806), (_LOAD_HALF, 20, 1)]
    solicitation = [(_LOAD_HALF, 12, 0x86DD), (_LOAD_BYTE, 20, 58), (_LOAD_BYTE, 54, 135)]
    return [*_drop_unless(arp, 38, lasts[4]), *_drop_unless(solicitation, 74, lasts[6])]


def _drop_unless(
    tests: Sequence[tuple[int, int, int]], target: int, wanted: Collection[int]
) -> list[_Instruction]:
    """Drop a frame that arrives and passes all ``tests`` (load, offset, value), unless its word
    at ``target`` is ``wanted``; any other frame goes on behind these instructions.
    """  # fmt: skip
    go_on = (_JUMP, 0, 0, -1)
    block = [(_LOAD_BYTE, 0, 0, _PACKET_TYPE), (_JUMP_IF_EQUAL, 0, 1, _OUTGOING), go_on]
    for load, offset, value in tests:
        block += [(load, 0, 0, offset), (_JUMP_IF_EQUAL, 1, 0, value), go_on]
    block.append((_LOAD_WORD, 0, 0, target))
    for value in sorted(wanted):
        block += [(_JUMP_IF_EQUAL, 0, 1, value), go_on]
    block.append((_RETURN, 0, 0, 0))
    return [
        (_JUMP, 0, 0, len(block) - index - 1) if one is go_on else one
        for index, one in enumerate(block)
    ]


def attach_filter(sock: socket.socket, instructions: bytes) -> None:
    """Attach a filter to ``sock``. Raises OSError."""
    kept = ctypes.create_string_buffer(instructions, len(instructions))
    count = len(instructions) // _INSTRUCTION.size
    # struct sock_fprog; the kernel copies the program before this returns.
    fprog = struct.pack("@HP", count, ctypes.addressof(kept))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


@lru_cache(maxsize=4)
def _compiled(expression: str, link: LinkType, snaplen: int) -> list[_Instruction]:
    """Compile with tcpdump, for frames that begin as ``link`` says."""
    tcpdump = shutil.which("tcpdump", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if tcpdump is None:
        raise HostError("filters need tcpdump, which is not installed",
                        hint="apt install tcpdump, or leave the filter out and let tshark -Y"
                             " choose from the file")  # fmt: skip
    # Reading an empty capture sets the link type, and needs neither a device nor root.
    header = _PCAP_HEADER.pack(0xA1B2C3D4, 2, 4, 0, 0, snaplen, link)
    try:
        done = subprocess.run(
            [tcpdump, "-r", "-", "-ddd", "--", expression],
            input=header, capture_output=True, timeout=_COMPILE_TIMEOUT, check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"tcpdump could not compile the filter {expression!r}: {error}") from error
    lines = done.stdout.decode(errors="replace").split("\n")
    if done.returncode or not lines[0].isdigit():
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1].removeprefix("tcpdump: ") if said else f"tcpdump ended {done.returncode}"
        raise UsageError(f"the filter {expression!r} is wrong: {why}",
                         hint="pcap-filter(7) has the syntax, such as 'tcp port 80 or arp'"
                         )  # fmt: skip
    rows = [[int(word) for word in line.split()] for line in lines[1 : 1 + int(lines[0])]]
    return [(code, yes, no, operand) for code, yes, no, operand in rows]


SOL_PACKET, PACKET_STATISTICS, PACKET_AUXDATA = 263, 6, 8
SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_ETH_P_ALL = 3
_SIOCGIFNAME = 0x8910
_SOCKADDR_LL = struct.Struct("=HHiHBB8s")
_STAMP_TIMEOUT = 10.0  # seconds: a worker thread of the kernel enables them
_LOOP_TIMEOUT = 1.0  # seconds
_CLOSERS = 64  # threads

TIMESPEC = struct.Struct("@ll")
AUXDATA = struct.Struct("=IIIHHHH")  # status, len, snaplen, mac, net, vlan tci, vlan protocol
STATISTICS = struct.Struct("=II")  # frames, and of those the dropped
ANCILLARY = socket.CMSG_SPACE(TIMESPEC.size) + socket.CMSG_SPACE(AUXDATA.size)
"""Bytes that one frame's timestamp and auxiliary data take."""


def packet_socket() -> socket.socket:
    """Open a socket that receives nothing yet (protocol 0), so that no frame comes unfiltered."""
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
    """Set timestamps, auxiliary data, a receive buffer of ``buffer`` bytes, and a filter."""
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
    except PermissionError:  # root of a user namespace only: at most rmem_max
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    try:
        attach_filter(sock, instructions)
    except OSError as error:
        raise HostError(f"the kernel rejects the filter: {error.strerror}",
                        hint="`sysctl net.core.optmem_max` limits its size") from error  # fmt: skip


def bind_everywhere(sock: socket.socket) -> None:
    """Receive all protocols at all devices: ifindex 0, which Python's bind cannot express."""
    address = _SOCKADDR_LL.pack(socket.AF_PACKET, socket.htons(_ETH_P_ALL), 0, 0, 0, 0, b"")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(sock.fileno(), address, len(address)):
        number = ctypes.get_errno()
        raise HostError(f"cannot bind a packet socket: {os.strerror(number)}")


def close_together(sockets: Sequence[socket.socket]) -> None:
    """Close each, many at a time.

    Closing a packet socket waits until no CPU can be using it (packet_release calls
    synchronize_net); sockets that are closed at the same time share the wait. On the only CPU
    there is nothing to wait for (rcu_blocking_is_gp in kernel/rcu/tree.c), and threads only cost.
    """

    def close(some: Sequence[socket.socket]) -> None:
        for one in some:
            one.close()

    if os.cpu_count() == 1:
        close(sockets)
        return
    threads = [
        threading.Thread(target=close, args=(sockets[first::_CLOSERS],), name="lvsctl-close")
        for first in range(min(_CLOSERS, len(sockets)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def device_name(sock: socket.socket, index: int) -> str:
    """Return the name of a device in the socket's namespace; empty if it was deleted."""
    try:
        found = fcntl.ioctl(sock, _SIOCGIFNAME, struct.pack("=16xi20x", index))
    except OSError:  # deleted meanwhile
        return ""
    return found[:16].partition(b"\0")[0].decode(errors="replace")


def await_timestamps() -> None:
    """Wait until the kernel stamps frames on arrival, not only when they are read.

    The first socket that asks for timestamps starts that in the background
    (net_enable_timestamp); frames from before are stamped when read, which orders them
    wrongly across namespaces. A datagram to ourselves shows it, unless ``lo`` is down in the
    caller's namespace.
    """
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ours,
        suppress(OSError),
    ):
        ours.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        ours.bind(("127.0.0.1", 0))
        ours.connect(ours.getsockname())
        deadline = time.monotonic() + _STAMP_TIMEOUT
        while time.monotonic() < deadline:
            ours.send(b"?")
            if not readable(ours.fileno(), _LOOP_TIMEOUT):
                return
            before = time.clock_gettime_ns(time.CLOCK_REALTIME)
            _, ancillary, _, _ = ours.recvmsg(1, ANCILLARY)
            for _, _, value in ancillary:
                seconds, nanoseconds = TIMESPEC.unpack_from(value)
                if seconds * 1_000_000_000 + nanoseconds <= before:
                    return
        raise HostError("the kernel does not stamp frames on arrival")


def readable(fd: int, seconds: float) -> bool:
    """Return whether ``fd`` is readable within ``seconds``; unlike select(2), of any number."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
