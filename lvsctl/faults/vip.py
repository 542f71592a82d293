"""Where the VIP is configured, and how requests for it are routed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface, ip_network

from lvsctl.faults.base import (
    DIRECTOR_BYPASSED,
    DR,
    EVERY_MODE,
    NO_ANSWER,
    ONE_SERVER_SILENT,
    TUN,
    FaultContext,
    FaultTable,
)
from lvsctl.faults.change import Change, added, removed
from lvsctl.model.addresses import host_route
from lvsctl.model.lab import Role
from lvsctl.resources.address import Address
from lvsctl.resources.static_route import StaticRoute

FAULTS = FaultTable()


@FAULTS.add(
    "vip-missing",
    "a real server does not hold the VIP",
    modes=(DR, TUN),
    at=(Role.REAL_SERVER,),
    symptom="requests reach the real server and no reply leaves it",
    breaks=(
        "dr.same-vip",
        "tun.decapsulated-on-tunnel-device",
        "dr.reply-direct",
        "tun.reply-direct",
        *ONE_SERVER_SILENT,
    ),
)
def vip_missing(context: FaultContext) -> Iterator[Change]:
    """The VIP is missing on a real server, so it drops packets that are addressed to it.

    The director forwards requests still addressed to the VIP. A host without that address
    takes them for another host's.

    Changes: the VIP is removed from the device that holds it.
    """
    yield from map(removed, context.vips())


@FAULTS.add(
    "vip-missing-on-director",
    "the director does not hold the VIP",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="ARP requests for the VIP stay unanswered, and IPVS counts nothing",
    breaks=("dr.same-vip", "dr.only-director-answers-arp", *NO_ANSWER),
)
def vip_missing_on_director(context: FaultContext) -> Iterator[Change]:
    """The VIP is missing on the director: clients' requests never reach IPVS.

    Changes: the VIP is removed from the director.
    """
    yield from map(removed, context.vips())


@FAULTS.add(
    "vip-as-subnet",
    "a real server holds the VIP as a whole subnet instead of one address",
    modes=(DR,),
    at=(Role.REAL_SERVER,),
    symptom=(
        "requests reach the real server; its replies do not leave it, because the client's "
        "network is local there"
    ),
    breaks=("dr.reply-direct", *ONE_SERVER_SILENT),
)
def vip_as_subnet(context: FaultContext) -> Iterator[Change]:
    """The VIP is on a real server's loopback with the network's prefix length, not as /32.

    On a loopback device the kernel treats the whole subnet as local: replies to a client in
    that subnet never leave the real server. Clients elsewhere are not affected.

    Changes: the VIP gets the prefix length of its network.
    """
    for vip in context.vips(device="lo"):
        # In IPv6 the prefix of an address on lo is not local.
        for network, _, cip in context.neighbours(Role.CLIENT, 4):
            subnet = next(s for s in context.lab.network(network).subnets if cip in s)
            if vip.address.ip in subnet:
                wide = ip_interface(f"{vip.address.ip}/{subnet.prefixlen}")
                yield Change(vip, replace(vip, address=wide))


@FAULTS.add(
    "director-bypassed",
    "requests for the VIP bypass the director and reach a real server directly",
    modes=(DR, TUN),
    at=(Role.CLIENT, Role.ROUTER),
    symptom="every request is answered, by one real server, and IPVS counts nothing",
    breaks=DIRECTOR_BYPASSED,
)
def director_bypassed(context: FaultContext) -> Iterator[Change]:
    """Requests for the VIP are routed directly to a real server and bypass the director.

    It holds the VIP, so it answers; only the load shows that something is wrong.

    Changes: a route to each VIP through a real server, at the client or a router.
    """
    for service in context.services((DR, TUN)):
        nodes = {server.node for server in service.real_servers}
        for vip in service.vips:
            beside = context.neighbours(Role.REAL_SERVER, vip.version)
            near = [ip for _, node, ip in beside if node.name in nodes]
            if near:
                to, via = ip_network(vip), near[0]
                yield context.put(StaticRoute(netns=context.netns, to=to, via=via))


@FAULTS.add(
    "vip-elsewhere",
    "the client itself holds the VIP",
    modes=EVERY_MODE,
    at=(Role.CLIENT,),
    symptom="no request leaves the client, which refuses its own connections",
    breaks=NO_ANSWER,
    may_break=(
        *("dr.reply-direct", "tun.reply-direct", "nat.both-directions-load-director"),
        "dr.only-director-answers-arp",  # the client answers a router that is beside it
    ),
)
def vip_elsewhere(context: FaultContext) -> Iterator[Change]:
    """The client holds the VIP, as a real server that was used as a client does.

    Its requests are addressed to itself and do not leave it.

    Changes: each VIP on the loopback device.
    """
    vips = dict.fromkeys(vip for service in context.services(EVERY_MODE) for vip in service.vips)
    for vip in vips:
        yield added(Address(netns=context.netns, device="lo", address=host_route(vip)))
