"""A snapshot of what the kernel holds for the nodes of a lab, taken from inside their namespaces.

One worker thread visits every namespace in turn; the caller's own thread stays where
it is. Nothing is executed and, but for IPVS, nothing heavy imported.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lvsctl.errors import LabError
from lvsctl.kernel import connections, fou, listeners, netns, nldump, rtnl_dump, wire
from lvsctl.model.service import Protocol
from lvsctl.model.state import NodeState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from lvsctl.model.state import LinkState, ServiceState

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


@dataclass(frozen=True, slots=True)
class _Visit:
    """What a namespace told, its listeners' holders not known yet."""

    state: NodeState
    sockets: tuple[listeners.OpenSocket, ...]


def node_state(
    name: str,
    *,
    sysctls: Iterable[str] = INSPECTED_SYSCTLS,
    ipvs: bool = False,
    pids: Iterable[int] = (),
) -> NodeState:
    """The state of the namespace ``name``; see ``lab_state``."""
    directors = (name,) if ipvs else ()
    return lab_state((name,), sysctls=sysctls, directors=directors, pids=pids)[name]


def lab_state(
    namespaces: Iterable[str],
    *,
    sysctls: Iterable[str] = INSPECTED_SYSCTLS,
    directors: Collection[str] = (),
    pids: Iterable[int] = (),
) -> dict[str, NodeState]:
    """The states of ``namespaces`` by name, in the order given.

    ``sysctls`` are dotted names, ``<dev>`` standing for each device. IPVS is asked in
    ``directors`` only. ``pids`` are the lab's own processes: listeners are looked for
    among them first, which spares going through all of the machine's.

    Raises LabError where a namespace is gone, HostError without root or, for a
    director, without IPVS.
    """
    wanted = tuple(sysctls)

    def visits() -> dict[str, _Visit]:
        found = {}
        for name in namespaces:
            with netns.enter(name):
                found[name] = _visit(name, wanted, ipvs=name in directors)
        return found

    visited = netns.in_thread(visits)
    inodes = [entry.inode for visit in visited.values() for entry in visit.sockets]
    held = listeners.holders(inodes, likely=pids) if inodes else {}
    return {
        name: replace(
            visit.state,
            listeners=tuple(
                listeners.listener(entry, held.get(entry.inode)) for entry in visit.sockets
            ),
        )
        for name, visit in visited.items()
    }


def _visit(name: str, sysctls: Sequence[str], *, ipvs: bool) -> _Visit:
    """The state of the calling thread's own namespace."""
    with wire.open_socket(wire.ROUTE) as sock:
        links = rtnl_dump.links(sock)
        names = {link.index: link.name for link in links}
        routes = rtnl_dump.routes(sock, names)
        neighbours = rtnl_dump.neighbours(sock, names)
    with wire.open_socket(nldump.SOCK_DIAG) as sock:
        sockets = listeners.open_sockets(sock)
    if ipvs:
        sysctls = (*sysctls, *(key for key in INSPECTED_IPVS_SYSCTLS if key not in sysctls))
    state = NodeState(
        netns=name,
        links=links,
        routes=routes,
        neighbours=neighbours,
        sysctls=settings(sysctls, links),
        services=_services() if ipvs else (),
        connections=connections.connections() if ipvs else (),
        gue_ports=_gue_ports(links, sockets),
    )
    return _Visit(state, sockets)


def _gue_ports(
    links: Iterable[LinkState], sockets: Iterable[listeners.OpenSocket]
) -> tuple[int, ...]:
    """Asked only where it can be of any use: asking loads the module.

    A port is a UDP socket of the kernel's own, and leads to an ipip device.
    """
    if not any(link.kind == "ipip" for link in links):
        return ()
    if not any(one.protocol is Protocol.UDP for one in sockets):
        return ()
    with wire.open_socket(wire.GENERIC) as sock:
        return fou.ports(sock)


def _services() -> tuple[ServiceState, ...]:
    from lvsctl.kernel import ipvs  # imports some of pyroute2: for directors only

    with wire.open_socket(wire.GENERIC) as sock:
        return ipvs.services(sock)


def settings(keys: Iterable[str], links: Iterable[LinkState]) -> dict[str, str]:
    """Sysctls of the calling thread's own namespace, as ``lab_state`` takes them."""
    return dict(_sysctls(keys, links))


def _sysctls(keys: Iterable[str], links: Iterable[LinkState]) -> Iterator[tuple[str, str]]:
    """Each key that can be read, with its value; ``<dev>`` written out.

    Ports of a bridge are left out: frames do not reach IP there.
    """
    devices = ["all", "default", *(link.name for link in links if not link.master)]
    for key in keys:
        for device in devices if DEVICE in key else [""]:
            # sysctl(8): a dot within a device's name is written as a slash.
            one = key.replace(DEVICE, device.replace(".", "/"))
            with contextlib.suppress(OSError):
                yield one, _read(sysctl_file(one))


def sysctl_file(key: str) -> str:
    """The file of a sysctl: dots and slashes exchanged, as sysctl(8) does.

    Raises LabError for what cannot be a sysctl's name.
    """
    path = key.translate(_EXCHANGED)
    if path.startswith("/") or "/../" in f"/{path}/":
        raise LabError(f"{key!r} cannot be a sysctl's name")
    return "/proc/sys/" + path


def _read(path: str) -> str:
    """A small file's text without the newline. Half the time that pathlib takes: of use here."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096).decode(errors="replace").strip()
    finally:
        os.close(fd)


_EXCHANGED = str.maketrans("./", "/.")
