"""The catalogue of faults against the claims and the shipped topologies; no kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lvsctl.claims import failover, tables
from lvsctl.faults import FAULTS, find_fault
from lvsctl.faults.base import Fault, FaultContext
from lvsctl.faults.change import Change, added, removed, reversed_
from lvsctl.model.claim import Claim
from lvsctl.model.lab import Lab
from lvsctl.plan import planner
from lvsctl.plan.planner import load_lab
from lvsctl.plan.stages import Plan
from lvsctl.resources.base import Resource
from lvsctl.resources.drop_filter import DropFilter
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.neighbour import Neighbour
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.topology import shipped
from lvsctl.topology.shipped import Topology

CLAIMS = {row.claim.id: row.claim for table in tables() for row in table} | {
    claim.id: claim for claim in failover.DECIDED
}


def shipped_labs() -> dict[str, tuple[Lab, Plan]]:
    labs = {
        name: load_lab(Topology(name, shipped.text_of(name).encode())) for name in shipped.names()
    }
    return {name: (lab, planner.plan_for(lab)) for name, lab in labs.items()}


LABS = shipped_labs()


def contexts(one: Fault) -> list[FaultContext]:
    """Every node of every shipped topology where the fault can be injected."""
    return [
        FaultContext(lab, plan, lab.node(node))
        for lab, plan in LABS.values()
        for node in one.nodes(lab, plan)
    ]


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_claim_names_faults_that_name_it_or_says_why_none_does(claim: Claim) -> None:
    assert claim.broken_by or claim.unbroken
    for name in claim.broken_by:
        predicted = {
            each
            for context in contexts(find_fault(name))
            for each in find_fault(name).predicted(context)
        }
        assert claim.id in predicted, f"{name} does not say that it breaks {claim.id}"


@pytest.mark.parametrize("one", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_whole(one: Fault) -> None:
    assert contexts(one), "no shipped topology can have it"
    assert one.breaks
    assert {*one.breaks, *one.may_break} <= CLAIMS.keys()
    assert not set(one.breaks) & set(one.may_break)
    assert not one.text.endswith(".")


@pytest.mark.parametrize("one", FAULTS.values(), ids=FAULTS)
def test_a_fault_changes_what_the_plan_does_and_can_be_typed(one: Fault) -> None:
    for context in contexts(one):
        changes = one.changes_at(context)
        for change in changes:
            assert change.before != change.after
            # What the plan speaks of must be found there as the fault believes it to be.
            if isinstance(change.before, (IpvsRealServer, ResponderPort)):
                assert change.before in context.plan.resources
        assert reversed_(reversed_(changes)) == changes
        typed = [command for change in changes for command in change.commands()]
        repaired = [command for change in reversed_(changes) for command in change.commands()]
        assert len(typed) >= len(changes)
        # Offloads go with their device.
        own = [c for c in changes if not isinstance(c.after, OffloadsOff)]
        assert len(repaired) >= len(own)


def test_what_does_not_concern_a_lab_does_not_apply_to_it() -> None:
    lab, plan = LABS["nat"]
    assert find_fault("arp-ignore-unset").nodes(lab, plan) == ()
    assert find_fault("wrong-gateway").nodes(lab, plan) == ("rs1", "rs2")


MIXED = """
version: 1
name: mixed
networks:
  lan: {ipv4: 10.10.0.0/24}
  back: {ipv4: 10.20.0.0/24}
nodes:
  client: {role: client, networks: [lan]}
  director: {role: director, networks: [lan, back]}
  router: {role: router, networks: [lan, back]}
  rs1: {role: real-server, networks: [lan]}
  rs2: {role: real-server, networks: [back]}
  rs3: {role: real-server, networks: [lan]}
services:
  - name: web
    vip: 10.10.0.100
    port: 80
    forward: dr
    real_servers: [rs1, {node: rs2, forward: nat}, {node: rs3, forward: tun}]
"""
"""Each real server its own forwarding method; the client is beside the director."""


@pytest.mark.parametrize(
    ("name", "node", "broken", "kept"),
    [
        ("vip-missing", "rs1", "dr.reply-direct", "tun.reply-direct"),
        ("vip-missing", "rs3", "tun.decapsulated-on-tunnel-device", "dr.same-vip"),
        ("ip-forward-off", "director", "all.distribution", "dr.reply-direct"),
        ("wrong-port", "director", "nat.request-rewritten", "dr.reply-direct"),
        ("real-server-unknown", "director", "tun.reply-direct", "all.real-servers-reached"),
        ("no-default-gateway", "rs2", "all.requests-answered", "tun.reply-direct"),
        ("service-missing", "director", "tun.reply-direct", "all.distribution"),
    ],
)
def test_several_methods_fail_as_far_as_a_fault_harms_them(
    name: str, node: str, broken: str, kept: str
) -> None:
    lab = load_lab(Topology("mixed", MIXED.encode()))
    plan = planner.plan_for(lab)
    assert node in find_fault(name).nodes(lab, plan)
    predicted = find_fault(name).predicted(FaultContext(lab, plan, lab.node(node)))
    assert broken in predicted
    assert kept not in predicted


@pytest.mark.parametrize(
    "name", ["no-route", "router-not-forwarding", "rp-filter-on-router", "tunnel-filtered"]
)
def test_a_router_that_no_packet_needs_has_no_faults(name: str) -> None:
    lab = load_lab(Topology("mixed", MIXED.encode()))
    assert find_fault(name).nodes(lab, planner.plan_for(lab)) == ()


def test_a_director_that_is_a_real_server_answers_what_ipvs_leaves_to_it() -> None:
    text = MIXED.replace("[rs1,", "[director, rs1,")
    lab = load_lab(Topology("mixed", text.encode()))
    context = FaultContext(lab, planner.plan_for(lab), lab.node("director"))
    for name in ("service-missing", "backup-only"):
        predicted = find_fault(name).predicted(context)
        assert "all.connection-table-agrees" in predicted
        assert "all.requests-answered" not in predicted


def test_a_fault_is_where_a_services_packets_are() -> None:
    """The second tunnel has a checksum to mismatch; the VIP is asked for on the second network."""
    text = MIXED.replace("{node: rs3, forward: tun}", "{node: rs3, forward: tun}, "
                         "{node: rs4, forward: tun, encapsulation: gre, network: lan}")  # fmt: skip
    text = text.replace("services:", "  rs4: {role: real-server, networks: [back, lan]}\nservices:")
    text = text.replace("networks: [lan]}\n  rs2", "networks: [back, lan]}\n  rs2")
    lab = load_lab(Topology("mixed", text.replace("[rs1,", "[{node: rs1, network: lan},").encode()))
    plan = planner.plan_for(lab)
    director, rs1 = (FaultContext(lab, plan, lab.node(name)) for name in ("director", "rs1"))
    (change,) = find_fault("tunnel-checksum-mismatch").changes_at(director)
    assert isinstance(change.after, IpvsRealServer)
    assert change.after.real_server.node == "rs4"
    typed = [str(c) for one in find_fault("vip-on-lan").changes_at(rs1) for c in one.commands()]
    assert typed[-1].endswith("dev lan")


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ("ports: [53, 5353]\n    protocol: udp\n    one_packet: true", "one-packet-missing"),
        ("ports: [443, 8443]\n    protocol: udp", "one-packet-scheduling"),
        ("ports: [443, 8443]", ""),
    ],
)
def test_one_packet_scheduling_concerns_firewall_marks_of_udp_too(keys: str, fault: str) -> None:
    text = MIXED.replace("port: 80", keys).replace("{node: rs2, forward: nat}, ", "")
    lab = load_lab(Topology("mixed", text.encode()))
    plan = planner.plan_for(lab)
    names = ("one-packet-missing", "one-packet-scheduling")
    assert [n for n in names if find_fault(n).nodes(lab, plan)] == ([fault] if fault else [])


def test_commands_are_those_of_ip_ipvsadm_sysctl_and_tc() -> None:
    def typed(topology: str, name: str) -> list[str]:
        lab, plan = LABS[topology]
        one = find_fault(name)
        context = FaultContext(lab, plan, lab.node(one.nodes(lab, plan)[0]))
        return [command for change in one.changes_at(context) for command in change.commands()]

    assert typed("dr", "vip-missing") == ["ip -n lvs-dr-rs1 addr del 10.10.0.100/32 dev lo"]
    assert typed("dr", "arp-ignore-unset") == [
        "ip netns exec lvs-dr-rs1 sysctl -q -w net.ipv4.conf.all.arp_ignore=0"
    ]
    assert typed("nat-one-arm", "wrong-gateway") == [
        "ip -n lvs-nat-one-arm-rs1 route replace default via 10.21.0.1"
    ]
    assert typed("nat", "wrong-forwarding-method") == [
        "ip netns exec lvs-nat-director ipvsadm -e -t 10.20.0.100:80 -r 192.168.20.11:8080 -g -w 1"
    ]
    assert typed("nat", "real-server-removed") == [
        "ip netns exec lvs-nat-director ipvsadm -d -t 10.20.0.100:80 -r 192.168.20.11:8080"
    ]
    assert typed("dr", "service-missing")[-1] == (
        "ip netns exec lvs-dr-director ipvsadm -D -t 10.10.0.100:80"
    )
    assert typed("nat", "forward-dropped") == [
        "ip netns exec lvs-nat-director iptables -t filter -A FORWARD -j DROP"
    ]
    assert typed("dr", "port-isolated") == [
        "bridge -n lvs-dr-lan link set dev rs1 isolated on",
        "bridge -n lvs-dr-lan link set dev director isolated on",
    ]
    assert typed("tun", "tunnel-down") == ["ip -n lvs-tun-rs1 link set dev tunl0 down"]


def test_what_a_fault_adds_is_removed_by_the_same_words() -> None:
    lab, _ = LABS["dr"]
    netns, rip = lab.netns("director"), lab.services[0].real_servers[0].rip
    neighbour = Neighbour(netns=netns, device="lan", address=rip, mac="02:00:00:00:00:01")
    assert added(neighbour).reverse.commands() == (
        f"ip -n {netns} neigh del {rip} lladdr 02:00:00:00:00:01 dev lan",
    )
    drop: Resource = DropFilter(netns=netns, device="lan", protocol=1)
    assert removed(drop).commands() == (f"tc -n {netns} qdisc del dev lan clsact",)


def test_a_fault_at_a_switch_is_named_there() -> None:
    lab, plan = LABS["dr"]
    one = find_fault("port-isolated")
    context = FaultContext(lab, plan, lab.node("rs1"))
    assert one.named_as(context) == ("differs-from-topology", "lan")
    assert find_fault("vip-missing").named_as(context) == ("vip-missing", "rs1")


def test_a_change_of_the_same_thing_is_made_in_place() -> None:
    server = next(op for op in LABS["dr"][1].resources if isinstance(op, IpvsRealServer))
    other = replace(server, real_server=replace(server.real_server, weight=5))
    assert Change(server, other).in_place
    moved = replace(server, real_server=replace(server.real_server, port=81))
    assert not Change(server, moved).in_place
