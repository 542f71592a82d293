"""Read the state of a lab's nodes inside their namespaces, and flush what they have learned.

One worker thread enters every namespace in turn; the caller's own thread stays where it is.
Nothing is executed. IPVS's connection table is in /proc only, not in netlink.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

from lvsctl.errors import LabError
from lvsctl.kernel import listeners, netns, sysctl, wide
from lvsctl.kernel.parts import read_services
from lvsctl.model.addresses import IPAddress
from lvsctl.model.service import Protocol
from lvsctl.model.state import (
    MAIN_TABLE,
    Connection,
    LinkState,
    NeighbourState,
    NodeState,
    RouteState,
)
from lvsctl.netlink import devconf, devices, fou, sockets
from lvsctl.netlink.links import dump_links, request_links
from lvsctl.netlink.neighbours import delete_neighbour, dump_neighbours
from lvsctl.netlink.routes import dump_routes

DEVICE = "<dev>"
"""In a sysctl's name: each device of the namespace, and ``all`` and ``default``."""

INSPECTED_SYSCTLS = (
    "net.ipv4.ip_forward",
    f"net.ipv4.conf.{DEVICE}.arp_ignore",
    f"net.ipv4.conf.{DEVICE}.arp_announce",
    f"net.ipv4.conf.{DEVICE}.rp_filter",
    f"net.ipv4.conf.{DEVICE}.accept_local",
    f"net.ipv4.conf.{DEVICE}.send_redirects",
    "net.ipv6.conf.all.forwarding",
)
"""What decides whether a mode works: who answers ARP for the VIP and with which address
the kernel asks, whether it forwards, and which packets it drops for where they come from
(Documentation/networking/ip-sysctl.rst)."""

INSPECTED_IPVS_SYSCTLS = (
    "net.ipv4.vs.conntrack",
    "net.ipv4.vs.expire_nodest_conn",
    "net.ipv4.vs.expire_quiescent_template",
    "net.ipv4.vs.pmtu_disc",
    "net.ipv4.vs.sloppy_tcp",
)
"""The same of a director's IPVS (Documentation/networking/ipvs-sysctl.rst)."""


class _Visit(NamedTuple):
    """The state of a namespace without its listeners' processes."""

    state: NodeState
    listening: tuple[listeners.OpenSocket, ...]


class Whole(NamedTuple):
    """What is needed to read everything that can change what happens to a packet.

    ``planned`` are the sysctls that the lab's plan sets, by namespace: these are no changes.
    Without ``settings`` they are not needed, and what changed is not read.
    """

    planned: Mapping[str, Mapping[str, str]]
    settings: bool = True


def node_state(
    name: str,
    *,
    sysctls: Iterable[str] = INSPECTED_SYSCTLS,
    director: bool = False,
    pids: Iterable[int] = (),
) -> NodeState:
    """Read the state of the namespace ``name``; see ``lab_state``."""
    directors = (name,) if director else ()
    return lab_state((name,), sysctls=sysctls, directors=directors, pids=pids)[name]


def lab_state(
    namespaces: Iterable[str],
    *,
    sysctls: Iterable[str] = INSPECTED_SYSCTLS,
    directors: Collection[str] = (),
    pids: Iterable[int] = (),
    whole: Whole | None = None,
) -> dict[str, NodeState]:
    """Read the states of ``namespaces``: by name, in the order given.

    ``sysctls`` are dotted names, ``<dev>`` standing for each device. IPVS is read in
    ``directors`` only. ``pids`` are the lab's own processes: sockets are looked for in them
    first, then in all of the machine's. Without ``whole``, what only a comparison with the
    topology needs is left out (``NodeState.whole``).

    Raises LabError where a namespace does not exist, HostError without root or, for a
    director, without IPVS.
    """
    wanted, own = tuple(sysctls), frozenset(pids)

    def visits() -> dict[str, _Visit]:
        found = {}
        for name in netns.each(namespaces):
            director = name in directors
            found[name] = _visit(name, wanted, director=director, whole=whole is not None)
        return found

    visited = netns.in_thread(visits)
    inodes = [entry.inode for visit in visited.values() for entry in visit.listening]
    held = listeners.holders(inodes, likely=own) if inodes else {}
    states = {
        name: replace(
            visit.state,
            listeners=tuple(
                listeners.listener(entry, held.get(entry.inode), own if whole else None)
                for entry in visit.listening
            ),
        )
        for name, visit in visited.items()
    }
    if whole is None:
        return states
    return wide.with_processes(
        wide.compared(states, whole.planned, directors)
        if whole.settings
        else {name: replace(state, changed_sysctls=None) for name, state in states.items()}
    )


def _visit(name: str, sysctls: Sequence[str], *, director: bool, whole: bool) -> _Visit:
    """Read the state of the calling thread's own namespace."""
    with sockets.open_reader() as sock:
        state, routes = _state(sock, name, sysctls, director=director, every=whole)
        with sockets.open_reader(sockets.SOCK_DIAG) as diagnostics:
            listening = listeners.open_sockets(diagnostics)
        if whole:
            state = wide.read(sock, state, routes, director=director)
    gue_ports = _gue_ports(state.links, listening)
    return _Visit(replace(state, gue_ports=gue_ports.ipv4, gue_ports6=gue_ports.ipv6), listening)


def _state(
    sock: socket.socket, name: str, sysctls: Sequence[str], *, director: bool, every: bool
) -> tuple[NodeState, tuple[RouteState, ...]]:
    """Read the state without what listens, and the routes; with ``every``, of all tables."""
    answer = request_links(sock)
    links = dump_links(sock, answer)
    names = {link.index: link.name for link in links}
    routes = dump_routes(sock, names, every=every)
    known = devconf.DeviceSettings()
    if sysctls:
        known.add_links(answer)
        known.dump_netconf(sock)
    if director:
        sysctls = (*sysctls, *(key for key in INSPECTED_IPVS_SYSCTLS if key not in sysctls))
    state = NodeState(
        netns=name,
        links=links,
        routes=tuple(one for one in routes if one.table == MAIN_TABLE),
        neighbours=dump_neighbours(sock, names),
        sysctls=settings(sysctls, links, known),
    )
    return with_ipvs_table(state) if director else state, routes


def with_ipvs_table(state: NodeState) -> NodeState:
    """Add IPVS's table and its connections, of the calling thread's namespace.

    Raises HostError without IPVS.
    """
    return replace(state, services=read_services(), connections=read_connections())


_BEHIND_GUE = frozenset({"ipip", "sit", "ip6tnl"})
"""Kinds of the devices that take what GUE is taken off from."""


def _gue_ports(
    links: Iterable[LinkState], listening: Iterable[listeners.OpenSocket]
) -> fou.GuePorts:
    """Ask for GUE's ports where there can be any: the question loads the module.

    A port is a UDP socket of the kernel's own, and leads to a device for IP in IP.
    """
    if not any(link.kind in _BEHIND_GUE for link in links):
        return fou.GuePorts()
    if not any(one.protocol is Protocol.UDP for one in listening):
        return fou.GuePorts()
    with sockets.open_reader(sockets.GENERIC) as sock:
        return fou.ports(sock)


def settings(
    keys: Iterable[str], links: Iterable[LinkState], known: devconf.DeviceSettings | None = None
) -> dict[str, str]:
    """Read sysctls of the calling thread's own namespace, named as for ``lab_state``.

    ``known`` are those that netlink has given already: their files are not read.
    """
    found = {}
    with contextlib.closing(_Files()) as files:
        for one in dict.fromkeys(_written_out(keys, links)):
            value = known.get(split) if known and (split := _split(one)) else None
            if value is None:
                with contextlib.suppress(OSError):
                    value = files.read(one)
            if value is not None:
                found[one] = value
    return found


_SAME = {"net.ipv4.ip_forward": devconf.Setting(devconf.IPV4, "all", "forwarding")}
"""Sysctls of a device with another name (net/ipv4/devinet.c, ctl_forward_entry)."""


@functools.lru_cache(maxsize=4096)
def _split(key: str) -> devconf.Setting | None:
    return _SAME.get(key) or devconf.split(key)


def _written_out(keys: Iterable[str], links: Iterable[LinkState]) -> Iterator[str]:
    """Yield the keys with ``<dev>`` written out.

    Ports of a bridge are left out: frames do not reach IP there.
    """
    # sysctl(8): a dot within a device's name is written as a slash.
    names = [link.name.replace(".", "/") for link in links if not link.master]
    for key in keys:
        if DEVICE not in key:
            yield key
            continue
        for device in ("all", "default", *names):
            yield key.replace(DEVICE, device)


class _Files:
    """Files of sysctls; those of IPv4's devices are looked up from their directory."""

    _CONF = f"{sysctl.ROOT}net/ipv4/conf/"

    def __init__(self) -> None:
        self._conf = -1

    def read(self, key: str) -> str:
        """Return the text of a sysctl's file without its newline. Raises OSError."""
        path = sysctl_file(key)
        if not path.startswith(self._CONF):
            return _read(path)
        if self._conf < 0:
            self._conf = os.open(self._CONF, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return _read(path[len(self._CONF) :], self._conf)

    def close(self) -> None:
        """Close the directory."""
        if self._conf >= 0:
            os.close(self._conf)


def sysctl_file(key: str) -> str:
    """Return the file of a sysctl: dots and slashes exchanged, as sysctl(8) does.

    Raises LabError for what cannot be a sysctl's name.
    """
    path = key.translate(_EXCHANGED)
    if path.startswith("/") or "/../" in f"/{path}/":
        raise LabError(f"{key!r} cannot be a sysctl's name")
    return "/proc/sys/" + path


def _read(path: str, directory: int | None = None) -> str:
    """Read a small file without its newline. pathlib takes twice as long, and there are many."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(fd, 4096).decode(errors="replace").strip()
    finally:
        os.close(fd)


_EXCHANGED = str.maketrans("./", "/.")


CONNECTION_TABLE = Path("/proc/thread-self/net/ip_vs_conn")
"""The table of the calling thread's namespace. (/proc/net is the thread-group leader's.)"""

_OF_MARK = "IP"
"""In place of the protocol, of a firewall mark's template."""

_PROTOCOLS = {str(protocol).upper(): protocol for protocol in Protocol}


def read_connections(in_state: str = "") -> tuple[Connection, ...]:
    """Read the connection table of the calling thread's namespace; empty without IPVS.

    With ``in_state`` only entries in that state: the others are not even parsed.
    """
    try:
        with CONNECTION_TABLE.open() as table:
            return parse_connections(line for line in table if in_state in line)
    except FileNotFoundError:
        return ()


def parse_connections(lines: Iterable[str]) -> tuple[Connection, ...]:
    """Parse a table as /proc prints it (ip_vs_conn.c, ip_vs_conn_seq_show).

    Persistence templates are entries too, with client port 0. Those of firewall marks have the
    protocol ``IP``, and the mark in place of the VIP (ip_vs_conn_fill_param_persist and
    ip_vs_sched_persist in ip_vs_core.c).
    """
    found = []
    for line in lines:
        words = line.split()
        if len(words) < 9 or words[0] not in (*_PROTOCOLS, _OF_MARK):
            continue
        vip = _parse_hex_address(words[3])
        mark = 0
        if words[0] == _OF_MARK:  # the first 32 bits of the address
            mark = int(vip) >> (vip.max_prefixlen - 32)
            vip = type(vip)(0)
        found.append(
            Connection(
                protocol=_PROTOCOLS.get(words[0]),
                client=_parse_hex_address(words[1]),
                client_port=int(words[2], 16),
                vip=vip,
                vport=int(words[4], 16),
                rip=_parse_hex_address(words[5]),
                rport=int(words[6], 16),
                state=words[7],
                expires=int(words[8]),
                mark=mark,
            )
        )
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def _parse_hex_address(word: str) -> IPAddress:
    """Parse eight hexadecimal digits, or an IPv6 address."""
    return IPv6Address(word) if ":" in word else IPv4Address(int(word, 16))


_KEPT = frozenset({"permanent", "noarp"})
"""States of entries that are configured, not learned."""


def flush_neighbours_and_routes(namespaces: Iterable[str]) -> None:
    """Flush the ARP and ND caches and the path MTUs that were learned in ``namespaces``.

    So that new evidence shows it all again. Raises LabError if one does not exist, HostError
    without root.
    """

    def everywhere() -> None:
        for _ in netns.each(namespaces):
            flush(*read_neighbours())

    netns.in_thread(everywhere)


def read_neighbours() -> tuple[dict[str, int], tuple[NeighbourState, ...]]:
    """Read the indexes of devices by name, and neighbours, in the calling thread's namespace."""
    with sockets.open_reader() as sock:
        names = {one.ifindex: one.name for one in devices.dump_names(sock)}
        neighbours = dump_neighbours(sock, names)
    return {name: index for index, name in names.items()}, neighbours


def flush(indexes: Mapping[str, int], neighbours: Iterable[NeighbourState]) -> None:
    """Flush what the calling thread's namespace has learnt: ``neighbours``, and path MTUs.

    ``indexes`` are those of its devices, by name.
    """
    learned = [
        delete_neighbour(entry.address, indexes[entry.device])
        for entry in neighbours
        if entry.state not in _KEPT and entry.device in indexes
    ]
    if learned:
        with sockets.open_socket() as sock:
            sockets.send_all(sock, learned)  # one that expired meanwhile is no error
    sysctl.write("net.ipv4.route.flush", "1")
    sysctl.write("net.ipv6.route.flush", "1", optional=True)
