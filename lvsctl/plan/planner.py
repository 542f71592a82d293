"""Lab → Plan: pure and deterministic.

What every lab needs stands here; what a forwarding method needs stands in its own
file in ``modes``. Three facts of the kernel shape the plan:

- A new namespace copies its IPv4 settings from the host's, so every setting that a
  lab rests on is written, and written before the interfaces that inherit it exist.
- A veth pair whose ends have equal ifindexes takes a second to come up, one with
  different ifindexes a few milliseconds; so every ifindex is given.
- Kernels with net.core.fb_tunnels_only_for_init_net=0 put up to ten fallback devices
  into each new namespace, so ours count from well above them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product

from lvsctl.formats.keepalived import writer as keepalived
from lvsctl.model.addresses import Endpoint, IPAddress, mac_for
from lvsctl.model.lab import USUAL_MTU, HighAvailability, Lab, Network, Node, Role
from lvsctl.model.packet_filter import Clamp
from lvsctl.model.service import ForwardingMethod, Protocol, RealServer, Scheduler, VipPort
from lvsctl.modes import MODES, placed_services, violations
from lvsctl.modes.base import marks_of, vips_on_director
from lvsctl.plan.routing import gateway_directors, multipath_routes, routes_of
from lvsctl.plan.stages import Plan, Stage, unique
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.bridge import Bridge
from lvsctl.resources.ipvs_config import ConnectionTimeouts
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.keepalived import Keepalived
from lvsctl.resources.link_setting import LinkSetting
from lvsctl.resources.link_up import LinkUp
from lvsctl.resources.mss_clamp import MssClamp
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.netem import Netem
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import RouteHop, StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink
from lvsctl.topology.loading import parse_topology
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology

BRIDGE = "bridge"
"""The name of the bridge in the namespace of a network's switch."""

_COPIED = ("rp_filter", "arp_ignore", "arp_announce", "arp_filter", "proxy_arp", "accept_local")
"""Settings that claims depend on and that a new namespace copies from the host."""

HASHING = (Scheduler.SH, Scheduler.DH, Scheduler.MH)
"""Schedulers that fill a table with the real servers, in the order in which they were added."""

BRIDGE_INDEX = 20
DEVICE_INDEX = 50
"""ifindex of a node's first interface."""
PORT_INDEX = 2000
"""ifindex of a switch's first port: above any node's interfaces, so that ends always differ."""


def load_lab(
    topology: Topology,
    overrides: Overrides = Overrides(),  # noqa: B008 (frozen)
) -> Lab:
    """Return the lab that a topology describes, checked by its forwarding methods' rules.

    Raises TopologyError with every mistake in it.
    """
    return parse_topology(
        topology.text,
        topology.source,
        overrides=overrides,
        rules=violations,
        directory=topology.directory,
    )


def plan_for(lab: Lab) -> Plan:
    """Plan everything that ``up`` does for ``lab``, in order."""
    ready = replace(lab, services=tuple(service.prepared for service in lab.services))
    needs = unique(_needs(ready))
    settings = _settings(lab, needs)
    early = {key: op for key, op in settings.items() if _host_wide(op.name)}
    late = [op for key, op in settings.items() if key not in early]
    devices = [op for op in needs if not isinstance(op, Sysctl)]
    return Plan(
        lab.name,
        tuple(
            stage
            for stage in (
                Stage("namespaces", (*_switches(lab), *_hosts(lab, early.values()))),
                Stage("links", tuple(_links(lab))),
                Stage("addresses and routes", tuple(_addresses_and_routes(ready))),
                Stage("real servers", unique(_tunnels_first(devices, late))),
                Stage("virtual services", unique(_virtual_services(lab))),
                Stage("servers", unique(_servers(lab, ready))),
            )
            if stage.resources
        ),
    )


def _switches(lab: Lab) -> Iterator[Resource]:
    for network in lab.networks:
        netns = lab.netns(network.name)
        yield Namespace(netns=netns, why=f"the bridge of network {network.name}")
        yield from _without_ipv6(netns)
        yield Bridge(
            netns=netns, device=BRIDGE, index=BRIDGE_INDEX, why="one L2 segment for its members"
        )


def _hosts(lab: Lab, settings: Iterable[Sysctl]) -> Iterator[Resource]:
    by_netns: dict[str, list[Sysctl]] = {}
    for op in settings:
        by_netns.setdefault(op.netns, []).append(op)
    for node in lab.nodes:
        netns = lab.netns(node.name)
        what = node.name if node.name == node.role else f"{node.role} {node.name}"
        yield Namespace(netns=netns, why=what)
        yield from by_netns.get(netns, ())


def _links(lab: Lab) -> Iterator[Resource]:
    ports = dict.fromkeys((network.name for network in lab.networks), PORT_INDEX)
    for node in lab.nodes:
        for position, interface in enumerate(node.interfaces):
            netns = lab.netns(interface.network)
            yield VethLink(
                netns=netns,
                port=node.name,
                port_index=ports[interface.network],
                bridge=BRIDGE,
                bridge_index=BRIDGE_INDEX,
                node_netns=lab.netns(node.name),
                device=interface.network,
                device_index=DEVICE_INDEX + position,
                mac=mac_for(interface.addresses[0].ip),
                why=f"{node.name} is on network {interface.network}",
            )
            ports[interface.network] += 1
    for network in lab.networks:
        yield from _switch_mtu(lab, network)


def _switch_mtu(lab: Lab, network: Network) -> Iterator[Resource]:
    """The MTU of a network's ports and bridge: a bridge drops what is larger than its port's."""
    members = [node for node in lab.nodes if network.name in node.networks]
    for node in members:
        yield from _mtu(lab, node, network, lab.netns(network.name), node.name)
    # A bridge has the smallest MTU of its ports unless it is set (br_mtu_auto_adjust).
    own = any(lab.mtu_of(node, network.name) != network.mtu for node in members)
    if own or network.mtu != USUAL_MTU:
        yield LinkSetting(
            netns=lab.netns(network.name),
            device=BRIDGE,
            name="mtu",
            value=str(network.mtu),
            usual=str(USUAL_MTU),
            why=_carries(network),
        )


def _carries(network: Network) -> str:
    return f"network {network.name} carries packets of {network.mtu} bytes"


def _mtu(lab: Lab, node: Node, network: Network, netns: str, device: str) -> Iterator[Resource]:
    """The MTU of one end of a node's link, if it is not a new one's."""
    mtu = lab.mtu_of(node, network.name)
    if mtu == USUAL_MTU:
        return
    own = f"{node.name}'s link to {network.name} carries packets of {mtu} bytes"
    yield LinkSetting(
        netns=netns,
        device=device,
        name="mtu",
        value=str(mtu),
        usual=str(USUAL_MTU),
        why=_carries(network) if mtu == network.mtu else own,
    )


def _addresses_and_routes(lab: Lab) -> Iterator[Resource]:
    """Addresses, routes and impairments, node by node.

    Offloads go off at the nodes' ends alone: a switch sends nothing of its own, so what its
    ports pass on is as the nodes made it, and a veth merges nothing that it receives
    (veth_disable_gro in drivers/net/veth.c).
    """
    wire = "frames as a wire carries them: checksums filled in, nothing merged"
    gateways = gateway_directors(lab)
    for node in lab.nodes:
        netns = lab.netns(node.name)
        yield LinkUp(netns=netns, device="lo", why="IPVS and local addresses need it")
        for interface in node.interfaces:
            yield OffloadsOff(netns=netns, device=interface.network, why=wire)
            network = lab.network(interface.network)
            yield from _mtu(lab, node, network, netns, network.name)
            impairment = lab.impairment_of(node, network.name)
            if impairment:
                yield Netem(
                    netns=netns,
                    device=interface.network,
                    impairment=impairment,
                    why=f"network {interface.network}: frames that {node.name} sends are impaired",
                )
            for address in interface.addresses:
                yield Address(
                    netns=netns,
                    device=interface.network,
                    address=address,
                    why=f"its own address on {interface.network}",
                )
        yield from _clamps(lab, node)
        director = gateways.get(node.name)
        own = set(node.routes)
        for route in routes_of(lab, node, gateways):
            why = "the route to the other networks"
            if route in own:
                why = "configured in the topology"
            elif director is not None and route.to is None:
                why = f"replies must return through {director.name}"
            elif route.more:
                why = "every director has the VIP: each flow is sent to one of them"
            yield StaticRoute(
                netns=netns,
                to=route.to,
                via=None if route.more else route.via,
                next_hops=tuple(map(RouteHop, route.gateways)) if route.more else (),
                details=StaticRoute.limits(route.mtu, route.mss),
                why=why,
            )


def _clamps(lab: Lab, node: Node) -> Iterator[Resource]:
    """The limit of TCP's segment size, in each IP version of the node's networks."""
    if node.mss_clamp is None:
        return
    subnets = (subnet for name in node.networks for subnet in lab.network(name).subnets)
    for version in dict.fromkeys(subnet.version for subnet in subnets):
        yield MssClamp(
            netns=lab.netns(node.name),
            clamp=Clamp(version, node.mss_clamp),
            why="both ends of a TCP connection send no larger segments than are announced to them",
        )


def _needs(lab: Lab) -> Iterator[Resource]:
    """What the forwarding methods need, the directors' part without the VIP."""
    for placed in placed_services(lab):
        for method in placed.service.methods:
            yield from MODES[method].director_needs(placed)
        for server in placed.service.remote:
            yield from MODES[server.forward].real_server_needs(placed, server)
    yield from _neighbours_of_directors(lab)
    yield from _several_directors(lab)


SLOPPY = "net.ipv4.vs.sloppy_{}"
"""The setting with which IPVS schedules packets in the middle of a connection, by protocol.

It is the same one for IPv4 and IPv6 (ipvs-sysctl.rst, sloppy_tcp and sloppy_sctp).
"""

HASH_POLICY = "net.ipv{}.fib_multipath_hash_policy"
"""The setting that says what a flow is: 0, its addresses; 1, its ports too (ip-sysctl.rst)."""


def _several_directors(lab: Lab) -> Iterator[Sysctl]:
    """What it takes that every director handles requests (``ha: ecmp``), beside the routes."""
    if not lab.ecmp:
        return
    protocols = dict.fromkeys(service.endpoint.protocol for service in lab.services)
    for director in lab.directors:
        for protocol in protocols:
            if protocol.has_connections:
                yield Sysctl(
                    netns=lab.netns(director.name),
                    name=SLOPPY.format(protocol),
                    value="1",
                    why="routers may send it a connection that another director has handled so far",
                )
    for client in lab.having(Role.CLIENT):
        yield Sysctl(
            netns=lab.netns(client.name),
            name="net.core.txrehash",
            value="0",
            optional=True,  # since Linux 5.18
            why="in one kernel a router sees the sender's own number of a flow, which would change "
            "whenever TCP sends again: no wire carries it (fib_multipath_hash, sk_rethink_txhash)",
        )
    for node in lab.nodes:
        for version in dict.fromkeys(one.via.version for one in multipath_routes(lab, node)):
            yield Sysctl(
                netns=lab.netns(node.name),
                name=HASH_POLICY.format(version),
                value="1",
                why="connections of one client are spread over the directors, by their ports",
            )


ANNOUNCEMENTS_DROPPED = {4: "drop_gratuitous_arp", 6: "drop_unsolicited_na"}
"""The setting of an interface with which it learns nothing from announcements (ip-sysctl.rst)."""


def _neighbours_of_directors(lab: Lab) -> Iterator[Sysctl]:
    """Where several directors share an address: its neighbours learn of a new master.

    Gratuitous ARP is dropped where the setting of the interface or of all is on, an unsolicited
    advertisement by the interface's alone (arp_process, ndisc_recv_na).
    """
    for address in lab.floating:
        network = lab.network_of(address)
        for node in lab.nodes:
            if network is None or network.name not in node.networks or node in lab.directors:
                continue
            setting = ANNOUNCEMENTS_DROPPED[address.version]
            for device in ("all", network.name)[address.version == 6 :]:
                yield Sysctl(
                    netns=lab.netns(node.name),
                    name=f"net.ipv{address.version}.conf.{device}.{setting}",
                    value="0",
                    why=f"it learns from announcements which director has {address}",
                )


def _settings(lab: Lab, needs: Iterable[Resource]) -> dict[tuple[str, str], Sysctl]:
    """Each sysctl once: a base for every node, what the modes need, the topology's own."""
    chosen: dict[tuple[str, str], Sysctl] = {}
    for node in lab.nodes:
        for op in _base(lab, node):
            chosen[op.netns, op.name] = replace(op, base=True)
    for need in needs:
        if isinstance(need, Sysctl):
            chosen[need.netns, need.name] = need
    for node in lab.directors:
        if node.ha is not None and node.ha.sync:
            setting = _sync_threshold(lab.netns(node.name), node.ha)
            chosen[setting.netns, setting.name] = setting
    for node in lab.nodes:
        netns = lab.netns(node.name)
        for key, value in node.sysctls:
            chosen[netns, key] = Sysctl(
                netns=netns, name=key, value=value, why="configured in the topology"
            )
    return chosen


def _sync_threshold(netns: str, ha: HighAvailability) -> Sysctl:
    first, period = ha.sync_threshold
    return Sysctl(
        netns=netns,
        name="net.ipv4.vs.sync_threshold",
        value=f"{first}\t{period}",
        why=f"a connection is sent to the backup after {first} packets, and every {period} again",
    )


def _base(lab: Lab, node: Node) -> Iterator[Sysctl]:
    netns = lab.netns(node.name)
    forwards = node.role is Role.ROUTER
    # First: writing ip_forward sets other settings back to their defaults (ip-sysctl.rst).
    yield Sysctl(
        netns=netns,
        name="net.ipv4.ip_forward",
        value="1" if forwards else "0",
        why="a router forwards" if forwards else "a host does not forward",
    )
    copied = "a new namespace copies this from the host: decided here"
    for scope in ("all", "default"):
        for setting in _COPIED:
            key = f"net.ipv4.conf.{scope}.{setting}"
            yield Sysctl(netns=netns, name=key, value="0", why=copied)
    if lab.ipv6:
        if forwards:
            yield Sysctl(
                netns=netns,
                name="net.ipv6.conf.all.forwarding",
                value="1",
                why="a router forwards",
            )
        for scope in ("all", "default"):
            yield Sysctl(
                netns=netns,
                name=f"net.ipv6.conf.{scope}.accept_dad",
                value="0",
                why="addresses are usable immediately",
            )
    else:
        yield from _without_ipv6(netns)


def _without_ipv6(netns: str) -> Iterator[Sysctl]:
    yield Sysctl(
        netns=netns,
        # For devices that are created later; `all` would include lo, which sends nothing, and
        # takes the kernel's RTNL lock with a busy retry (addrconf_disable_ipv6).
        name="net.ipv6.conf.default.disable_ipv6",
        value="1",
        optional=True,
        why="no IPv6 on this network, so no IPv6 background traffic",
    )


@functools.lru_cache(1024)  # each node has the same ones
def _host_wide(key: str) -> bool:
    """Whether the setting exists before the node's interfaces."""
    words = key.split(".")
    return not (words[:1] == ["net"] and words[2:3] in (["conf"], ["neigh"])) or words[3] in (
        "all",
        "default",
        "lo",
    )


def _tunnels_first(devices: Iterable[Resource], settings: Iterable[Resource]) -> Iterator[Resource]:
    """Devices, then their settings, then the VIPs, so that ARP is suppressed from the start."""
    kept = list(devices)
    yield from (op for op in kept if not isinstance(op, Address))
    yield from settings
    yield from (op for op in kept if isinstance(op, Address))


def _virtual_services(lab: Lab) -> Iterator[Resource]:
    for director in lab.directors:
        yield from marks_of(lab, director)
        if director.timeouts is not None:
            yield ConnectionTimeouts(
                netns=lab.netns(director.name),
                timeouts=director.timeouts,
                why="configured in the topology",
            )
    for placed in placed_services(lab):
        netns, service = lab.netns(placed.director.name), placed.service
        if placed.director.ha is None:
            yield from vips_on_director(placed)
        by_keepalived = placed.director.runs_keepalived or placed.director.ha is not None
        by = ", which keepalived sets up" if by_keepalived else ""
        yield IpvsService.of(service, netns, f"virtual service {service.name}{by}")
        ordered = lab.ecmp and service.scheduler in HASHING
        added: list[Endpoint] = []
        for server in service.real_servers:
            before = tuple(added) if ordered else ()
            added.append(Endpoint(server.rip, server.port))
            yield IpvsRealServer(
                netns=netns,
                service=service.match,
                real_server=server,
                after=before,
                why=f"{server.node}, itself: delivered to its own process"
                if server.local
                else f"{server.node}, by {server.forward}",
            )


def _servers(lab: Lab, ready: Lab) -> Iterator[Resource]:
    """What runs on the nodes; in ``ready`` sorry servers are real servers, which answer too."""
    running = {node.name for node in lab.nodes if node.run and not node.runs_keepalived}
    for node in lab.nodes:
        if node.run:
            yield UserCommand(
                netns=lab.netns(node.name),
                node=node.name,
                argv=node.run,
                why="the topology's command",
            )
    yield from _keepalived(lab)
    for service in ready.services:
        for server, endpoint in product(service.real_servers, service.endpoints):
            if server.node not in running:
                yield ResponderPort(
                    netns=lab.netns(server.node),
                    node=server.node,
                    protocol=endpoint.protocol,
                    port=server.answers_at(endpoint),
                    addresses=_bound(ready, server, endpoint),
                    why=f"{server.node} answers for {service.name}",
                )


def _keepalived(lab: Lab) -> Iterator[Keepalived]:
    """keepalived at each of several directors: which of them is master, VRRP decides."""
    if not lab.floating:
        return
    table = unique(_virtual_services(lab))
    names = ", ".join(map(str, lab.floating))
    for director in lab.directors:
        if director.ha is not None:
            yield Keepalived(
                netns=lab.netns(director.name),
                node=director.name,
                text=keepalived.write_for(lab, director, table),
                floating=lab.floating,
                sync=director.ha.sync,
                directory=f"/run/lvsctl/{lab.name}",
                why=f"one director at a time holds {names}: the master, by VRRP",
            )


def _bound(lab: Lab, server: RealServer, asked: VipPort) -> tuple[IPAddress, ...]:
    """The addresses that a real server's SCTP socket is bound to: where requests are sent."""
    if asked.protocol is not Protocol.SCTP:
        return ()
    port = server.answers_at(asked)
    return tuple(
        dict.fromkeys(
            one.rip if one.forward is ForwardingMethod.NAT else endpoint.vip
            for service in lab.services
            for one in service.real_servers
            for endpoint in service.endpoints
            if one.node == server.node
            and endpoint.protocol is asked.protocol
            and one.answers_at(endpoint) == port
        )
    )
