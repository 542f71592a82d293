"""What of a running lab differs from its plan, on states made up for it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from lvsctl.kernel.own_servers import Place
from lvsctl.model.lab import Impairment
from lvsctl.model.packet_filter import FilterProgram, FilterRule, Marking
from lvsctl.model.service import FwMark, PortRange, Protocol, Scheduler, TunnelKind, VipPort
from lvsctl.model.state import (
    FilterState,
    LinkState,
    ListenerState,
    NeighbourState,
    NextHopState,
    NodeState,
    QdiscState,
    RouteState,
    RuleState,
    ServiceState,
    Setting,
    TcpMetricsState,
)
from lvsctl.netlink import rules
from lvsctl.plan import diff
from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.device import Device
from lvsctl.resources.foreign import NextHopObject, TcpMetrics
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.marks import Marks
from lvsctl.resources.neighbour import LearntNeighbour
from lvsctl.resources.netem import Netem
from lvsctl.resources.packet_filter import PacketFilter
from lvsctl.resources.policy_rule import USUAL, PolicyRule
from lvsctl.resources.qdisc import Qdisc
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import ChangedSysctl
from lvsctl.resources.tunnel import Tunnel
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink
from tests.unit.report_samples import lab_of

OWN = ip_interface("10.0.0.1/24")
LINK = VethLink(
    netns="switch",
    port="a",
    port_index=2000,
    bridge="bridge",
    bridge_index=20,
    node_netns="a",
    device="lan",
    device_index=50,
    mac="02:00:0a:00:00:01",
)
OTHER = replace(
    LINK, port="b", port_index=2001, node_netns="b", mac="02:00:0a:00:00:02", device_index=50
)
PLAN = (
    LINK,
    OTHER,
    Address(netns="a", device="lan", address=OWN),
    Address(netns="b", device="lan", address=ip_interface("10.0.0.2/24")),
)


def node(**more: object) -> NodeState:
    """The state of the node a, as planned."""
    lo = LinkState("lo", 1, "", "", 65536, up=True, carrier=True, addresses=(diff.LOOPBACK,))
    lan = LinkState(
        "lan", 50, "veth", LINK.mac, 1500, up=True, carrier=True, addresses=(OWN,), peer=2000
    )
    network = RouteState(OWN.network, None, "lan", kernel=True)
    state = NodeState(
        "a",
        links=(lo, lan),
        routes=(network,),
        whole=True,
        rules=tuple(RuleState(*rule, "") for rule in USUAL),
        local_addresses=("10.0.0.1/32", "127.0.0.1/32", "127.0.0.0/8"),
    )
    return replace(state, **more)  # type: ignore[arg-type]


def found(state: NodeState, *more: Resource) -> diff.Difference:
    """How the node a differs."""
    switch = LinkState("a", 2000, "veth", "", 1500, up=True, carrier=True, master="bridge", peer=50)
    states = {"a": state, "switch": NodeState("switch", links=(switch,), whole=True)}
    return diff.diff(Plan("x", (Stage("all", (*PLAN, *more)),)), states)


def missing(difference: diff.Difference) -> list[Resource]:
    return [
        one for stage in difference.missing for one in stage.resources if "b" not in one.namespaces
    ]


def test_a_node_as_planned_has_no_difference() -> None:
    difference = found(node())
    assert missing(difference) == []
    assert difference.extra == ()
    assert difference.left == ()


def extra_link(kind: str, **more: object) -> NodeState:
    link = LinkState("x0", 9, kind, "", 1500, up=True, carrier=True)
    link = replace(link, addresses=(ip_interface("10.9.0.1/24"),), **more)  # type: ignore[arg-type]
    return node(links=(*node().links, link))


def test_an_extra_device_is_removed_and_what_is_on_it_with_it() -> None:
    difference = found(extra_link("dummy"))
    assert [type(one) for one in diff.independent(difference.extra)] == [Device]
    assert difference.left == ()


@pytest.mark.parametrize(
    ("kind", "more", "why"),
    [
        ("tun", {}, "a program or the host may use it"),
        ("wireguard", {}, "a program or the host may use it"),
        ("", {}, "a program or the host may use it"),
        ("veth", {"peer": 77, "peer_elsewhere": True}, "outside of the lab"),
    ],
)
def test_a_device_that_may_be_in_use_is_left_alone_with_what_is_on_it(
    kind: str, more: dict[str, object], why: str
) -> None:
    difference = found(extra_link(kind, **more))
    assert difference.extra == ()
    (left,) = difference.left
    assert why in left.text
    assert left.command == "ip -n a link del dev x0"


def test_a_veth_between_two_nodes_of_the_lab_is_removed() -> None:
    other = LinkState("y0", 8, "veth", "", 1500, up=True, carrier=True, peer=9, peer_elsewhere=True)
    states = {
        "a": extra_link("veth", peer=8, peer_elsewhere=True),
        "b": NodeState("b", links=(other,), whole=True),
    }
    difference = diff.diff(Plan("x", (Stage("all", PLAN),)), states)
    assert {one.netns for one in difference.extra if isinstance(one, Device)} == {"a", "b"}


@pytest.mark.parametrize(
    ("mac", "state", "wrong"),
    [
        (OTHER.mac, "reachable", False),
        ("02:00:00:00:00:99", "stale", True),
        ("", "failed", False),
    ],
)
def test_a_learned_entry_of_another_mac_than_the_nodes_is_deleted(
    mac: str, state: str, *, wrong: bool
) -> None:
    entry = NeighbourState(ip_address("10.0.0.2"), "lan", mac, state)
    extra = found(node(neighbours=(entry,))).extra
    assert [type(one) for one in extra] == ([LearntNeighbour] if wrong else [])


def test_a_rule_of_every_namespace_that_is_missing_is_made_again() -> None:
    assert [type(one) for one in missing(found(node(rules=node().rules[1:])))] == [PolicyRule]


DEFAULT = StaticRoute(netns="a", to=None, via=ip_address("10.0.0.2"))
RIGHT = RouteState(None, ip_address("10.0.0.2"), "lan", kernel=False)


@pytest.mark.parametrize(
    ("routes", "so"),
    [
        ([RIGHT], True),
        ([], False),
        ([RIGHT._replace(via=ip_address("10.0.0.3"))], False),
        ([RIGHT._replace(hops=2), RIGHT._replace(hops=2, via=ip_address("10.0.0.3"))], False),
        ([RIGHT, RIGHT._replace(via=ip_address("10.0.0.3"))], False),
        ([RIGHT._replace(details=("mtu 500",))], False),
        ([RIGHT._replace(via=None, device="", type="blackhole")], False),
    ],
    ids=["right", "none", "other", "two hops", "prepended", "mtu", "blackhole"],
)
def test_a_planned_route_is_the_only_one_with_its_destination(
    routes: list[RouteState], *, so: bool
) -> None:
    difference = found(node(routes=(*node().routes, *routes)), DEFAULT)
    assert (missing(difference) == []) == so
    assert difference.extra == () or not so


def test_routes_of_other_metrics_tables_and_types_are_extra() -> None:
    routes = (
        RIGHT,
        RIGHT._replace(metric=5),
        RouteState(ip_network("10.0.0.9/32"), None, "", kernel=False, type="unreachable"),
    )
    other = RIGHT._replace(table=100)
    difference = found(node(routes=(*node().routes, *routes), other_routes=(other,)), DEFAULT)
    typed = sorted(str(one.undo_commands()[0]) for one in difference.extra)
    assert typed == [
        "ip -n a route del default via 10.0.0.2 metric 5",
        "ip -n a route del default via 10.0.0.2 table 100",
        "ip -n a route del unreachable 10.0.0.9/32",
    ]


def test_an_address_without_its_route_is_added_again() -> None:
    difference = found(node(routes=()))
    assert PLAN[2] in missing(difference)
    assert PLAN[2] in difference.extra


def test_netem_with_options_that_no_topology_has_is_replaced() -> None:
    slow = Netem(netns="a", device="lan", impairment=Impairment(delay=5))
    lo, lan = node().links
    state = node(links=(lo, replace(lan, impairment=Impairment(delay=5))))
    qdisc = QdiscState("lan", "netem", "1:", "root")
    assert missing(found(replace(state, qdiscs=(qdisc,)), slow)) == []
    worse = found(replace(state, qdiscs=(qdisc._replace(options=("duplicate 5%",)),)), slow)
    assert missing(worse) == [slow]
    assert [str(one.undo_commands()[0]) for one in worse.extra] == [
        "tc -n a qdisc del dev lan root"
    ]


def test_netem_of_another_extent_is_changed_in_place() -> None:
    wanted = Netem(netns="a", device="lan", impairment=Impairment(5, reorder=25, corrupt=1))
    lo, lan = node().links
    qdisc = QdiscState("lan", "netem", "1:", "root", ("reorder 25%", "corrupt 1%", "gap 1"))
    as_wanted = node(links=(lo, replace(lan, impairment=wanted.impairment)))
    assert missing(found(replace(as_wanted, qdiscs=(qdisc,)), wanted)) == []
    other = node(links=(lo, replace(lan, impairment=Impairment(5, reorder=25, corrupt=2))))
    difference = found(replace(other, qdiscs=(qdisc,)), wanted)
    assert missing(difference) == [wanted]
    assert difference.extra == ()


def test_a_tunnel_with_other_parameters_is_made_again() -> None:
    tunnel = Tunnel(netns="a", device="tunl0", index=60, kind=TunnelKind.IPIP)
    link = LinkState("tunl0", 60, "ipip", "", 1480, up=True, carrier=True)
    assert missing(found(node(links=(*node().links, link)), tunnel)) == []
    other = replace(link, settings=(Setting("ttl", "3", "0", "tunnel"),))
    difference = found(node(links=(*node().links, other)), tunnel)
    assert tunnel in missing(difference)
    assert [type(one) for one in difference.extra] == [Device]


MARKINGS = tuple(
    Marking(1, ip_address("10.0.0.100"), Protocol.TCP, PortRange(port, port)) for port in (80, 443)
)
MARKS = Marks(netns="a", devices=("lan",), markings=MARKINGS)


def marked(by: str, markings: tuple[Marking, ...] = MARKINGS, **more: object) -> NodeState:
    """The node a with markings made by nft or by tc."""
    rules = tuple(
        FilterRule(
            *(FilterProgram.NFT, "inet lvsctl_mark", "prerouting", number),
            " ".join(one.rule()).replace(" counter", ""),
            *("MARK", 0, True, number),
            hook="prerouting",
        )
        for number, one in enumerate(markings, 1)
    )
    filters = tuple(
        FilterState(
            *("lan", "ingress", "flower", number, "ip", (f"mark {one.mark}",)), match=one.match()
        )
        for number, one in enumerate(markings, 1)
    )
    made = {"packet_filters": rules} if by == "nft" else {"filters": filters, "qdiscs": (CLSACT,)}
    return node(nftables=by == "nft", **{**made, **more})


CLSACT = QdiscState("lan", "clsact", "ffff:", "clsact")


@pytest.mark.parametrize("by", ["nft", "tc"])
def test_marks_may_be_made_by_nft_or_tc_and_lack_what_neither_marks(by: str) -> None:
    as_planned = found(marked(by), MARKS)
    assert missing(as_planned) == []
    assert as_planned.extra == ()
    (surplus,) = found(marked(by)).extra
    assert isinstance(surplus, Marks)
    assert surplus.markings == MARKINGS

    one_less, none = marked(by, MARKINGS[:1]), marked(by, ())
    for state in (one_less, none):
        (lacking,) = missing(found(state, MARKS))
        assert lacking == MARKS
        assert found(state, MARKS).extra == ()
        assert all(command.argv[0] == by for command in lacking.commands())
        assert not any(command.otherwise for command in lacking.edit_commands())
        deviation = lacking.deviation(state, lab_of("dr"))
        assert deviation is not None
        assert "does not mark" in deviation.text
    assert MARKS.missing(one_less) == MARKINGS[1:]
    assert MARKS.only_lacks(one_less)
    assert [words[:3] for words in MARKS.adding(MARKINGS[1:], one_less)] == [
        ("nft", "add", "rule") if by == "nft" else ("tc", "filter", "add")
    ]
    other = marked(by, (*MARKINGS, MARKINGS[0]._replace(mark=9)))
    assert not MARKS.only_lacks(other)
    assert missing(found(other, MARKS)) == [MARKS]


def test_filters_beside_the_rules_that_mark_are_extra_and_so_is_a_rule_in_their_table() -> None:
    (extra,) = found(marked("nft", qdiscs=(CLSACT,)), MARKS).extra
    assert isinstance(extra, Qdisc)
    rules = marked("nft").packet_filters
    foreign = replace(rules[0], text="tcp dport 99 drop", action="DROP")
    (table,) = found(marked("nft", packet_filters=(*rules, foreign)), MARKS).extra
    assert isinstance(table, PacketFilter)
    assert table.rules == (foreign,)
    elsewhere = tuple(replace(one, hook="postrouting") for one in rules)
    assert missing(found(marked("nft", packet_filters=elsewhere), MARKS)) == [MARKS]


def test_routes_go_with_the_next_hop_object_that_they_use() -> None:
    one = NextHopState(7, "via 10.0.0.9 dev lan", "lan")
    far = RouteState(
        ip_network("10.3.0.0/16"),
        ip_address("10.0.0.9"),
        "lan",
        kernel=False,
        details=("nhid 7",),
    )
    difference = found(node(nexthops=(one,), routes=(*node().routes, far)))
    (alone,) = diff.independent(difference.extra)
    assert isinstance(alone, NextHopObject)
    assert alone.routes == ("10.3.0.0/16",)
    assert len(difference.extra) == 2


@pytest.mark.parametrize(
    ("rtt", "fastopen", "delay", "extra"),
    [(3, False, 0, False), (1500, False, 0, True), (1500, False, 800, False), (3, True, 800, True)],
)
def test_what_tcp_learnt_is_extra_where_links_do_not_explain_it(
    rtt: int, *, fastopen: bool, delay: float, extra: bool
) -> None:
    learnt = TcpMetricsState(ip_address("10.0.0.2"), OWN.ip, rtt, fastopen)
    netem = Netem(netns="b", device="lan", impairment=Impairment(delay=delay))
    difference = found(node(tcp_metrics=(learnt,)), *([netem] if delay else []))
    assert any(isinstance(one, TcpMetrics) for one in difference.extra) == extra


def test_a_sysctl_that_the_plan_does_not_set_gets_its_usual_value() -> None:
    changed = node(changed_sysctls=(Setting("net.ipv4.ip_default_ttl", "2", "64"),))
    (one,) = found(changed).extra
    assert isinstance(one, ChangedSysctl)
    assert str(one.undo_commands()[0]).endswith("sysctl -q -w net.ipv4.ip_default_ttl=64")


@pytest.mark.parametrize(
    "text",
    [
        "from 10.0.0.0/8 lookup 100",
        "not from all to fd00::1 fwmark 0x5/0xff iif lan lookup main",
        "from all fwmark 0x7 oif lo unreachable",
    ],
)
def test_a_rule_is_encoded_as_it_is_decoded(text: str) -> None:
    version = 6 if "fd00" in text else 4
    raw = rules._encode(RuleState(version, 1000, text, ""))
    assert rules._rule(raw) == RuleState(version, 1000, text, raw.hex())


@pytest.mark.parametrize(
    ("address", "port", "reached"),
    [("0.0.0.0", 80, True), ("::", 80, True), ("10.0.0.100", 80, True), ("10.0.0.1", 80, False),
     ("127.0.0.1", 80, False), ("0.0.0.0", 8081, False)],
)  # fmt: skip
def test_a_server_listens_where_requests_arrive(address: str, port: int, *, reached: bool) -> None:
    place = Place(Protocol.TCP, ip_address("10.0.0.100"), 80)
    listener = ListenerState(Protocol.TCP, ip_address(address), port)
    assert place.is_covered_by(listener) == reached


def test_what_a_directors_own_command_may_have_made_is_left_alone() -> None:
    web = VipPort(Protocol.TCP, ip_address("10.0.0.100"), 80)
    service = IpvsService(netns="a", service=web, scheduler=Scheduler.RR)
    dns = ServiceState(FwMark(5, 4), "rr", 0, ())
    as_planned = ServiceState(web, "rr", 0, ())
    state = node(services=(as_planned, dns), other_routes=())
    assert [type(one) for one in found(state, service).extra] == [IpvsService]

    difference = found(state, service, UserCommand(netns="a", node="a", argv=("keepalived", "-n")))
    assert difference.extra == ()
    (left,) = difference.left
    assert "own command" in left.text
    assert left.command == "ip netns exec a ipvsadm -D -f 5"


def test_what_keepalived_has_not_put_into_its_table_is_left_to_it() -> None:
    web = VipPort(Protocol.TCP, ip_address("10.0.0.100"), 80)
    service = IpvsService(netns="a", service=web, scheduler=Scheduler.RR)
    vip = Address(netns="a", device="lan", address=ip_interface("10.0.0.100/32"))
    state = node(services=(ServiceState(web, "wlc", 0, ()),), other_routes=())
    shell = UserCommand(netns="a", node="a", argv=("/bin/sh", "-c", "exec keepalived -n -l"))
    for command, owned in (
        (shell, True),
        (replace(shell, argv=("/usr/sbin/keepalived", "-n")), True),
        (replace(shell, argv=("/bin/sh", "-c", "sleep 9")), False),
        (replace(shell, argv=("cat", "/etc/keepalived")), False),
    ):
        difference = found(state, service, vip, command)
        assert (service in missing(difference)) is not owned
        texts = [left.text for left in difference.left]
        assert any("keepalived decides what is in it" in text for text in texts) is owned


def test_a_link_that_comes_between_others_gets_a_number_that_no_other_port_has() -> None:
    """What stays keeps its own: traffic to the other nodes goes on."""
    shifted = replace(LINK, port_index=LINK.port_index + 1)
    new = replace(LINK, port="b", node_netns="b", mac="02:00:00:00:00:0b")
    assert diff.obsolete([LINK], [new, shifted]) == ()
    switch = NodeState(
        LINK.netns,
        links=(
            *(LinkState(name, LINK.port_index + n, "veth", "", 1500, up=True, carrier=True)
              for n, name in enumerate((LINK.port, "c"))),
        ),
    )  # fmt: skip
    plan = Plan("a", (Stage("links", (new,)),))
    (stage,) = diff.diff(plan, {LINK.netns: switch, "b": NodeState("b")}).missing
    (link,) = stage.resources
    assert isinstance(link, VethLink)
    assert link.port_index == LINK.port_index + 2
