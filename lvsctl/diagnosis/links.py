"""Rules about links that are up and do not carry what they should: ARP, MTU, losses."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from lvsctl.diagnosis.base import Case, Cause, Found, Remark, Rule, shown
from lvsctl.model.frame import Frame
from lvsctl.model.lab import Impairment, Network, Node, Role
from lvsctl.model.state import LinkState
from lvsctl.resources.ops import Impair

LATE = 500.0
"""Milliseconds of delay that make requests fail; less only makes them slow."""


def _links(case: Case) -> Iterator[tuple[Node, Network, LinkState]]:
    """Every live interface that the topology has."""
    for node in case.lab.nodes:
        for name in node.networks:
            link = case.state(node.name).link(name)
            if link is not None and link.up and link.carrier:
                yield node, case.lab.network(name), link


def _whose(node: Node) -> str:
    return "a real server's" if node.role is Role.REAL_SERVER else f"the {node.role}'s"


def arp_spoken(case: Case) -> Iterator[Found]:
    """Every interface asks and answers ARP questions (IFF_NOARP is not set)."""
    for node, network, link in _links(case):
        if not link.noarp:
            continue
        yield Cause(
            fault="arp-off",
            node=node.name,
            says=f"{_whose(node)} interface {network.name} neither asks nor answers ARP",
            evidence=(
                f"{node.name}: {link.name} is NOARP",
                *shown(_questions(case, node, network.name)),
            ),
            consequence=f"nobody on {network.name} finds {node.name}, nor does it find them",
            remedy=case.type(node.name, "ip", "link", "set", link.name, "arp", "on"),
        )


def _questions(case: Case, node: Node, network: str) -> Iterator[Frame]:
    own = {a.ip for a in node.addresses_on(network)} | {case.vip}
    for frame in case.trace.at(node.name):
        if frame.arp is not None and frame.arp.is_request and frame.arp.target_ip in own:
            yield frame


def same_mtu(case: Case) -> Iterator[Found]:
    """All interfaces on a network take packets of the same size: nobody fragments for a switch."""
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
            says=f"{node.name} takes and sends smaller packets on {network.name} than others",
            evidence=(f"{node.name}: {fact}", f"a large request was not answered: {large.error}"),
            consequence="small requests work, large ones hang",
            remedy=case.type(node.name, "ip", "link", "set", link.name, "mtu", usual),
        )


def unimpaired(case: Case) -> Iterator[Found]:
    """No link loses, delays or slows down more than the topology says."""
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
            says=says,
            evidence=(f"{node.name}: netem on {link.name}: {' and '.join(worse)}",),
            consequence="frames leave it late or never",
            remedy=case.type(node.name, *_mending(link.name, planned)),
        )


def _mending(device: str, planned: Impairment) -> tuple[str, ...]:
    if not planned:
        return ("tc", "qdisc", "del", "dev", device, "root")
    words = shlex.split(Impair(netns="", device=device, impairment=planned).describe()[0])
    return ("tc", *words[words.index("qdisc") :])


RULES = (
    Rule(find=arp_spoken, rules_out="every interface asks and answers ARP questions"),
    Rule(
        find=same_mtu,
        harms_others=True,
        rules_out="all interfaces on a network have the same MTU",
    ),
    Rule(find=unimpaired, rules_out="no link loses or delays more than the topology says"),
)
