"""Rules about the client itself: does it have a port to send from?"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.diagnosis.base import DR, TUN, Case, Found, Rule, shown
from lvsctl.model.claim import Cause
from lvsctl.model.evidence import Failure
from lvsctl.model.lab import Role

_RANGE = "net.ipv4.ip_local_port_range"
_USUAL = "32768 60999"
"""The kernel's default (ip-sysctl.rst)."""


def ports(case: Case) -> Iterator[Found]:
    """The client has local ports left."""
    run = case.trace.run
    lacking = [e for e in (*run.exchanges, *run.every_large) if e.error == Failure.NO_PORT]
    if not lacking:
        return
    settings = {s.name: s for s in case.state(case.client).changed_sysctls}
    setting = settings.get(_RANGE)
    usual = " ".join((setting.usual if setting else _USUAL).split())
    value = " ".join(setting.value.split()) if setting else ""
    yield Cause(
        fault="local-ports-exhausted",
        node=case.client,
        text=f"the client has no local port left for a connection ({_RANGE.rpartition('.')[2]})",
        evidence=(
            f"{case.client}: {len(lacking)} requests could not be sent: {lacking[0].error}",
            *([f"{case.client}: {_RANGE} is {value}, not {usual}"] if value else []),
        ),
        consequence="requests fail before a packet leaves the client",
        remedy=case.type(case.client, "sysctl", "-w", f"{_RANGE}={usual}"),
    )


def is_director(case: Case) -> Iterator[Found]:
    """In DR and TUN the client is not a director.

    The kernel chooses the VIP as the source of a request to the node's own VIP. The real servers
    hold the VIP themselves: they drop such packets as martians, and never send a reply.
    """
    if case.lab.node(case.client).role is not Role.DIRECTOR or case.answered:
        return
    sent = case.requests(case.client, out=True)
    yield Cause(
        fault="client-is-director",
        node=case.client,
        text="a director cannot be its own client in direct routing and tunneling",
        evidence=(
            f"{case.client}: it holds {case.vip}, and sends requests for it from {case.vip}",
            *shown(sent),
        ),
        consequence=(
            f"the real servers hold {case.vip} too: to them the packet comes from themselves, and "
            "they drop it"
        ),
        remedy=f"lvsctl diagnose {case.lab.name} --client {case.lab.default_client.name}",
    )


RULES = (
    Rule(find=is_director, modes=(DR, TUN), rules_out="the client is not a director"),
    Rule(find=ports, rules_out="the client has local ports left"),
)
