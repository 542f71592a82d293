"""Parts of the states of namespaces: what was just applied, read back.

The whole state is ``kernel.state``'s.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from lvsctl.kernel import listeners, netns, sysctl
from lvsctl.model.service import IpvsTimeouts, Protocol
from lvsctl.model.state import NodeState, ServiceState
from lvsctl.netlink import fou, ipvs, ipvs_config, sockets
from lvsctl.netlink.links import dump_links
from lvsctl.netlink.routes import dump_routes


@dataclass(slots=True)
class Wanted:
    """What to read of a namespace, besides its links and their addresses."""

    sysctls: list[str] = field(default_factory=list)
    routes: bool = False
    gue_ports: bool = False
    ipvs: bool = False
    timeouts: bool = False
    listeners: set[Protocol] = field(default_factory=set)


def read_states(wanted: Mapping[str, Wanted]) -> dict[str, NodeState]:
    """Read parts of the states of namespaces, by name; listeners without their processes.

    Raises what ``state.lab_state`` raises.
    """

    def read_all() -> dict[str, NodeState]:
        with contextlib.closing(sysctl.Procfs()) as procfs:
            return {name: _read_state(name, part, procfs) for name, part in wanted.items()}

    return netns.in_thread(read_all)


def _read_state(name: str, wanted: Wanted, procfs: sysctl.Procfs) -> NodeState:
    with netns.enter(name):
        procfs.next_namespace()
        found = {key: sysctl.read(key, through=procfs) for key in wanted.sysctls}
        with sockets.open_reader() as sock:
            links = dump_links(sock)
            names = {link.index: link.name for link in links}
            routes = dump_routes(sock, names) if wanted.routes else ()
        listening: tuple[listeners.OpenSocket, ...] = ()
        if wanted.listeners:
            with sockets.open_reader(sockets.SOCK_DIAG) as sock:
                listening = listeners.open_sockets(sock, wanted.listeners)
        gue_ports = fou.GuePorts()
        if wanted.gue_ports:
            with sockets.open_socket(sockets.GENERIC) as sock:
                gue_ports = fou.ports(sock)
        return NodeState(
            netns=name,
            links=links,
            routes=routes,
            sysctls={key: value for key, value in found.items() if value is not None},
            services=read_services() if wanted.ipvs else (),
            ipvs_timeouts=_timeouts() if wanted.timeouts else None,
            listeners=tuple(listeners.listener(one, None) for one in listening),
            gue_ports=gue_ports.ipv4,
            gue_ports6=gue_ports.ipv6,
        )


def read_services() -> tuple[ServiceState, ...]:
    """Read IPVS's table in the calling thread's namespace. Raises HostError without IPVS."""
    with sockets.open_reader(sockets.GENERIC) as sock:
        return ipvs.services(sock)


def _timeouts() -> IpvsTimeouts:
    with sockets.open_reader(sockets.GENERIC) as sock:
        return ipvs_config.timeouts(sock)
