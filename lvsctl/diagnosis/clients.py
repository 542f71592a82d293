"""Rules about the client itself: may it be one, and does it have a port to send from?"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.claims.asking import unsuitable_client
from lvsctl.diagnosis.base import Case, Found, Rule, shown
from lvsctl.model.claim import Cause
from lvsctl.model.evidence import Failure

_RANGE = "net.ipv4.ip_local_port_range"
_USUAL = "32768 60999"
"""The kernel's default (ip-sysctl.rst)."""


def ports(case: Case) -> Iterator[Found]:
    """The client has local ports left."""
    run = case.trace.run
    lacking = [e for e in (*run.exchanges, *run.every_large) if e.error == Failure.NO_PORT]
    if not lacking:
        return
    settings = {s.name: s for s in case.state(case.client).changed_sysctls or ()}
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


def suitable(case: Case) -> Iterator[Found]:
    """The node that sends the requests can be a client of the service."""
    found = unsuitable_client(case.trace)
    if found is not None and not found.crosses_only:
        yield Cause(
            fault=found.cause,
            node=case.client,
            text=found.text,
            evidence=(*found.facts, *shown(found.frames)),
            consequence=found.consequence,
            remedy=f"lvsctl diagnose {case.lab.name} --client {case.lab.default_client.name}",
        )


UNSUITABLE = Rule(
    find=suitable,
    by_state=False,
    rules_out="the client is no director and no real server",
    latent=True,
)
"""Where it finds something, no other rule is asked: requests of such a node prove nothing."""

RULES = (
    UNSUITABLE,
    Rule(find=ports, by_state=False, rules_out="the client has local ports left"),
)
