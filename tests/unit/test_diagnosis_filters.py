"""Packet filters, policy routing and lost packets in diagnosis, on bent evidence."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from lvsctl.claims.trace import traces
from lvsctl.diagnosis import conclusion
from lvsctl.diagnosis.base import Case, LabConsole
from lvsctl.diagnosis.differences import Changed
from lvsctl.diagnosis.lost_at import lost_at
from lvsctl.diagnosis.network import Network
from lvsctl.diagnosis.packet_filter import hooks_of
from lvsctl.diagnosis.packet_loss import blocking
from lvsctl.diagnosis.route_lookup import lookup
from lvsctl.model.claim import Cause
from lvsctl.model.evidence import Evidence, Failure
from lvsctl.model.frame import Direction
from lvsctl.model.packet_filter import FilterProgram, FilterRule, growth
from lvsctl.model.state import FilterState, NodeState, RouteState, RuleState, XfrmState
from lvsctl.plan.deviations import Deviating
from lvsctl.resources.base import Deviation, Resource
from lvsctl.resources.foreign import BridgeVlan, Xfrm
from lvsctl.resources.qdisc import Qdisc
from tests.unit.recorded.reports import evidence_of
from tests.unit.test_diagnosis import bent, unanswered

DROP = FilterRule(
    program=FilterProgram.IPTABLES,
    table="filter",
    chain="INPUT",
    number=1,
    text="-A INPUT -p tcp -m tcp --dport 80 -j DROP",
    action="DROP",
    packets=12,
    tool="iptables-legacy",
)


def filtering(evidence: Evidence, place: str, **changed: object) -> Evidence:
    """The evidence of a lab with a rule at one node or switch."""
    return replace(evidence, packet_filters={place: (replace(DROP, **changed),)})  # type: ignore[arg-type]


def first_cause(evidence: Evidence) -> tuple[str, str, str]:
    """The first cause's kind, node and remedy."""
    cause = conclusion(evidence).causes[0]
    return cause.fault, cause.node, cause.remedy


def test_a_rule_that_dropped_requests_is_named_with_the_command_that_deletes_it() -> None:
    failing = filtering(unanswered(evidence_of("dr"), "rs1"), "rs1")
    assert first_cause(failing) == (
        "packet-filter",
        "rs1",
        "lvsctl exec dr/rs1 -- iptables-legacy -t filter -D INPUT 1",
    )
    text = str(conclusion(failing).causes[0])
    assert "-A INPUT -p tcp -m tcp --dport 80 -j DROP" in text
    assert "matched 12 packets" in text


@pytest.mark.parametrize(
    ("changed", "remedy"),
    [
        ({"number": 0, "text": "-P FORWARD DROP", "chain": "FORWARD"},
         "lvsctl exec dr/rs1 -- iptables-legacy -t filter -P FORWARD ACCEPT"),
        ({"action": "REJECT"}, "lvsctl exec dr/rs1 -- iptables-legacy -t filter -D INPUT 1"),
        ({"tool": ""}, "lvsctl up dr"),
        ({"program": FilterProgram.NFT, "table": "inet t", "chain": "in", "handle": 7,
          "tool": "nft", "packets": None},
         "lvsctl exec dr/rs1 -- nft delete rule inet t in handle 7"),
    ],
    ids=["policy", "reject", "no program", "nft"],
)  # fmt: skip
def test_the_remedy_is_that_of_the_program(changed: dict[str, object], remedy: str) -> None:
    failing = filtering(unanswered(evidence_of("dr"), "rs1"), "rs1", **changed)
    assert first_cause(failing)[2] == remedy


def test_a_rule_that_matched_nothing_is_no_cause_and_one_that_did_no_harm_a_remark() -> None:
    failing = filtering(unanswered(evidence_of("dr"), "rs1"), "rs1", packets=0)
    assert all(cause.fault != "packet-filter" for cause in conclusion(failing).causes)
    healthy = conclusion(filtering(evidence_of("dr"), "rs1"))
    assert healthy.causes == ()
    assert any("which stopped no request" in remark for remark in healthy.remarks)


def nft(text: str, table: str = "inet t", **more: object) -> FilterRule:
    rule = FilterRule(FilterProgram.NFT, table, "x", 1, text, "DROP", None, hook="input")
    return replace(rule, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (nft("tcp dport 80 drop"), True),
        (nft("tcp dport 81 drop"), False),
        (nft("tcp dport != 80 drop"), False),
        (nft("tcp dport { 443, 79-90 } drop"), True),
        (nft("tcp dport { 443, 8080 } drop"), False),
        (nft("tcp dport vmap { 80 : drop }"), True),
        (nft("udp dport 80 drop"), False),
        (nft("meta l4proto icmp drop"), False),
        (nft("ip protocol tcp drop"), True),
        (nft("ip daddr 10.10.0.0/24 drop"), True),
        (nft("ip daddr { 10.10.0.90-10.10.0.110 } drop"), True),
        (nft("ip daddr 10.10.0.99 drop"), False),
        (nft("ip saddr @known drop"), True),
        (nft("ip6 daddr fd00::1 drop"), False),
        (nft("iifname lan drop"), True),
        (nft("iifname eth9 drop"), False),
        (nft("limit rate 5/second drop"), True),
        (nft("drop", "ip6 t"), False),
        (nft("drop", "arp t"), False),
        (nft("drop", "netdev t"), True),
    ],
    ids=lambda value: value.text if isinstance(value, FilterRule) else "",
)
def test_a_rule_that_is_not_counted_is_named_where_it_may_have_matched(
    rule: FilterRule, *, matches: bool
) -> None:
    failing = unanswered(evidence_of("dr"), "rs1")
    failing = replace(failing, packet_filters={"rs1": (rule,)})
    named = any(cause.fault == "packet-filter" for cause in conclusion(failing).causes)
    assert named == matches


def test_a_rule_is_met_at_the_hooks_that_lead_to_its_chain() -> None:
    calls = nft("jump sub", action="sub", hook="output")
    drops = nft("drop", chain="sub", hook="")
    around = nft("goto x", chain="sub", action="x", hook="")
    assert hooks_of(drops, (calls, drops, around)) == {"output"}
    assert hooks_of(drops, (drops, around)) == set()
    legacy = replace(DROP, chain="OWN", text="-A OWN -j DROP")
    jump = replace(DROP, chain="OUTPUT", text="-A OUTPUT -j OWN", action="OWN")
    assert hooks_of(legacy, (jump, legacy)) == {"output"}
    assert hooks_of(DROP, (DROP,)) == {"input"}


def test_a_rule_elsewhere_than_the_loss_is_no_cause() -> None:
    """rs2 answered all of its requests: its rule dropped something else."""
    failing = filtering(unanswered(evidence_of("dr"), "rs1"), "rs2")
    assert all(cause.fault != "packet-filter" for cause in conclusion(failing).causes)


def test_rewriting_is_a_cause_only_of_what_fails() -> None:
    nat = {"table": "nat", "chain": "PREROUTING", "action": "DNAT", "text": "-A PREROUTING -j DNAT"}
    failing = filtering(unanswered(evidence_of("dr"), "rs1"), "rs1", **nat)
    assert first_cause(failing)[:2] == ("packet-rewriting", "rs1")
    assert conclusion(filtering(evidence_of("dr"), "rs1", **nat)).causes == ()


def test_a_rule_is_told_by_what_it_matched_meanwhile() -> None:
    new = replace(DROP, number=2, packets=3)
    (old, added) = growth([replace(DROP, packets=10)], [replace(DROP, packets=12), new])
    assert (old.packets, added.packets) == (2, 3)
    assert growth([], [replace(DROP, packets=None)])[0].packets is None


# ── where packets are lost ───────────────────────────────────────────────────────────────────


def case_of(evidence: Evidence) -> Case:
    """The first service of a lab as a case."""
    network = Network(evidence.lab, evidence.states)
    return Case(next(traces(evidence)), network, (), LabConsole("dr", "lvsctl up dr"))


def test_nothing_is_lost_in_a_healthy_lab() -> None:
    assert lost_at(case_of(evidence_of("dr"))) == {}


def test_a_packet_that_came_in_last_was_lost_in_the_node_and_one_that_went_out_on_the_network() -> (
    None
):
    evidence = unanswered(evidence_of("dr"))
    asked = {f.number for f in evidence.frames if f.flow and f.flow.dst.port == 80}
    director = [f for f in evidence.frames if f.number in asked and f.tap.node == "director"]
    came = [f for f in director if f.direction is Direction.IN]
    kept = replace(evidence, frames=tuple(came))
    assert set(lost_at(case_of(kept))) == {"director"}
    went = [f for f in director if f.direction is Direction.OUT]
    kept = replace(evidence, frames=(*came, *went))
    assert "lan" in lost_at(case_of(kept))


def unasked(address: str) -> Evidence:
    """The evidence of a lab in which nobody answered the client's ARP requests for an address."""
    evidence = unanswered(evidence_of("dr"))
    asked = (
        f for f in evidence.frames if f.arp is not None and f.arp.target_ip == ip_address(address)
    )
    return replace(evidence, frames=tuple(f for f in asked if f.arp and f.arp.is_request))


def test_a_question_for_the_vip_is_lost_at_the_director_that_should_answer_it() -> None:
    assert set(lost_at(case_of(unasked("10.10.0.100")))) == {"client", "lan", "director"}


def test_an_icmp_error_that_a_router_keeps_is_lost_there_and_its_rule_named() -> None:
    """The large request hangs at the client; what told it of the MTU came to the router only."""
    evidence = evidence_of("tun")
    (run,) = evidence.runs
    assert run.large is not None
    lost = replace(run.large, node="", status=0, error=Failure.TIMED_OUT)
    kept = tuple(
        f
        for f in evidence.frames
        if f.icmp is None
        or (f.tap.node != "client" and (f.tap.node, f.direction) != ("router", Direction.OUT))
    )
    hanging = replace(evidence, runs=(replace(run, large=lost, larges=()),), frames=kept)
    assert "router" in lost_at(case_of(hanging))
    assert "router" not in lost_at(case_of(evidence))

    forward = {"chain": "FORWARD", "text": "-A FORWARD -p icmp -j DROP"}
    causes = conclusion(filtering(hanging, "router", **forward)).causes
    assert [(cause.fault, cause.node) for cause in causes] == [("packet-filter", "router")]


# ── differences that stop packets ────────────────────────────────────────────────────────────


def difference(place: str, resource: Resource) -> Changed:
    """A foreign resource at a node or switch of the lab dr."""
    undo = resource.undo_commands()
    return Changed(place, Deviating(resource.netns, Deviation("made by hand"), resource, undo))


POLICY = XfrmState("policy", "dir out action block", "")
FILTER = FilterState("lan", "ingress", "u32", 1, "ip", ("drop",))
CLSACT = Qdisc(netns="lvs-dr-rs1", device="lan", kind="clsact", parent="clsact", filters=(FILTER,))


@pytest.mark.parametrize(
    ("place", "resource", "fault"),
    [
        ("rs1", CLSACT, "packets-filtered"),
        ("rs1", replace(CLSACT, kind="tbf", parent="root", filters=()), ""),
        ("rs1", Xfrm(netns="lvs-dr-rs1", found=POLICY), "differs-from-topology"),
        ("lan", BridgeVlan(netns="lvs-dr-lan", device="rs1", vlan=7), "differs-from-topology"),
        ("rs1", BridgeVlan(netns="lvs-dr-rs1", device="lan", vlan=7), ""),
        ("rs2", CLSACT, ""),
    ],
)
def test_what_stops_packets_is_named_beside_other_causes_where_they_were_lost(
    place: str, resource: Resource, fault: str
) -> None:
    lost = unasked("10.10.0.100") if place == "lan" else unanswered(evidence_of("dr"), "rs1")
    found = [
        one
        for one in blocking(replace(case_of(lost), changes=(difference(place, resource),)))
        if isinstance(one, Cause)
    ]
    assert [(cause.fault, cause.node) for cause in found] == ([(fault, place)] if fault else [])


def test_what_stops_packets_is_no_cause_where_all_are_answered() -> None:
    healthy = replace(case_of(evidence_of("dr")), changes=(difference("rs1", CLSACT),))
    assert list(blocking(healthy)) == []


# ── policy routing ───────────────────────────────────────────────────────────────────────────

CLIENT, VIP = ip_address("10.10.0.10"), ip_address("10.10.0.100")
MAIN = RouteState(ip_network("10.10.0.0/24"), None, "lan", kernel=True)
ELSEWHERE = RouteState(None, ip_address("10.10.0.2"), "lan", kernel=False, table=100)
USUAL = (
    RuleState(4, 0, "from all lookup local", ""),
    RuleState(4, 32766, "from all lookup main", ""),
    RuleState(4, 32767, "from all lookup default", ""),
)


@pytest.mark.parametrize(
    ("rule", "source", "table", "refused"),
    [
        ("from 10.10.0.100 lookup 100", VIP, 100, ""),
        ("from 10.10.0.100 lookup 100", CLIENT, 254, ""),
        ("not from 10.10.0.100 lookup 100", CLIENT, 100, ""),
        ("from all to 10.10.0.0/24 prohibit", VIP, None, "prohibit"),
        ("from all to 192.0.2.0/24 blackhole", VIP, 254, ""),
        ("from all fwmark 0x1 lookup 100", VIP, 254, ""),
        ("from all iif lan lookup 100", VIP, 254, ""),
        ("from all iif lo lookup 100", VIP, 100, ""),
        ("from all lookup 99", VIP, 254, ""),
    ],
)
def test_rules_choose_the_table(rule: str, source: object, table: int | None, refused: str) -> None:
    rules = (USUAL[0], RuleState(4, 100, rule, ""), *USUAL[1:])
    state = NodeState("n", routes=(MAIN,), other_routes=(ELSEWHERE,), rules=rules)
    found = lookup(state, CLIENT, source)  # type: ignore[arg-type]
    assert (found.route.table if found.route else None) == table
    assert found.refused == refused
    assert (found.rule is None) == (table == 254)


def test_the_lowest_metric_wins_and_a_throw_route_goes_on() -> None:
    late, early = (MAIN._replace(device=d, metric=m) for d, m in (("late", 20), ("early", 10)))
    state = NodeState("n", routes=(late, early), rules=USUAL)
    assert lookup(state, CLIENT, None).route == early
    throw = ELSEWHERE._replace(type="throw", via=None, device="")
    rules = (USUAL[0], RuleState(4, 9, "from all lookup 100", ""), *USUAL[1:])
    state = NodeState("n", routes=(MAIN,), other_routes=(throw,), rules=rules)
    assert lookup(state, CLIENT, None).route == MAIN


def test_a_rule_that_leads_astray_is_the_remedy() -> None:
    def ruled(state: NodeState) -> NodeState:
        rule = RuleState(4, 100, "from 10.10.0.100 to 10.10.0.10 prohibit", "")
        return replace(state, rules=(USUAL[0], rule, *USUAL[1:]))

    failing = bent(unanswered(evidence_of("dr"), "rs1"), "rs1", ruled)
    assert first_cause(failing) == (
        "packets-refused",
        "rs1",
        "lvsctl exec dr/rs1 -- ip -4 rule del pref 100 from 10.10.0.100 to 10.10.0.10 prohibit",
    )


def test_a_rule_that_refuses_what_is_for_several_nodes_is_named_once() -> None:
    def ruled(state: NodeState) -> NodeState:
        rule = RuleState(4, 100, "from 10.30.1.2 blackhole", "")
        return replace(state, rules=(USUAL[0], rule, *USUAL[1:]))

    failing = bent(unanswered(evidence_of("tun")), "router", ruled)
    causes = conclusion(failing).causes
    assert [(cause.fault, cause.node) for cause in causes] == [("packets-refused", "router")]
