"""Listening sockets of a namespace, and the processes that hold them.

The kernel's socket diagnostics list a namespace's listening sockets with their inodes;
the processes that hold an inode can live anywhere (one process serves all the real
servers of a lab), so they are looked for once for all namespaces.

Sources: sock_diag(7), linux/inet_diag.h, proc_pid_fd(5).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

from lvsctl.errors import KernelError
from lvsctl.kernel import netns
from lvsctl.model.addresses import IPAddress
from lvsctl.model.service import Protocol
from lvsctl.model.state import ListenerState
from lvsctl.netlink import sockets

_SOCK_DIAG_BY_FAMILY = 20
_AF_INET, _AF_INET6 = 2, 10
_LISTEN = 1 << 10
_UNCONNECTED = 1 << 7  # TCP_CLOSE: how a UDP socket without a peer is counted
_REQUEST = struct.Struct("=BBBxI48x")  # inet_diag_req_v2: family, protocol, extensions, states, id
_ANSWER = struct.Struct("=BBBB2s2s16s16sIII")
"""inet_diag_msg up to the cookie: family, state, timer, retransmits, then inet_diag_sockid:
source port, destination port, source, destination, device, cookie."""
_INODE = struct.Struct("=5I")  # the rest: expires, rqueue, wqueue, uid, inode

_SCTP_LOADED = Path("/proc/thread-self/net/sctp")


class OpenSocket(NamedTuple):
    """A listening socket, without the process that holds it."""

    protocol: Protocol
    address: IPAddress
    port: int
    inode: int
    queued: int = 0
    backlog: int = 0


class Holder(NamedTuple):
    """A process that has a socket open."""

    process: str
    pid: int
    state: str = ""


def open_sockets(
    sock: socket.socket, protocols: Collection[Protocol] = tuple(Protocol)
) -> tuple[OpenSocket, ...]:
    """Return the listening sockets (UDP: those without a peer) of ``sock``'s namespace.

    ``sock`` is a SOCK_DIAG netlink socket. Call it from a thread in the same
    namespace. SCTP is asked for only where it is loaded: asking would load it.
    """
    found: list[OpenSocket] = []
    for protocol, states in _asked():
        if protocol not in protocols:
            continue
        for family in (_AF_INET, _AF_INET6):
            request = _REQUEST.pack(family, protocol.number, 0, states)
            try:
                asked = sockets.message(_SOCK_DIAG_BY_FAMILY, sockets.DUMP, request)
                answer = sockets.request(sock, asked)
            except KernelError as error:
                if error.errno == errno.ENOENT:
                    continue  # this kernel was built without diagnostics for the protocol
                raise
            found += [_decoded(protocol, message) for message in answer]
    return tuple(sorted(found, key=_by_port))


def holders(inodes: Iterable[int], *, likely: Iterable[int] = ()) -> dict[int, Holder]:
    """Return the process that holds each of ``inodes``, as far as it can be found.

    Processes whose ids are in ``likely`` are looked at first, the rest of the machine
    only while inodes are left without a holder. Another user's processes cannot be
    looked into without root.
    """
    wanted = set(inodes) - {0}  # the kernel's own sockets have no inode
    found: dict[int, Holder] = {}
    for pid in _pids(likely):
        if not wanted:
            break
        held = wanted & _held_by(pid)
        if held:
            holder = Holder(_name(pid), pid, _process_state(pid))
            found.update(dict.fromkeys(held, holder))
            wanted -= held
    return found


def listening_in(name: str) -> tuple[ListenerState, ...]:
    """Return the listening sockets of the namespace ``name``, with their processes.

    Raises LabError if it does not exist, HostError without root.
    """

    def read() -> tuple[OpenSocket, ...]:
        with sockets.open_reader(sockets.SOCK_DIAG) as sock:
            return open_sockets(sock)

    found = netns.run_inside(name, read)
    held = holders(one.inode for one in found)
    return tuple(listener(one, held.get(one.inode)) for one in found)


def listener(
    open_socket: OpenSocket, holder: Holder | None, own: Collection[int] | None = None
) -> ListenerState:
    """Combine a socket with its process. ``own`` are the lab's own processes, if known."""
    return ListenerState(
        protocol=open_socket.protocol,
        address=open_socket.address,
        port=open_socket.port,
        process=holder.process if holder else "",
        pid=holder.pid if holder else 0,
        queued=open_socket.queued,
        backlog=open_socket.backlog if open_socket.protocol is not Protocol.UDP else 0,
        state=holder.state if holder else "",
        foreign=holder is not None and own is not None and holder.pid not in own,
    )


def _asked() -> Iterator[tuple[Protocol, int]]:
    yield Protocol.TCP, _LISTEN
    yield Protocol.UDP, _UNCONNECTED
    if _SCTP_LOADED.exists():
        yield Protocol.SCTP, _LISTEN


def _decoded(protocol: Protocol, message: bytes) -> OpenSocket:
    offset = sockets.HEADER.size
    family, _, _, _, port, _, address, *_ = _ANSWER.unpack_from(message, offset)
    # Of a listening socket: connections that wait to be accepted, and how many may.
    _, queued, backlog, _, inode = _INODE.unpack_from(message, offset + _ANSWER.size)
    return OpenSocket(
        protocol=protocol,
        address=IPv6Address(address) if family == _AF_INET6 else IPv4Address(address[:4]),
        port=int.from_bytes(port, "big"),
        inode=inode,
        queued=queued,
        backlog=backlog,
    )


def _pids(likely: Iterable[int]) -> Iterator[int]:
    first = list(dict.fromkeys(likely))
    yield from first
    # Services are started late: the highest ids first finds them sooner.
    everyone = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    yield from sorted(everyone.difference(first), reverse=True)


def _held_by(pid: int) -> set[int]:
    """The inodes of the sockets that a process has open; none where it is gone or not ours."""
    found: set[int] = set()
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        for descriptor in descriptors:
            with contextlib.suppress(OSError):  # closed meanwhile
                target = os.readlink(descriptor.path)  # noqa: PTH115  (there may be thousands)
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except OSError:
        return ""


def _process_state(pid: int) -> str:
    """The letter of proc_pid_stat(5), which follows the name in parentheses."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].strip()[:1]


def _by_port(entry: OpenSocket) -> tuple[int, str, int, bytes]:
    return entry.port, str(entry.protocol), entry.address.version, entry.address.packed
