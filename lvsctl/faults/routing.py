"""Routes, gateways, forwarding and reverse path filters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface, ip_network

from lvsctl.faults.base import (
    DR,
    EVERY_MODE,
    NAT,
    NO_ANSWER,
    ONE_SERVER_SILENT,
    TUN,
    UNANSWERED,
    UNEVEN,
    FaultContext,
    FaultTable,
    unused_address,
)
from lvsctl.faults.change import Change, added, removed
from lvsctl.model.addresses import IPInterface, mac_for
from lvsctl.model.lab import Network, Role
from lvsctl.resources.address import Address
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.resources.policy_rule import PolicyRule
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.veth_link import VethLink

FAULTS = FaultTable()


@FAULTS.add(
    "behind-router",
    "a real server is behind a router",
    modes=(DR,),
    at=(Role.DIRECTOR,),
    symptom="requests go back and forth between the director and the router until their TTL ends",
    breaks=("dr.request-only-macs-change", "dr.one-segment", "dr.reply-direct", *ONE_SERVER_SILENT),
    # An IPv6 router redirects the sender, and a client on another network believes it.
    may_break=("all.large-requests-answered", "all.nothing-sent-again"),
)
def behind_router(context: FaultContext) -> Iterator[Change]:
    """The director reaches a real server through a router; direct routing needs one segment.

    Direct routing changes only the MAC address: the router finds the VIP as destination and
    forwards the packet back to the director.

    Changes: a route to the first real server of each service through a router on its network.
    """
    for server in context.first_entries((DR,)):
        rip = server.real_server.rip
        for network, _, address in context.neighbours(Role.ROUTER, rip.version):
            if context.lab.network_of(rip) == context.lab.network(network):
                yield added(StaticRoute(netns=context.netns, to=ip_network(rip), via=address))


def reaches_client(context: FaultContext) -> tuple[str, ...]:
    """Claims that fail only if a router forwards the replies; another real server drops them."""
    if not any(context.neighbours(Role.ROUTER)):
        return ()
    return "nat.client-never-sees-rip", "nat.both-directions-load-director"


@FAULTS.add(
    "wrong-gateway",
    "a real server's default gateway is not the director",
    modes=(NAT,),
    at=(Role.REAL_SERVER,),
    symptom="replies leave the real server for another gateway, with the RIP as source",
    breaks=("nat.reply-crosses-director", *ONE_SERVER_SILENT),
    breaks_where=reaches_client,
)
def wrong_gateway(context: FaultContext) -> Iterator[Change]:
    """A real server's default gateway is not the director, so its replies are not rewritten.

    NAT needs both directions. Another gateway forwards the reply with the RIP as source, and
    the client resets it, because it has no such connection.

    Changes: the default route goes through a router, or else through another real server.
    """
    for route in context.planned(StaticRoute):
        others = (
            *context.neighbours(Role.ROUTER, route.ip_version),
            *context.neighbours(Role.REAL_SERVER, route.ip_version),
        )
        if route.to is None and others:
            yield Change(route, replace(route, via=others[0][2]))


@FAULTS.add(
    "gateway-is-director",
    "a real server's route to the client leads through the director",
    modes=(DR, TUN),
    at=(Role.REAL_SERVER,),
    symptom="replies from the VIP arrive at the director, which drops them",
    breaks=("dr.reply-direct", "tun.reply-direct", *ONE_SERVER_SILENT),
)
def gateway_is_director(context: FaultContext) -> Iterator[Change]:
    """A real server sends its replies to the director instead of directly to the client.

    The director does not forward, so it drops them (IpInAddrErrors). With ip_forward=1 it drops
    them as martians (in_martian_src), because their source, the VIP, is its own address.

    Changes: the default gateway; for a client on the same network, a route to that client.
    """
    for network, _, dip in context.neighbours(Role.DIRECTOR):
        for route in context.planned(StaticRoute):
            if route.to is None and route.ip_version == dip.version:
                yield Change(route, replace(route, via=dip))
        for beside, _, cip in context.neighbours(Role.CLIENT, dip.version):
            if beside == network:
                yield added(StaticRoute(netns=context.netns, to=ip_network(cip), via=dip))


@FAULTS.add(
    "no-default-gateway",
    "a real server has no default gateway",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    symptom="requests reach the real server and no reply leaves it",
    breaks=("dr.reply-direct", "tun.reply-direct", *ONE_SERVER_SILENT),
    may_break=("nat.both-directions-load-director",),  # where it is NAT's only real server
)
def no_default_gateway(context: FaultContext) -> Iterator[Change]:
    """A real server has no route to clients on other networks.

    Changes: all routes of the real server to other networks are removed.
    """
    snat = all(service.snat for service in context.services(EVERY_MODE))
    if not (snat or context.far(context.lab.having(Role.CLIENT))):
        return  # every client is beside it
    yield from map(removed, context.planned(StaticRoute))


@FAULTS.add(
    "ip-forward-off",
    "the director does not forward",
    modes=(NAT,),
    at=(Role.DIRECTOR,),
    symptom=(
        "requests reach the real servers; their replies enter the director but do not leave it"
    ),
    breaks=("nat.reply-crosses-director", "nat.both-directions-load-director", *NO_ANSWER),
)
def ip_forward_off(context: FaultContext) -> Iterator[Change]:
    """The director does not forward, so it drops the replies.

    IPVS itself sends the requests, but replies are ordinary packets that the director must
    route. Only NAT needs forwarding: in TUN and DR no reply crosses the director.

    Changes: forwarding is off, the kernel's default.
    """
    yield from _not_forwarding(context)


@FAULTS.add(
    "redirects-sent",
    "the director sends ICMP redirects to the real servers",
    modes=(NAT,),
    at=(Role.DIRECTOR,),
    symptom=(
        "a redirect to each real server after its first replies, and later replies that "
        "bypass the director"
    ),
    breaks=("nat.reply-crosses-director",),
    # It works at first, then breaks: when a real server accepts the redirect is a race.
    may_break=(
        "nat.client-never-sees-rip",
        "nat.both-directions-load-director",
        "all.frames-agree",
        *ONE_SERVER_SILENT,
    ),
)
def redirects_sent(context: FaultContext) -> Iterator[Change]:
    """A one-armed director tells the real servers about a shorter path to the client.

    Replies enter and leave by the same interface, so the kernel sends ICMP redirects. A real
    server that accepts them sends later replies directly, bypassing the director.

    Changes: redirects are on, the kernel's default (`all` or the interface's own is enough).
    """
    if 4 in context.versions:
        setting = context.setting("net.ipv4.conf.all.send_redirects")
        yield Change(setting, replace(setting, value="1"))


@FAULTS.add(
    "client-on-real-server-network",
    "the client is on the real servers' network",
    modes=(NAT,),
    at=(Role.CLIENT,),
    symptom="replies go directly from the real server to the client, with the RIP as source",
    breaks=(
        "nat.reply-crosses-director",
        "nat.client-never-sees-rip",
        "nat.both-directions-load-director",
        *NO_ANSWER,
    ),
)
def client_on_real_server_network(context: FaultContext) -> Iterator[Change]:
    """The client is on the real servers' network, so their replies bypass the director.

    The replies have the RIP as source, and the client resets them. A topology with such a
    client is rejected, so the fault attaches the client to that network.

    Changes: a link to that network, an address there, and a route to the VIP through it.
    """
    director = context.at(context.lab.directors[0].name)
    if all(service.snat for service in context.services((NAT,))):
        return  # replies go to the director wherever the client is
    for name, _, _ in director.neighbours(Role.REAL_SERVER):
        if name in context.node.networks:
            continue
        network = context.lab.network(name)
        addresses = {
            version: unused_address(context.lab, network, version) for version in context.versions
        }
        first, *_ = addresses.values()
        yield added(_link(context, network, mac_for(first.ip)))
        yield added(OffloadsOff(netns=context.netns, device=name))
        for address in addresses.values():
            yield added(Address(netns=context.netns, device=name, address=address))
        dips = {a.version: a.ip for a in director.node.addresses_on(name)}
        # Of several directors whichever is master has it.
        moving = (one for one in context.lab.gateways if context.lab.network_of(one) == network)
        dips.update({one.version: one for one in moving})
        for service in context.services((NAT,)):
            for vip in service.vips:
                if vip not in addresses[vip.version].network:
                    via = dips[vip.version]
                    yield added(StaticRoute(netns=context.netns, to=ip_network(vip), via=via))
        return


def _link(context: FaultContext, network: Network, mac: str) -> VethLink:
    """A link like the existing ones, with unused indexes."""
    links = [op for op in context.plan.resources if isinstance(op, VethLink)]
    there = [op for op in links if op.netns == context.lab.netns(network.name)]
    here = [op for op in links if op.node_netns == context.netns]
    return replace(
        there[-1],
        port=context.node.name,
        port_index=max(op.port_index for op in there) + 1,
        node_netns=context.netns,
        device=network.name,
        device_index=max(op.device_index for op in here) + 1,
        mac=mac,
    )


@FAULTS.add(
    "rp-filter-on-router",
    "a router drops replies by their source (reverse path filtering)",
    modes=(TUN,),
    at=(Role.ROUTER,),
    symptom="replies leave the real servers and enter the router, which drops them",
    breaks=("tun.reply-direct", *NO_ANSWER),
)
def rp_filter_on_router(context: FaultContext) -> Iterator[Change]:
    """A router drops replies whose source does not match the interface (BCP 38).

    A real server on another network than the director replies from the VIP, an address of
    the director's network. A router with strict reverse path filtering drops that as spoofed.

    Changes: strict filtering is on for every interface of the router.
    """
    servers = [context.lab.node(server.node) for server in context.servers((TUN,))]
    if not context.joins(servers, context.lab.having(Role.CLIENT)):
        return
    if 4 in context.versions:  # IPv6 has no reverse path filter
        setting = context.setting("net.ipv4.conf.all.rp_filter")
        yield Change(setting, replace(setting, value="1"))


@FAULTS.add(
    "no-route-to-real-server",
    "the director has no route to the real servers",
    modes=(TUN,),
    at=(Role.DIRECTOR,),
    symptom="requests enter the director but do not leave it",
    breaks=("tun.reply-direct", *NO_ANSWER),
)
def no_route_to_real_server(context: FaultContext) -> Iterator[Change]:
    """The director has no route to the real servers' networks.

    Changes: all routes of the director to other networks are removed.
    """
    yield from map(removed, context.planned(StaticRoute))


@FAULTS.add(
    "router-not-forwarding",
    "the router does not forward",
    modes=EVERY_MODE,
    at=(Role.ROUTER,),
    symptom="requests enter the router but do not leave it",
    breaks=NO_ANSWER,
)
def router_not_forwarding(context: FaultContext) -> Iterator[Change]:
    """The router between client and lab does not forward.

    Changes: forwarding is off, the kernel's default.
    """
    if context.joins(context.lab.having(Role.CLIENT), context.lab.directors):
        yield from _not_forwarding(context)


FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
"""The setting that makes a host a router, by IP version."""


def _not_forwarding(context: FaultContext) -> Iterator[Change]:
    """Forwarding off for the IP versions of the VIPs."""
    for version in context.versions:
        setting = context.setting(FORWARDING[version])
        yield Change(setting, replace(setting, value="0"))


def _served_clients(context: FaultContext) -> Iterator[IPInterface]:
    """The addresses of the lab's clients from which they send to the VIPs."""
    if all(service.snat for service in context.services(EVERY_MODE)):
        return  # they go to the director's own address
    for client in context.lab.having(Role.CLIENT):
        for interface in client.interfaces:
            for address in interface.addresses:
                if address.version in context.versions:
                    yield address


@FAULTS.add(
    "reply-blackholed",
    "a route of a real server discards its replies",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    cause="packets-refused",
    symptom="requests reach the real server and no reply leaves it",
    breaks=ONE_SERVER_SILENT,
    may_break=(*UNANSWERED, "nat.both-directions-load-director"),
)
def reply_blackholed(context: FaultContext) -> Iterator[Change]:
    """A real server has a blackhole route to the client, as tools against attacks add them.

    Changes: a route of the type blackhole to each client.
    """
    for client in _served_clients(context):
        yield added(
            StaticRoute(netns=context.netns, to=ip_network(client.ip), via=None, type="blackhole")
        )


@FAULTS.add(
    "reply-prohibited",
    "a rule of policy routing at a real server refuses its replies",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    cause="packets-refused",
    symptom="requests reach the real server and no reply leaves it",
    breaks=ONE_SERVER_SILENT,
    may_break=(*UNANSWERED, "nat.both-directions-load-director"),
)
def reply_prohibited(context: FaultContext) -> Iterator[Change]:
    """A rule of policy routing refuses what a real server sends to the clients.

    Changes: a rule before that of the main table, for each client.
    """
    for number, client in enumerate(_served_clients(context)):
        text = f"from all to {client.ip} prohibit"
        yield added(
            PolicyRule(
                netns=context.netns, preference=100 + number, text=text, version=client.version
            )
        )


def _served_beside(context: FaultContext) -> tuple[str, ...]:
    """A director that is a real server takes nothing from the TTL of what it delivers to itself."""
    local = any(service.local for service in context.services(EVERY_MODE))
    return UNEVEN if local and not context.far(context.lab.directors) else ()


@FAULTS.add(
    "ttl-expired",
    "the client sends packets with a TTL of 1",
    modes=EVERY_MODE,
    at=(Role.CLIENT,),
    symptom="requests reach the first node that forwards, which answers ICMP time exceeded",
    breaks=NO_ANSWER,
    may_break=("dr.reply-direct", "tun.reply-direct", "nat.both-directions-load-director"),
    breaks_where=_served_beside,
)
def ttl_expired(context: FaultContext) -> Iterator[Change]:
    """The client's packets expire at the first router, or at the director.

    IPVS takes 1 from the TTL too, in every forwarding method (net/netfilter/ipvs/ip_vs_xmit.c,
    decrement_ttl).

    Changes: net.ipv4.ip_default_ttl, and in IPv6 the hop_limit of each interface; both are 64.
    """
    names = ["net.ipv4.ip_default_ttl"] if 4 in context.versions else []
    if 6 in context.versions:
        names += [f"net.ipv6.conf.{network}.hop_limit" for network in context.node.networks]
    for name in names:
        setting = Sysctl(netns=context.netns, name=name, value="64")
        yield Change(setting, replace(setting, value="1"))


@FAULTS.add(
    "no-route",
    "the client has no route to the VIP",
    modes=EVERY_MODE,
    at=(Role.CLIENT,),
    symptom="no request leaves the client",
    breaks=NO_ANSWER,
    may_break=("dr.reply-direct", "tun.reply-direct", "nat.both-directions-load-director"),
)
def no_route(context: FaultContext) -> Iterator[Change]:
    """The client has no route to other networks.

    Changes: all routes of the client to other networks are removed.
    """
    if context.far(context.lab.directors):
        yield from map(removed, context.planned(StaticRoute))


@FAULTS.add(
    "wrong-prefix-length",
    "a real server has the wrong netmask",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    symptom="requests reach the real server and no reply leaves it",
    breaks=ONE_SERVER_SILENT,
    may_break=(*UNANSWERED, "nat.both-directions-load-director", "tun.routed"),
)
def wrong_prefix_length(context: FaultContext) -> Iterator[Change]:
    """A real server has its address as a host address, so that it has no neighbours.

    The kernel removes the routes through its gateway, which it cannot reach any more.

    Changes: the prefix length of every address but the VIP's, and with it the routes.
    """
    networks = set(context.node.networks)
    yield from map(removed, context.planned(StaticRoute))
    for op in context.planned(Address):
        whole = op.address.network.prefixlen == op.address.max_prefixlen
        if op.device in networks and op.address.version in context.versions and not whole:
            yield Change(op, replace(op, address=ip_interface(op.address.ip)))
