"""Rules about the director's IPVS table: does the virtual service exist, as configured?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.diagnosis import connections
from lvsctl.diagnosis.base import NAT, TUN, Case, Found, Rule, shown
from lvsctl.diagnosis.ipvs_commands import exchanged, server_resource, service_resource, typed
from lvsctl.model.addresses import Endpoint
from lvsctl.model.claim import Cause, Remark
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.service import Encapsulation, ForwardingMethod, FwMark, RealServer, tunnel_text
from lvsctl.model.state import RealServerState, ServiceState
from lvsctl.resources.ipvs_real_server import IpvsRealServer


def any_usable(case: Case) -> Iterator[Found]:
    """At least one real server may get new connections."""
    table = case.table
    if table is None or any(entry.weight for entry in table.real_servers):
        return
    empty = not table.real_servers
    intended = all(server.weight == 0 for server in case.service.real_servers)
    remedies = [
        exchanged(case, replace(server, weight=server.weight or 1), entry)
        for server in case.service.real_servers
        if (entry := case.entry(server)) is not None
    ]
    added = [typed(case, server_resource(case, s).commands()) for s in case.service.real_servers]
    facts = ", ".join(f"{Endpoint(entry.rip, entry.port)} weight 0" for entry in table.real_servers)
    yield Cause(
        fault="no-usable-real-server",
        node=case.director,
        text=(
            "the virtual service has no real server"
            if empty
            else "every real server of the virtual service is drained: its weight is 0"
        ),
        evidence=(
            f"{case.director}: {case.service.match}: {facts or 'no real server in the table'}",
            *(["the topology itself gives each of them weight 0"] if intended else []),
            *shown(refusals(case)),
        ),
        consequence="IPVS refuses every new request (ICMP port unreachable)",
        remedy=" && ".join(added if empty else remedies),
    )


def refusals(case: Case) -> Iterator[Frame]:
    """ICMP errors that the director sent about requests."""
    for frame in case.trace.at(case.director):
        if frame.icmp is None or frame.direction is not Direction.OUT:
            continue
        quoted = frame.icmp.quoted.flow if frame.icmp.quoted is not None else None
        if quoted is not None and quoted.dst == case.trace.vip:
            yield frame


def _by_fwmark(case: Case) -> ServiceState | None:
    """A service by firewall mark with the service's own real servers, made by hand."""
    wanted = {server.rip for server in case.service.real_servers}
    for found in case.state(case.director).services:
        if isinstance(found.match, FwMark) and wanted & {s.rip for s in found.real_servers}:
            return found
    return None


def service_there(case: Case) -> Iterator[Found]:
    """The virtual service is in the director's table."""
    if case.table is not None:
        return
    marked = _by_fwmark(case)
    if marked is not None and case.answered:
        yield Remark(
            case.director,
            f"{case.service.match} is served by {marked.match}, set by hand, in its place",
        )
        return
    others = ", ".join(str(one.match) for one in case.state(case.director).services)
    servers = (server_resource(case, server).commands() for server in case.service.real_servers)
    yield Cause(
        fault="service-missing",
        node=case.director,
        text="the virtual service is missing from the director's IPVS table",
        evidence=(
            f"{case.director}: no {case.service.match} in IPVS's table"
            + (f", only {others}" if others else ", which is empty"),
            *shown(case.requests(case.director)),
        ),
        consequence="the director treats requests as its own: it refuses them (RST), or does not "
        "answer them"
        if not case.service.local
        else "the director treats every request as its own and answers it itself",
        remedy=typed(case, service_resource(case).commands(), *servers),
    )


def real_servers_there(case: Case) -> Iterator[Found]:
    """Each real server is in the table, under its port, with a weight; and no other is."""
    table = case.table
    if table is None or not any(entry.weight for entry in table.real_servers):
        return
    missing = [s for s in case.service.real_servers if case.entry(s) is None]
    unknown = _unknown_entries(case, table)
    sorry = case.service.sorry
    if sorry is not None and case.sorry_in_use:
        name = "the director itself" if sorry.local else sorry.node
        text = f"{name}, the sorry server, is in the table: no real server is usable"
        yield Remark(case.director, text)
        unknown = [one for one in unknown if not case.service.is_sorry(one.rip)]
    if len(missing) == len(unknown) == 1:
        yield _misspelt(case, missing[0], unknown[0])
        return
    for server in missing:
        yield from _removed(case, server)
    for server in case.service.real_servers:
        entry = case.entry(server)
        if entry is not None and entry.weight == 0 and server.weight > 0:
            yield from _drained(case, server, entry)
    for entry in unknown:
        yield Cause(
            fault="real-server-unknown",
            node=case.director,
            text=(
                f"the director's IPVS table has a real server that the topology does not have: "
                f"{Endpoint(entry.rip, entry.port)}"
            ),
            evidence=(
                f"{case.director}: {_described(entry)} in {case.service.match}",
                *shown(_sent_to(case, entry)),
            ),
            consequence=_what_becomes(case, entry),
            remedy=typed(case, _entry(case, entry).undo_commands()),
        )


def _unknown_entries(case: Case, table: ServiceState) -> list[RealServerState]:
    """Entries whose address is no real server's of the service; and doubles on other ports."""
    known = {(s.rip, s.port) for s in case.service.real_servers}
    taken = {(e.rip, e.port) for s in case.service.real_servers if (e := case.entry(s))}
    return [e for e in table.real_servers if (e.rip, e.port) not in known | taken]


def _described(entry: RealServerState) -> str:
    return f"{Endpoint(entry.rip, entry.port)} by {entry.forward}, weight {entry.weight}"


def _entry(case: Case, entry: RealServerState) -> IpvsRealServer:
    """An entry of the table as a resource, to delete it."""
    method = entry.forward if isinstance(entry.forward, ForwardingMethod) else NAT
    server = RealServer("", entry.rip, entry.port, entry.weight, forward=method)
    return server_resource(case, server)


def _sent_to(case: Case, entry: RealServerState) -> Iterator[Frame]:
    """What the director asks or sends for an entry's address."""
    for frame in case.trace.at(case.director):
        if frame.direction is not Direction.OUT:
            continue
        arp = frame.arp
        asks = arp is not None and arp.is_request and arp.target_ip == entry.rip
        if asks or (frame.outer is not None and frame.outer.dst == entry.rip):
            yield frame


def _what_becomes(case: Case, entry: RealServerState) -> str:
    holders = [n.name for n in case.lab.nodes if case.network.holders(n.name, entry.rip)]
    if not holders:
        return f"its share of the requests is lost: no node has {entry.rip}"
    return f"{holders[0]} gets a share of the requests, which the topology does not give it"


def _misspelt(case: Case, server: RealServer, entry: RealServerState) -> Cause:
    wrong, right = _entry(case, entry), server_resource(case, server)
    return Cause(
        fault="real-server-misspelt",
        node=case.director,
        text=(
            f"the director's IPVS table has {Endpoint(entry.rip, entry.port)} in place of the "
            f"real server {server.node}, {Endpoint(server.rip, server.port)}"
        ),
        evidence=(
            f"{case.director}: {_described(entry)} in {case.service.match}; no {server.rip}",
            *shown(_sent_to(case, entry)),
        ),
        consequence=f"no request reaches {server.node}; {_what_becomes(case, entry)}",
        remedy=typed(case, wrong.undo_commands(), right.commands()),
    )


def _removed(case: Case, server: RealServer) -> Iterator[Found]:
    if _checked_by_keepalived(case):
        yield Remark(case.director, f"{server.node} is not in the table: keepalived removed it")
        return
    where = f"{server.node} ({Endpoint(server.rip, server.port)})"
    yield Cause(
        fault="real-server-removed",
        node=case.director,
        text=f"the real server {server.node} is missing from the director's IPVS table",
        evidence=(
            f"{case.director}: {where} is not in {case.service.match}",
            *_orphans(case, server),
        ),
        consequence=f"no new request reaches {server.node}; the others get its share",
        remedy=typed(case, server_resource(case, server).commands()),
    )


def _checked_by_keepalived(case: Case) -> bool:
    """Whether a health check of keepalived, run on the director, decides who is in the table."""
    return case.lab.node(case.director).runs_keepalived


def _orphans(case: Case, server: RealServer) -> Iterator[str]:
    """Connections to a real server that is gone, and what becomes of them."""
    learnt = case.evidence.before.get(case.director)
    held = [
        c
        for c in (learnt.connections if learnt is not None else ())
        if (c.rip, c.rport) == (server.rip, server.answers_at(case.endpoint)) and c.client_port
    ]
    if held:
        expires = case.state(case.director).sysctls.get("net.ipv4.vs.expire_nodest_conn", "0")
        fate = "reset (expire_nodest_conn=1)" if expires == "1" else (
            "dropped in silence until they time out (expire_nodest_conn=0; 1 would reset them)"
        )  # fmt: skip
        yield (
            f"{case.director}: {len(held)} connections to it are left, the first of "
            f"{held[0].client}:{held[0].client_port} for {held[0].expires} s more: "
            f"their packets are {fate}"
        )


def _drained(case: Case, server: RealServer, entry: RealServerState) -> Iterator[Found]:
    if _checked_by_keepalived(case):
        yield Remark(case.director, f"{server.node} has weight 0: keepalived drained it")
        return
    where = f"{server.node} ({Endpoint(server.rip, server.port)})"
    bound = tuple(templates_of(case, server))
    yield Cause(
        fault="real-server-drained",
        node=case.director,
        text=f"the real server {server.node} is drained: its weight is 0",
        evidence=(
            f"{case.director}: {where} has weight {entry.weight}, not {server.weight}",
            *bound,
        ),
        consequence=_what_still_reaches(case, server, bound=bool(bound)),
        remedy=typed(case, server_resource(case, server).edit_commands()),
    )


def _what_still_reaches(case: Case, server: RealServer, *, bound: bool) -> str:
    """Return who is kept from a drained real server: not who is in the connection table already."""
    if bound:
        return f"no new client reaches {server.node}; clients that a template binds to it still do"
    held = [one for one in connections.before(case) if one.rip == server.rip and one.client_port]
    if not held:
        return f"no new connection reaches {server.node}"
    return (
        f"no connection from a new client port reaches {server.node}; the {len(held)} that have an "
        "entry in the connection table still do, and so may others from their ports"
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
                *shown(f for f in case.replies(server.node, out=True) if f.packet.refuses),
            ),
            consequence="the real server refuses the connections (RST)",
            remedy=exchanged(case, server, entry),
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
            remedy=exchanged(case, server, entry),
        )


def _looks_like(forward: ForwardingMethod | str, headers: int) -> bool:
    return (headers == 2) is (forward == TUN)


def encapsulations(case: Case) -> Iterator[Found]:
    """The director encapsulates as the real servers decapsulate."""
    yield from _tunnels(case, taken=False)


def checksums(case: Case) -> Iterator[Found]:
    """GUE has the checksum that is asked for; real servers take it with one and without."""
    yield from _tunnels(case, taken=True)


def _tunnels(case: Case, *, taken: bool) -> Iterator[Found]:
    """Entries with another tunnel than the topology's, which real servers do or do not take."""
    service = case.service
    for server in service.real_servers:
        entry = case.entry(server)
        if entry is None or entry.forward != TUN:
            continue
        has = tunnel_text(entry.encapsulation, entry.tunnel_port, entry.tunnel_flags)
        wanted = server.tunnel_text
        if has == wanted:
            continue
        same = (entry.encapsulation, entry.tunnel_port) == (Encapsulation.GUE, server.tunnel_port)
        if (same and server.encapsulation is Encapsulation.GUE) is not taken:
            continue
        yield Cause(
            fault="encapsulation-mismatch",
            node=case.director,
            text=f"the director's tunnel type for {server.node} is not that of its tunnel device"
            if not taken
            else f"the director's tunnel to {server.node} has another checksum than it should",
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
            consequence=f"{server.node} does not decapsulate the requests"
            if not taken
            else f"{server.node} takes them, but damage on the way is found otherwise than asked",
            remedy=exchanged(case, server, entry),
        )


def templates_of(case: Case, server: RealServer) -> Iterator[str]:
    """Persistence templates (client port 0) that bind clients to a real server."""
    learnt = case.evidence.before.get(case.director)
    seen = (*(learnt.connections if learnt is not None else ()), *case.trace.run.connections)
    mine = (c for c in seen if c.is_template and c.belongs_to(case.service.match))
    for entry in dict.fromkeys(c for c in mine if c.rip == server.rip):
        yield (
            f"{case.director}: a persistence template binds {entry.client} to {server.node} "
            f"for {entry.expires} s"
        )
        return


RULES = (
    Rule(find=any_usable, rules_out="a real server of the virtual service is usable"),
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
    Rule(
        find=checksums,
        modes=(TUN,),
        latent=True,
        rules_out="the tunnel's checksum is as configured",
    ),
)
