"""Rules about services whose requests get the director's address as their source."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.diagnosis.base import NAT, Case, Found, Rule, shown
from lvsctl.model.claim import Cause
from lvsctl.model.packet_filter import MasqueradeTarget

_CONNTRACK = "net.ipv4.vs.conntrack"
_LOST = (
    "requests reach the real servers from the client's address, and they have no route to it "
    "through the director"
)


def tracked(case: Case) -> Iterator[Found]:
    """Netfilter tracks what IPVS forwards."""
    value = case.state(case.director).sysctls.get(_CONNTRACK)
    if not case.service.snat or value in (None, "1"):
        return
    yield Cause(
        fault="conntrack-off",
        node=case.director,
        text="netfilter does not track what IPVS forwards, so that no rule replaces its source",
        evidence=(f"{case.director}: {_CONNTRACK}={value}", *_from_client(case)),
        consequence=_LOST,
        remedy=case.sysctl(case.director, _CONNTRACK, 1),
    )


def masqueraded(case: Case) -> Iterator[Found]:
    """A rule of the director replaces the source of what is sent to each real server."""
    state = case.state(case.director)
    if not case.service.snat or not state.whole:
        return
    there = {rule.masquerades for rule in state.packet_filters}
    protocol = case.endpoint.protocol
    missing = [
        server
        for server in case.service.by(NAT)
        if MasqueradeTarget(protocol, server.rip, server.port) not in there
    ]
    if not missing:
        return
    names = ", ".join(server.node for server in missing)
    yield Cause(
        fault="masquerade-missing",
        node=case.director,
        text="the director does not replace the source of requests by its own address",
        evidence=(
            f"{case.director}: no rule masquerades what is sent to {names}",
            *_from_client(case),
        ),
        consequence=_LOST,
        remedy=case.restore(case.director),  # the program that adds a rule may not be installed
    )


def forwarding(case: Case) -> Iterator[Found]:
    """The director forwards the replies, which come to its own address."""
    key = "net.ipv4.ip_forward" if case.vip.version == 4 else "net.ipv6.conf.all.forwarding"
    value = case.state(case.director).sysctls.get(key)
    if not case.service.snat or value != "0":
        return
    yield Cause(
        fault="ip-forward-off",
        node=case.director,
        text="the director does not forward",
        evidence=(f"{case.director}: {key}=0", *shown(case.replies(case.director))),
        consequence="the real servers' replies enter the director but do not leave it",
        remedy=case.sysctl(case.director, key, 1),
    )


def _from_client(case: Case) -> tuple[str, ...]:
    cips = set(case.clients_addresses)
    return shown(
        frame
        for server in case.service.real_servers
        for frame in case.requests(server.node)
        if frame.outer is not None and frame.outer.src in cips
    )


RULES = (
    Rule(find=tracked, modes=(NAT,), rules_out="netfilter tracks what IPVS forwards"),
    Rule(find=forwarding, modes=(NAT,), rules_out="the director forwards replies to itself"),
    Rule(find=masqueraded, by_state=False, modes=(NAT,), rules_out="what must be masqueraded is"),
)
