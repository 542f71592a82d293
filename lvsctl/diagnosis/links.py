"""Rules about links that are up but impaired: ARP off, MTU, loss, delay, rate."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.diagnosis.base import Case, Found, Rule, shown
from lvsctl.model.claim import Cause, Remark
from lvsctl.model.frame import Frame
from lvsctl.model.lab import Impairment, Network, Node, Role
from lvsctl.model.state import LinkState
from lvsctl.resources.netem import Netem

LATE = 500.0
"""Milliseconds of delay above which requests fail."""


def _links(case: Case) -> Iterator[tuple[Node, Network, LinkState]]:
    """Every interface of the topology that is up and has a carrier."""
    for node in case.lab.nodes:
        for name in node.networks:
            link = case.state(node.name).link(name)
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
            text=f"{_whose(node)} interface {network.name} does not use ARP",
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


def same_mtu(case: Case) -> Iterator[Found]:
    """All interfaces on a network have the same MTU, because a bridge does not fragment."""
    found = tuple(_links(case))
    for node, network, link in found:
        usual = max(other.mtu for _, beside, other in found if beside == network)
        if link.mtu >= usual:
            continue
        fact = f"{link.name} has an MTU of {link.mtu}, others on the network {usual}"
        large = case.trace.run.large
        if large is None or large.answered:
            yield Remark(node.name, fact)
            continue
        yield Cause(
            fault="mtu-mismatch",
            node=node.name,
            text=f"{node.name} has a smaller MTU on {network.name} than other nodes",
            evidence=(f"{node.name}: {fact}", f"a large request was not answered: {large.error}"),
            consequence="small requests work, large ones hang",
            remedy=case.type(node.name, "ip", "link", "set", link.name, "mtu", usual),
        )


def unimpaired(case: Case) -> Iterator[Found]:
    """No link has more loss or delay, or a lower rate, than the topology says."""
    for node, network, link in _links(case):
        planned, actual = network.impairment, link.impairment
        worse = []
        if actual.loss > planned.loss:
            worse.append(f"loses {actual.loss:g} % of what it sends")
        if actual.delay > planned.delay:
            worse.append(f"delays what it sends by {actual.delay:g} ms")
        if actual.rate and (not planned.rate or actual.rate < planned.rate):
            worse.append(f"sends {actual.rate} bits a second at most")
        says = f"{_whose(node)} interface {link.name} {' and '.join(worse)}"
        if not worse:
            continue
        if actual.loss <= planned.loss and actual.delay < LATE and not actual.rate:
            yield Remark(node.name, says)
            continue
        yield Cause(
            fault="link-impaired",
            node=node.name,
            text=says,
            evidence=(f"{node.name}: netem on {link.name}: {' and '.join(worse)}",),
            consequence="frames are delayed or lost",
            remedy=case.type(node.name, *_restore_command(link.name, planned)),
        )


def _restore_command(device: str, planned: Impairment) -> tuple[str, ...]:
    if not planned:
        return ("tc", "qdisc", "del", "dev", device, "root")
    (command,) = Netem(netns="", device=device, impairment=planned).commands()
    return command.argv


RULES = (
    Rule(find=arp_spoken, rules_out="every interface uses ARP"),
    Rule(
        find=same_mtu,
        harms_others=True,
        rules_out="all interfaces on a network have the same MTU",
    ),
    Rule(find=unimpaired, rules_out="no link loses or delays more than the topology says"),
)
