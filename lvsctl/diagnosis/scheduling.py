"""Rules about how the director schedules: scheduler, weights, persistence, IPVS's settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, fields, replace

from lvsctl.diagnosis.base import NAT, Case, Found, Rule, shown
from lvsctl.diagnosis.ipvs import refusals, templates_of
from lvsctl.diagnosis.ipvs_commands import server_resource, service_resource, typed
from lvsctl.model.claim import Cause, Remark, Verdict
from lvsctl.model.evidence import Failure
from lvsctl.model.service import IpvsTimeouts, Scheduler
from lvsctl.resources.ipvs_service import flag_names

_QUIESCENT = "net.ipv4.vs.expire_quiescent_template"


def templates(case: Case) -> Iterator[Found]:
    """No persistence template leads requests to a drained real server that does not answer."""
    for server in case.service.real_servers:
        entry = case.entry(server)
        failed = [c for c in case.given(server.node) if not c.exchange.answered]
        bound = tuple(templates_of(case, server))
        if entry is None or entry.weight or not failed or not bound:
            continue
        yield Cause(
            fault="template-holds-drained",
            node=case.director,
            text=f"persistence still leads clients to {server.node}, whose weight is 0",
            evidence=(*bound, f"{case.director}: {_QUIESCENT}=0"),
            consequence="clients that it served before reach no other real server",
            remedy=case.sysctl(case.director, _QUIESCENT, 1),
        )


_HASHES = {"sh": "sh-fallback", "mh": "mh-fallback", "dh": ""}
"""Schedulers that hash, and the flag with which they take another real server (ipvsadm(8), -b).

The kernel calls both flags flag-1."""


def fallback(case: Case) -> Iterator[Found]:
    """A scheduler that hashes does not choose a real server that takes no connections."""
    table = case.table
    if table is None or table.scheduler not in _HASHES or {"flag-1"} & set(table.flags):
        return
    flag = _HASHES[table.scheduler]
    drained = [e for e in table.real_servers if not e.weight]
    full = [e for e in table.real_servers if e.upper and e.active + e.inactive >= e.upper]
    blocked = drained or full
    run = case.trace.run
    refused = [
        e
        for e in (*run.exchanges, *(x for other in run.others for x in other.exchanges))
        if e.error == Failure.REFUSED
    ]
    if not blocked or not refused or not any(entry.weight for entry in table.real_servers):
        return
    service = service_resource(case)
    scheduler = Scheduler(table.scheduler) if flag else Scheduler.SH
    flags = tuple(dict.fromkeys(("flag-1", *table.flags)))
    with_fallback = replace(service, scheduler=scheduler, flags=flags)
    words = [*with_fallback.edit_commands()[0].argv]
    why = "weight 0" if drained else "as many connections as its threshold allows"
    clients = sorted({str(e.local.address) for e in refused if e.local is not None})
    yield Cause(
        fault="no-fallback",
        node=case.director,
        text=(
            f"{table.scheduler} without a fallback refuses clients that hash to a real server "
            "that takes no connections"
        ),
        evidence=(
            f"{case.director}: {blocked[0].rip} has {why}, and {table.scheduler} has no fallback",
            f"refused: {', '.join(clients[:4]) or 'the client'}",
            *shown(refusals(case)),
        ),
        consequence="these clients are refused although other real servers are usable",
        remedy=case.type(case.director, *words),
    )


_OTHERWISE = {
    "net.ipv4.vs.drop_packet": (
        "drop-packet",
        "IPVS drops packets that open connections (drop_packet)",
        "requests are lost at random and repeated after a second",
    ),
    "net.ipv4.vs.drop_entry": (
        "drop-entry",
        "IPVS drops half-open connections at random (drop_entry)",
        "connections that are being opened hang",
    ),
    "net.ipv4.vs.run_estimation": (
        "estimation-off",
        "IPVS's estimation is off: the counters of services are never added up",
        "ipvsadm --stats and --rate, and lvsctl's claims about counters, see no traffic",
    ),
}
"""Settings of IPVS that lose requests or hide them: fault, text and consequence."""

_DEFENCES = frozenset({"net.ipv4.vs.drop_packet", "net.ipv4.vs.drop_entry"})
"""Strategies against floods: 3 is always on, 1 and 2 only while memory is short."""


def settings(case: Case) -> Iterator[Found]:
    """IPVS's own settings lose no packet (Documentation/networking/ipvs-sysctl.rst)."""
    state = case.state(case.director)
    planned = dict(case.lab.node(case.director).sysctls)
    for setting in state.changed_sysctls or ():
        if setting.name in planned or setting.name not in _OTHERWISE:
            continue
        if setting.name in _DEFENCES and setting.value in ("1", "2"):
            fact = f"{setting.name}={setting.value} drops only where memory is short"
            yield Remark(case.director, fact)
            continue
        fault, text, consequence = _OTHERWISE[setting.name]
        yield Cause(
            fault=fault,
            node=case.director,
            text=text,
            evidence=(f"{case.director}: {setting.name}={setting.value}, not {setting.usual}",),
            consequence=consequence,
            remedy=case.sysctl(case.director, setting.name, setting.usual),
        )
    for setting in state.changed_sysctls or ():
        if setting.name == "net.ipv4.vs.backup_only" and setting.value != "0":
            backup = any(daemon.state == "backup" for daemon in state.sync_daemons)
            fact = f"{case.director}: {setting.name}={setting.value}"
            if not backup:
                yield Remark(case.director, f"{setting.name}={setting.value}, without effect")
                continue
            yield Cause(
                fault="backup-only",
                node=case.director,
                text="IPVS does not schedule while this director is a backup (backup_only)",
                evidence=(fact, f"{case.director}: its synchronization daemon is a backup"),
                consequence="the director treats requests as its own and does not forward them",
                remedy=case.sysctl(case.director, setting.name, 0),
            )


def timeouts(case: Case) -> Iterator[Found]:
    """IPVS keeps idle connections as long as the topology says, or as it does by itself."""
    found = case.state(case.director).ipvs_timeouts
    wanted = case.lab.node(case.director).timeouts or IpvsTimeouts()
    if found is None:
        return
    for one in fields(wanted):
        value, usual = getattr(found, one.name), getattr(wanted, one.name)
        if value != usual:
            words = ("ipvsadm", "--set", *map(str, astuple(wanted)))
            yield Remark(
                case.director,
                f"IPVS forgets an idle connection ({one.name}) after {value} s instead of "
                f"{usual} s; {case.type(case.director, *words)} restores it",
            )


def flags(case: Case) -> Iterator[Found]:
    """The service's flags, and one-packet scheduling, are the topology's."""
    table = case.table
    wanted = set(service_resource(case).flags)
    if table is None or set(table.flags) == wanted:
        return
    remedy = typed(case, service_resource(case).edit_commands())
    has = ", ".join(flag_names(table.scheduler, table.flags)) or "none"
    more = set(table.flags) - wanted
    from_rip = [
        frame
        for server in case.service.real_servers
        if server.forward is NAT
        for frame in case.replies(case.client)
        if frame.flow is not None and frame.flow.src.address == server.rip
    ]
    if "ops" in more and (from_rip or not case.fine):
        yield Cause(
            fault="one-packet-scheduling",
            node=case.director,
            text="one-packet scheduling is on: IPVS keeps no connection for what it forwards",
            evidence=(f"{case.director}: {case.service.match} has the flag ops", *shown(from_rip)),
            consequence=(
                "in NAT the replies are not rewritten: they reach the client from the RIP"
                if NAT in case.service.methods
                else "each packet is scheduled by itself"
            ),
            remedy=remedy,
        )
        return
    if "ops" in wanted - set(table.flags):
        says = "one-packet scheduling is off: IPVS keeps a connection for each port of a client"
        missed = [f for f in case.findings if f.claim.id == "ops.each-packet-scheduled"]
        if not case.failed("ops.each-packet-scheduled"):
            yield Remark(case.director, says)
            return
        yield Cause(
            fault="one-packet-missing",
            node=case.director,
            text=says,
            evidence=(
                f"{case.director}: {case.service.match} lacks the flag ops",
                *(f"{f.observed}; expected {f.expected}" for f in missed),
            ),
            consequence="a client that keeps its port reaches one real server only",
            remedy=remedy,
        )
        return
    yield _differing(
        case,
        "scheduler-flags",
        f"the virtual service has other flags than the topology: {has}",
        f"{case.service.match} has flags: {has}",
        remedy,
    )


_BY_WEIGHT = frozenset({"wrr", "wlc", "sed", "nq", "sh", "mh", "lblc", "lblcr", "ovf", "fo"})
"""Schedulers that use weights other than 0."""


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
            typed(case, service_resource(case).edit_commands()),
        )
    if bool(table.persistence) != bool(service.persistence):
        yield _differing(
            case,
            "persistence-added" if table.persistence else "persistence-missing",
            "the virtual service is persistent but should not be"
            if table.persistence
            else "the virtual service should be persistent but is not",
            f"{service.match} has persistence {table.persistence} s",
            typed(case, service_resource(case).edit_commands()),
        )
    elif table.engine != (service.engine or ""):
        by = f"by the engine {table.engine}" if table.engine else "by the client's address"
        yield _differing(
            case,
            "persistence-engine" if table.engine else "persistence-engine-missing",
            f"the virtual service's persistence tells clients apart {by}",
            f"{service.match} has the persistence engine {table.engine or 'none'}, not "
            f"{service.engine or 'none'}",
            typed(case, service_resource(case).edit_commands()),
        )


def shares(case: Case) -> Iterator[Found]:
    """The weights and thresholds of real servers that are not drained."""
    table = case.table
    for server in case.service.real_servers:
        entry = case.entry(server)
        if table is None or entry is None or entry.weight == 0:
            continue
        remedy = typed(case, server_resource(case, server).edit_commands())
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
    """A cause if the distribution is wrong, or none was seen; else a remark."""
    if not case.by_state and not (
        case.failed("all.distribution")
        or case.failed("all.real-servers-reached")
        or case.failed("sip.call-stays")
    ):
        return Remark(case.director, says)
    seen = [
        f"connections: {f.observed}; expected {f.expected}"
        for f in case.findings
        if f.claim.id in ("all.distribution", "sip.call-stays") and f.verdict is Verdict.FAIL
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
    Rule(
        find=templates,
        by_state=False,
        rules_out="no persistence template leads to a drained real server",
    ),
    Rule(
        find=fallback,
        by_state=False,
        rules_out="no client hashes to a real server that takes no connections",
    ),
    Rule(find=settings, latent=True, rules_out="no setting of IPVS loses packets"),
    Rule(find=flags, rules_out="the service's flags are as configured"),
    Rule(find=timeouts, rules_out="IPVS's timeouts are the usual ones"),
    Rule(find=scheduling, rules_out="scheduler and persistence are as configured"),
    Rule(find=shares, rules_out="weights and thresholds are as configured"),
)
