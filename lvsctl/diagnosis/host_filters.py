"""Rules about the packet filters of hosts: what they do to packets that nobody sent.

Of a lab, counters and frames show that (``packet_filter``, ``marks``, ``snat``, ``segments``). Here
the packets of each virtual service are followed through the rules. What a rule does that depends on
something unknown, a limit or a list of addresses, is a remark and no cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lvsctl.claims.base import join_names
from lvsctl.diagnosis import filter_commands as commands
from lvsctl.diagnosis.base import DR, NAT, TUN, Case, Found, Rule
from lvsctl.diagnosis.ruleset_walk import TooMany, Way, ways
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Cause, Remark
from lvsctl.model.packet_filter import Clamp, Marking, MasqueradeTarget
from lvsctl.model.ruleset import IPVS_PRIORITY, Hook, PacketSeen, Ruleset, Verb
from lvsctl.model.service import Encapsulation, FwMark, Protocol, RealServer

INGRESS, PREROUTING, INPUT = Hook.INGRESS, Hook.PREROUTING, Hook.INPUT
FORWARD, OUTPUT, POSTROUTING, EGRESS = (
    Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING, Hook.EGRESS,
)  # fmt: skip
_CONNTRACK = "net.ipv4.vs.conntrack"
_OUTER = {Encapsulation.IPIP: "ipencap", Encapsulation.GRE: "gre", Encapsulation.GUE: "udp"}


class Asked(NamedTuple):
    """A packet at a node, the hooks it passes, and what it is in words."""

    node: str
    hooks: tuple[Hook, ...]
    packet: PacketSeen
    what: str
    below: int | None = None


def _ruleset(case: Case, node: str) -> Ruleset | None:
    return case.network.rulesets.get(node)


def _followed(case: Case, asked: Asked) -> tuple[Way, ...]:
    """Every way of a packet; none where the rules were not read, or they are too many."""
    try:
        return _ways(case, asked)
    except TooMany:
        return ()  # ``dropped`` says so


def _ways(case: Case, asked: Asked) -> tuple[Way, ...]:
    ruleset = _ruleset(case, asked.node)
    if ruleset is None:
        return ()
    return ways(ruleset, asked.hooks, asked.packet, asked.below)


# ── packets ──────────────────────────────────────────────────────────────────────────────────


def _client(case: Case) -> IPAddress | None:
    """The client's address, unless lvsctl chose it: real clients have others."""
    chosen = {address.ip for one in case.lab.node(case.client).interfaces for address in one.chosen}
    return next((a for a in case.clients_addresses if a not in chosen), None)


def _ports(case: Case) -> tuple[int, ...]:
    """The ports of requests: the ends of each range, or some where all are meant."""
    match = case.service.match
    if not isinstance(match, FwMark):
        return (case.endpoint.port,)
    return tuple(dict.fromkeys(p for r in match.ports for p in (r.first, r.last))) or (1, 40000)


def _device(case: Case, node: str, address: IPAddress) -> str:
    """The node's interface on the network of an address; empty: not known."""
    network = case.lab.network_of(address)
    if network is None or network.name not in case.lab.node(node).networks:
        return ""
    link = case.network.interface(node, network.name)
    return link.name if link is not None else ""


def _request(case: Case, port: int, vip: IPAddress) -> PacketSeen:
    """A request as it reaches the director."""
    return PacketSeen(
        vip.version,
        str(case.endpoint.protocol),
        _client(case),
        vip,
        port=port,
        arrives=_device(case, case.director, vip),
        state="new",
        syn=case.endpoint.protocol is Protocol.TCP,
        target="local",
    )


def _coming(case: Case) -> Iterator[Asked]:
    """Requests at the director, as far as IPVS: to each VIP and port of the service."""
    hooks = (INGRESS, PREROUTING, INPUT)
    for vip in case.service.vips:
        for port in _ports(case):
            to = f"{vip}, {case.endpoint.protocol} port {port}"
            what = f"requests for {case.service.name} ({to})"
            yield Asked(case.director, hooks, _request(case, port, vip), what, IPVS_PRIORITY)


def _forwarded(case: Case, server: RealServer, *, inner: bool = False) -> PacketSeen:
    """A request as the director sends it to a real server; what IPVS does not let track."""
    port = server.answers_at(case.endpoint)
    mark = case.service.match.mark if isinstance(case.service.match, FwMark) else 0
    packet = _request(case, port, case.vip)._replace(
        arrives="", state="", target="unicast", mark=mark
    )
    if server.forward is NAT:
        return packet._replace(destination=server.rip)
    if server.forward is not TUN or inner:
        return packet._replace(port=case.endpoint.port)
    protocol = _OUTER[server.encapsulation]
    if protocol == "ipencap" and case.vip.version == 6:
        protocol = "ipv6"
    return PacketSeen(
        server.rip.version, protocol, None, server.rip, port=server.tunnel_port or None, mark=mark
    )


def _to_servers(case: Case) -> Iterator[Asked]:
    """Requests on their way to each real server: at the director, then there."""
    for server in case.service.remote:
        sent = _forwarded(case, server)
        leaves = _device(case, case.director, server.rip)
        to = f"requests to {server.node}"
        hooks = (OUTPUT, POSTROUTING, EGRESS)
        yield Asked(case.director, hooks, sent._replace(leaves=leaves), to)
        hooks = (INGRESS, PREROUTING, INPUT)
        arrives = _device(case, server.node, server.rip)
        came = sent._replace(arrives=arrives, mark=0, state="new", target="local")
        what = f"requests for {case.service.name}"
        yield Asked(server.node, hooks, came, what + " in the tunnel" * (server.forward is TUN))
        if server.forward is TUN:
            inside = _forwarded(case, server, inner=True)
            device = next(
                (
                    link.name
                    for link in case.state(server.node).links
                    if link.kind == server.tunnel(case.vip)
                ),
                "",
            )
            inside = inside._replace(arrives=device, mark=0, state="new", target="local")
            yield Asked(server.node, hooks[1:], inside, what)


def _replies(case: Case) -> Iterator[Asked]:
    """Replies of each real server, and where the director forwards them."""
    client = _client(case)
    tracked = case.state(case.director).sysctls.get(_CONNTRACK) == "1"
    for server in case.service.remote:
        port = server.answers_at(case.endpoint)
        source = server.rip if server.forward is NAT else case.vip
        networks = case.lab.node(server.node).networks
        packet = PacketSeen(
            case.vip.version, str(case.endpoint.protocol), source, client, source_port=port,
            leaves=case.network.device(server.node, networks[0]) if len(networks) == 1 else "",
            state="established", answers=True, target="unicast",
        )  # fmt: skip
        what = f"replies of {case.service.name}"
        yield Asked(server.node, (OUTPUT, POSTROUTING, EGRESS), packet, what)
        if server.forward is NAT and not case.service.snat:
            through = packet._replace(
                arrives=_device(case, case.director, server.rip),
                leaves=_device(case, case.director, client or case.vip),
                state="established" if tracked else "",
            )
            hooks = (INGRESS, PREROUTING, FORWARD, POSTROUTING, EGRESS)
            yield Asked(case.director, hooks, through, f"{what} from {server.node}")


# ── rules ────────────────────────────────────────────────────────────────────────────────────


def dropped(case: Case) -> Iterator[Found]:
    """No packet filter drops requests or replies."""
    for asked in (*_coming(case), *_to_servers(case), *_replies(case)):
        try:
            found = _ways(case, asked)
        except TooMany:
            text = f"what its packet filters do to {asked.what} was not judged: too much depends"
            yield Remark(asked.node, f"{text} on what is not known")
            continue
        lost = [way for way in found if way.dropped]
        if not lost:
            continue
        if len(lost) < len(found):
            yield _undecided(asked.node, f"a packet filter lets {asked.what} through", found)
            continue
        yield Cause(
            fault="packet-filter",
            node=asked.node,
            text=f"a packet filter drops {asked.what}",
            evidence=tuple(f"{asked.node}: {by}" for by in dict.fromkeys(way.by for way in lost)),
            consequence=f"they end at {asked.node}",
            remedy=_typed(case, asked.node, commands.let_through(lost[0], asked.packet)),
        )


def _undecided(node: str, what: str, found: Iterable[Way]) -> Remark:
    depends = tuple(dict.fromkeys(text for way in found for text in way.unsure))
    return Remark(node, f"whether {what} was not judged: it depends on {'; '.join(depends[:2])}")


def marked(case: Case) -> Iterator[Found]:
    """Requests of a service by firewall mark get its mark before IPVS sees them."""
    match = case.service.match
    if not isinstance(match, FwMark):
        return
    for asked in _coming(case):
        found = [way for way in _followed(case, asked) if not way.dropped]
        marks = {way.packet.mark for way in found}
        if not found or marks == {match.mark}:
            continue
        if match.mark in marks:
            yield _undecided(asked.node, f"{asked.what} get the mark {match.mark}", found)
            continue
        yield _unmarked(case, asked, found, match)


def _unmarked(case: Case, asked: Asked, found: Iterable[Way], match: FwMark) -> Cause:
    node, packet = asked.node, asked.packet
    others = dict.fromkeys(way.marked_by for way in found if way.marked_by is not None)
    facts = [f"it gets the mark {way.packet.mark}" for way in found if way.marked_by][:1]
    facts += [f"by {rule.text}" for rule in others]
    if not facts:
        facts = [f"no rule gives them the mark {match.mark} before IPVS takes them"]
    ruleset = _ruleset(case, node)
    near = () if ruleset is None else tuple(_near(ruleset, match.mark))
    ports = next((r for r in match.ports if r.first <= (packet.port or 0) <= r.last), None)
    vip = packet.destination or case.vip
    typed = [rule.delete for rule in others if rule.delete]
    typed += commands.mark(ruleset, Marking(match.mark, vip, case.endpoint.protocol, ports))
    return Cause(
        fault="mark-missing",
        node=node,
        text=f"the director does not mark requests to {vip} port {ports or 'any'} as {match.mark}",
        evidence=(f"{node}: {', '.join(facts)}", *(f"{node}: {fact}" for fact in near)),
        consequence=f"they are no requests of {match} for IPVS",
        remedy=_typed(case, node, typed),
    )


def _near(ruleset: Ruleset, mark: int) -> Iterator[str]:
    """Rules that give the mark to other packets, or too late."""
    late = (FORWARD, OUTPUT, POSTROUTING, EGRESS)
    for chain in ruleset.chains:
        for rule in chain.rules:
            if not any(a.verb is Verb.MARK and a.number == mark for a in rule.actions):
                continue
            if chain.hook in late or (chain.hook is INPUT and chain.priority >= IPVS_PRIORITY):
                yield f"{rule.text}: too late, IPVS takes packets at the end of the hook input"
            else:
                yield f"{rule.text}: other packets get it"


def masqueraded(case: Case) -> Iterator[Found]:
    """The director replaces the source of requests where the topology says, and only there."""
    director, wanted = case.director, case.service.snat
    tracked = case.state(director).sysctls.get(_CONNTRACK) == "1"
    if not wanted and not tracked:
        return  # IPVS's packets are not tracked: no rule of NAT is applied to them
    missing, unwanted = list[RealServer](), list[tuple[RealServer, Way]]()
    for server in case.service.remote:
        if server.forward not in (NAT, DR):
            continue
        packet = _forwarded(case, server)._replace(
            leaves=_device(case, director, server.rip), state="new"
        )
        asked = Asked(director, (POSTROUTING,), packet, f"requests to {server.node}")
        found = [way for way in _followed(case, asked) if not way.dropped]
        replaced = [way for way in found if way.source_by is not None]
        if found and len(replaced) == len(found):
            if not wanted:
                unwanted.append((server, replaced[0]))
        elif replaced:
            yield _undecided(director, f"the source of {asked.what} is replaced", found)
        elif found and wanted:
            missing.append(server)
    if missing:
        yield _missing(case, missing)
    if unwanted:
        yield _unwanted(case, unwanted)


def _missing(case: Case, servers: list[RealServer]) -> Cause:
    director, protocol = case.director, case.endpoint.protocol
    names = ", ".join(server.node for server in servers)
    typed = [
        words
        for server in servers
        for words in commands.masquerade(
            _ruleset(case, director), MasqueradeTarget(protocol, server.rip, server.port)
        )
    ]
    return Cause(
        fault="masquerade-missing",
        node=director,
        text="the director does not replace the source of requests by its own address",
        evidence=(f"{director}: no rule masquerades what is sent to {names}",),
        consequence=(
            "requests reach the real servers from the client's address, and they have no route "
            "to it through the director"
        ),
        remedy=_typed(case, director, typed),
    )


def _unwanted(case: Case, found: list[tuple[RealServer, Way]]) -> Cause:
    director = case.director
    rules = dict.fromkeys(way.source_by for _, way in found if way.source_by is not None)
    needed = any(one.snat for one in case.lab.services) or any(
        name == _CONNTRACK for name, _ in case.lab.node(director).sysctls
    )
    remedy = case.sysctl(director, _CONNTRACK, 0)
    if needed:
        remedy = _typed(case, director, [rule.delete for rule in rules])
    names = join_names([server.node for server, _ in found])
    sees = f"{names} see{'s' * (len(found) == 1)} the director's address and not the client's"
    nat = all(server.forward is NAT for server, _ in found)
    return Cause(
        fault="packet-rewriting",
        node=director,
        text=f"the director replaces the source of requests to {names} by its own address",
        evidence=(
            *(f"{director}: {rule.text}" for rule in rules),
            f"{director}: {_CONNTRACK}=1, so that it applies to what IPVS forwards",
        ),
        consequence=sees if nat else f"{sees}: the replies go to the director, not to the client",
        remedy=remedy,
    )


def clamped(case: Case) -> Iterator[Found]:
    """Nodes limit the segment size of TCP as the topology says, and others do not."""
    for node in case.lab.nodes:
        ruleset = _ruleset(case, node.name)
        if ruleset is None:
            continue
        through = FORWARD if node.name == case.director else OUTPUT
        leaves = case.network.device(node.name, node.networks[0]) if len(node.networks) == 1 else ""
        packet = PacketSeen(
            case.vip.version, "tcp", case.vip, _client(case),
            source_port=case.endpoint.port, leaves=leaves, syn=True, answers=True,
        )  # fmt: skip
        asked = Asked(node.name, (through, POSTROUTING), packet, "SYN+ACKs")
        sizes = {way.size for way in _followed(case, asked) if not way.dropped}
        if node.mss_clamp is None:
            if sizes and None not in sizes:
                limits = ", ".join(Clamp(case.vip.version, s).text for s in sizes if s is not None)
                yield Remark(node.name, f"a packet filter limits the segment size of TCP: {limits}")
            continue
        if not sizes or sizes == {node.mss_clamp}:
            continue
        wanted = Clamp(case.vip.version, node.mss_clamp)
        others = [Clamp(case.vip.version, s).text for s in sizes if s is not None]
        has = f"a rule limits it to {', '.join(others)}" if others else "no rule limits it"
        yield Cause(
            fault="mss-clamp-missing",
            node=node.name,
            text="a node does not limit the segment size of TCP as it should",
            evidence=(f"{node.name}: {has}; it should be {wanted.text}",),
            consequence=(
                "both ends send segments as large as they learn; what a link or a tunnel on the "
                "way does not carry depends on ICMP then"
            ),
            remedy=_typed(case, node.name, commands.clamp(ruleset, wanted)),
        )


def _typed(case: Case, node: str, some: Iterable[tuple[str, ...]]) -> str:
    return " && ".join(case.type(node, *words) for words in some)


def _read(case: Case) -> bool:
    return bool(case.network.rulesets)


RULES = (
    Rule(
        find=dropped,
        applies=_read,
        rules_out="no packet filter drops requests or replies",
    ),
    Rule(
        find=marked,
        applies=lambda case: _read(case) and isinstance(case.service.match, FwMark),
        rules_out="the director marks what the topology says, before IPVS takes it",
    ),
    Rule(
        find=masqueraded,
        applies=_read,
        rules_out="the source of requests is replaced where the topology says, and only there",
    ),
    Rule(
        find=clamped,
        applies=lambda case: _read(case) and case.endpoint.protocol is Protocol.TCP,
        rules_out="the segment size of TCP is limited where the topology says",
    ),
)
"""For hosts only: of a lab, no rules are known that a packet could be followed through."""
