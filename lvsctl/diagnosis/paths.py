"""Rules about the path of requests and replies, as every node's kernel would route them.

A request goes from the client to the VIP on the director and from there to each real server,
according to the forwarding method. The reply returns through the director in NAT and bypasses
it in TUN and DR. The node that blocks the path is the cause.
"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.diagnosis.base import DR, NAT, TUN, Case, Found, Rule, shown
from lvsctl.diagnosis.blocks import Leg, block_cause, route_remedy
from lvsctl.diagnosis.network import Hop, Path
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Cause
from lvsctl.model.lab import Role
from lvsctl.model.service import RealServer


def to_director(case: Case) -> Iterator[Found]:
    """From the client to the director: no other holder of the VIP may receive the request."""
    network, vip = case.network, case.vip
    if not network.local(case.director, vip) or network.holders(case.client, vip):
        return  # checked by the rules for the VIP's holders
    for cip in case.clients_addresses:
        path = network.path(case.client, cip, vip, wanted=case.director)
        if path.block is not None:
            yield from block_cause(case, path, Leg.REQUEST, vip)
        elif case.lab.node(path.end).role is Role.REAL_SERVER:  # others: named as vip-elsewhere
            hop = path.hops[-1]
            yield Cause(
                fault="director-bypassed",
                node=hop.node,
                text="requests for the VIP bypass the director and reach a real server directly",
                evidence=(
                    _leads(hop, vip),
                    *shown(case.requests(path.end)),
                ),
                consequence=f"{path.end} answers them all, and IPVS counts nothing",
                remedy=route_remedy(case, hop.node, vip, hop.rule),
            )


def to_real_servers(case: Case) -> Iterator[Found]:
    """From the director to each real server; direct routing reaches only its own segment."""
    cips = case.clients_addresses
    for server in case.service.remote:
        mode = server.forward
        dip = _dip(case, server.rip)
        sources = cips if mode is not TUN else (dip,) if dip is not None else ()
        for src in sources[:1]:
            path = case.network.path(case.director, src, server.rip, wanted=server.node)
            first = path.hops[0] if path.hops else None
            if mode is DR and first is not None and first.arrives != server.node:
                yield _behind_router(case, server, first)
            else:
                yield from block_cause(case, path, Leg.FORWARDED, server.rip)


def _dip(case: Case, rip: IPAddress) -> IPAddress | None:
    """The address that the director's kernel uses as the tunnel's source."""
    route = case.network.route(case.director, rip)
    link = case.state(case.director).link(route.device) if route is not None else None
    held = [a.ip for a in link.addresses] if link is not None else []
    own = [a.ip for i in case.lab.node(case.director).interfaces for a in i.addresses]
    found = (a for a in (*held, *own) if a.version == rip.version and a != case.vip)
    return next(found, None)


def _behind_router(case: Case, server: RealServer, hop: Hop) -> Cause:
    return Cause(
        fault="behind-router",
        node=case.director,
        text=f"the real server {server.node} is behind a router",
        evidence=(_leads(hop, server.rip), *shown(case.requests(hop.arrives))),
        consequence=(
            f"{hop.arrives} finds the VIP as destination and forwards the packet back to the "
            "director until its TTL expires"
        ),
        remedy=route_remedy(case, case.director, server.rip, hop.rule),
    )


def back(case: Case) -> Iterator[Found]:
    """From each real server to the client."""
    for server in case.service.remote:
        for cip in case.clients_addresses:
            if case.service.snat:
                continue  # replies go to the director's own address
            if server.forward is NAT:
                yield from _back_through_director(case, server, cip)
            else:
                yield from _back_directly(case, server, cip)


def _back_through_director(case: Case, server: RealServer, cip: IPAddress) -> Iterator[Found]:
    node = server.node
    path = case.network.path(node, server.rip, cip, wanted=case.client)
    first = path.hops[0] if path.hops else None
    if first is not None and first.arrives != case.director:
        if first.arrives == case.client:
            yield _client_beside(case, server, first, cip)
        else:
            yield Cause(
                fault="wrong-gateway",
                node=node,
                text="a real server's default gateway is not the director",
                evidence=(_leads(first, cip), *shown(case.replies(node, out=True))),
                consequence=(
                    "its replies, if they arrive, have the RIP as source, and the client resets "
                    "them, because it connected to the VIP"
                ),
                remedy=route_remedy(case, node, cip, first.rule),
            )
        return
    if path.block is not None and case.director not in (hop.node for hop in path.hops):
        yield from block_cause(case, path, Leg.REPLY, cip)
        return
    # Beyond the director, the reply's source is the VIP.
    if case.network.local(case.director, case.vip):
        further = case.network.path(case.director, case.vip, cip, wanted=case.client)
        yield from block_cause(case, further, Leg.REPLY, cip)


def _client_beside(case: Case, server: RealServer, hop: Hop, cip: IPAddress) -> Cause:
    planned = hop.device in case.lab.node(case.client).networks
    held = next(
        (a for link in case.network.holders(case.client, cip) for a in link.addresses
         if a.ip == cip), cip,
    )  # fmt: skip
    device = case.network.device(case.client, hop.device)
    words = ("addr", "del", held, "dev", device) if planned else ("link", "del", device)
    return Cause(
        fault="client-on-real-server-network",
        node=case.client,
        text="the client is on the real servers' network",
        evidence=(_leads(hop, cip), *shown(case.replies(server.node, out=True))),
        consequence=(
            "replies go directly to the client with the RIP as source, and it resets them"
        ),
        remedy=case.type(case.client, "ip", *words),
    )


def _back_directly(case: Case, server: RealServer, cip: IPAddress) -> Iterator[Found]:
    node = server.node
    if case.client == case.director:
        return  # named as client-is-director
    if not case.network.local(node, case.vip) or _is_wide(case, node, cip):
        return  # no source for replies, or they stay local: checked by other rules
    path = case.network.path(node, case.vip, cip, wanted=case.client)
    directors = {director.name for director in case.lab.directors}
    through = next((hop for hop in path.hops if hop.arrives in directors), None)
    if through is not None:
        director = through.arrives
        forwards = case.network.forwards(director, case.vip.version)
        own = bool(case.network.holders(director, case.vip))
        yield Cause(
            fault="gateway-is-director",
            node=through.node,
            text=f"the route from {node} to the client leads through the director",
            evidence=(
                _leads(through, cip),
                *([f"{director}: {case.vip}, the reply's source, is its own address"] * own),
                *shown(case.replies(director)),
            ),
            consequence=_dropped_by_director(forwards=forwards, own=own),
            remedy=route_remedy(case, through.node, cip, through.rule),
        )
        return
    yield from block_cause(case, path, Leg.REPLY, cip)


def _dropped_by_director(*, forwards: bool, own: bool) -> str:
    if own and forwards:
        return "the director drops replies whose source is its own address (martians)"
    if own:
        return (
            "the director drops the replies: it does not forward (if it did, they would be "
            "martians, for their source is its own address)"
        )
    return "the director drops the replies: it does not forward"


def _is_wide(case: Case, node: str, cip: IPAddress) -> bool:
    return case.network.local(node, cip)


def redirects(case: Case) -> Iterator[Found]:
    """A one-armed director must not tell the real servers of the shorter way to the client."""
    director, network = case.director, case.network
    members = {server.node for server in case.service.real_servers}
    for server in case.service.remote:
        for cip in case.clients_addresses:
            path: Path = network.path(server.node, server.rip, cip, wanted=case.client)
            if len(path.hops) < 2 or path.hops[0].arrives != director:
                continue
            came, went = path.hops[:2]
            device = network.device(director, went.device)
            value = network.effective(director, device, "send_redirects")
            if came.device != went.device or not value or went.arrives in members:
                continue  # a real server as the next hop is a wrong one
            sent = [
                f
                for f in case.trace.at(director)
                if f.icmp is not None and f.icmp.type == 5 and f.icmp.version == 4
            ]
            yield Cause(
                fault="redirects-sent",
                node=director,
                text="the director sends ICMP redirects to the real servers",
                evidence=(
                    f"{director}: send_redirects={value} counts for {device}: in and out",
                    *shown(sent),
                ),
                consequence=(
                    f"real servers that accept them send later replies directly to {went.to} and "
                    "bypass the director"
                ),
                remedy=case.type(
                    director,
                    *("sysctl", "-w", "net.ipv4.conf.all.send_redirects=0"),
                    f"net.ipv4.conf.{device}.send_redirects=0",
                ),
            )
            return


def _leads(hop: Hop, to: IPAddress) -> str:
    route = f"{hop.route.to or 'default'}"
    if hop.rule is not None:
        route = f"{route} of table {hop.route.table} (by the rule `{hop.rule.text}`)"
    via = f" via {hop.route.via}" if hop.route.via is not None else ", on the link"
    return (
        f"{hop.node}: its route to {to} is {route} dev {hop.route.device}{via}, "
        f"which leads to {hop.arrives}"
    )


RULES = (
    Rule(find=to_director, rules_out="the client's path to the VIP leads to the director"),
    Rule(find=to_real_servers, rules_out="the director reaches every real server"),
    Rule(find=back, rules_out="replies have the return path that the forwarding method needs"),
    Rule(
        find=redirects,
        modes=(NAT,),
        latent=True,
        rules_out="the director sends no redirects to real servers",
    ),
)
