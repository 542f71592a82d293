"""What of a lab an exported file does not contain, in words: nothing is lost in silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lvsctl.model.lab import USUAL_MTU, Lab, Node, Role
from lvsctl.resources.base import Resource
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_config import ConnectionTimeouts
from lvsctl.resources.marks import Marks
from lvsctl.resources.masquerade import Masquerade
from lvsctl.resources.mss_clamp import MssClamp
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel
from lvsctl.resources.user_command import UserCommand

_MOST = 4


def of_directors(lab: Lab, resources: Iterable[Resource], *, vrrp: bool) -> tuple[str, ...]:
    """Return what a file for directors lacks: keepalived.conf (``vrrp``), or ipvsadm's rules."""
    every = tuple(resources)
    found = list(_settings(lab, every, vrrp=vrrp))
    if not vrrp:
        found += _only_keepalived(lab, every)
    servers = [node for node in lab.having(Role.REAL_SERVER) if any(_own(lab, node, every))]
    if servers:
        found.append(
            f"what {_names(servers)} need (VIP, sysctls, tunnels): export --to ansible, or plan"
        )
    return (*found, *_of_lab(lab, every))


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
    return (*found, *_of_lab(lab, every))


def _own(lab: Lab, node: Node, every: tuple[Resource, ...]) -> Iterator[Resource]:
    """What a real server needs beyond its own addresses and routes."""
    for one in every:
        needed = isinstance(one, Tunnel | GuePort | MssClamp)
        if one.netns == lab.netns(node.name) and (
            needed or (isinstance(one, Sysctl) and not one.base)
        ):
            yield one


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
