"""What of a lab an exported file does not contain, in words: nothing is lost in silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lvsctl.formats.keepalived.checks import health_check
from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import USUAL_MTU, Lab, Node, Role
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_config import ConnectionTimeouts
from lvsctl.resources.marks import Marks
from lvsctl.resources.masquerade import Masquerade
from lvsctl.resources.mss_clamp import MssClamp
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel
from lvsctl.resources.user_command import UserCommand

_MOST = 4


def of_directors(lab: Lab, resources: Iterable[Resource], *, vrrp: bool) -> tuple[str, ...]:
    """Return what a file for directors lacks: keepalived.conf (``vrrp``), or ipvsadm's rules."""
    every = tuple(resources)
    found = list(_settings(lab, every, vrrp=vrrp))
    found += _unchecked(lab) if vrrp else _only_keepalived(lab, every)
    own = {node: list(_own(lab, node, every)) for node in lab.having(Role.REAL_SERVER)}
    servers = [node for node, needed in own.items() if needed]
    if servers:
        kinds = ", ".join(dict.fromkeys(kind for needed in own.values() for kind in needed))
        found.append(f"what {_names(servers)} need ({kinds}): export --to ansible, or plan")
    return (*found, *_routes(lab, every), *_of_lab(lab, every))


def of_hosts(lab: Lab, resources: Iterable[Resource]) -> tuple[str, ...]:
    """Return what playbooks for directors and real servers lack."""
    every = tuple(resources)
    found = []
    routers = [n for n in lab.having(Role.ROUTER) if n.mss_clamp is not None or n.sysctls]
    if routers:
        found.append(f"mss_clamp and sysctls of {_names(routers)}: no playbook is for routers")
    routed = [n for n in (*lab.directors, *lab.having(Role.REAL_SERVER)) if n.routes]
    if routed:
        found.append(f"routes of {_names(routed)}, with their mtu and mss: a host's are its own")
    return (*found, *_unchecked(lab), *_routes(lab, every), *_of_lab(lab, every))


def director_gateways(lab: Lab, node: Node, resources: Iterable[Resource]) -> tuple[IPAddress, ...]:
    """Return the default gateways of a real server that are directors: what NAT needs."""
    own = (address for director in lab.directors for address in director.addresses)
    directors = {*own, *lab.gateways}
    netns = lab.netns(node.name)
    return tuple(
        one.via
        for one in resources
        if isinstance(one, StaticRoute)
        and one.netns == netns
        and one.to is None
        and one.via in directors
    )


def _own(lab: Lab, node: Node, every: tuple[Resource, ...]) -> Iterator[str]:
    """What a real server needs beyond its own addresses and routes, in words."""
    mine = [one for one in every if one.netns == lab.netns(node.name)]
    vips = {vip for service in lab.services for vip in service.vips}
    if any(isinstance(one, Address) and one.address.ip in vips for one in mine):
        yield "VIP"
    if any(isinstance(one, Sysctl) and not one.base for one in mine):
        yield "sysctls"
    if any(isinstance(one, Tunnel | GuePort) for one in mine):
        yield "tunnels"
    if any(isinstance(one, MssClamp) for one in mine):
        yield "mss_clamp"


def _settings(lab: Lab, every: tuple[Resource, ...], *, vrrp: bool) -> Iterator[str]:
    mine = {lab.netns(director.name) for director in lab.directors}
    own = [one for one in every if one.netns in mine]
    chosen = [one for one in own if isinstance(one, Sysctl) and not one.base]
    sysctls = [f"{one.name}={' '.join(one.value.split())}" for one in chosen]
    if sysctls:
        yield f"sysctls of the director: {_some(sysctls)}"
    marks = [m for one in own if isinstance(one, Marks) for m in one.markings]
    for number in dict.fromkeys(m.mark for m in marks):
        to = [f"{m.vip} {m.protocol} {m.ports or 'any port'}" for m in marks if m.mark == number]
        yield f"what gives packets the firewall mark {number}: {_some(to)}"
    masqueraded = [one.text for one in own if isinstance(one, Masquerade)]
    if masqueraded:
        yield f"masquerading (snat) of what is sent to {_some(masqueraded, '; ')}"
    clamps = [one.text for one in own if isinstance(one, MssClamp)]
    if clamps:
        yield f"the director's limit of TCP's segment size (mss_clamp): {_some(clamps)}"
    routes = [node for node in lab.directors if node.routes]
    if routes and not vrrp:
        yield f"routes of {_names(routes)}"


def _unchecked(lab: Lab) -> Iterator[str]:
    names = [
        service.name
        for service in lab.services
        if any(health_check(server, service.match) is None for server in service.real_servers)
    ]
    if names:
        yield f"health checks for {_some(names)}: keepalived has them for TCP and UDP ports"


def _routes(lab: Lab, every: tuple[Resource, ...]) -> Iterator[str]:
    """Routes to directors, which are of other hosts."""
    through: dict[IPAddress, list[Node]] = {}
    for node in lab.having(Role.REAL_SERVER):
        for gateway in director_gateways(lab, node, every):
            through.setdefault(gateway, []).append(node)
    for gateway, nodes in through.items():
        yield f"the default route of {_names(nodes)}, which is the director: via {gateway}"
    for one in every:
        if isinstance(one, StaticRoute) and one.next_hops:
            hops = [str(hop.via) for hop in one.next_hops if hop.via is not None]
            yield f"the route to {one.to} with the next hops {_some(hops)}: the router's"


def _only_keepalived(lab: Lab, every: tuple[Resource, ...]) -> Iterator[str]:
    """What ipvsadm's rules cannot say, and keepalived.conf can."""
    for service in lab.services:
        if service.sorry is not None:
            yield (
                f"sorry_server {service.sorry.rip} of {service.name}: only keepalived puts it into "
                "the table"
            )
    if any(node.ha for node in lab.directors):
        yield "ha (VRRP, and the synchronization of connections): export --to keepalived"
    times = next((one.timeouts for one in every if isinstance(one, ConnectionTimeouts)), None)
    if times is not None:
        yield f"timeouts: ipvsadm --set {times.tcp} {times.tcp_fin} {times.udp}"


def _of_lab(lab: Lab, every: tuple[Resource, ...]) -> Iterator[str]:
    """What is the lab's only: links that are impaired, commands of the user's."""
    if any(lab.impairments):
        yield "delay, loss and rate of links: they are the lab's"
    sizes = [f"{n.name} {n.mtu}" for n in lab.networks if n.mtu != USUAL_MTU]
    if sizes:
        yield f"MTUs of networks: {_some(sizes)}"
    runs = [one.node for one in every if isinstance(one, UserCommand)]
    if runs:
        yield f"run: of {_some(list(dict.fromkeys(runs)))}"


def _some(texts: list[str], between: str = ", ") -> str:
    found = list(dict.fromkeys(texts))
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return between.join(found[:_MOST]) + more


def _names(nodes: list[Node]) -> str:
    return _some([node.name for node in nodes])
