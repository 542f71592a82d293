"""Rules about links that are up but impaired: ARP off, MTU, loss, delay, rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lvsctl.diagnosis.base import Case, Found, Rule, shown
from lvsctl.model.addresses import mac_for
from lvsctl.model.claim import Cause, Remark, Verdict
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Impairment, Network, Node, Role
from lvsctl.model.state import LinkState, NodeState, QdiscState
from lvsctl.resources.netem import Netem

LATE = 500.0
"""Milliseconds of delay above which requests fail."""


def _links(case: Case) -> Iterator[tuple[Node, Network, LinkState]]:
    """Every interface of the topology that is up and has a carrier."""
    for node in case.lab.nodes:
        for name in node.networks:
            link = case.network.interface(node.name, name)
            if link is not None and link.up and link.carrier:
                yield node, case.lab.network(name), link


def _whose(node: Node) -> str:
    return "a real server's" if node.role is Role.REAL_SERVER else f"the {node.role}'s"


def arp_spoken(case: Case) -> Iterator[Found]:
    """Every interface uses ARP (IFF_NOARP is not set)."""
    for node, network, link in _links(case):
        if not link.noarp:
            continue
        yield Cause(
            fault="arp-off",
            node=node.name,
            text=f"{_whose(node)} interface {link.name} does not use ARP",
            evidence=(
                f"{node.name}: {link.name} is NOARP",
                *shown(_arp_requests(case, node, network.name)),
            ),
            consequence=f"{node.name} and other nodes on {network.name} cannot resolve each other",
            remedy=case.type(node.name, "ip", "link", "set", link.name, "arp", "on"),
        )


def _arp_requests(case: Case, node: Node, network: str) -> Iterator[Frame]:
    own = {a.ip for a in node.addresses_on(network)} | {case.vip}
    for frame in case.trace.at(node.name):
        if frame.arp is not None and frame.arp.is_request and frame.arp.target_ip in own:
            yield frame


def independent(case: Case) -> Iterator[Found]:
    """No node's interface belongs to a bridge, a VRF or a bond."""
    for node, network, link in _links(case):
        if not link.master:
            continue
        master = case.state(node.name).link(link.master)
        kind = f" ({master.kind})" if master is not None and master.kind else ""
        yield Cause(
            fault="interface-enslaved",
            node=node.name,
            text=f"{_whose(node)} interface {link.name} belongs to {link.master}{kind}",
            evidence=(
                f"{node.name}: {link.name} has the master {link.master}{kind}",
                *shown(case.requests(node.name)),
            ),
            consequence=(
                f"what {network.name} delivers is handled by {link.master} and not by "
                f"{link.name}, which lost its routes"
            ),
            remedy=case.restore(node.name),
        )


def own_macs(case: Case) -> Iterator[Found]:
    """No two interfaces on a network have the same MAC address."""
    holders: dict[tuple[str, str], list[tuple[Node, LinkState]]] = {}
    for node, network, link in _links(case):
        holders.setdefault((network.name, link.mac), []).append((node, link))
    for (network_name, mac), found in holders.items():
        if len(found) < 2 or not mac:
            continue
        for node, link in found:
            addresses = node.addresses_on(network_name)
            own = mac_for(addresses[0].ip) if addresses else mac
            if own == mac:
                continue  # the other one has taken it
            others = ", ".join(other.name for other, _ in found if other != node)
            yield Cause(
                fault="duplicate-mac",
                node=node.name,
                text=f"{node.name} has the MAC address of {others} on {network_name}",
                evidence=(f"{node.name}: {link.name} has {mac}, as {others} does",),
                consequence=(
                    f"the switch sends frames for {mac} to the port that it learnt last, so "
                    f"{node.name} and {others} receive each other's packets"
                ),
                remedy=case.type(node.name, "ip", "link", "set", link.name, "address", own),
            )


def same_mtu(case: Case) -> Iterator[Found]:
    """All interfaces on a network have the same MTU, because a bridge does not fragment.

    One that the topology gives a smaller MTU is a cause where long frames are lost on its network.
    """
    found = tuple(_links(case))
    losing = {lost.network for lost in too_long(case)}
    for node, network, link in found:
        usual = max(other.mtu for _, beside, other in found if beside == network)
        if link.mtu >= usual:
            continue
        fact = f"{link.name} has an MTU of {link.mtu}, others on the network {usual}"
        large = case.trace.run.large
        asked = link.mtu >= case.lab.mtu_of(node, network.name)
        if large is None or large.answered or (asked and network.name not in losing):
            if not asked:
                yield Remark(node.name, fact)
            continue
        remedy = case.type(node.name, "ip", "link", "set", link.name, "mtu", usual)
        if asked:  # at its port of the switch, too
            port = case.type(network.name, "ip", "link", "set", node.name, "mtu", usual)
            remedy = f"{remedy} && {port}"
        yield Cause(
            fault="mtu-mismatch",
            node=node.name,
            text=f"{node.name} has a smaller MTU on {network.name} than other nodes",
            evidence=(f"{node.name}: {fact}", f"a large request was not answered: {large.error}"),
            consequence="small requests work, large ones hang",
            remedy=remedy,
        )


class TooLong(NamedTuple):
    """Frames that left ``sender`` on ``network`` and reached no other node, by their length.

    ``lost`` is the shortest of them and ``passed`` the longest that arrived, in bytes.
    """

    network: str
    sender: str
    lost: int
    passed: int
    frame: Frame


def too_long(case: Case) -> tuple[TooLong, ...]:
    """Networks on which the long frames of an unanswered large request are lost, short ones not."""
    larges = {e.local for e in case.trace.run.every_large if not e.answered}
    hanging = [c for c in case.conversations if c.client in larges]
    frames = [f for c in hanging for f in (*c.requests, *c.replies)]
    found = []
    for network in case.lab.networks:
        came = {
            f.raw.data
            for f in case.evidence.frames
            if f.tap.device == network.name and f.direction is not Direction.OUT
        }
        left = [f for f in frames if f.tap.device == network.name and f.direction is Direction.OUT]
        lost = sorted((f for f in left if f.raw.data not in came), key=lambda f: f.raw.length)
        passed = max((f.raw.length for f in left if f.raw.data in came), default=0)
        if lost and passed and lost[0].raw.length > passed:
            first = lost[0]
            found.append(TooLong(network.name, first.tap.node, first.raw.length, passed, first))
    return tuple(found)


_ETHERNET = 14
"""Bytes of an Ethernet header, which the MTU does not count."""


def _as_planned(case: Case, network: str, port: LinkState) -> bool:
    """Whether the topology gives a node's link, which ends at ``port``, that MTU."""
    node = next((one for one in case.lab.nodes if one.name == port.name), None)
    return node is not None and port.mtu >= case.lab.mtu_of(node, network)


def switch_carries(case: Case) -> Iterator[Found]:
    """A switch carries frames as long as the nodes on it send."""
    for lost in too_long(case):
        longest = lost.lost - _ETHERNET
        nodes = [
            f"{node.name}: {lost.network} has MTU {link.mtu}"
            for node in case.lab.nodes
            if (link := case.state(node.name).link(lost.network)) and link.mtu < longest
        ]
        switch = case.evidence.switches.get(lost.network)
        ports = [
            f"port {link.name} MTU {link.mtu}"
            for link in (switch.links if switch is not None else ())
            if link.master and link.mtu < longest and not _as_planned(case, lost.network, link)
        ]
        if nodes and not ports:
            continue  # named at the node
        where = f"switch {lost.network}: {', '.join(ports[:4])}" if ports else ""
        yield Cause(
            fault="mtu-on-switch",
            node=lost.network,
            text=(
                f"the switch of network {lost.network} does not carry packets of {longest} bytes: "
                "its MTU is smaller than that of the nodes on it"
            ),
            evidence=(
                *([where] if where else []),
                (
                    f"frames of {lost.passed} bytes arrive, one of {lost.lost} that "
                    f"{lost.sender} sent does not"
                ),
                *shown([lost.frame]),
            ),
            consequence=(
                "a switch does not fragment and reports nothing: small requests work, large ones "
                "hang"
            ),
            remedy=case.restore(lost.network),
        )


class _Sender(NamedTuple):
    """A device with what it does to the frames it sends: a node's interface or a switch's port."""

    place: str
    says: str
    device: str
    planned: Impairment
    actual: Impairment
    qdiscs: tuple[QdiscState, ...]


def _senders(case: Case) -> Iterator[_Sender]:
    for node, network, link in _links(case):
        qdiscs = _roots(case.state(node.name), link.name)
        says = f"{_whose(node)} interface {link.name}"
        planned = case.lab.impairment_of(node, network.name)
        yield _Sender(node.name, says, link.name, planned, link.impairment, qdiscs)
    for name, switch in case.evidence.switches.items():
        for port in switch.links:
            if port.master:
                says = f"the port of {port.name} on the switch of network {name}"
                qdiscs = _roots(switch, port.name)
                yield _Sender(name, says, port.name, Impairment(), port.impairment, qdiscs)


def _roots(state: NodeState, device: str) -> tuple[QdiscState, ...]:
    return tuple(q for q in state.qdiscs if (q.device, q.parent) == (device, "root"))


def as_described(case: Case) -> Iterator[Found]:
    """No link delays, repeats, damages or reorders what a client or real server sent."""
    seen = _seen(case)
    for sender in _senders(case):
        if sender.place in seen and (worse := _worse(sender)):
            yield _impaired(case, sender, worse)


def _seen(case: Case) -> set[str]:
    """The nodes that frames show to have an impaired link."""
    return {
        frame.tap.node
        for finding in case.findings
        if finding.claim.id == "all.links-as-described" and finding.verdict is Verdict.FAIL
        for frame in finding.frames
    }


def unimpaired(case: Case) -> Iterator[Found]:
    """No link has more loss or delay, or a lower rate, than the topology says."""
    seen = _seen(case)
    for sender in _senders(case):
        if sender.place in seen or not (worse := _worse(sender)):
            continue
        planned, actual = sender.planned, sender.actual
        harmful = actual.loss > planned.loss or actual.delay >= LATE or _limited(sender)
        if harmful or any(_otherwise_worse(sender)):
            yield _impaired(case, sender, worse)
        else:
            yield Remark(sender.place, f"{sender.says} {' and '.join(worse)}")
    if not case.answered and not case.by_state:
        for node, network, link in _links(case):
            planned = case.lab.impairment_of(node, network.name)
            if planned.lost and planned == link.impairment:
                yield _own_loss(case, node, network, planned)


def _worse(sender: _Sender) -> list[str]:
    """What a link does to frames that the topology does not say."""
    planned, actual = sender.planned, sender.actual
    worse = []
    if actual.loss > planned.loss:
        worse.append(f"loses {actual.loss:g} % of what it sends")
    if actual.delay > planned.delay:
        varies = f", {actual.jitter:g} more or less" if actual.jitter else ""
        worse.append(f"delays what it sends by {actual.delay:g} ms{varies}")
    for name, what in _DISTURBS.items():
        if (share := getattr(actual, name)) > getattr(planned, name):
            worse.append(f"sends {share:g} % of its frames {what}")
    if _limited(sender):
        worse.append(f"sends {actual.rate} bits a second at most")
    return [*worse, *_otherwise_worse(sender)]


_DISTURBS = {"reorder": "ahead of the others", "duplicate": "twice"}


def _limited(sender: _Sender) -> bool:
    planned, actual = sender.planned, sender.actual
    return bool(actual.rate) and (not planned.rate or actual.rate < planned.rate)


def _impaired(case: Case, sender: _Sender, worse: list[str]) -> Cause:
    kinds = ", ".join(q.kind for q in sender.qdiscs) or "netem"
    dropped = sum(q.drops for q in sender.qdiscs)
    others = tuple(_otherwise_worse(sender))
    return Cause(
        fault="link-impaired",
        node=sender.place,
        text=f"{sender.says} {' and '.join(worse)}",
        evidence=(
            f"{sender.place}: {kinds} on {sender.device}: {' and '.join(worse)}",
            *([f"{sender.place}: it has dropped {dropped} frames so far"] if dropped else []),
        ),
        consequence="frames are delayed, damaged, repeated or lost",
        remedy=" && ".join(
            case.type(sender.place, *words)
            for words in _restore_commands(sender.device, sender.planned, others)
        ),
    )


def _otherwise_worse(sender: _Sender) -> Iterator[str]:
    """What disciplines do that the topology does not ask for, in words."""
    for one in sender.qdiscs:
        for option in one.options:
            word, _, value = option.partition(" ")
            damaged = (one.kind, word) == ("netem", "corrupt")
            if damaged and float(value.rstrip("%")) > sender.planned.corrupt:
                yield f"corrupts {value.replace('%', ' %')} of what it sends"
            elif (one.kind, word) == ("netem", "loss"):
                yield "loses frames by a loss model"
            elif (one.kind, word) == ("tbf", "rate"):
                yield f"sends {value.removesuffix('bit')} bits a second at most"


def _own_loss(case: Case, node: Node, network: Network, planned: Impairment) -> Cause:
    """The topology itself asks for the loss with which requests failed."""
    loss = planned.lost
    own = planned != network.impairment
    key = f"nodes.{node.group}.links.{network.name}" if own else f"networks.{network.name}"
    links = f"the link of {node.name} to {network.name}" if own else f"every link of {network.name}"
    what = "loss" if planned.loss else "corrupt"
    return Cause(
        fault="link-impaired",
        node=node.name,
        text=f"the topology itself lets {links} lose {loss:g} % of its frames",
        evidence=(f"{node.name}: netem on {network.name} loses {loss:g} %, as the topology says",),
        consequence="some requests time out before a lost packet has been sent again",
        remedy=f"{case.restore(node.name)}  # after lowering {key}.{what} in the topology",
    )


def _restore_commands(
    device: str, planned: Impairment, others: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    """Commands that restore what is planned; tc keeps options that a command does not name."""
    if not planned or others:
        yield ("tc", "qdisc", "del", "dev", device, "root")
    if planned:
        (command,) = Netem(netns="", device=device, impairment=planned).commands()
        yield command.argv


RULES = (
    Rule(
        find=independent,
        by_state=False,
        harms_others=True,
        rules_out="no interface belongs to a bridge, a VRF or a bond",
    ),
    Rule(find=arp_spoken, rules_out="every interface uses ARP"),
    Rule(
        find=own_macs,
        by_state=False,
        latent=True,
        harms_others=True,  # frames for the address go to either
        rules_out="no two interfaces on a network have the same MAC address",
    ),
    Rule(
        find=same_mtu,
        by_state=False,
        harms_others=True,
        rules_out="all interfaces on a network have the same MTU",
    ),
    Rule(
        find=switch_carries,
        by_state=False,
        harms_others=True,
        rules_out="every switch carries packets as long as the nodes send",
    ),
    Rule(
        find=as_described,
        by_state=False,
        harms_others=True,
        rules_out="no link was seen to delay, repeat, damage or reorder what it carries",
    ),
    Rule(
        find=unimpaired,
        rules_out="no link loses or delays more than the topology says",
    ),
)
