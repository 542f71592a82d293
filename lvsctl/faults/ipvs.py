"""The director's IPVS table: services, schedulers, weights, thresholds, persistence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import (
    DR,
    EVERY_MODE,
    NAT,
    NO_ANSWER,
    ONE_SERVER_SILENT,
    FaultContext,
    FaultTable,
    unused_address,
)
from lvsctl.faults.change import Change, added, removed
from lvsctl.model.lab import Role
from lvsctl.model.service import Protocol, Scheduler, SchedulerFlag, ServiceMatch
from lvsctl.model.state import SyncDaemonState
from lvsctl.resources.ipvs_config import SyncDaemon
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import FLAG_WORDS, IpvsService
from lvsctl.resources.marks import Marks
from lvsctl.resources.masquerade import Masquerade
from lvsctl.resources.sysctl import Sysctl

FAULTS = FaultTable()

NOT_SCHEDULED = ("dr.reply-direct", "tun.reply-direct", "all.frames-agree", *NO_ANSWER)
"""Claims that fail if requests reach the director, and IPVS schedules and counts none."""


@FAULTS.add(
    "wrong-forwarding-method",
    "the director forwards to a real server by another method",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom=(
        "requests leave the director in the form of the other method, which the real "
        "server cannot answer"
    ),
    breaks=(
        "nat.request-rewritten",
        "nat.port-mapping",
        "snat.source-is-director",
        "snat.client-address-lost",
        "tun.request-encapsulated",
        "dr.request-only-macs-change",
        "dr.reply-direct",
        "tun.reply-direct",
        *ONE_SERVER_SILENT,
    ),
    # By DR behind a router: an IPv6 router redirects the client, as in `behind-router`.
    may_break=("all.large-requests-answered", "all.nothing-sent-again"),
)
def wrong_forwarding_method(context: FaultContext) -> Iterator[Change]:
    """The director forwards to a real server by a method that it is not configured for.

    ipvsadm uses direct routing without -m or -i. That is injected into NAT and TUN; a real
    server for direct routing gets NAT.

    Changes: the first real server of each service.
    """
    for server in context.first_entries():
        real = server.real_server
        other = NAT if real.forward is DR else DR
        if real.rip.version != server.service.version:
            continue  # the kernel refuses it: only a tunnel leads to another IP version
        yield Change(server, replace(server, real_server=replace(real, forward=other)))


def _refused_from_rip(context: FaultContext) -> tuple[str, ...]:
    """The RST comes in from the wrong port; with SNAT the real server has no route for it."""
    if all(service.snat for service in context.services((NAT,))):
        return ()
    return ("nat.reply-crosses-director",)


@FAULTS.add(
    "wrong-port",
    "the director sends a real server's requests to the wrong port",
    modes=(NAT,),
    at=(Role.DIRECTOR,),
    symptom="the real server refuses the connections (RST)",
    breaks=(
        "nat.request-rewritten",
        "nat.port-mapping",
        "snat.source-is-director",
        "snat.client-address-lost",
        *ONE_SERVER_SILENT,
    ),
    breaks_where=_refused_from_rip,
)
def wrong_port(context: FaultContext) -> Iterator[Change]:
    """The director maps a real server's port to one without a listener.

    Changes: the first real server of each service gets the next port.
    """
    for server in context.first_entries((NAT,)):
        real = server.real_server
        yield Change(server, replace(server, real_server=replace(real, port=real.port + 1)))


@FAULTS.add(
    "scheduler-changed",
    "the virtual service has the wrong scheduler",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="all connections of a client go to one real server",
    breaks=("all.distribution",),
    may_break=("all.real-servers-reached",),
)
def scheduler_changed(context: FaultContext) -> Iterator[Change]:
    """The virtual service has another scheduler than it should have.

    Changes: source hashing, which keeps a client on one real server; failover where hashing
    could choose a real server that accepts no connections; rr where the service has that already.
    """
    closed = {
        server.service
        for server in context.planned(IpvsRealServer)
        if server.real_server.upper or not server.real_server.weight
    }
    for service in context.planned(IpvsService):
        other = Scheduler.FO if service.service in closed else Scheduler.SH
        if service.scheduler is other:
            other = Scheduler.RR
        yield Change(service, replace(service, scheduler=other))


@FAULTS.add(
    "scheduler-flag-missing",
    "the scheduler does not hash the client's port and should",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="all connections of a client go to one real server",
    breaks=("all.distribution",),
    may_break=("all.real-servers-reached",),
    cause="scheduler-flags",
)
def scheduler_flag_missing(context: FaultContext) -> Iterator[Change]:
    """A scheduler that should hash the client's port hashes the address alone.

    Changes: each service with the flag sh-port or mh-port.
    """
    port = FLAG_WORDS[SchedulerFlag.PORT]
    for service in context.planned(IpvsService):
        if port in service.flags:
            flags = tuple(flag for flag in service.flags if flag != port)
            yield Change(service, replace(service, flags=flags))


@FAULTS.add(
    "no-fallback",
    "a scheduler that hashes has no fallback, and a real server takes no connections",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="connections that hash to that real server are refused (ICMP port unreachable)",
    breaks=(
        "dr.reply-direct",
        "tun.reply-direct",
        "all.requests-answered",
        "all.distribution",
        "all.frames-agree",
    ),
    may_break=("all.real-servers-reached",),
)
def no_fallback(context: FaultContext) -> Iterator[Change]:
    """A scheduler that hashes has no fallback for a real server of weight 0.

    Changes: each service with the flags fallback and port and a drained real server. (Without
    port all connections of a client hash alike, and it may be to another one.)
    """
    drained = {s.service for s in context.planned(IpvsRealServer) if not s.real_server.weight}
    fallback, port = FLAG_WORDS[SchedulerFlag.FALLBACK], FLAG_WORDS[SchedulerFlag.PORT]
    for service in context.planned(IpvsService):
        if service.service in drained and {fallback, port} <= set(service.flags):
            flags = tuple(flag for flag in service.flags if flag != fallback)
            yield Change(service, replace(service, flags=flags))


@FAULTS.add(
    "persistence-added",
    "the virtual service is persistent and should not be",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="all connections of a client go to one real server",
    breaks=("all.distribution",),
    may_break=("all.real-servers-reached",),
)
def persistence_added(context: FaultContext) -> Iterator[Change]:
    """The virtual service is persistent, so a client stays on one real server.

    Changes: a persistence timeout of five minutes, ipvsadm's default.
    """
    for service in context.planned(IpvsService):
        if not service.persistence:
            yield Change(service, replace(service, persistence=300))


@FAULTS.add(
    "mark-missing",
    "the director does not mark requests to one of a service's ports",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="requests to that port do not reach IPVS: the director itself refuses them",
    breaks=("joined.every-port-answered",),
)
def mark_missing(context: FaultContext) -> Iterator[Change]:
    """The director does not mark requests to one port or VIP of a service by firewall mark.

    Changes: the last one of several is marked no more, on every interface.
    """
    for marks in context.planned(Marks):
        *rest, last = marks.markings
        if any(one.mark == last.mark for one in rest):
            yield Change(marks, replace(marks, markings=tuple(rest)))


def _without_connections(context: FaultContext) -> tuple[str, ...]:
    """Replies that NAT does not rewrite reach the client from the RIP, and are no answers."""
    methods = {s.forward for s in context.services(EVERY_MODE) if _is_udp(s.match)}
    broken: tuple[str, ...] = ()
    if methods - {NAT}:
        broken += ("all.connection-table-agrees",)
    if NAT in methods:
        broken += ("nat.reply-crosses-director", "nat.client-never-sees-rip", *NO_ANSWER)
    return broken


@FAULTS.add(
    "one-packet-scheduling",
    "every packet of a UDP service is scheduled by itself, and flows should stay",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom=(
        "packets from one port of a client go to several real servers; in NAT replies leave the "
        "director with the RIP as their source"
    ),
    breaks=("udp.flow-stays",),
    may_break=("all.distribution",),
    breaks_where=_without_connections,
)
def one_packet_scheduling(context: FaultContext) -> Iterator[Change]:
    """A UDP service whose clients expect to stay with a real server has ipvsadm's option -o.

    Changes: each UDP service without one-packet scheduling gets it.
    """
    for service in context.planned(IpvsService):
        if _is_udp(service.service) and "ops" not in service.flags:
            yield Change(service, replace(service, flags=(*service.flags, "ops")))


@FAULTS.add(
    "one-packet-missing",
    "a UDP service should schedule every packet by itself and does not",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="all packets from one port of a client go to one real server",
    breaks=("ops.each-packet-scheduled",),
)
def one_packet_missing(context: FaultContext) -> Iterator[Change]:
    """A UDP service lacks ipvsadm's option -o.

    So a resolver that sends all its queries from one port loads a single real server.

    Changes: each service with one-packet scheduling loses it.
    """
    for service in context.planned(IpvsService):
        if "ops" in service.flags:
            flags = tuple(word for word in service.flags if word != "ops")
            yield Change(service, replace(service, flags=flags))


def _is_udp(match: ServiceMatch) -> bool:
    """Whether a service takes UDP only: one-packet scheduling is for no other (ipvsadm(8), -o)."""
    return all(one.protocol is Protocol.UDP for one in match.endpoints)


CONSTANT_PER_CLIENT = (Scheduler.SH, Scheduler.DH, Scheduler.MH, Scheduler.FO)
"""Schedulers that give a client the same real server each time."""


def _only_calls(context: FaultContext) -> tuple[str, ...]:
    """Calls of their own are scheduled one by one, with persistence by their Call-ID or without."""
    persistent = [one for one in context.planned(IpvsService) if one.persistence]
    return ("all.distribution",) if all(one.engine for one in persistent) else ()


@FAULTS.add(
    "persistence-engine-missing",
    "a service that should keep SIP calls keeps clients, because its persistence has no engine",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="all calls of a client, or of the proxy that it is behind, go to one real server",
    breaks=("all.distribution", "sip.call-stays"),
    may_break=("all.real-servers-reached",),
)
def persistence_engine_missing(context: FaultContext) -> Iterator[Change]:
    """A virtual service lacks ipvsadm's option --pe sip.

    Changes: each service with a persistence engine loses it, and keeps its timeout.
    """
    for service in context.planned(IpvsService):
        if service.engine and service.scheduler not in CONSTANT_PER_CLIENT:
            yield Change(service, replace(service, engine=""))


@FAULTS.add(
    "persistence-missing",
    "a virtual service that should be persistent is not",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="one client's connections go to several real servers",
    breaks=("all.distribution", "joined.client-stays", "sip.call-stays"),
    spares_where=_only_calls,
)
def persistence_missing(context: FaultContext) -> Iterator[Change]:
    """A virtual service that should be persistent is not.

    Changes: each persistent service whose scheduler distributes one client's connections.
    """
    for service in context.planned(IpvsService):
        if service.persistence and service.scheduler not in CONSTANT_PER_CLIENT:
            yield Change(service, replace(service, persistence=0, engine=""))


@FAULTS.add(
    "threshold-missing",
    "a real server accepts any number of connections but should be limited",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="the real server gets more connections than its upper threshold",
    breaks=("all.distribution",),
)
def threshold_missing(context: FaultContext) -> Iterator[Change]:
    """A real server has no upper threshold but should have one.

    Changes: the thresholds of every limited real server that is not drained are removed.
    """
    for server in context.planned(IpvsRealServer):
        real = server.real_server
        if real.upper and real.weight:
            yield Change(server, replace(server, real_server=replace(real, upper=0, lower=0)))


WEIGHTED = (Scheduler.WRR, Scheduler.WLC, Scheduler.SED, Scheduler.NQ)
"""Schedulers that distribute connections by weight."""


@FAULTS.add(
    "weight-changed",
    "a real server has the wrong weight",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="the real server gets more or fewer connections than its share",
    breaks=("all.distribution",),
)
def weight_changed(context: FaultContext) -> Iterator[Change]:
    """A real server has the wrong weight; one that should be drained has a weight.

    Changes: the drained real servers; else the first of each service whose scheduler uses weights.
    """
    drained = [s for s in context.planned(IpvsRealServer) if not s.real_server.weight]
    port = FLAG_WORDS[SchedulerFlag.PORT]
    weighted = {
        s.service
        for s in context.planned(IpvsService)
        if s.scheduler in WEIGHTED or (context.lab.ecmp and port in s.flags)
    }
    weighted -= {server.service for server in drained}
    others = [server for server in context.first_entries() if server.service in weighted]
    for server in (*drained, *others):
        real = server.real_server
        other = replace(real, weight=3 if real.weight == 1 else 1)
        yield Change(server, replace(server, real_server=other))


@FAULTS.add(
    "real-server-drained",
    "a real server was drained and not restored",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="no request reaches the real server",
    breaks=("all.real-servers-reached", "all.distribution"),
)
def real_server_drained(context: FaultContext) -> Iterator[Change]:
    """A real server's weight is 0: it keeps its connections but gets no new ones.

    Changes: the first real server of each service.
    """
    for server in context.first_entries():
        yield Change(server, replace(server, real_server=replace(server.real_server, weight=0)))


@FAULTS.add(
    "real-server-removed",
    "a real server is missing from the director's IPVS table",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="no request reaches the real server",
    breaks=("all.real-servers-reached", "all.distribution"),
)
def real_server_removed(context: FaultContext) -> Iterator[Change]:
    """A real server is missing from the director's IPVS table.

    Changes: the first real server of each service.
    """
    yield from map(removed, context.first_entries())


def _misses_others(context: FaultContext) -> tuple[str, ...]:
    """Where IPVS leaves a request to the director and the director is a real server: it answers."""
    if not any(service.local for service in context.services(EVERY_MODE)):
        return ()
    return ("all.distribution", "all.counters-agree", "all.connection-table-agrees")


def _answers_itself(context: FaultContext) -> tuple[str, ...]:
    """Every request is answered then, if that is so of each service."""
    if not all(service.local for service in context.services(EVERY_MODE)):
        return ()
    return (
        "dr.reply-direct",
        "tun.reply-direct",
        "nat.both-directions-load-director",
        "all.requests-answered",
    )


@FAULTS.add(
    "service-missing",
    "the virtual service is missing from the director's IPVS table",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="the director itself refuses the connections (RST), or does not answer them",
    breaks=(
        "dr.reply-direct",
        "tun.reply-direct",
        "nat.both-directions-load-director",
        "all.counters-agree",
        "all.reply-path-counted",
        "all.frames-agree",
        *NO_ANSWER,
    ),
    breaks_where=_misses_others,
    spares_where=_answers_itself,
)
def service_missing(context: FaultContext) -> Iterator[Change]:
    """The virtual service is missing from the director's IPVS table.

    Changes: all virtual services and their real servers are removed.
    """
    yield from map(removed, context.planned(IpvsRealServer))
    yield from map(removed, context.planned(IpvsService))


@FAULTS.add(
    "no-usable-real-server",
    "every real server has the weight 0",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="the director answers requests with ICMP port unreachable",
    breaks=NOT_SCHEDULED,
)
def no_usable_real_server(context: FaultContext) -> Iterator[Change]:
    """Every real server was drained, so that the director refuses the requests.

    Changes: the weights of all real servers.
    """
    for server in context.planned(IpvsRealServer):
        if server.real_server.weight:
            yield Change(server, replace(server, real_server=replace(server.real_server, weight=0)))


@FAULTS.add(
    "real-server-unknown",
    "the director's IPVS table has a real server that does not exist",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="ARP requests for the RIP of the missing real server stay unanswered",
    breaks=(
        "dr.reply-direct",
        "tun.reply-direct",
        "nat.both-directions-load-director",
        "all.requests-answered",
        "all.distribution",
        "all.counters-agree",
    ),
)
def real_server_unknown(context: FaultContext) -> Iterator[Change]:
    """A real server was dismantled and is still in the director's table.

    Its share of the connections is lost.

    Changes: each service whose real servers are on a network of the director gets an entry
    for an unused address of that network.
    """
    for server in context.first_entries():
        network = context.lab.network_of(server.real_server.rip)
        if network is not None and network.name in context.node.networks:
            rip = server.real_server.rip
            unused = unused_address(context.lab, network, rip.version).ip
            gone = replace(server.real_server, node="gone", rip=unused, weight=1)
            yield added(replace(server, real_server=gone))


@FAULTS.add(
    "drop-packet",
    "the director's IPVS drops packets that open connections (drop_packet)",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="requests enter the director, do not leave it, and are not counted",
    breaks=NOT_SCHEDULED,
)
def drop_packet(context: FaultContext) -> Iterator[Change]:
    """IPVS's defence against floods drops new connections even without a flood.

    drop_packet=3 drops one in am_droprate packets that open a connection
    (Documentation/networking/ipvs-sysctl.rst).

    Changes: both settings; every such packet is dropped.
    """
    for name, usual, value in (("am_droprate", "10", "1"), ("drop_packet", "0", "3")):
        setting = Sysctl(netns=context.netns, name=f"net.ipv4.vs.{name}", value=usual)
        yield Change(setting, replace(setting, value=value))


@FAULTS.add(
    "backup-only",
    "the director is a backup, and as such does not schedule (backup_only)",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="the director itself refuses the connections (RST), or does not answer them",
    breaks=("nat.both-directions-load-director", *NOT_SCHEDULED),
    breaks_where=_misses_others,
    spares_where=_answers_itself,
)
def backup_only(context: FaultContext) -> Iterator[Change]:
    """A backup director that took over still has backup_only set and its daemon running.

    Changes: a synchronization daemon in the state backup, and net.ipv4.vs.backup_only.
    """
    mixed = (
        op.real_server.rip.version != op.service.version for op in context.planned(IpvsRealServer)
    )
    if any(mixed):
        return  # the kernel starts no daemon then (start_sync_thread in ip_vs_sync.c)
    daemon = SyncDaemonState("backup", context.node.networks[0], 0)
    yield added(SyncDaemon(netns=context.netns, daemon=daemon))
    setting = Sysctl(netns=context.netns, name="net.ipv4.vs.backup_only", value="0")
    yield Change(setting, replace(setting, value="1"))


SOURCE_KEPT = (
    "snat.source-is-director",
    "snat.client-address-lost",
    "nat.both-directions-load-director",
    *NO_ANSWER,
)
"""Claims that fail if requests reach the real servers from the client, to whom they know no way."""


@FAULTS.add(
    "masquerade-missing",
    "the director does not replace the source of requests by its own address",
    modes=(NAT,),
    at=(Role.DIRECTOR,),
    symptom="requests reach the real servers from the client's address; no reply comes back",
    breaks=SOURCE_KEPT,
)
def masquerade_missing(context: FaultContext) -> Iterator[Change]:
    """The rule that masquerades requests was lost, for example by another set of rules.

    Changes: each rule is removed.
    """
    yield from map(removed, context.planned(Masquerade))


@FAULTS.add(
    "conntrack-off",
    "netfilter does not track what IPVS forwards, so that no rule replaces its source",
    modes=(NAT,),
    at=(Role.DIRECTOR,),
    symptom="requests reach the real servers from the client's address, whatever rules there are",
    breaks=SOURCE_KEPT,
)
def conntrack_off(context: FaultContext) -> Iterator[Change]:
    """The kernel's default: IPVS hides what it forwards from netfilter's connection tracking.

    Documentation/networking/ipvs-sysctl.rst, conntrack.

    Changes: net.ipv4.vs.conntrack, where a service needs it.
    """
    setting = context.setting("net.ipv4.vs.conntrack")
    if setting.value == "1":
        yield Change(setting, replace(setting, value="0"))
