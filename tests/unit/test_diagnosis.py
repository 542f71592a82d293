"""The rules of diagnosis on recorded evidence that is bent by hand, without a kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from itertools import chain
from typing import Any

import pytest

from lvsctl.claims import findings, notes
from lvsctl.claims.neighbours import wrongly_claimed
from lvsctl.claims.trace import traces
from lvsctl.diagnosis import conclusion
from lvsctl.diagnosis.engine import LAST, RULES
from lvsctl.diagnosis.kernel_counters import COUNTERS_BY_CAUSE, corroborate
from lvsctl.diagnosis.network import BlockReason, Network
from lvsctl.engine.findings import Diagnosis
from lvsctl.model.claim import Cause, Verdict
from lvsctl.model.evidence import Evidence, Exchange, Failure, Probe
from lvsctl.model.frame import Direction
from lvsctl.model.lab import Impairment
from lvsctl.model.packet_filter import TO_PATH_MTU, FilterProgram, FilterRule
from lvsctl.model.service import Encapsulation, FwMark, Protocol, Scheduler
from lvsctl.model.state import (
    LOSSES,
    MARTIANS,
    REASONS,
    AddressState,
    Connection,
    Counters,
    Dropped,
    FilterState,
    LinkState,
    NeighbourState,
    NodeState,
    QdiscState,
    RealServerState,
    RouteState,
    ServiceState,
    Setting,
)
from lvsctl.output.serialize import to_json
from lvsctl.output.text.style import Style
from lvsctl.output.text.verification import format_diagnosis
from tests.unit.recorded.mutations import (
    arp_request,
    at,
    both,
    delayed,
    duplicated,
    opening,
    tcp,
    to_port,
    with_asker,
    with_source,
)
from tests.unit.recorded.mutations import without as unseen
from tests.unit.recorded.reports import NAMES, evidence_of

Bend = Callable[[NodeState], NodeState]


def bent(evidence: Evidence, node: str, bend: Bend) -> Evidence:
    """``evidence`` with another state of one node."""
    states = {**evidence.states, node: bend(evidence.states[node])}
    return replace(evidence, states=states)


def unanswered(evidence: Evidence, node: str = "") -> Evidence:
    """The same, with requests (those that ``node`` answered) timed out."""

    def failed(exchange: Exchange) -> Exchange:
        if node and exchange.node != node:
            return exchange
        return replace(exchange, node="", status=0, error=Failure.TIMED_OUT)

    runs = tuple(replace(run, exchanges=tuple(map(failed, run.exchanges))) for run in evidence.runs)
    return replace(evidence, runs=runs)


def without(address: str) -> Bend:
    """The address taken off whatever device holds it."""
    gone = ip_address(address)
    return lambda state: replace(
        state,
        links=tuple(
            replace(link, addresses=tuple(a for a in link.addresses if a.ip != gone))
            for link in state.links
        ),
    )


def having(address: str, device: str) -> Bend:
    """An address added to a device."""
    more = ip_interface(address)
    return lambda state: replace(
        state,
        links=tuple(
            replace(link, addresses=(*link.addresses, more)) if link.name == device else link
            for link in state.links
        ),
    )


def down(device: str) -> Bend:
    """A device that is down."""
    return lambda state: replace(
        state,
        links=tuple(
            replace(link, up=False, carrier=False) if link.name == device else link
            for link in state.links
        ),
    )


def setting(key: str, value: str) -> Bend:
    """A sysctl set otherwise."""
    return lambda state: replace(state, sysctls={**state.sysctls, key: value})


def routed(to: str | None, via: str | None, device: str) -> Bend:
    """One more route; a default route replaces the one that is there."""
    new = RouteState(
        ip_network(to) if to else None, ip_address(via) if via else None, device, kernel=False
    )
    return lambda state: replace(
        state, routes=(*(r for r in state.routes if to or r.to is not None), new)
    )


def no_default(state: NodeState) -> NodeState:
    """Without a default route."""
    return replace(state, routes=tuple(r for r in state.routes if r.to is not None))


def neighbour(address: str, mac: str, device: str) -> Bend:
    """A static entry of the ARP cache."""
    entry = NeighbourState(ip_address(address), device, mac, "permanent")
    return lambda state: replace(
        state,
        neighbours=(*(n for n in state.neighbours if n.address != entry.address), entry),
    )


def drained(state: NodeState) -> NodeState:
    """The first real server of the first service has weight 0."""
    first, *others = state.services
    server, *rest = first.real_servers
    changed = first._replace(real_servers=(server._replace(weight=0), *rest))
    return replace(state, services=(changed, *others))


def without_gue(state: NodeState) -> NodeState:
    """GUE is not taken off."""
    return replace(state, gue_ports=())


def tunnelling(encapsulation: Encapsulation, port: int = 0) -> Bend:
    """IPVS puts what is for the first real server into another tunnel."""

    def change(state: NodeState) -> NodeState:
        first, *others = state.services
        server, *rest = first.real_servers
        other = server._replace(encapsulation=encapsulation, tunnel_port=port)
        return replace(state, services=(first._replace(real_servers=(other, *rest)), *others))

    return change


def deaf(state: NodeState) -> NodeState:
    """Nothing listens."""
    return replace(state, listeners=())


def listeners(**changes: Any) -> Bend:
    """The real server's sockets, changed."""
    return lambda state: replace(
        state, listeners=tuple(one._replace(**changes) for one in state.listeners)
    )


def no_weights(state: NodeState) -> NodeState:
    """Every real server has weight 0."""
    return with_entries(lambda entries: tuple(e._replace(weight=0) for e in entries))(state)


def with_entries(
    change: Callable[[tuple[RealServerState, ...]], tuple[RealServerState, ...]],
) -> Bend:
    """The first service's real servers in the director's table, changed."""

    def bend(state: NodeState) -> NodeState:
        first, *others = state.services
        changed = first._replace(real_servers=change(first.real_servers))
        return replace(state, services=(changed, *others))

    return bend


def misspelt(entries: tuple[RealServerState, ...]) -> tuple[RealServerState, ...]:
    return (entries[0]._replace(rip=ip_address("10.10.0.99")), *entries[1:])


def one_more(entries: tuple[RealServerState, ...]) -> tuple[RealServerState, ...]:
    return (*entries, entries[0]._replace(rip=ip_address("10.10.0.99")))


def flagged(*flags: str) -> Bend:
    """The first service has these flags."""

    def bend(state: NodeState) -> NodeState:
        first, *others = state.services
        return replace(state, services=(first._replace(flags=flags), *others))

    return bend


def ipvs_set(name: str, value: str) -> Bend:
    """A setting of IPVS that differs from a fresh namespace's."""
    return lambda state: replace(
        state, changed_sysctls=(Setting(f"net.ipv4.vs.{name}", value, "0"),)
    )


def address_flag(device: str, flag: str) -> Bend:
    """The VIPs on a device have a flag of ip-address(8)."""

    def flagged(link: LinkState) -> LinkState:
        vips = (a for a in link.addresses if a.network.prefixlen == a.max_prefixlen)
        return replace(link, unusual_addresses=tuple(AddressState(a, (flag,)) for a in vips))

    return lambda state: replace(
        state,
        links=tuple(flagged(link) if link.name == device else link for link in state.links),
    )


def with_mac(mac: str) -> Bend:
    """The node's interfaces have this MAC address."""
    return lambda state: replace(
        state,
        links=tuple(replace(one, mac=mac) if one.kind == "veth" else one for one in state.links),
    )


def empty(state: NodeState) -> NodeState:
    """No virtual service."""
    return replace(state, services=())


def named(evidence: Evidence) -> list[tuple[str, str]]:
    return [(cause.fault, cause.node) for cause in conclusion(evidence).causes]


@pytest.mark.parametrize("name", NAMES)
def test_recorded_healthy_labs_have_no_cause_and_no_remark(name: str) -> None:
    said = conclusion(evidence_of(name))
    assert (said.causes, said.remarks, said.works, said.next_steps) == ((), (), True, ())
    assert said.ruled_out


IP4 = "net.ipv4.conf"
BENT = (
    ("dr", "rs1", without("10.10.0.100"), "vip-missing"),
    ("tun", "rs2", without("10.30.1.100"), "vip-missing"),
    ("nat", "director", without("10.20.0.100"), "vip-missing-on-director"),
    ("dr", "rs1", down("lan"), "real-server-down"),
    ("dr", "rs1", down("lo"), "interface-down"),
    ("dr", "client", having("10.10.0.100/32", "lo"), "vip-elsewhere"),
    ("dr", "rs2", having("10.10.0.11/24", "lan"), "duplicate-address"),
    ("tun", "rs1", down("tunl0"), "tunnel-down"),
    ("tun-gre", "rs1", down("gre0"), "tunnel-down"),
    ("tun-gue", "rs2", without_gue, "gue-port-missing"),
    ("tun", "director", tunnelling(Encapsulation.GRE), "encapsulation-mismatch"),
    ("tun-gue", "director", tunnelling(Encapsulation.GUE, 7777), "encapsulation-mismatch"),
    ("tun", "rs1", setting(f"{IP4}.tunl0.rp_filter", "1"), "rp-filter-on-tunnel"),
    ("tun", "rs1", setting(f"{IP4}.all.rp_filter", "1"), "rp-filter-on-tunnel"),
    ("tun", "router", setting(f"{IP4}.all.rp_filter", "1"), "rp-filter-on-router"),
    ("tun", "router", setting("net.ipv4.ip_forward", "0"), "router-not-forwarding"),
    ("tun", "director", no_default, "no-route-to-real-server"),
    ("nat", "director", setting("net.ipv4.ip_forward", "0"), "ip-forward-off"),
    ("nat", "rs1", no_default, "no-default-gateway"),
    ("nat", "rs1", routed(None, "192.168.20.12", "private"), "wrong-gateway"),
    ("nat", "rs1", routed(None, "192.168.20.77", "private"), "wrong-gateway"),
    ("nat-one-arm", "rs1", routed(None, "10.21.0.1", "lan"), "wrong-gateway"),
    ("dr-routed", "rs1", routed(None, "10.11.0.2", "lan"), "gateway-is-director"),
    ("dr-routed", "director", routed("10.11.0.11/32", "10.11.0.1", "lan"), "behind-router"),
    ("dr-routed", "router", routed("10.11.0.100/32", "10.11.0.12", "lan"), "director-bypassed"),
    ("dr-routed", "client", no_default, "no-route"),
    ("nat", "rs1", deaf, "service-stopped"),
    ("nat", "rs1", listeners(port=81), "listens-elsewhere"),
    ("dr", "rs1", listeners(port=81, process="nginx"), "listens-elsewhere"),
    ("dr", "rs2", listeners(address=ip_address("127.0.0.1")), "listens-elsewhere"),
    ("dr", "rs2", listeners(address=ip_address("10.10.0.12")), "listens-elsewhere"),
    ("tun", "rs1", listeners(protocol=Protocol.UDP), "listens-elsewhere"),
    ("nat", "director", no_weights, "no-usable-real-server"),
    ("dr", "director", no_weights, "no-usable-real-server"),
    ("dr", "director", empty, "service-missing"),
    ("dr", "director", neighbour("10.10.0.11", "02:01:00:00:00:01", "lan"), "stale-neighbour"),
    ("dr", "client", neighbour("10.10.0.100", "02:01:00:00:00:01", "lan"), "stale-vip-neighbour"),
    ("dr-ipv6", "director", address_flag("lan", "tentative"), "vip-tentative"),
    ("dr-ipv6", "director", address_flag("lan", "dadfailed"), "vip-tentative"),
    ("dr-ipv6", "router", setting("net.ipv6.conf.all.forwarding", "0"), "router-not-forwarding"),
    ("tun-ipv6", "rs1", down("ip6tnl0"), "tunnel-down"),
)


@pytest.mark.parametrize("node", ["director", "rs1"])
def test_ipv6_addresses_that_went_with_their_interface_are_no_causes(node: str) -> None:
    def gone(state: NodeState) -> NodeState:
        links = (replace(one, addresses=()) if one.name == "lan" else one for one in state.links)
        return down("lan")(replace(state, links=tuple(links)))

    (cause,) = conclusion(bent(unanswered(evidence_of("dr-ipv6"), "rs1"), node, gone)).causes
    assert cause.fault in ("interface-down", "real-server-down")
    assert cause.evidence[0] == f"{node}: lan is down, and its IPv6 addresses went with it"
    assert cause.remedy == "lvsctl up dr-ipv6"


@pytest.mark.parametrize(
    ("name", "node", "bend", "fault"), BENT, ids=[f"{b[0]}-{b[3]}@{b[1]}" for b in BENT]
)
def test_what_is_missing_is_named_first(name: str, node: str, bend: Bend, fault: str) -> None:
    assert named(unanswered(bent(evidence_of(name), node, bend)))[:1] == [(fault, node)]


@pytest.mark.parametrize(
    ("name", "node", "bend", "fault"), BENT, ids=[f"{b[0]}-{b[3]}@{b[1]}" for b in BENT]
)
def test_what_did_no_harm_is_at_most_a_remark(name: str, node: str, bend: Bend, fault: str) -> None:
    """The frames are those of a lab that works: whatever the state says, it did no harm."""
    said = conclusion(bent(evidence_of(name), node, bend))
    causes = [cause.fault for cause in said.causes]
    assert fault not in causes or not said.works


def without_hop(state: NodeState) -> NodeState:
    """A route over several next hops has lost the last one."""
    *kept, last = (one for one in state.routes if one.hops > 1)
    rest = tuple(one._replace(hops=one.hops - 1) for one in kept)
    return replace(state, routes=(*(r for r in state.routes if r not in (*kept, last)), *rest))


def rotated(state: NodeState) -> NodeState:
    """The first real server of each service was deleted and added again."""

    def again(table: ServiceState) -> ServiceState:
        first, *others = table.real_servers
        return table._replace(real_servers=(*others, first))

    return replace(state, services=tuple(map(again, state.services)))


LATENT: tuple[tuple[str, str, Bend, list[tuple[str, str]]], ...] = (
    ("dr", "rs1", setting(f"{IP4}.all.arp_announce", "1"), []),
    ("dr-ipv6", "rs1", having("fd00:11::100/128", "lan"), []),
    ("dr", "director", drained, [("real-server-drained", "director")]),
    (
        "nat-one-arm",
        "director",
        setting(f"{IP4}.all.send_redirects", "1"),
        [("redirects-sent", "director")],
    ),
    ("dr", "rs1", listeners(state="T"), [("process-stopped", "rs1")]),
    ("dr", "rs2", with_mac("02:00:0a:0a:00:0b"), [("duplicate-mac", "rs2")]),
    ("nat", "client", with_mac("02:00:0a:14:00:02"), [("duplicate-mac", "client")]),
    ("dr", "director", with_entries(misspelt), [("real-server-misspelt", "director")]),
    ("dr", "director", with_entries(one_more), [("real-server-unknown", "director")]),
    ("dr", "director", ipvs_set("drop_packet", "3"), [("drop-packet", "director")]),
    ("dr", "director", ipvs_set("drop_packet", "1"), []),
    ("dr", "director", ipvs_set("drop_entry", "3"), [("drop-entry", "director")]),
    ("dr", "director", ipvs_set("backup_only", "1"), []),
    ("dr", "director", flagged("flag-1"), []),
    ("ecmp", "director2", setting("net.ipv4.vs.sloppy_tcp", "0"), [("sloppy-off", "director2")]),
    ("ecmp", "director2", rotated, [("real-servers-reordered", "director2")]),
    ("ecmp", "router", without_hop, [("next-hop-missing", "router")]),
    (
        "ecmp",
        "router",
        setting("net.ipv4.fib_multipath_hash_policy", "0"),
        [("hashed-by-address", "router")],
    ),
    ("ecmp", "director1", down("hub"), [("director-down", "director1")]),
)


def test_a_sorry_server_in_place_of_the_real_servers_is_said_and_no_cause() -> None:
    """keepalived put it there, because no real server was usable."""
    evidence = evidence_of("dr")
    service = evidence.lab.services[0]
    sorry = replace(service.real_servers[0], node="rs2", rip=ip_address("10.10.0.13"))

    def only_sorry(state: NodeState) -> NodeState:
        table = state.services[0]
        entry = table.real_servers[0]._replace(rip=sorry.rip)
        return replace(state, services=(table._replace(real_servers=(entry,)),))

    nodes = tuple(
        replace(node, run=("keepalived", "-n")) if node.role == "director" else node
        for node in evidence.lab.nodes
    )
    lab = replace(evidence.lab, nodes=nodes, services=(replace(service, sorry=sorry),))
    runs = tuple(replace(run, service=lab.services[0]) for run in evidence.runs)
    bare = replace(evidence, lab=lab, runs=runs)
    said = conclusion(bent(bare, "director", only_sorry))
    assert "real-server-unknown" not in [one.fault for one in said.causes]
    text = "director: rs2, the sorry server, is in the table: no real server is usable"
    assert text in said.remarks


@pytest.mark.parametrize(("name", "node", "bend", "expected"), LATENT)
def test_what_bites_later_is_named_though_all_works(
    name: str, node: str, bend: Bend, expected: list[tuple[str, str]]
) -> None:
    """But not where the frames show the opposite: rs1 asked, and from its own address."""
    assert named(bent(evidence_of(name), node, bend)) == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((Setting("remote", "10.30.9.9", ""),), "from 10.30.9.9 only"),
        ((Setting("local", "10.30.2.99", ""),), "to 10.30.2.99 only"),
        ((Setting("remote", "10.30.1.2", ""), Setting("local", "10.30.2.11", "")), ""),
    ],
)
def test_a_tunnel_device_with_other_ends_is_named(
    settings: tuple[Setting, ...], words: str
) -> None:
    bend = relinked("tunl0", settings=settings)
    causes = conclusion(unanswered(bent(evidence_of("tun"), "rs1", bend), "rs1")).causes
    found = [cause for cause in causes if cause.fault == "tunnel-endpoint"]
    assert [cause.node for cause in found] == (["rs1"] if words else [])
    assert all(words in cause.evidence[0] for cause in found)


def learnt(address: str, mac: str, state: str = "stale", device: str = "lan") -> NodeState:
    """What a node had learnt before the requests."""
    entry = NeighbourState(ip_address(address), device, mac, state)
    return NodeState("", neighbours=(entry,))


@pytest.mark.parametrize(
    ("node", "address", "mac", "state", "expected"),
    [
        ("client", "10.10.0.100", "02:01:00:00:00:01", "stale", "stale-vip-neighbour"),
        ("client", "10.10.0.100", "02:00:0a:0a:00:0b", "reachable", "stale-vip-neighbour"),
        ("director", "10.10.0.11", "02:00:0a:0a:00:0c", "delay", "stale-neighbour"),
        ("rs1", "10.10.0.10", "02:01:00:00:00:01", "stale", "stale-neighbour"),
        ("director", "10.10.0.11", "02:00:0a:0a:00:0b", "stale", ""),
        ("director", "10.10.0.11", "02:01:00:00:00:01", "failed", ""),
    ],
)
def test_what_was_learnt_wrong_before_asking_is_a_cause_and_fails_a_claim(
    node: str, address: str, mac: str, state: str, expected: str
) -> None:
    evidence = replace(evidence_of("dr"), before={node: learnt(address, mac, state)})
    failed = [f.claim.id for f in findings(evidence) if f.verdict is Verdict.FAIL]

    assert named(evidence) == ([(expected, node)] if expected else [])
    assert failed == (["all.neighbours-right"] if expected else [])


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"proxies": (NeighbourState(ip_address("10.10.0.11"), "lan", "", "proxy"),)},
         "lvsctl exec dr/rs2 -- ip neigh del proxy 10.10.0.11 dev lan"),
        ({"changed_sysctls": (Setting("net.ipv4.conf.all.proxy_arp", "1", "0"),)},
         "lvsctl exec dr/rs2 -- sysctl -w net.ipv4.conf.all.proxy_arp=0"),
        ({}, "lvsctl up dr"),
    ],
    ids=["entry", "proxy_arp", "unknown"],
)  # fmt: skip
def test_a_node_that_answers_for_anothers_address_is_named(
    changes: dict[str, Any], remedy: str
) -> None:
    """rs2 sends what rs1 answers to an ARP request for its own address."""
    evidence = bent(evidence_of("dr"), "rs2", lambda state: replace(state, **changes))
    answers = (f for f in evidence.frames if f.arp is not None and f.arp.is_reply)
    frame = next(f for f in answers if (f.tap.node, f.direction) == ("rs1", Direction.OUT))
    taken = replace(frame, raw=replace(frame.raw, tap=replace(frame.tap, node="rs2")))

    said = conclusion(replace(evidence, frames=(*evidence.frames, taken)))
    assert [(c.fault, c.node, c.remedy) for c in said.causes] == [("proxy-answers", "rs2", remedy)]


def test_what_a_dummy_device_has_was_not_learnt() -> None:
    """Its entries have the device's own MAC address (state noarp)."""
    own = learnt("10.10.0.100", "02:01:00:00:00:01", "noarp", "dummy7")
    assert named(replace(evidence_of("dr"), before={"client": own})) == []


def test_what_a_node_still_claims_is_not_called_learnt_before() -> None:
    """Its own rule names it; and once repaired, what it taught is not held against the lab."""
    asking_as_vip = with_asker(both(at("rs1", Direction.OUT), arp_request), "10.10.0.100")
    rs1 = "02:00:0a:0a:00:0b"
    evidence = replace(
        asking_as_vip(evidence_of("dr")), before={"client": learnt("10.10.0.100", rs1)}
    )

    assert wrongly_claimed(evidence) == {(ip_address("10.10.0.100"), rs1)}
    assert "stale-vip-neighbour" not in dict(named(evidence))


def with_earlier_connections(evidence: Evidence, rip: str, state: str, count: int) -> Evidence:
    """The director had connections to ``rip`` before it was asked."""
    vip, client, server = (ip_address(a) for a in ("10.10.0.100", "10.10.0.10", rip))
    entries = tuple(
        Connection(Protocol.TCP, client, 50000 + n, vip, 80, server, 80, state, 60 - n)
        for n in range(count)
    )
    return replace(evidence, before={"director": NodeState("lvs-dr-director", connections=entries)})


@pytest.mark.parametrize(
    ("rip", "state", "count", "said"),
    [
        ("10.10.0.11", "SYN_RECV", 10, "10 connections to rs1 from before have not completed"),
        ("10.10.0.11", "SYN_RECV", 9, ""),
        ("10.10.0.11", "ESTABLISHED", 20, ""),
        ("10.10.0.77", "ESTABLISHED", 3, "3 connections lead to 10.10.0.77, which was removed"),
    ],
)
def test_connections_of_earlier_clients_are_looked_at(
    rip: str, state: str, count: int, said: str
) -> None:
    found = conclusion(with_earlier_connections(evidence_of("dr"), rip, state, count))
    assert found.causes == ()
    assert said in " ".join(found.remarks)
    assert bool(found.remarks) == bool(said)


def test_who_is_kept_from_a_drained_server_is_said_exactly() -> None:
    alone = bent(evidence_of("dr"), "director", drained)
    (cause,) = conclusion(alone).causes
    assert cause.consequence == "no new connection reaches rs1"
    (cause,) = conclusion(with_earlier_connections(alone, "10.10.0.11", "FIN_WAIT", 2)).causes
    assert "the 2 that have an entry in the connection table still do" in cause.consequence


def failing(evidence: Evidence, server: str, **changes: Any) -> Evidence:
    """``evidence`` in which the requests that ``server`` answered ended otherwise."""

    def failed(exchange: Exchange) -> Exchange:
        return replace(exchange, **changes) if exchange.node == server else exchange

    runs = tuple(replace(run, exchanges=tuple(map(failed, run.exchanges))) for run in evidence.runs)
    return replace(evidence, runs=runs)


def without_answers(evidence: Evidence, node: str) -> Evidence:
    """No segment with data left ``node``."""
    frames = tuple(
        f
        for f in evidence.frames
        if not (f.tap.node == node and f.direction is Direction.OUT and f.payload)
    )
    return replace(evidence, frames=frames)


@pytest.mark.parametrize("name", ["dr", "nat", "tun", "tun-gre"])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": 503}, "server-error"),
        ({"error": Failure.MALFORMED}, "server-malformed"),
        ({"error": Failure.CLOSED}, "server-closes"),
        ({"error": Failure.TIMED_OUT}, "server-silent"),
    ],
)
def test_what_a_process_does_is_never_called_a_firewall(
    name: str, changes: dict[str, Any], expected: str
) -> None:
    evidence = without_answers(failing(evidence_of(name), "rs1", **changes), "rs1")

    assert named(evidence)[:1] == [(expected, "rs1")]
    assert "filter" not in " ".join(fault for fault, _ in named(evidence))


@pytest.mark.parametrize("backlog", [5, 0])
def test_a_full_queue_is_why_a_server_does_not_answer(backlog: int) -> None:
    """Of a backlog of 0, too: the kernel lets one connection more wait than that."""
    waiting = bent(evidence_of("dr"), "rs1", listeners(queued=backlog + 1, backlog=backlog))
    counted = replace(waiting, counters={"rs1": {"TcpExtListenOverflows": 4}})
    (cause,) = conclusion(failing(counted, "rs1", error=Failure.TIMED_OUT)).causes

    assert (cause.fault, cause.node) == ("backlog-full", "rs1")
    assert "TcpExtListenOverflows +4" in " ".join(cause.evidence)


def test_a_slow_server_is_told_by_what_it_took() -> None:
    evidence = without_answers(failing(evidence_of("dr"), "rs1", error=Failure.TIMED_OUT), "rs1")
    (run,) = evidence.runs
    late = replace(run.exchanges[0], node="rs1", error="", seconds=4.2)
    own = next(e for e in run.exchanges if run_assigned(evidence, e) == "rs1")
    evidence = replace(evidence, runs=(replace(run, slow=(replace(late, local=own.local),)),))
    (cause,) = conclusion(evidence).causes

    assert cause.fault == "server-slow"
    assert "4.2 s" in cause.text


def run_assigned(evidence: Evidence, exchange: Exchange) -> str:
    return next(traces(evidence)).assigned(exchange)


def test_a_client_without_ports_is_the_cause() -> None:
    evidence = failing(evidence_of("dr"), "rs1", node="", error=Failure.NO_PORT)
    assert named(evidence)[:1] == [("local-ports-exhausted", "client")]


def asked_from(node: str, address: str, *, answered: bool) -> Evidence:
    """The evidence of dr as if one of its other nodes had sent the requests, none captured."""
    evidence = evidence_of("dr")

    def own(exchange: Exchange) -> Exchange:
        assert exchange.local is not None
        local = exchange.local._replace(address=ip_address(address))
        error = Failure.NONE if answered else Failure.TIMED_OUT
        return replace(exchange, local=local, node=node if answered else "", error=error)

    (run,) = evidence.runs
    run = replace(run, client=node, exchanges=tuple(map(own, run.exchanges)), larges=(), large=None)
    return replace(evidence, runs=(run,), frames=())


@pytest.mark.parametrize(
    ("node", "cause", "answered"),
    [("director", "client-is-director", False), ("rs1", "client-is-real-server", True)],
)
def test_a_node_that_cannot_be_a_client_does_not_make_the_lab_broken(
    node: str, cause: str, answered: bool
) -> None:
    evidence = asked_from(node, "10.10.0.100", answered=answered)
    assert named(evidence) == [(cause, node)]
    assert Verdict.FAIL not in {one.verdict for one in findings(evidence)}
    (note,) = notes(evidence)
    assert "it holds 10.10.0.100" in note


def test_a_director_that_cannot_find_real_servers_from_the_vip_is_shown_by_its_arp_request() -> (
    None
):
    asks = both(at("director", Direction.OUT), arp_request)
    heard = with_asker(asks, "10.10.0.100")(evidence_of("dr"))
    evidence = asked_from("director", "10.10.0.100", answered=False)
    (cause,) = conclusion(replace(evidence, frames=tuple(filter(asks, heard.frames)))).causes
    assert any("who has 10.10.0.12? tell 10.10.0.100" in one for one in cause.evidence)
    assert cause.consequence.endswith("an ARP request comes from themselves, and they do not reply")


def test_a_real_server_without_the_vip_is_a_client_like_others() -> None:
    evidence = asked_from("rs1", "10.10.0.11", answered=True)
    evidence = bent(evidence, "rs1", without("10.10.0.100"))
    assert not list(notes(evidence))
    assert Verdict.FAIL in {one.verdict for one in findings(evidence)}


def test_a_hash_without_fallback_is_why_some_are_refused() -> None:
    def hashing(state: NodeState) -> NodeState:
        (service, *others) = drained(state).services
        return replace(state, services=(service._replace(scheduler="sh"), *others))

    evidence = bent(failing(evidence_of("dr"), "rs1", error=Failure.REFUSED), "director", hashing)
    assert ("no-fallback", "director") in named(evidence)


@pytest.mark.parametrize(
    ("mark", "named"), [("ip_proto tcp,dst_ip 10.10.0.100", True), ("", False)]
)
def test_a_service_of_the_topology_takes_requests_only_where_they_get_its_mark(
    mark: str, named: bool
) -> None:
    """Its counters are those of its own requests: they prove nothing about others."""

    def counting(state: NodeState) -> NodeState:
        other = state.services[0]._replace(match=FwMark(9, 4), counters=Counters(packets_in=48))
        match = tuple(mark.split(",")) if mark else ("ip_proto tcp", "dst_ip 10.10.0.101")
        made = FilterState("lan", "ingress", "flower", 1, "ip", ("mark 9",), match)
        return replace(state, services=(*state.services, other), filters=(made,))

    evidence = bent(evidence_of("dr"), "director", counting)
    one = evidence.lab.services[0]
    lab = replace(evidence.lab, services=(one, replace(one, name="site", match=FwMark(9, 4))))
    runs = tuple(replace(run, after=run.before) for run in evidence.runs)
    found = conclusion(replace(evidence, lab=lab, runs=runs)).causes
    assert any(cause.fault == "taken-by-mark" for cause in found) == named


@pytest.mark.parametrize("counted", [48, 0])
def test_a_service_by_firewall_mark_that_takes_the_requests_is_named(counted: int) -> None:
    def marked(state: NodeState) -> NodeState:
        other = ServiceState(FwMark(9, 4), "rr", 0, (), Counters(packets_in=counted))
        mark = FilterState("lan", "ingress", "flower", 1, "ip", ("mark 9",), ("ip_proto tcp",))
        return replace(state, services=(*state.services, other), filters=(mark,))

    evidence = bent(evidence_of("dr"), "director", marked)
    (run,) = evidence.runs
    evidence = replace(evidence, runs=(replace(run, after=run.before),))
    found = [one for one in conclusion(evidence).causes if one.fault == "taken-by-mark"]
    assert len(found) == bool(counted)
    if found:
        assert "a filter at lan marks ip_proto tcp" in " ".join(found[0].evidence)
        assert found[0].remedy.endswith("ipvsadm -D -f 9")


def test_what_works_otherwise_is_no_failure_and_has_no_cause() -> None:
    """Every request is answered, but its source is replaced on the way."""
    there = both(at("director", Direction.OUT), to_port(8080), tcp)
    said = conclusion(with_source(there, "192.168.20.2")(evidence_of("nat")))

    assert said.works
    assert said.causes == ()
    assert any("nat.request-rewritten" in line for line in said.differences)


def test_a_claim_that_fails_without_harm_is_told() -> None:
    said = conclusion(bent(evidence_of("nat"), "rs1", having("10.20.0.100/32", "lo")))
    assert (said.causes, said.works, said.healthy) == ((), True, False)
    assert said.differences == ("nat.real-servers-need-nothing: rs1 holds the VIP",)


def test_what_no_rule_speaks_of_is_told_where_all_works() -> None:
    """And of a lab that does not work, it is not said that it does no harm."""
    evidence = evidence_of("dr")
    ttl = Setting("net.ipv4.ip_default_ttl", "1", "64")

    def bend(state: NodeState) -> NodeState:
        return replace(state, whole=True, changed_sysctls=(ttl,))

    changed = bent(evidence, "rs1", bend)
    said = conclusion(changed)
    assert said.healthy
    assert "rs1: net.ipv4.ip_default_ttl is 1, not 64 as in a fresh namespace" in said.remarks
    assert not any("ttl" in text for text in conclusion(unanswered(changed)).remarks)


def test_every_client_of_a_service_is_judged() -> None:
    evidence = evidence_of("dr")
    (run,) = evidence.runs
    lost = replace(run.exchanges[0], node="", error=Failure.TIMED_OUT)
    probed = replace(evidence, runs=(replace(run, others=(Probe("client", (lost,)),)),))
    failed = [f.claim.id for f in findings(probed) if f.verdict is Verdict.FAIL]

    assert failed == ["all.every-client-answered"]
    assert not conclusion(probed).works


def test_a_setting_counts_as_the_kernel_computes_it() -> None:
    key = f"{IP4}.%s.arp_ignore"
    silenced = bent(evidence_of("dr"), "rs1", setting(key % "all", "0"))
    network = Network(silenced.lab, silenced.states)
    assert network.answers("rs1", "lan", ip_address("10.10.0.100"))
    for device, value, answers in (("lo", "1", True), ("lan", "1", False), ("lan", "2", False)):
        states = bent(silenced, "rs1", setting(key % device, value)).states
        network = Network(silenced.lab, states)
        assert network.answers("rs1", "lan", ip_address("10.10.0.100")) is answers


def test_a_packet_is_followed_by_the_nodes_own_tables() -> None:
    evidence = evidence_of("tun")
    network = Network(evidence.lab, evidence.states)
    path = network.path("director", ip_address("10.30.1.2"), ip_address("10.30.3.11"))
    assert (path.nodes, path.block) == (("director", "router", "rs-far"), None)
    blocked = bent(evidence, "router", setting("net.ipv4.ip_forward", "0"))
    path = Network(blocked.lab, blocked.states).path(
        "director", ip_address("10.30.1.2"), ip_address("10.30.3.11")
    )
    assert path.block is not None
    assert (path.block.reason, path.block.node) == (BlockReason.NOT_FORWARDING, "router")


def test_a_loose_filter_is_no_obstacle() -> None:
    evidence = unanswered(evidence_of("tun"), "rs1")
    loose = bent(evidence, "rs1", setting(f"{IP4}.tunl0.rp_filter", "2"))
    assert "rp-filter-on-tunnel" not in dict(named(loose))


def test_a_changed_scheduler_is_a_cause_where_the_distribution_is_not_the_promised_one() -> None:
    def scheduled(state: NodeState) -> NodeState:
        changed = tuple(s._replace(scheduler=Scheduler.SH) for s in state.services)
        return replace(state, services=changed)

    said = conclusion(bent(evidence_of("dr"), "director", scheduled))
    assert said.causes == ()
    assert any("scheduled by sh" in remark for remark in said.remarks)


def test_several_causes_are_all_named() -> None:
    evidence = bent(evidence_of("tun"), "rs1", down("tunl0"))
    evidence = bent(evidence, "rs2", without("10.30.1.100"))
    found = named(unanswered(evidence))
    assert set(found) == {("tunnel-down", "rs1"), ("vip-missing", "rs2")}


def test_where_no_rule_matches_it_says_what_was_ruled_out_and_where_to_look() -> None:
    evidence = unanswered(evidence_of("dr"))
    said = conclusion(evidence)
    assert not said.works
    assert said.causes == ()
    assert "the virtual service is in the director's IPVS table" in said.ruled_out
    assert any("lvsctl walk dr" in line for line in said.next_steps)
    text = format_diagnosis(_result(evidence), style=Style(color=False, width=80))
    assert "ruled out:" in text
    assert "next steps:" in text


def test_text_and_json_tell_the_same() -> None:
    evidence = unanswered(bent(evidence_of("nat"), "rs1", no_default), "rs1")
    result = _result(evidence)
    (cause,) = result.causes
    text = format_diagnosis(result, style=Style(color=False, width=100))
    assert cause.fault in text
    assert cause.remedy in text
    (one,) = to_json(result)["causes"]
    assert (one["node"], one["text"]) == ("rs1", cause.text)


def _result(evidence: Evidence) -> Diagnosis:
    said = conclusion(evidence)
    return Diagnosis(
        evidence.lab, said.causes, said.remarks, said.ruled_out, said.works, said.next_steps
    )


def test_every_rule_says_what_it_rules_out() -> None:
    said = [rule.rules_out for rule in (*RULES, *chain.from_iterable(LAST))]
    assert len(set(said)) == len(said)


# ── what the kernel itself says ──────────────────────────────────────────────────────────────


def counting(evidence: Evidence, node: str, **counters: int) -> Evidence:
    """``evidence`` from kernels that counted so much at a node, and one that tells reasons."""
    drops = (Dropped("IP_INADDRERRORS", 3), Dropped("NEIGH_FAILED", 1))
    return replace(evidence, counters={node: counters}, kernel_drops=drops)


def test_a_cause_quotes_the_kernels_counters_and_reasons_that_bear_it_out() -> None:
    evidence = unanswered(bent(evidence_of("dr"), "rs1", without("10.10.0.100")), "rs1")
    plain = conclusion(evidence)
    quoting = conclusion(counting(evidence, "rs1", IpInAddrErrors=14, IpInReceives=99))
    assert [(c.fault, c.node) for c in quoting.causes] == [(c.fault, c.node) for c in plain.causes]
    (before,), (after,) = plain.causes, quoting.causes
    assert after.evidence == (
        *before.evidence,
        f"rs1: its kernel counted IpInAddrErrors +14 ({LOSSES['IpInAddrErrors']})",
        (
            "the kernel that all nodes share dropped 3 packets: "
            f"IP_INADDRERRORS ({REASONS['IP_INADDRERRORS']})"
        ),
    )


def test_martians_are_quoted_for_what_makes_them() -> None:
    line = "martian source 10.10.0.1 from 10.10.0.100, on dev lan"
    cause = Cause(
        fault="rp-filter-on-director",
        node="director",
        text="says",
        evidence=("seen",),
        consequence="consequence",
        remedy="remedy",
    )
    drops = (Dropped("in_martian_src", 2),)
    evidence = replace(evidence_of("dr"), kernel_drops=drops, kernel_log=(line,))
    of_source = MARTIANS["in_martian_src"]
    assert corroborate(cause, evidence).evidence == (
        "seen",
        f"the kernel that all nodes share dropped 2 packets: in_martian_src ({of_source})",
        f'the kernel that all nodes share logged "{line}"',
    )
    assert corroborate(replace(cause, fault="wrong-port"), evidence).evidence == ("seen",)


def test_counters_alone_are_no_cause() -> None:
    evidence = counting(evidence_of("dr"), "rs1", IpInAddrErrors=14)
    assert conclusion(evidence) == conclusion(evidence_of("dr"))


def test_where_nothing_is_named_the_kernels_counters_are_where_to_look() -> None:
    evidence = counting(unanswered(evidence_of("dr"), "rs1"), "rs2", IpInDiscards=2)
    said = conclusion(evidence)
    if not said.causes:
        assert any("rs2: its kernel counted IpInDiscards +2" in line for line in said.next_steps)


def test_the_failing_claim_quotes_them_too() -> None:
    evidence = counting(unanswered(evidence_of("nat"), "rs1"), "rs1", IpOutNoRoutes=3)
    told = {f.claim.id: f.kernel for f in findings(evidence)}
    assert "rs1: its kernel counted IpOutNoRoutes +3" in told["all.requests-answered"][0]
    assert not any(told[claim] for claim in told if claim != "all.requests-answered")


def test_what_is_quoted_exists() -> None:
    for said in COUNTERS_BY_CAUSE.values():
        assert set(said.counters) <= LOSSES.keys()
        assert set(said.reasons) <= REASONS.keys() | MARTIANS.keys()


# ── links that are up and do not carry what they should ──────────────────────────────────────


def relinked(device: str, **changes: object) -> Bend:
    """A device that is otherwise."""
    return lambda state: replace(
        state,
        links=tuple(
            replace(link, **changes) if link.name == device else link  # type: ignore[arg-type]
            for link in state.links
        ),
    )


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"noarp": True}, "arp-off"),
        ({"master": "vrf1"}, "interface-enslaved"),
        ({"impairment": Impairment(loss=100.0)}, "link-impaired"),
        ({"impairment": Impairment(delay=900.0)}, "link-impaired"),
    ],
)
def test_a_link_that_does_not_carry_is_the_cause(changes: dict[str, object], fault: str) -> None:
    bend = relinked("lan", **changes)
    said = conclusion(unanswered(bent(evidence_of("dr"), "rs1", bend), "rs1"))
    assert [(cause.fault, cause.node) for cause in said.causes] == [(fault, "rs1")]
    healthy = conclusion(bent(evidence_of("dr"), "rs1", bend))
    assert healthy.causes == (), "no harm was seen"


@pytest.mark.parametrize(
    ("kind", "options", "impairment", "words"),
    [
        ("netem", ("corrupt 100%",), Impairment(), "corrupts 100 % of what it sends"),
        ("netem", (), Impairment(loss=50.0), "loses 50 % of what it sends"),
        ("tbf", ("rate 2000bit",), Impairment(), "sends 2000 bits a second at most"),
    ],
)
@pytest.mark.parametrize("place", ["director", "lan"])
def test_an_impaired_link_is_named_at_the_node_or_the_switch(
    place: str, kind: str, options: tuple[str, ...], impairment: Impairment, words: str
) -> None:
    evidence = unanswered(evidence_of("dr"), "rs1")
    device = "lan" if place == "director" else "director"
    qdisc = QdiscState(device, kind, "1:", "root", options, drops=7)
    if place == "director":
        links = relinked(device, impairment=impairment)
        failing = bent(evidence, place, lambda state: replace(links(state), qdiscs=(qdisc,)))
    else:
        port = replace(evidence.states["rs1"].links[0], name=device, master="bridge",
                       impairment=impairment)  # fmt: skip
        switch = NodeState("lvs-dr-lan", links=(port,), qdiscs=(qdisc,))
        failing = replace(evidence, switches={place: switch})

    (cause, *_) = conclusion(failing).causes
    assert (cause.fault, cause.node) == ("link-impaired", place)
    assert words in cause.text
    assert cause.remedy == f"lvsctl exec dr/{place} -- tc qdisc del dev {device} root"


@pytest.mark.parametrize(
    ("lab", "impairment", "seen", "words"),
    [
        ("dns", Impairment(duplicate=100),
         duplicated(both(at("client", Direction.OUT), lambda f: bool(f.payload)), 5_000),
         "sends 100 % of its frames twice"),
        ("nat", Impairment(delay=80, jitter=40),
         delayed(both(at("client", Direction.OUT), tcp,
                      lambda f: not f.payload and not opening(f)), 80_000_000),
         "delays what it sends by 80 ms, 40 more or less"),
    ],
)  # fmt: skip
def test_what_frames_show_of_a_link_is_a_cause_though_all_is_answered(
    lab: str, impairment: Impairment, seen: Callable[[Evidence], Evidence], words: str
) -> None:
    evidence = evidence_of(lab)
    (network,) = evidence.lab.node("client").networks
    unseen = bent(evidence, "client", relinked(network, impairment=impairment))
    assert conclusion(unseen).causes == (), "no frame shows it"
    (cause,) = conclusion(seen(unseen)).causes
    assert (cause.fault, cause.node) == ("link-impaired", "client")
    assert words in cause.text


def test_another_mtu_is_a_cause_where_large_requests_hang_and_a_remark_elsewhere() -> None:
    evidence = bent(evidence_of("dr"), "director", relinked("lan", mtu=500))
    said = conclusion(evidence)
    assert said.causes == ()
    assert said.remarks == ("director: lan has an MTU of 500, others on the network 1500",)
    (run,) = evidence.runs
    assert run.large is not None
    hanging = replace(run, large=replace(run.large, node="", status=0, error=Failure.TIMED_OUT))
    (cause,) = conclusion(replace(evidence, runs=(hanging,))).causes
    assert (cause.fault, cause.node) == ("mtu-mismatch", "director")
    director, others = evidence.lab.node("director"), evidence.lab.nodes
    wanted = replace(director, interfaces=(replace(director.interfaces[0], mtu=500),))
    lab = replace(evidence.lab, nodes=tuple(wanted if n == director else n for n in others))
    said = conclusion(replace(evidence, lab=lab))
    assert (said.causes, said.remarks) == ((), ()), "the topology asks for it"


def clamping(evidence: Evidence, size: int) -> Evidence:
    """The evidence of a lab whose router should have limited the segment size."""
    nodes = tuple(
        replace(one, mss_clamp=size) if one.name == "router" else one for one in evidence.lab.nodes
    )
    lab = replace(evidence.lab, nodes=nodes)
    whole = {name: replace(state, whole=True) for name, state in evidence.states.items()}
    return replace(evidence, lab=lab, states=whole)


@pytest.mark.parametrize(
    ("size", "rule", "verdict", "expected"),
    [
        (1440, "", Verdict.FAIL, ["mss-clamp-missing"]),
        (1440, "--set-mss 1460", Verdict.FAIL, ["mss-clamp-missing"]),
        (1460, "--set-mss 1460", Verdict.PASS, []),
        (TO_PATH_MTU, "--clamp-mss-to-pmtu", Verdict.PASS, []),
    ],
)
def test_a_segment_size_that_is_not_limited_is_seen_in_the_syns(
    size: int, rule: str, verdict: Verdict, expected: list[str]
) -> None:
    text = "-A POSTROUTING -p tcp -m tcp --tcp-flags SYN,RST SYN -m comment --comment"
    own = FilterRule(FilterProgram.IPTABLES, "mangle", "POSTROUTING", 1,
                     f'{text} "lvsctl" -j TCPMSS {rule}', "TCPMSS")  # fmt: skip
    evidence = bent(
        clamping(evidence_of("tun"), size),
        "router",
        lambda state: replace(state, packet_filters=(own,) if rule else ()),
    )
    (finding,) = (one for one in findings(evidence) if one.claim.id == "mss.clamped")
    assert finding.verdict is verdict
    assert [cause.fault for cause in conclusion(evidence).causes] == expected


def test_a_route_that_leads_nowhere_is_no_way() -> None:
    nowhere = RouteState(ip_network("10.10.0.10/32"), None, "", kernel=False, type="blackhole")

    def bend(state: NodeState) -> NodeState:
        return replace(state, routes=(*state.routes, nowhere))

    said = conclusion(unanswered(bent(evidence_of("dr"), "rs1", bend), "rs1"))
    assert [(cause.fault, cause.node) for cause in said.causes] == [("packets-refused", "rs1")]
    assert "ip -4 route del blackhole 10.10.0.10/32" in said.causes[0].remedy


def renamed(device: str, name: str) -> Bend:
    """A device renamed, with the routes through it."""
    return lambda state: replace(
        state,
        links=tuple(replace(x, name=name) if x.name == device else x for x in state.links),
        routes=tuple(r._replace(device=name) if r.device == device else r for r in state.routes),
    )


@pytest.mark.parametrize(
    ("topology", "node", "device"),
    [("dr", "director", "lan"), ("dr", "rs1", "lan"), ("nat", "director", "private"),
     ("nat", "rs2", "private"), ("tun", "router", "near"), ("dr-routed", "router", "lan"),
     ("dr-routed", "client", "outside")],
)  # fmt: skip
def test_a_renamed_interface_is_the_only_cause(topology: str, node: str, device: str) -> None:
    """Its node is still on the network: the path of packets is looked up as if it had its name."""
    failing = bent(unanswered(evidence_of(topology)), node, renamed(device, "eth7"))
    assert named(failing) == [("interface-renamed", node)]


def test_who_answers_for_the_vip_explains_what_fails_elsewhere() -> None:
    """It comes before differences from the topology, which are causes of last resort."""
    open_to_arp = bent(evidence_of("dr"), "rs1", setting(f"{IP4}.all.arp_ignore", "0"))
    failing = unseen(both(at("rs1"), arp_request))(unanswered(open_to_arp, "rs2"))
    read = {name: replace(state, whole=True) for name, state in failing.states.items()}
    assert named(replace(failing, states=read)) == [("arp-ignore-unset", "rs1")]


@pytest.mark.parametrize(
    ("address", "fault"),
    [("192.168.20.11/32", "wrong-prefix-length"), ("192.168.20.99/24", "address-missing")],
)
def test_a_wrong_own_address_is_why_there_is_no_route(address: str, fault: str) -> None:
    """A route by hand would be refused, or not be enough: `up` adds both."""

    def bend(state: NodeState) -> NodeState:
        lost = replace(state, routes=())
        return having(address, "private")(without("192.168.20.11")(lost))

    said = conclusion(unanswered(bent(evidence_of("nat"), "rs1", bend), "rs1"))
    assert [(cause.fault, cause.node) for cause in said.causes] == [(fault, "rs1")]
    assert said.causes[0].remedy == "lvsctl up nat"


def test_a_director_that_sends_replies_to_a_real_server_is_not_also_told_to_be_quiet() -> None:
    bend = routed("10.20.0.10/32", "192.168.20.12", "private")
    redirecting = bent(evidence_of("nat"), "director", setting(f"{IP4}.all.send_redirects", "1"))
    failing = bent(unanswered(redirecting), "director", bend)
    assert named(failing) == [("wrong-next-hop", "director")]


def test_a_router_with_the_vip_is_the_only_cause_and_no_route_is_to_blame() -> None:
    bend = having("10.11.0.100/32", "lan")
    assert named(bent(unanswered(evidence_of("dr-routed")), "router", bend)) == [
        ("vip-elsewhere", "router")
    ]
