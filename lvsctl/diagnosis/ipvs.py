"""Rules about the director's IPVS table: does the virtual service exist, as configured?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.diagnosis.base import NAT, TUN, Case, Found, Rule, shown
from lvsctl.model.claim import Cause, Remark
from lvsctl.model.frame import Direction
from lvsctl.model.service import ForwardingMethod, RealServer
from lvsctl.model.state import RealServerState
from lvsctl.resources.base import Command
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService

_BY_WEIGHT = frozenset({"wrr", "wlc", "sed", "nq", "sh", "mh", "lblc", "lblcr", "ovf", "fo"})
"""Schedulers that use weights other than 0."""


def _service(case: Case) -> IpvsService:
    """The virtual service as configured."""
    return IpvsService(
        netns=case.lab.netns(case.director),
        service=case.service.match,
        scheduler=case.service.scheduler,
        persistence=case.service.persistence,
    )


def _real_server(case: Case, server: RealServer) -> IpvsRealServer:
    """A real server of the virtual service as configured."""
    return IpvsRealServer(
        netns=case.lab.netns(case.director),
        service=case.service.match,
        real_server=server,
    )


def _typed(case: Case, *commands: tuple[Command, ...]) -> str:
    """Commands for the director, joined by ``&&``."""
    return " && ".join(case.type(case.director, *one.argv) for each in commands for one in each)


def _exchanged(case: Case, server: RealServer, entry: RealServerState) -> str:
    """Replace the entry; with another port it is another entry for IPVS."""
    wanted = _real_server(case, server)
    if entry.port == server.port:
        return _typed(case, wanted.edit_commands())
    wrong = _real_server(case, replace(server, port=entry.port))
    return _typed(case, wanted.commands(), wrong.undo_commands())


def service_there(case: Case) -> Iterator[Found]:
    """The virtual service is in the director's table."""
    if case.table is not None:
        return
    others = ", ".join(str(one.match) for one in case.state(case.director).services)
    servers = (_real_server(case, server).commands() for server in case.service.real_servers)
    yield Cause(
        fault="service-missing",
        node=case.director,
        text="the virtual service is missing from the director's IPVS table",
        evidence=(
            f"{case.director}: no {case.service.match} in IPVS's table"
            + (f", only {others}" if others else ", which is empty"),
            *shown(case.requests(case.director)),
        ),
        consequence="the director treats requests as its own and does not answer them",
        remedy=_typed(case, _service(case).commands(), *servers),
    )


def real_servers_there(case: Case) -> Iterator[Found]:
    """Each real server is in the table, under its port, with a weight."""
    if case.table is None:
        return
    for server in case.service.real_servers:
        entry = case.entry(server)
        where = f"{server.node} ({server.rip}:{server.port})"
        if entry is None:
            yield Cause(
                fault="real-server-removed",
                node=case.director,
                text=f"the real server {server.node} is missing from the director's IPVS table",
                evidence=(f"{case.director}: {where} is not in {case.service.match}",),
                consequence=f"no request reaches {server.node}; the others get its share",
                remedy=_typed(case, _real_server(case, server).commands()),
            )
        elif entry.weight == 0 and server.weight > 0:
            yield Cause(
                fault="real-server-drained",
                node=case.director,
                text=f"the real server {server.node} is drained: its weight is 0",
                evidence=(f"{case.director}: {where} has weight 0, not {server.weight}",),
                consequence=f"no new connection reaches {server.node}",
                remedy=_typed(case, _real_server(case, server).edit_commands()),
            )


def ports(case: Case) -> Iterator[Found]:
    """NAT maps requests to the port in the table; TUN and DR do not map ports."""
    for server in case.service.real_servers:
        entry = case.entry(server)
        if entry is None or entry.port == server.port:
            continue
        if entry.forward != server.forward:
            continue  # another method uses other ports: named as wrong-forwarding-method
        says = f"IPVS has {server.node} on port {entry.port}, not {server.port}"
        if server.forward is not NAT:
            yield Remark(case.director, f"{says}; {server.forward} does not map ports")
            continue
        listening = sorted({one.port for one in case.state(server.node).listeners})
        yield Cause(
            fault="wrong-port",
            node=case.director,
            text=f"the director sends {server.node}'s requests to the wrong port",
            evidence=(
                f"{case.director}: {says}",
                f"{server.node} listens on {', '.join(map(str, listening)) or 'no port'}",
                *shown(
                    f
                    for f in case.replies(server.node, out=True)
                    if f.tcp is not None and f.tcp.flags & 4
                ),
            ),
            consequence="the real server refuses the connections (RST)",
            remedy=_exchanged(case, server, entry),
        )


def methods(case: Case) -> Iterator[Found]:
    """The table's forwarding method is the one that the real servers are configured for."""
    for server in case.service.real_servers:
        entry = case.entry(server)
        if entry is None or entry.forward == server.forward:
            continue
        yield Cause(
            fault="wrong-forwarding-method",
            node=case.director,
            text=f"the director forwards to {server.node} by another method",
            evidence=(
                (
                    f"{case.director}: {server.node} by {entry.forward}, "
                    f"but it is configured for {server.forward}"
                ),
                *shown(
                    f
                    for f in case.requests(case.director, out=True)
                    if f.outer is not None and _looks_like(entry.forward, len(f.ips))
                ),
            ),
            consequence=f"requests leave the director in a form that {server.node} cannot answer",
            remedy=_exchanged(case, server, entry),
        )


def _looks_like(forward: ForwardingMethod | str, headers: int) -> bool:
    return (headers == 2) is (forward == TUN)


def encapsulations(case: Case) -> Iterator[Found]:
    """The director encapsulates as the real servers decapsulate."""
    service = case.service
    for server in service.real_servers:
        entry = case.entry(server)
        if entry is None or entry.forward != TUN:
            continue
        has, wanted = (
            f"{kind} to UDP port {port}" if port else str(kind)
            for kind, port in (
                (entry.encapsulation, entry.tunnel_port),
                (server.encapsulation, server.tunnel_port),
            )
        )
        if has == wanted:
            continue
        yield Cause(
            fault="encapsulation-mismatch",
            node=case.director,
            text=f"the director's tunnel type for {server.node} is not that of its tunnel device",
            evidence=(
                f"{case.director}: {server.node} by {has}, but it is configured for {wanted}",
                *shown(
                    f
                    for f in case.requests(case.director, out=True)
                    if f.outer is not None and f.outer.dst == server.rip
                ),
                *shown(
                    f
                    for f in case.trace.at(server.node)
                    if f.icmp is not None and f.icmp.type == 3 and f.direction is Direction.OUT
                ),
            ),
            consequence=f"{server.node} does not decapsulate the requests",
            remedy=_exchanged(case, server, entry),
        )


def scheduling(case: Case) -> Iterator[Found]:
    """Scheduler and persistence."""
    table, service = case.table, case.service
    if table is None:
        return
    if table.scheduler != service.scheduler:
        yield _differing(
            case,
            "scheduler-changed",
            f"the virtual service is scheduled by {table.scheduler}, not by {service.scheduler}",
            f"{service.match} has scheduler {table.scheduler}",
            _typed(case, _service(case).edit_commands()),
        )
    if bool(table.persistence) != bool(service.persistence):
        yield _differing(
            case,
            "persistence-added" if table.persistence else "persistence-missing",
            "the virtual service is persistent but should not be"
            if table.persistence
            else "the virtual service should be persistent but is not",
            f"{service.match} has persistence {table.persistence} s",
            _typed(case, _service(case).edit_commands()),
        )


def shares(case: Case) -> Iterator[Found]:
    """The weights and thresholds of real servers that are not drained."""
    table = case.table
    for server in case.service.real_servers:
        entry = case.entry(server)
        if table is None or entry is None or entry.weight == 0:
            continue
        remedy = _typed(case, _real_server(case, server).edit_commands())
        if entry.weight != server.weight:
            says = f"the real server {server.node} has weight {entry.weight}, not {server.weight}"
            if table.scheduler in _BY_WEIGHT or not server.weight:
                fact = f"{server.rip} weight {entry.weight}"
                yield _differing(case, "weight-changed", says, fact, remedy)
            else:
                yield Remark(case.director, f"{says}; {table.scheduler} does not use it")
        if (entry.upper, entry.lower) != (server.upper, server.lower):
            yield _differing(
                case,
                "threshold-changed" if entry.upper else "threshold-missing",
                f"the real server {server.node} accepts {_at_most(entry.upper)} connections, "
                f"not {_at_most(server.upper)}",
                f"{server.rip} has upper threshold {entry.upper}",
                remedy,
            )


def _at_most(upper: int) -> str:
    return f"at most {upper}" if upper else "any number of"


def _differing(case: Case, fault: str, says: str, fact: str, remedy: str) -> Found:
    """A cause if the distribution is wrong; else a remark."""
    if not (case.failed("all.distribution") or case.failed("all.real-servers-reached")):
        return Remark(case.director, says)
    seen = [
        f"connections: {f.observed}; expected {f.expected}"
        for f in case.findings
        if f.claim.id == "all.distribution"
    ]
    return Cause(
        fault=fault,
        node=case.director,
        text=says,
        evidence=(f"{case.director}: {fact}", *seen),
        consequence="connections are not distributed as the topology says",
        remedy=remedy,
    )


RULES = (
    Rule(find=service_there, rules_out="the virtual service is in the director's IPVS table"),
    Rule(
        find=real_servers_there,
        rules_out="every real server is in the table and not drained",
        latent=True,
    ),
    Rule(find=ports, rules_out="the table's ports are right"),
    Rule(find=methods, rules_out="the table's forwarding method is as configured"),
    Rule(
        find=encapsulations,
        modes=(TUN,),
        rules_out="both ends of the tunnel have the same type",
    ),
    Rule(find=scheduling, rules_out="scheduler and persistence are as configured"),
    Rule(find=shares, rules_out="weights and thresholds are as configured"),
)
