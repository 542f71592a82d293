"""Links and switches: a port's settings, MTU, loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl import claims
from lvsctl.faults.base import (
    EVERY_MODE,
    NO_ANSWER,
    ONE_SERVER_SILENT,
    TUNNEL_COSTS,
    UNEVEN,
    FaultContext,
    FaultTable,
)
from lvsctl.faults.change import Change, added
from lvsctl.model.evidence import LARGE
from lvsctl.model.lab import Impairment, Role
from lvsctl.model.service import Protocol
from lvsctl.resources.link_setting import LinkSetting
from lvsctl.resources.netem import Netem
from lvsctl.resources.veth_link import VethLink

FAULTS = FaultTable()

FOUND_BY_COMPARISON = "differs-from-topology"
"""The cause of what no rule is about: a difference where packets were captured last."""

_LINKS = "all.links-as-described"

DAMAGE = tuple(
    dict.fromkeys(
        row.claim.id for table in claims.tables() for row in table if row.claim.id != _LINKS
    )
)
"""Any claim may fail: a bit of an address, a port or a flag is damaged, or none that counts."""

UNREACHED = (
    "dr.reply-direct",
    "tun.reply-direct",
    "tun.routed",
    "nat.both-directions-load-director",
    *ONE_SERVER_SILENT,
)
"""Claims that fail if no packet reaches one real server."""


def _set(device: str, name: str, before: str, after: str, *, netns: str, group: str) -> Change:
    setting = LinkSetting(
        netns=netns, device=device, name=name, value=before, group=group, usual=before
    )
    return Change(setting, replace(setting, value=after))


def _shorter(context: FaultContext, network: str, *, netns: str, device: str) -> Change:
    """A device's MTU is smaller than that of its link.

    Not by much: where less than 1280 is left, IPv6 and tunnels over it do not work at all.
    """
    mtu = context.lab.mtu_of(context.node, network)
    return _set(device, "mtu", str(mtu), str(mtu - 100), netns=netns, group="link")


def _ports(context: FaultContext) -> Iterator[VethLink]:
    """The node's links, which end at a port of a switch; the first network's first."""
    for op in context.plan.resources:
        if isinstance(op, VethLink) and op.node_netns == context.netns:
            yield op


@FAULTS.add(
    "link-impaired",
    "a real server's link loses every frame that it sends",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    symptom="requests and ARP requests reach the real server, and nothing that it sends arrives",
    breaks=UNREACHED,
)
def link_impaired(context: FaultContext) -> Iterator[Change]:
    """A real server's network card receives but does not send.

    The link is up, and the real server's counters of sent packets grow.

    Changes: a netem discipline that loses all frames; the topology's own impairment returns.
    """
    for network in context.node.networks:
        planned = context.lab.impairment_of(context.node, network)
        lossy = Netem(netns=context.netns, device=network, impairment=Impairment(loss=100.0))
        if planned:
            yield Change(replace(lossy, impairment=planned), lossy)
        else:
            yield added(lossy)


def _disturbed(context: FaultContext, *, slow: bool = False, **changes: float) -> Iterator[Change]:
    """The node's links are impaired as they are planned to be, and by ``changes`` (netem).

    Not where the topology asks for such frames itself: then those of the fault look the same.
    ``slow``: also where a link of the lab, but none of the node's own, has a rate.
    """
    lab, node = context.lab, context.node
    if any(one.disturbs or one.lost or (one.rate and not slow) for one in lab.impairments):
        return
    if any(lab.impairment_of(node, network).rate for network in node.networks):
        return
    for network in node.networks:
        planned = lab.impairment_of(node, network)
        wrong = replace(planned, **changes)  # type: ignore[arg-type]
        netem = Netem(netns=context.netns, device=network, impairment=wrong)
        yield Change(replace(netem, impairment=planned) if planned else None, netem)


def _asks_by(context: FaultContext, *protocols: Protocol) -> bool:
    return any(service.endpoint.protocol in protocols for service in context.lab.services)


@FAULTS.add(
    "frames-delayed",
    "a client's link delays what it sends, by varying times (jitter)",
    modes=EVERY_MODE,
    at=(Role.CLIENT,),
    cause="link-impaired",
    symptom="the client's kernel answers SYN+ACKs late, now more and now less",
    breaks=(_LINKS,),
    may_break=("all.nothing-sent-again",),
)
def frames_delayed(context: FaultContext) -> Iterator[Change]:
    """A client is far away, on a line with jitter, of which the topology says nothing.

    Changes: netem delays by 150 ms, and by up to 100 ms more or less.
    """
    if _asks_by(context, Protocol.TCP):
        yield from _disturbed(context, delay=150.0, jitter=100.0)


@FAULTS.add(
    "frames-reordered",
    "a client's link sends some frames ahead of others (reordering)",
    modes=EVERY_MODE,
    at=(Role.CLIENT,),
    cause="link-impaired",
    symptom="segments leave the client after ones that TCP sent later",
    breaks=(_LINKS,),
    may_break=("all.nothing-sent-again",),
)
def frames_reordered(context: FaultContext) -> Iterator[Change]:
    """A path with several lines of different length distributes single packets over them.

    Changes: netem delays most frames by 100 ms, and 30 % of them not at all.
    """
    if _asks_by(context, Protocol.TCP):
        yield from _disturbed(context, delay=100.0, reorder=30.0)


@FAULTS.add(
    "frames-duplicated",
    "a client's link sends every frame twice",
    modes=EVERY_MODE,
    at=(Role.CLIENT,),
    cause="link-impaired",
    symptom="every frame of the client is there twice, the same bytes at once",
    breaks=(_LINKS,),
    may_break=("all.nothing-sent-again", *UNEVEN, "all.real-servers-reached"),
)
def frames_duplicated(context: FaultContext) -> Iterator[Change]:
    """A loop or a broken bond of switches delivers frames twice.

    TCP and SCTP discard the second one; a UDP service answers both, and one-packet scheduling
    sends each to another real server.

    Changes: netem duplicates every frame.
    """
    if _asks_by(context, Protocol.UDP):
        yield from _disturbed(context, slow=True, duplicate=100.0)


@FAULTS.add(
    "frames-damaged",
    "a real server's link inverts a bit in every third frame",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    cause="link-impaired",
    symptom="packets leave the real server with wrong checksums, and receivers drop them",
    breaks=(_LINKS,),
    may_break=DAMAGE,
)
def frames_damaged(context: FaultContext) -> Iterator[Change]:
    """A damaged cable or optic: frames are received, but not as they were sent.

    What is damaged may be any field: an address, a port, or nothing that matters.

    Changes: netem corrupts 30 % of the frames.
    """
    if _asks_by(context, Protocol.TCP, Protocol.UDP):
        yield from _disturbed(context, corrupt=30.0)


@FAULTS.add(
    "arp-off",
    "a real server's interface does not use ARP",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    symptom="ARP requests for the RIP stay unanswered",
    breaks=UNREACHED,
)
def arp_off(context: FaultContext) -> Iterator[Change]:
    """ARP is switched off at a real server's interface, in place of arp_ignore and arp_announce.

    A well-known recipe for direct routing: then no node resolves the RIP either.

    Changes: NOARP on every interface.
    """
    for network in context.node.networks:
        yield _set(network, "arp", "on", "off", netns=context.netns, group="link")


@FAULTS.add(
    "mtu-mismatch",
    "the director's MTU is smaller than that of other nodes",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="full-sized frames are sent to the director and do not arrive there",
    breaks=("all.large-requests-answered", *TUNNEL_COSTS),
)
def mtu_mismatch(context: FaultContext) -> Iterator[Change]:
    """The director's interface takes shorter frames than its neighbours send.

    Neither end of a connection is the director, so its MTU is not announced (TCP's MSS).

    Changes: an MTU of 1400 (100 less than the network's) on the interface towards the clients.
    """
    device = context.node.networks[0]
    if context.large_requests and context.lab.mtu_of(context.node, device) <= LARGE:
        yield _shorter(context, device, netns=context.netns, device=device)


@FAULTS.add(
    "mtu-on-switch",
    "a switch does not carry packets as long as the nodes send",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    on_switch=True,
    symptom="full-sized frames leave a node and reach no other",
    breaks=("all.large-requests-answered", *TUNNEL_COSTS),
)
def mtu_on_switch(context: FaultContext) -> Iterator[Change]:
    """A switch's port to the director has a smaller MTU than the nodes.

    A switch does not fragment and reports nothing: small requests work, large ones hang.

    Changes: an MTU of 1400 (100 less than the network's) on the port.
    """
    port = next(_ports(context))
    if context.large_requests and context.lab.mtu_of(context.node, port.device) <= LARGE:
        yield _shorter(context, port.device, netns=port.netns, device=port.port)


@FAULTS.add(
    "port-isolated",
    "the switch isolates a real server's port from the director's",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    on_switch=True,
    cause=FOUND_BY_COMPARISON,
    symptom="what the director sends to the real server is not received there",
    breaks=UNREACHED,
)
def port_isolated(context: FaultContext) -> Iterator[Change]:
    """The switch's ports of the director and a real server are isolated (private VLAN).

    Isolated ports exchange no frames with each other, but do with all others (bridge(8)).

    Changes: both ports, where they are on one switch.
    """
    for network, director, _ in context.neighbours(Role.DIRECTOR):
        if director != context.lab.directors[0]:
            continue  # isolated ports of several directors would separate them from each other
        for one in (context, context.at(director.name)):
            for port in _ports(one):
                if port.netns == context.lab.netns(network):
                    yield _set(port.port, "isolated", "off", "on", netns=port.netns, group="port")


@FAULTS.add(
    "broadcast-not-flooded",
    "the switch does not flood broadcasts to a real server's port",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    on_switch=True,
    cause=FOUND_BY_COMPARISON,
    symptom="ARP requests for the RIP do not reach the real server",
    breaks=UNREACHED,
)
def broadcast_not_flooded(context: FaultContext) -> Iterator[Change]:
    """The switch does not send broadcasts to a real server: ARP requests among them.

    In IPv6 it does not send it multicasts, as a switch that snoops without a querier: neighbour
    solicitations among them.

    Changes: flooding of broadcasts (or multicasts) to the port is off.
    """
    floods = [{4: "bcast_flood", 6: "mcast_flood"}[version] for version in context.rip_versions]
    for port in _ports(context):
        for flood in floods:
            yield _set(port.port, flood, "on", "off", netns=port.netns, group="port")


@FAULTS.add(
    "wrong-vlan",
    "the switch separates VLANs, and its ports are in none",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    on_switch=True,
    cause=FOUND_BY_COMPARISON,
    symptom="no frame of any node reaches another",
    breaks=NO_ANSWER,
    may_break=(
        *("dr.only-director-answers-arp", "nat.both-directions-load-director"),
        "ha.one-master",
    ),
)
def wrong_vlan(context: FaultContext) -> Iterator[Change]:
    """VLAN filtering is on, and no port is in the VLAN of untagged frames.

    Changes: VLAN filtering of the bridge.
    """
    port = next(_ports(context))
    yield _set("bridge", "vlan_filtering", "0", "1", netns=port.netns, group="bridge")
