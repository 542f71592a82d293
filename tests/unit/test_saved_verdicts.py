"""The verifier on recorded reports, without a kernel: right when all is well, and falsifiable.

Every claim must be broken by some change of the evidence: a claim that nothing breaks
says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from itertools import cycle
from typing import NamedTuple

import pytest

from lvsctl import claims as verify
from lvsctl.capture.decode import decode_all
from lvsctl.model import sip
from lvsctl.model.addresses import Endpoint
from lvsctl.model.claim import Verdict
from lvsctl.model.evidence import Evidence, Rerouted, Run
from lvsctl.model.frame import Direction, Frame, Tap
from lvsctl.model.packet import Tcp
from lvsctl.model.service import FwMark, PortRange
from lvsctl.model.state import (
    Connection,
    LinkState,
    NeighbourState,
    NodeState,
    RealServerState,
    ServiceState,
)
from tests.unit.recorded import mutations as m
from tests.unit.recorded.reports import NAMES, evidence_of, report_of

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
IN, OUT = Direction.IN, Direction.OUT
STRANGER = "02:00:00:00:be:ef"


def verdicts(evidence: Evidence) -> dict[str, Verdict]:
    return {finding.claim.id: finding.verdict for finding in verify.findings(evidence)}


@pytest.mark.parametrize("name", NAMES)
def test_every_verdict_is_the_recorded_one(name: str) -> None:
    recorded = {claim["id"]: Verdict(claim["verdict"]) for claim in report_of(name)["claims"]}
    found = verdicts(evidence_of(name))
    assert found.items() >= recorded.items()
    assert set(found.values()) == {PASS}


@pytest.mark.parametrize("name", NAMES)
def test_the_frames_of_evidence_are_those_that_were_recorded(name: str) -> None:
    now = {
        (finding.service, finding.claim.id): [(str(f.tap), f.number) for f in finding.frames]
        for finding in verify.findings(evidence_of(name))
    }
    for claim in report_of(name)["claims"]:
        then = [(one["tap"], one["frame"]) for one in claim["evidence"]]
        assert now[claim["service"], claim["id"]] == then, claim["id"]


# ── what breaks a claim ──────────────────────────────────────────────────────────────────────


def no_vip(state: NodeState) -> NodeState:
    def bare(link: LinkState) -> LinkState:
        kept = (a for a in link.addresses if a.network.prefixlen < a.max_prefixlen)
        return replace(link, addresses=tuple(kept))

    return replace(state, links=tuple(map(bare, state.links)))


def renamed_device(state: NodeState) -> NodeState:
    return replace(state, links=tuple(replace(link, name=f"x{link.name}") for link in state.links))


def lo_down(state: NodeState) -> NodeState:
    links = (replace(link, up=link.up and link.name != "lo") for link in state.links)
    return replace(state, links=tuple(links))


def arp_set(state: NodeState) -> NodeState:
    return replace(state, sysctls={**state.sysctls, "net.ipv4.conf.all.arp_ignore": "1"})


def one_unanswered(run: Run) -> Run:
    first, *rest = run.exchanges
    return replace(run, exchanges=(replace(first, error="timed out"), *rest))


def all_by_the_first(run: Run) -> Run:
    node = run.service.real_servers[0].node
    return replace(run, exchanges=tuple(replace(e, node=node) for e in run.exchanges))


def by_a_stranger(run: Run) -> Run:
    first, *rest = run.exchanges
    return replace(run, exchanges=(replace(first, node="client"), *rest))


def counting(**more: int) -> m.Change:
    """The director's counters after the run are larger by so much."""

    def server(state: RealServerState) -> RealServerState:
        now = state.counters
        grown = {name: getattr(now, name) + number for name, number in more.items()}
        return state._replace(counters=now._replace(**grown))

    def table(state: ServiceState | None) -> ServiceState | None:
        if state is None:
            return None
        return state._replace(real_servers=tuple(map(server, state.real_servers)))

    return m.with_run(lambda run: replace(run, after=table(run.after)))


def large_fails(run: Run) -> Run:
    """Nothing more came for two seconds."""
    assert run.large
    return replace(run, large=replace(run.large, error="timed out", seconds=2.0))


def large_is_slow(run: Run) -> Run:
    """The client's time was over while answers still came."""
    assert run.large
    return replace(run, large=replace(run.large, error="timed out"))


def large_was_over(run: Run) -> Run:
    """The client's time was over before anything came."""
    assert run.large
    return replace(run, large=replace(run.large, error="timed out", seconds=1e-6))


def large_is_reset(run: Run) -> Run:
    assert run.large
    return replace(run, large=replace(run.large, error="reset"))


class Row(NamedTuple):
    """Of a recorded ``topology``, with ``change`` made, ``claim`` must get ``verdict``."""

    topology: str
    claim: str
    what: str
    change: m.Change
    verdict: Verdict


def rows() -> Iterator[Row]:
    yield from DR
    yield from ECMP
    yield from NAT
    yield from TUN
    yield from BY_GRE
    yield from BY_GUE
    yield from BY_IPV6
    yield from (*UDP, *SIP)
    yield from EVERY


def dr(claim: str, what: str, change: m.Change, verdict: Verdict, topology: str = "dr") -> Row:
    return Row(topology, f"dr.{claim}", what, change, verdict)


at_director = m.at("director")
requests_out = m.both(m.at("director", OUT), m.to_port(80), m.tcp)
requests_in = m.both(m.at("director", IN), m.to_port(80), m.tcp)
replies_out = m.both(m.at("rs1", OUT), m.from_port(80), m.tcp)
director_lan = Tap("director", "lan")

DR = (
    dr("same-vip", "rs1 has no VIP", m.with_state("rs1", no_vip), FAIL),
    dr("same-vip", "the director has no VIP", m.with_state("director", no_vip), FAIL),
    dr("only-director-answers-arp", "rs1 answers too",
       m.seen_also_at(m.both(at_director, m.arp_reply), Tap("rs1", "lan"), OUT), FAIL),
    dr("only-director-answers-arp", "nobody answers", m.without(m.arp_reply), FAIL),
    dr("only-director-answers-arp", "rs2 hears no question",
       m.without(m.both(m.at("rs2"), m.arp_request)), INCONCLUSIVE),
    dr("only-director-answers-arp", "no frame at all", m.without(lambda _: True), INCONCLUSIVE),
    dr("real-servers-announce-rip", "rs1 asks as the VIP",
       m.with_asker(m.both(m.at("rs1", OUT), m.arp_request), "10.10.0.100"), FAIL),
    dr("real-servers-announce-rip", "rs1 asks nothing",
       m.without(m.both(m.at("rs1", OUT), m.arp_request)), INCONCLUSIVE),
    dr("request-only-macs-change", "TTL", m.with_ttl(requests_out, 64), FAIL),
    dr("request-only-macs-change", "source", m.with_source(requests_out, "10.10.0.2"), FAIL),
    dr("request-only-macs-change", "destination",
       m.with_destination(requests_out, "10.10.0.11"), FAIL),
    dr("request-only-macs-change", "to a stranger's MAC",
       m.with_destination_mac(requests_out, STRANGER), FAIL),
    dr("request-only-macs-change", "nothing seen at the director",
       m.without(at_director), INCONCLUSIVE),
    dr("request-only-macs-change", "frames were lost", m.with_drops, INCONCLUSIVE),
    dr("one-segment", "routed on the way", m.with_ttl(m.both(m.at("rs1", IN), m.tcp), 62), FAIL),
    dr("one-segment", "rs1 received nothing", m.without(m.at("rs1", IN)), FAIL),
    dr("one-segment", "nothing left the director", m.without(requests_out), INCONCLUSIVE),
    dr("reply-direct", "a reply at the director",
       m.seen_also_at(replies_out, director_lan, IN), FAIL),
    dr("reply-direct", "from the RIP", m.with_source(replies_out, "10.10.0.11"), FAIL),
    dr("reply-direct", "the client received none",
       m.without(m.both(m.at("client", IN), m.from_port(80))), FAIL),
    dr("reply-direct", "the director's taps were dead", m.without(at_director), INCONCLUSIVE),
    dr("reply-direct", "a reply at the director",
       m.seen_also_at(replies_out, director_lan, IN), FAIL, "dr-routed"),
    dr("request-only-macs-change", "TTL", m.with_ttl(requests_out, 63), FAIL, "dr-routed"),
)  # fmt: skip


def nat(claim: str, what: str, change: m.Change, verdict: Verdict) -> Row:
    return Row("nat", f"nat.{claim}", what, change, verdict)


rewritten = m.both(m.at("director", OUT), m.to_port(8080))
restored = m.both(m.at("director", OUT), m.from_port(80))
received = m.both(m.at("client", IN), m.from_port(80))


def late_packet_from_the_rip(evidence: Evidence) -> Evidence:
    """A packet more comes from the RIP, of a connection that no client opened meanwhile."""

    def to_port_1(_: Frame, data: bytearray) -> None:
        data[36:38] = b"\0\1"

    strange = m.with_bytes(received, to_port_1)(m.with_source(received, "192.168.20.11")(evidence))
    one = next(f for f in strange.frames if m.at("client", IN)(f) and f.raw.data[36:38] == b"\0\1")
    return replace(evidence, frames=decode_all([*(f.raw for f in evidence.frames), one.raw]))


NAT = (
    nat("request-rewritten", "not rewritten", m.with_destination(rewritten, "10.20.0.100"), FAIL),
    nat("request-rewritten", "TTL", m.with_ttl(rewritten, 64), FAIL),
    nat("request-rewritten", "to a stranger",
        m.with_destination(rewritten, "192.168.20.99"), FAIL),
    nat("request-rewritten", "nothing at the director", m.without(at_director), INCONCLUSIVE),
    nat("reply-crosses-director", "from the RIP",
        m.with_source(restored, "192.168.20.11"), FAIL),
    nat("reply-crosses-director", "past the director",
        m.with_source(received, "192.168.20.11"), FAIL),
    nat("reply-crosses-director", "stuck in the director", m.without(restored), FAIL),
    nat("reply-crosses-director", "no replies",
        m.without(lambda f: m.from_port(80)(f) or m.from_port(8080)(f)), INCONCLUSIVE),
    nat("client-never-sees-rip", "one from the RIP",
        m.with_source(received, "192.168.20.11"), FAIL),
    nat("client-never-sees-rip", "of an earlier connection", late_packet_from_the_rip, PASS),
    nat("client-never-sees-rip", "nothing received", m.without(received), INCONCLUSIVE),
    nat("real-servers-need-nothing", "rs1 has an ARP setting",
        m.with_state("rs1", arp_set), FAIL),
    nat("real-servers-need-nothing", "nothing answered",
        m.with_run(m.nothing_answered), INCONCLUSIVE),
    nat("port-mapping", "replies from the wrong port",
        m.with_bytes(restored, lambda _, d: d.__setitem__(slice(34, 36), b"\x1f\x90")), FAIL),
    nat("port-mapping", "no replies", m.without(restored), INCONCLUSIVE),
    nat("both-directions-load-director", "another payload",
        m.with_payload(m.both(rewritten, lambda f: bool(f.payload))), FAIL),
    nat("both-directions-load-director", "replies past it", m.without(restored), FAIL),
    nat("both-directions-load-director", "client's tap dead",
        m.without(m.at("client")), INCONCLUSIVE),
)  # fmt: skip


def tun(claim: str, what: str, change: m.Change, verdict: Verdict) -> Row:
    return Row("tun", f"tun.{claim}", what, change, verdict)


def checked(_: object, data: bytearray) -> None:
    """Give a GRE header in IPv4 a checksum, of which nobody asks whether it is right."""
    data[34] |= 0x80
    data[38:38] = bytes(4)
    data[16:18] = (int.from_bytes(data[16:18]) + 4).to_bytes(2)


tunnelled = m.both(m.at("director", OUT), m.wrapped)
unpacked = m.both(m.at("rs1"), lambda f: f.tap.device == "tunl0")
told_too_big = m.both(m.at("client"), m.icmp)

TUN = (
    tun("request-encapsulated", "to a stranger", m.with_destination(tunnelled, "10.30.2.99"), FAIL),
    tun("request-encapsulated", "from the VIP", m.with_source(tunnelled, "10.30.1.100"), FAIL),
    tun("request-encapsulated", "nothing at the director", m.without(at_director), INCONCLUSIVE),
    tun("decapsulated-on-tunnel-device", "nothing comes out", m.without(unpacked), FAIL),
    tun("decapsulated-on-tunnel-device", "rs1 has no VIP", m.with_state("rs1", no_vip), FAIL),
    tun("decapsulated-on-tunnel-device", "nothing tunnelled", m.without(m.wrapped), INCONCLUSIVE),
    tun("reply-direct", "a reply at the director",
        m.seen_also_at(replies_out, Tap("director", "hub"), IN), FAIL),
    tun("reply-direct", "from the RIP", m.with_source(replies_out, "10.30.2.11"), FAIL),
    tun("reply-direct", "the director's taps were dead", m.without(at_director), INCONCLUSIVE),
    tun("routed", "nothing reaches rs-far", m.without(m.at("rs-far")), FAIL),
    tun("routed", "the router's taps were dead", m.without(m.at("router")), INCONCLUSIVE),
    tun("costs-20-bytes", "nobody tells the client", m.without(told_too_big), FAIL),
    tun("costs-20-bytes", "the upload hangs", m.with_run(large_fails), FAIL),
    tun("costs-20-bytes", "the upload is reset", m.with_run(large_is_reset), FAIL),
    tun("costs-20-bytes", "the upload is slow", m.with_run(large_is_slow), INCONCLUSIVE),
    tun("costs-20-bytes", "it had ended when answers came", m.with_run(large_was_over), FAIL),
    tun("costs-20-bytes", "it is slow, and nobody tells the client",
        lambda e: m.without(told_too_big)(m.with_run(large_is_slow)(e)), FAIL),
    tun("costs-20-bytes", "nothing at the director", m.without(at_director), INCONCLUSIVE),
)  # fmt: skip


def by_ipip(data: bytearray, between: int) -> None:
    """Without the bytes ``between`` the two IP headers, and with the protocol that says so."""
    length = int.from_bytes(data[16:18]) - between
    data[16:18] = length.to_bytes(2)
    data[23] = 4
    del data[34 : 34 + between]


def tun_by(kind: str, device: str, cost: int, vip: str, net: str) -> tuple[Row, ...]:
    """What breaks the claims of a tunnel by another encapsulation, on its own topology."""
    lab = f"tun-{kind}"
    out_of = m.both(m.at("rs1"), lambda f: f.tap.device == device)

    def row(claim: str, what: str, change: m.Change, verdict: Verdict) -> Row:
        return Row(lab, f"tun.{claim}", what, change, verdict)

    return (
        row("request-encapsulated", "from the VIP", m.with_source(tunnelled, vip), FAIL),
        row("request-encapsulated", "by IP in IP",
            m.with_bytes(tunnelled, lambda _, data: by_ipip(data, cost - 20)), FAIL),
        row("decapsulated-on-tunnel-device", "nothing comes out", m.without(out_of), FAIL),
        row("reply-direct", "from the RIP", m.with_source(replies_out, f"{net}.11"), FAIL),
        row("routed", "nothing reaches rs1", m.without(m.at("rs1")), FAIL),
        row(f"costs-{cost}-bytes", "nobody tells the client", m.without(told_too_big), FAIL),
        row(f"costs-{cost}-bytes", "nothing at the director", m.without(at_director),
            INCONCLUSIVE),
    )  # fmt: skip


def too_large_for_gre(frame: Frame) -> bool:
    """Whether it came to the director with no room for 24 bytes more."""
    at = m.at("director", IN)(frame)
    return at and frame.outer is not None and frame.outer.total_length > 1476


BY_GRE = tun_by("gre", "gre0", 24, "10.40.1.100", "10.40.2")
BY_GUE = (
    *tun_by("gue", "tunl0", 32, "10.50.1.100", "10.50.2"),
    Row("tun-gue", "tun.checksum", "UDP with a checksum",
        m.with_bytes(tunnelled, lambda _, d: d.__setitem__(slice(40, 42), b"\x15\xb3")), FAIL),
    Row("tun-gre", "tun.checksum", "GRE with a checksum", m.with_bytes(tunnelled, checked), FAIL),
    Row("tun-gre", "tun.costs-24-bytes", "its segments leave room",
        lambda e: m.without(told_too_big)(m.without(too_large_for_gre)(e)), PASS),
    Row("tun-gue", "tun.request-encapsulated", "to another UDP port",
        m.with_bytes(tunnelled, lambda _, d: d.__setitem__(slice(36, 38), b"\x15\xb3")),
        INCONCLUSIVE),  # then it is any UDP datagram, and no request is seen in it
)  # fmt: skip


VIP6 = "fd00:11::100"
advertised = m.advertisement_of(VIP6)
rs1_solicits = m.both(m.at("rs1", OUT), m.solicitation_of("fd00:11::1"))

BY_IPV6 = (
    dr("only-director-answers-arp", "rs1 advertises too",
       m.seen_also_at(m.both(at_director, advertised), Tap("rs1", "lan"), OUT), FAIL, "dr-ipv6"),
    dr("only-director-answers-arp", "nobody advertises", m.without(advertised), FAIL, "dr-ipv6"),
    dr("only-director-answers-arp", "rs2 receives no solicitation",
       m.without(m.both(m.at("rs2"), m.solicitation_of(VIP6))), INCONCLUSIVE, "dr-ipv6"),
    dr("real-servers-announce-rip", "rs1 solicits from the VIP",
       m.with_source(rs1_solicits, VIP6), FAIL, "dr-ipv6"),
    dr("real-servers-announce-rip", "rs1 solicits nothing",
       m.without(m.both(m.at("rs1", OUT), lambda f: f.asks_for is not None)), INCONCLUSIVE,
       "dr-ipv6"),
    dr("request-only-macs-change", "hop limit", m.with_ttl(requests_out, 63), FAIL, "dr-ipv6"),
    *(
        Row("tun-ipv6", f"tun.{claim}", what, change, verdict)
        for claim, what, change, verdict in (
            ("request-encapsulated", "from the VIP",
             m.with_source(tunnelled, "fd00:30:1::100"), FAIL),
            ("request-encapsulated", "to a stranger",
             m.with_destination(tunnelled, "fd00:30:2::99"), FAIL),
            ("decapsulated-on-tunnel-device", "nothing comes out",
             m.without(m.both(m.at("rs1"), lambda f: f.tap.device == "ip6tnl0")), FAIL),
            ("costs-40-bytes", "nobody tells the client",
             m.without(m.both(m.at("client"), lambda f: f.icmp is not None and f.nd is None)),
             FAIL),
        )
    ),
)  # fmt: skip


def one_large_hangs(run: Run) -> Run:
    first, *others = run.larges
    return replace(run, larges=(replace(first, error="timed out"), *others))


def learnt_a_stranger(evidence: Evidence) -> Evidence:
    entry = NeighbourState(ip_address(VIP6), "lan", STRANGER, "reachable")
    router = replace(evidence.before["router"], neighbours=(entry,))
    return replace(evidence, before={**evidence.before, "router": router})


def stale_neighbour(evidence: Evidence) -> Evidence:
    """As if the client had known the VIP at a stranger's MAC address before."""
    entry = NeighbourState(evidence.lab.services[0].vips[0], "lan", STRANGER, "stale")
    known = replace(evidence.before["client"], neighbours=(entry,))
    return replace(evidence, before={**evidence.before, "client": known})


def larges_fail(run: Run) -> Run:
    """Real servers answer small requests and no large ones."""
    return replace(run, larges=tuple(replace(e, error="timed out") for e in run.larges))


def flow_by_turns(run: Run) -> Run:
    """Each packet of the flow was answered by another real server than the one before."""
    names = cycle(server.node for server in run.service.real_servers)
    return replace(run, flow=tuple(replace(e, node=next(names)) for e in run.flow))


def flow_by_one(run: Run) -> Run:
    node = run.service.real_servers[0].node
    return replace(run, flow=tuple(replace(e, node=node) for e in run.flow))


def flow_lost(run: Run) -> Run:
    return replace(run, flow=tuple(replace(e, node="", error="timed out") for e in run.flow))


def flow_in_table(run: Run) -> Run:
    """As if the flow had an entry in the connection table, for the first real server."""
    end, endpoint, server = run.flow[0].local, run.endpoint, run.service.real_servers[0]
    assert end
    entry = Connection(
        endpoint.protocol, end.address, end.port, endpoint.vip, endpoint.port,
        server.rip, server.port, "UDP", 300,
    )  # fmt: skip
    return replace(run, connections=(*run.connections, entry))


def without_table(run: Run) -> Run:
    return replace(run, connections=())


def calls_by_turns(run: Run) -> Run:
    """The requests of one call were given to one real server and the next in turn."""
    calls = {one.local for one in run.calls}
    rips = cycle(server.rip for server in run.service.real_servers)
    table = tuple(
        c._replace(rip=next(rips)) if Endpoint(c.client, c.client_port) in calls else c
        for c in run.connections
    )
    return replace(run, connections=table)


def connections_to_the_first(run: Run) -> Run:
    rip = run.service.real_servers[0].rip
    return replace(run, connections=tuple(c._replace(rip=rip) for c in run.connections))


def with_one_call_id(evidence: Evidence) -> Evidence:
    """Every request has the same Call-ID."""

    def edit(frame: Frame, data: bytearray) -> None:
        call = sip.call_of(frame.payload).encode()
        data[:] = data.replace(call, b"0" * len(call))

    return m.with_bytes(lambda frame: bool(sip.call_of(frame.payload)), edit)(evidence)


SIP = tuple(
    Row("sip", "sip.call-stays", what, change, verdict)
    for what, change, verdict in (
        ("both are given it", m.with_run(calls_by_turns), FAIL),
        ("other calls stay too", m.with_run(connections_to_the_first), FAIL),
        ("there are no other calls", with_one_call_id, INCONCLUSIVE),
        ("nothing at the director", m.without(at_director), INCONCLUSIVE),
    )
)

UDP = tuple(
    Row("dns", claim, what, change, verdict)
    for claim, what, change, verdict in (
        ("udp.flow-stays", "both answer", m.with_run(flow_by_turns), FAIL),
        ("udp.flow-stays", "another than the table says", m.with_run(flow_by_one), FAIL),
        ("udp.flow-stays", "no entry", m.with_run(without_table), FAIL),
        ("udp.flow-stays", "no answer", m.with_run(flow_lost), INCONCLUSIVE),
        ("udp.flow-stays", "nothing at the director", m.without(at_director), INCONCLUSIVE),
        ("ops.each-packet-scheduled", "one answers all", m.with_run(flow_by_one), FAIL),
        ("ops.each-packet-scheduled", "an entry", m.with_run(flow_in_table), FAIL),
        ("ops.each-packet-scheduled", "nothing at the director",
         m.without(at_director), INCONCLUSIVE),
    )
)  # fmt: skip


def slowly(evidence: Evidence) -> Evidence:
    """The kernel, which is that of all ends, answers each SYN and each SYN+ACK after 300 ms."""
    after_syn = m.delayed(m.both(m.tcp, lambda f: not m.opening(f)), 300_000_000)
    after_both = m.both(m.tcp, lambda f: not m.opening(f) and not m.accepting(f))
    return m.delayed(after_both, 300_000_000)(after_syn(evidence))


def port_used_again(evidence: Evidence) -> Evidence:
    """The client has one port for two connections, one after the other."""
    run = evidence.runs[0]
    first, second = [one.local.port for one in run.exchanges if one.local and one.node == "rs1"][:2]

    def same(frame: Frame) -> Frame:
        tcp = frame.packet.transport
        if not isinstance(tcp, Tcp) or second not in (tcp.sport, tcp.dport):
            return frame
        ports = [first if port == second else port for port in (tcp.sport, tcp.dport)]
        again = replace(tcp, sport=ports[0], dport=ports[1])
        raw = replace(frame.raw, time=frame.time + 10**10)
        return replace(frame, raw=raw, packet=replace(frame.packet, transport=again))

    frames = sorted(map(same, evidence.frames), key=lambda frame: frame.time)
    return replace(evidence, frames=tuple(frames))


def every(claim: str, what: str, change: m.Change, verdict: Verdict, topology: str = "dr") -> Row:
    return Row(topology, f"all.{claim}", what, change, verdict)


EVERY = (
    every("requests-answered", "one is not", m.with_run(one_unanswered), FAIL),
    every("requests-answered", "by a stranger", m.with_run(by_a_stranger), FAIL),
    every("interfaces-up", "one is renamed", m.with_state("rs1", renamed_device), FAIL),
    every("interfaces-up", "lo is down, with the VIP", m.with_state("rs1", lo_down), FAIL),
    every("interfaces-up", "no state", lambda e: replace(e, states={}), INCONCLUSIVE),
    every("large-requests-answered", "none is", m.with_run(larges_fail), FAIL, "sctp"),
    every("neighbours-right", "the VIP at a stranger's MAC", stale_neighbour, FAIL, "dns"),
    every("real-servers-reached", "rs1 alone", m.with_run(all_by_the_first), FAIL),
    every("distribution", "rs1 alone", m.with_run(all_by_the_first), FAIL),
    every("distribution", "weights ignored", m.with_run(all_by_the_first), FAIL, "dr-weighted"),
    every("distribution", "no answers", m.with_run(m.nothing_answered), INCONCLUSIVE),
    every("counters-agree", "one more counted", counting(connections=1), FAIL),
    every("reply-path-counted", "replies counted", counting(packets_out=5), FAIL),
    every("reply-path-counted", "no answers", m.with_run(m.nothing_answered), INCONCLUSIVE),
    every("connection-table-agrees", "an empty table",
          m.with_run(lambda run: replace(run, connections=())), FAIL),
    every("large-requests-answered", "one hangs", m.with_run(one_large_hangs), FAIL, "dr-ipv6"),
    every("neighbours-right", "a stranger for the VIP", learnt_a_stranger, FAIL, "dr-ipv6"),
    every("frames-agree", "one more counted", counting(packets_in=1), FAIL),
    every("frames-agree", "one more counted", counting(packets_out=1), FAIL, "nat"),
    every("frames-agree", "a request not captured", m.without(requests_in), INCONCLUSIVE),
    every("frames-agree", "frames were lost", m.with_drops, INCONCLUSIVE),
    every("nothing-sent-again", "a SYN that got lost", m.sent_again(m.at("client", OUT)), FAIL),
    every("nothing-sent-again", "an answer that got lost",
          m.sent_again(m.both(m.at("rs1", OUT), lambda f: bool(f.payload))), FAIL, "nat"),
    every("nothing-sent-again", "a link that duplicates frames",
          m.duplicated(m.both(m.at("rs1", OUT), m.tcp), 5_000), PASS),
    every("nothing-sent-again", "the same bytes a second before",
          m.duplicated(m.both(m.at("client", OUT), m.opening), -1_000_000_000), FAIL),
    every("links-as-described", "a SYN+ACK after 300 ms",
          m.delayed(m.both(m.at("rs1", OUT), m.accepting), 300_000_000), FAIL),
    every("links-as-described", "a machine that is busy", slowly, INCONCLUSIVE),
    every("links-as-described", "a port used again", port_used_again, PASS),
    every("links-as-described", "less than planned",
          m.delayed(m.both(m.at("rs-far", OUT), m.accepting), -20_000_000), FAIL, "tun"),
    every("links-as-described", "an ACK after data",
          m.delayed(m.both(m.at("client", OUT), lambda f: f.tcp is not None and not f.payload
                           and int(f.tcp.flags) == 0x10), 2_000_000), FAIL, "dr-ipv6"),
    every("links-as-described", "everything twice, which harms nothing",
          m.duplicated(m.both(m.at("client", OUT), m.tcp), 5_000), PASS, "nat"),
    every("links-as-described", "a query twice",
          m.duplicated(m.both(m.at("client", OUT), lambda f: bool(f.payload)), 5_000), FAIL, "dns"),
    every("links-as-described", "a bit of the data",
          m.with_bytes(m.both(m.at("rs1", OUT), lambda f: bool(f.payload)),
                       lambda _, data: data.__setitem__(-1, data[-1] ^ 4)), FAIL),
    every("links-as-described", "a bit of the IP header",
          m.with_bytes(m.both(m.at("client", OUT), m.tcp),
                       lambda _, data: data.__setitem__(22, data[22] ^ 4)), FAIL),
    every("links-as-described", "a bit of the sender's MAC address in ARP",
          m.with_bytes(m.both(m.at("rs1", OUT), lambda f: f.arp is not None),
                       lambda _, data: data.__setitem__(27, data[27] ^ 4)), FAIL),
)  # fmt: skip


def tables_of(node: str, change: Callable[[ServiceState], ServiceState]) -> m.Change:
    """A director has another service in its table."""
    return m.with_state(
        node, lambda state: replace(state, services=tuple(map(change, state.services)))
    )


def last_first(table: ServiceState) -> ServiceState:
    *servers, last = table.real_servers
    return table._replace(real_servers=(last, *servers))


def one_less(table: ServiceState) -> ServiceState:
    return table._replace(real_servers=table.real_servers[:-1])


def ended(run: Run) -> Run:
    """Every flow was reset when it came to another director."""

    def reset(one: Rerouted) -> Rerouted:
        first, second, *_ = one.exchanges
        return Rerouted((first, replace(second, error="reset")))

    return replace(run, rerouted=tuple(map(reset, run.rerouted)))


by_second = m.both(m.at("director2", OUT), m.wrapped)
ECMP = tuple(
    Row("ecmp", f"ecmp.{claim}", what, change, verdict)
    for claim, what, change, verdict in (
        ("every-director", "one receives nothing", m.without(m.at("director2")), FAIL),
        ("every-director", "nothing was seen", m.without(lambda _: True), INCONCLUSIVE),
        ("tables-agree", "a real server less", tables_of("director2", one_less), FAIL),
        ("tables-agree", "in another order", tables_of("director1", last_first), FAIL),
        ("tables-agree", "another scheduler",
         tables_of("director2", lambda one: one._replace(scheduler="rr")), FAIL),
        ("tables-agree", "no such service",
         m.with_state("director2", lambda state: replace(state, services=())), FAIL),
        ("same-real-server", "one director sends all flows to one real server",
         m.with_destination(by_second, "10.66.2.11"), FAIL),
        ("same-real-server", "flows end", m.with_run(ended), FAIL),
        ("same-real-server", "no flow comes to another director",
         m.without(m.at("director2")), INCONCLUSIVE),
    )
)  # fmt: skip

ROWS = tuple(rows())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.topology} {row.claim}: {row.what}")
def test_a_change_of_the_evidence_changes_the_verdict(row: Row) -> None:
    assert verdicts(row.change(evidence_of(row.topology)))[row.claim] is row.verdict


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_can_fail(name: str) -> None:
    falsified = {row.claim for row in ROWS if row.verdict is FAIL}
    assert set(verdicts(evidence_of(name))) <= falsified


@pytest.mark.parametrize("name", NAMES)
def test_without_frames_no_claim_about_frames_passes(name: str) -> None:
    found = verdicts(m.without(lambda _: True)(evidence_of(name)))
    assert {claim for claim, verdict in found.items() if verdict is PASS} <= DECIDED_ON_STATE


DECIDED_ON_STATE = {
    "ecmp.tables-agree",
    "dr.same-vip",
    "nat.real-servers-need-nothing",
    "all.requests-answered",
    "all.interfaces-up",
    "all.large-requests-answered",
    "all.neighbours-right",
    "all.real-servers-reached",
    "all.distribution",
    "all.counters-agree",
    "all.reply-path-counted",
    "all.connection-table-agrees",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("also", [lambda evidence: evidence, m.without(lambda _: True)])
def test_where_frames_were_lost_no_claim_about_frames_is_decided(name: str, also: m.Change) -> None:
    found = verdicts(m.with_drops(also(evidence_of(name))))
    decided = {claim for claim, verdict in found.items() if verdict is not INCONCLUSIVE}
    assert decided <= DECIDED_ON_STATE
    assert "all.requests-answered" in decided


def test_a_tunnels_cost_is_not_asked_where_thresholds_leave_no_room_for_a_large_request() -> None:
    def limited(run: Run) -> Run:
        servers = tuple(replace(one, upper=6) for one in run.service.real_servers)
        service = replace(run.service, real_servers=servers)
        return replace(run, service=service, larges=(), large=None)

    found = verdicts(m.with_run(limited)(evidence_of("tun")))
    assert "tun.request-encapsulated" in found
    assert "tun.costs-20-bytes" not in found


def test_an_icmp_error_that_the_director_may_not_pass_on_is_counted_all_the_same() -> None:
    """Behind it a router reports that it does not find a real server; icmp_ratelimit is reached."""
    evidence = evidence_of("tun")
    lost = list(filter(tunnelled, evidence.frames))[:3]  # one of each real server

    def report(frame: Frame, data: bytearray) -> None:
        quoted = bytes(data[14:])
        header = bytearray(quoted[:20])
        header[2:4], header[9] = (28 + len(quoted)).to_bytes(2), 1
        header[12:20] = ip_address("10.30.1.1").packed + ip_address("10.30.1.2").packed
        data[14:] = header + bytes([3, 1]) + bytes(6) + quoted

    came = m.both(m.at("director", IN), m.wrapped)
    heard = m.seen_also_at(lambda f: f in lost, Tap("director", "hub"), IN)
    found = counting(packets_out=2)(m.with_bytes(came, report)(heard(evidence)))
    said = verdicts(found)
    assert (said["all.frames-agree"], said["all.reply-path-counted"]) == (PASS, PASS)


@pytest.mark.parametrize(
    ("ports", "port", "takes"),
    [((), 81, True), ((PortRange(80, 82), PortRange(443, 443)), 443, True),
     ((PortRange(80, 82),), 83, False)],
)  # fmt: skip
def test_every_port_that_is_marked_belongs_to_the_service(
    ports: tuple[PortRange, ...], port: int, takes: bool
) -> None:
    (run,) = evidence_of("dr").runs
    match = FwMark(7, 4, (run.service.endpoint,), ports)
    service = replace(run.service, match=match)
    assert service.takes(Endpoint(run.endpoint.vip, port)) is takes
    assert not service.takes(Endpoint(ip_address("10.10.0.101"), port))
