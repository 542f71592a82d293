"""Write keepalived.conf for a lab's directors: one file for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from lvsctl.formats import left_out
from lvsctl.formats.keepalived.checks import health_check
from lvsctl.formats.keepalived.keywords import CHECKSUMS
from lvsctl.model.addresses import host_route
from lvsctl.model.lab import HighAvailability, Lab, Node, Route
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    FwMark,
    RealServer,
    Scheduler,
    TunnelChecksum,
    VipPort,
)
from lvsctl.resources.base import Resource
from lvsctl.resources.ipvs_config import ConnectionTimeouts
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.static_route import StaticRoute

FIRST_ROUTER_ID = 51
"""The VRID of the first VRRP instance (keepalived.conf(5), virtual_router_id)."""

_METHODS = {
    ForwardingMethod.NAT: "NAT",
    ForwardingMethod.DR: "DR",
    ForwardingMethod.TUN: "TUN",
}
_FALLBACK = "flag-1"
_FLAGS = {_FALLBACK: "fallback", "flag-2": "port"}


def write(lab: Lab, resources: Iterable[Resource], *, routes: bool = True) -> dict[str, str]:
    """Return the text of each director's keepalived.conf by the file's name.

    ``resources`` are those of the lab's plan; ``routes``: with the topology's own of the director.
    """
    every = tuple(resources)
    several = len(lab.directors) > 1
    return {
        f"keepalived-{director.name}.conf" if several else "keepalived.conf": "\n".join(
            _lines(lab, director, every, routes=routes)
        )
        + "\n"
        for director in lab.directors
    }


def write_for(lab: Lab, director: Node, resources: Iterable[Resource]) -> str:
    """Return the configuration that a director runs in its lab: as exported, without checks.

    So that what is injected into a lab stays in the table, and is not removed by a check.
    """
    return "\n".join(_lines(lab, director, tuple(resources), checks=False)) + "\n"


def _lines(
    lab: Lab,
    director: Node,
    resources: tuple[Resource, ...],
    *,
    checks: bool = True,
    routes: bool = False,
) -> Iterator[str]:
    netns = lab.netns(director.name)
    mine = [one for one in resources if one.netns == netns]
    services = {service.match: service for service in lab.services}
    if checks:
        yield f"# {director.name} of lab {lab.name}, written by lvsctl export."
        yield "# Interfaces are named as in the lab: change them to those of your directors."
        if routes:
            lost = left_out.of_directors(lab, resources, vrrp=True)
            yield from ["# Not in it:"] * bool(lost)
            yield from (f"# - {one}" for one in lost)
    instances = [] if director.ecmp else list(_instances(lab, director))
    yield from _global(lab, director, mine, [name for name, _ in instances])
    if director.ecmp:
        yield ""
        yield from _static_vips(lab)
    if routes and director.routes:
        yield ""
        yield "static_routes {"
        yield from (f"    {_route(lab, director, one)}" for one in director.routes)
        yield "}"
    for _, lines in instances:
        yield ""
        yield from lines
    if len(instances) > 1 and director.ha is not None:
        yield ""
        yield "# They move together: replies must leave by the director that has the requests."
        yield "vrrp_sync_group ALL {"
        yield "    group {"
        yield from (f"        {name}" for name, _ in instances)
        yield "    }"
        yield "}"
    for one in mine:
        if isinstance(one, IpvsService):
            servers = [
                other.real_server
                for other in mine
                if isinstance(other, IpvsRealServer) and other.service == one.service
            ]
            yield ""
            service = services.get(one.service)
            name, sorry = (service.name, service.sorry) if service is not None else ("", None)
            yield from _service(one, name, servers, sorry, checks=checks, several=director.ecmp)


def _static_vips(lab: Lab) -> Iterator[str]:
    """Yield the VIPs that a director has together with the others (keepalived.conf(5))."""
    yield "# Every director has the VIPs at the same time: what announces them to routers is BGP."
    yield "static_ipaddress {"
    for vip in dict.fromkeys(vip for service in lab.services for vip in service.vips):
        network = lab.network_of(vip)
        if network is not None:
            lifetime = " preferred_lft 0" if lab.is_deprecated(vip) else ""
            yield f"    {host_route(vip)} dev {network.name}{lifetime}"
    yield "}"


def _route(lab: Lab, director: Node, one: Route) -> str:
    """A route of the topology's own, with the interface that its gateway is on."""
    network = lab.network_of(one.via)
    device = f" dev {network.name}" if network and network.name in director.networks else ""
    words = " ".join(StaticRoute.limits(one.mtu, one.mss))
    default = "default" if one.via.version == 4 else "::/0"
    return f"{one.to or default} via {one.via}{device} {words}".rstrip()


def _global(lab: Lab, director: Node, mine: list[Resource], instances: list[str]) -> Iterator[str]:
    yield "global_defs {"
    yield f"    router_id {director.name}"
    for one in mine:
        if isinstance(one, ConnectionTimeouts):
            times = one.timeouts
            yield f"    lvs_timeouts tcp {times.tcp} tcpfin {times.tcp_fin} udp {times.udp}"
    if director.ha is not None and director.ha.advert_int != round(director.ha.advert_int):
        yield "    # Fractions of a second (RFC 5798)."
        yield "    vrrp_version 3"
    synchronized = len(lab.directors) > 1 if director.ha is None else director.ha.sync
    if synchronized and instances:
        yield "    # Connections survive a failover if they are synchronized."
        yield f"    lvs_sync_daemon {director.networks[0]} {instances[0]}"
    yield "}"


def _instances(lab: Lab, director: Node) -> Iterator[tuple[str, list[str]]]:
    """Yield a VRRP instance for each network and IP version with a VIP: its name and lines.

    VRRP carries one IP version in an instance (RFC 5798, section 1).
    """
    vips: dict[tuple[str, int], list[str]] = {}
    asked = (vip for service in lab.services for vip in service.vips)
    for vip in dict.fromkeys((*asked, *lab.gateways)):
        network = lab.network_of(vip)
        if network is not None:
            # A lab's VIP is a host's address; elsewhere its length tells the network.
            length = next(subnet.prefixlen for subnet in network.subnets if vip in subnet)
            address = f"{vip}/{length}" if director.ha is None else str(host_route(vip))
            lifetime = " preferred_lft 0" if lab.is_deprecated(vip) else ""
            vips.setdefault((network.name, vip.version), []).append(f"{address}{lifetime}")
    position = lab.directors.index(director)
    ha = director.ha or HighAvailability(FIRST_ROUTER_ID, 150 - 50 * min(position, 2))
    for number, ((network_name, version), addresses) in enumerate(vips.items()):
        name = f"{network_name}-{version}".upper()
        yield name, list(_instance(lab, director, ha, number, name, addresses))


def _instance(
    lab: Lab, director: Node, ha: HighAvailability, number: int, name: str, addresses: list[str]
) -> Iterator[str]:
    network, version = name.lower().rsplit("-", 1)
    first = director is lab.directors[0]
    yield f"vrrp_instance {name} {{"
    yield f"    state {'MASTER' if first and ha.preempt else 'BACKUP'}"
    yield f"    interface {network}"
    yield f"    virtual_router_id {(ha.router_id + number - 1) % 255 + 1}"
    yield f"    priority {ha.priority}"
    yield f"    advert_int {ha.advert_int:g}"
    if not ha.preempt:
        yield "    nopreempt"
    if ha.password and version == "4":
        yield "    authentication {"
        yield "        auth_type PASS"
        yield f"        auth_pass {ha.password}"
        yield "    }"
    if ha.unicast:
        yield from _unicast(lab, director, network, int(version))
    yield "    virtual_ipaddress {"
    yield from (f"        {address}" for address in addresses)
    yield "    }"
    yield "}"


def _unicast(lab: Lab, director: Node, network: str, version: int) -> Iterator[str]:
    def own(node: Node) -> str:
        return next((str(a.ip) for a in node.addresses_on(network) if a.version == version), "")

    yield f"    unicast_src_ip {own(director)}"
    yield "    unicast_peer {"
    yield from (f"        {own(node)}" for node in lab.directors if node is not director)
    yield "    }"


def _service(
    one: IpvsService,
    name: str,
    servers: list[RealServer],
    sorry: RealServer | None,
    *,
    checks: bool,
    several: bool,
) -> Iterator[str]:
    match = one.service
    inhibit = several and _FALLBACK in one.flags
    if several and one.scheduler is Scheduler.MH and not inhibit:
        yield "# A check removes a real server and adds it again, as the last one. mh goes by their"
        yield "# order, too: for the same order on all directors add mh-fallback, and"
        yield "# inhibit_on_failure to each real server."
    if name:
        yield f"# {name}"
    yield from _heading(match)
    if checks:
        yield "    delay_loop 6"
    yield f"    lb_algo {one.scheduler}"
    for flag in one.flags:
        is_named = flag in _FLAGS and one.scheduler in (Scheduler.SH, Scheduler.MH)
        yield f"    {one.scheduler}-{_FLAGS[flag]}" if is_named else f"    {flag}"
    usual = servers[0] if servers else None
    if usual is not None:
        yield f"    lb_kind {_method(usual)}"
    yield from _persistence(one)
    if isinstance(match, VipPort):
        yield f"    protocol {match.protocol.upper()}"
    if sorry is not None:
        yield f"    sorry_server {sorry.rip} {sorry.port}"
        yield f"    sorry_server_lvs_method {_method(sorry)}"
    for server in servers:
        yield ""
        yield from _real_server(server, match, usual, checks=checks, inhibit=inhibit)
    yield "}"


def _heading(match: VipPort | FwMark) -> Iterator[str]:
    if isinstance(match, FwMark):
        for endpoint in match.endpoints:
            program = "ip6tables" if endpoint.version == 6 else "iptables"
            yield (
                f"# {program} -t mangle -A PREROUTING -d {endpoint.vip} -p {endpoint.protocol} "
                f"--dport {endpoint.port} -j MARK --set-mark {match.mark}"
            )
        yield f"virtual_server fwmark {match.mark} {{"
        yield f"    ip_family {'inet6' if match.version == 6 else 'inet'}"
    else:
        yield f"virtual_server {match.vip} {match.port} {{"


def _persistence(one: IpvsService) -> Iterator[str]:
    if one.persistence:
        yield f"    persistence_timeout {one.persistence}"
        if one.netmask:
            yield f"    persistence_granularity {_granularity(one.service.version, one.netmask)}"
        if one.engine:
            yield f"    persistence_engine {one.engine}"


def _real_server(
    server: RealServer,
    match: VipPort | FwMark,
    usual: RealServer | None,
    *,
    checks: bool,
    inhibit: bool,
) -> Iterator[str]:
    yield f"    # {server.node}" if server.node else "    # a real server"
    yield f"    real_server {server.rip} {server.port} {{"
    yield f"        weight {server.weight}"
    if usual is not None and _method(server) != _method(usual):
        yield f"        lvs_method {_method(server)}"
    if server.upper:
        yield f"        uthreshold {server.upper}"
    if server.lower:
        yield f"        lthreshold {server.lower}"
    if inhibit:
        yield "        inhibit_on_failure"
    check = health_check(server, match) if checks else None
    if check is not None:
        yield f"        {check.keyword} {{"
        if check.port != server.port:
            yield f"            connect_port {check.port}"
        yield "            connect_timeout 3"
        yield "            retry 3"
        yield "            delay_before_retry 3"
        yield "        }"
    yield "    }"


def _method(server: RealServer) -> str:
    words = [_METHODS[server.forward]]
    if server.forward is ForwardingMethod.TUN and server.encapsulation is not Encapsulation.IPIP:
        words += ["type", str(server.encapsulation)]
        if server.tunnel_port:
            words += ["port", str(server.tunnel_port)]
        if server.checksum is not TunnelChecksum.NONE:
            words.append(next(w for w, one in CHECKSUMS.items() if one is server.checksum))
    return " ".join(words)


def _granularity(version: int, bits: int) -> str:
    return str(bits) if version == 6 else str(ip_network(f"0.0.0.0/{bits}").netmask)
