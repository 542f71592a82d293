"""Several directors without a kernel: what is planned, what differs, who is master, the story."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_interface
from pathlib import Path
from struct import pack
from types import MappingProxyType

import pytest

from lvsctl import claims
from lvsctl.capture.decode import decode_all
from lvsctl.claims import ecmp
from lvsctl.claims import failover as story
from lvsctl.claims.ha import connections_synchronized
from lvsctl.claims.trace import traces
from lvsctl.diagnosis import by_state, conclusion
from lvsctl.diagnosis.base import LabConsole
from lvsctl.diagnosis.network import Network
from lvsctl.engine import lost_director
from lvsctl.engine.failover import Held, Outage, outages
from lvsctl.errors import HostError, TopologyError
from lvsctl.faults.injector import FaultInjector
from lvsctl.kernel import commands, paths
from lvsctl.kernel.paths import InjectedFault
from lvsctl.model.claim import Verdict
from lvsctl.model.evidence import Evidence, Run
from lvsctl.model.failover import HeldConnection, Moment
from lvsctl.model.frame import Direction, LinkType, RawFrame, Tap
from lvsctl.model.lab import Lab
from lvsctl.model.masters import has_one_master, holders_in, master_in, vrrp_state
from lvsctl.model.service import ForwardingMethod
from lvsctl.model.state import (
    FilterState,
    LinkState,
    NeighbourState,
    NodeState,
    ProcessState,
    RouteState,
    SyncDaemonState,
    added_up,
)
from lvsctl.netlink import queueing, tc
from lvsctl.plan import diff, planner
from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.address import Address
from lvsctl.resources.announcement_filter import AnnouncementFilter
from lvsctl.resources.base import Resource
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.keepalived import Keepalived
from lvsctl.resources.static_route import RouteHop, StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.topology import shipped
from lvsctl.topology.shipped import Topology
from lvsctl.traffic.every import Asked
from tests.unit.recorded.reports import evidence_of

VIP = ip_address("10.60.0.100")
FIRST, SECOND, CLIENT = "02:00:0a:3c:00:02", "02:00:0a:3c:00:03", "02:00:0a:3c:00:0a"


def lab_of(name: str, **changed: str) -> Lab:
    text = shipped.text_of(name)
    for before, after in changed.items():
        assert before in text
        text = text.replace(before, after)
    return planner.load_lab(Topology(name, text.encode()))


def keepalived(lab: Lab) -> list[Keepalived]:
    return [one for one in planner.plan_for(lab).resources if isinstance(one, Keepalived)]


# ── the plan ─────────────────────────────────────────────────────────────────────────────────


def test_a_vip_is_in_the_configuration_of_each_director_and_planned_on_none() -> None:
    lab = lab_of("dr-ha")
    first, second = keepalived(lab)
    for one, priority in ((first, 150), (second, 100)):
        assert f"priority {priority}" in one.text
        assert "10.60.0.100/32" in one.text
        assert "lvs_sync_daemon lan LAN-4" in one.text
        assert "TCP_CHECK" not in one.text  # what is injected into a lab stays in the table
    held = [
        one.netns
        for one in planner.plan_for(lab).resources
        if isinstance(one, Address) and one.address.ip == VIP
    ]
    assert held == ["lvs-dr-ha-rs1", "lvs-dr-ha-rs2"]


def test_the_gateway_of_nat_moves_with_the_vip() -> None:
    lab = lab_of("nat-ha")
    assert lab.gateways == (ip_address("192.168.61.1"),)
    routes = {
        one.netns: one.via
        for one in planner.plan_for(lab).resources
        if isinstance(one, StaticRoute) and one.to is None
    }
    assert routes["lvs-nat-ha-rs1"] == routes["lvs-nat-ha-rs2"] == lab.gateways[0]
    for one in keepalived(lab):
        assert "vrrp_sync_group" in one.text
        assert "virtual_router_id 52" in one.text


def test_a_gateway_is_chosen_where_none_is_given() -> None:
    chosen = planner.load_lab(
        Topology(
            "nat-ha",
            shipped.text_of("nat-ha").replace(", gateways: [192.168.61.1]", "").encode(),
        )
    )
    assert chosen.gateways == (ip_address("192.168.61.1"),)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("preempt: false", "    nopreempt"),
        ("virtual_router_id: 7", "    virtual_router_id 7"),
        ("advert_int: 2s", "    advert_int 2"),
        ("unicast: true", "    unicast_src_ip 10.60.0.2"),
        ("priority: 200", "    priority 200"),
        ("password: s3cret", "        auth_pass s3cret"),
    ],
)
def test_each_setting_is_in_the_configuration(setting: str, line: str) -> None:
    text = shipped.text_of("dr-ha").replace("{advert_int: 500ms, sync: true}", f"{{{setting}}}")
    first, second = keepalived(planner.load_lab(Topology("dr-ha", text.encode())))
    assert line in first.text.splitlines()
    assert "lvs_sync_daemon" not in first.text
    assert not ({"    priority 200"} & set(second.text.splitlines()))


# ── what differs ─────────────────────────────────────────────────────────────────────────────


def link(*addresses: str, mac: str = FIRST) -> LinkState:
    return LinkState(
        "lan", 50, "veth", mac, 1500, True, True, addresses=tuple(map(ip_interface, addresses))
    )


PROCESSES = tuple(ProcessState(pid, "keepalived", "S") for pid in (10, 11, 12))


def difference(state: NodeState, program: Keepalived) -> diff.Difference:
    return diff.diff(Plan("a", (Stage("servers", (program,)),)), {state.netns: state})


def program(*, sync: bool = True, text: str = "a") -> Keepalived:
    return Keepalived(netns="a", node="a", text=text, floating=(VIP,), sync=sync)


@pytest.mark.parametrize("running", range(4))
def test_keepalived_is_started_again_unless_all_its_processes_run(running: int) -> None:
    state = NodeState("a", whole=True, processes=PROCESSES[:running])
    missing = [one for stage in difference(state, program()).missing for one in stage.resources]
    assert missing == ([] if running == len(PROCESSES) else [program()])


def test_keepalived_is_started_again_where_its_file_was_changed() -> None:
    state = NodeState("a", whole=True, processes=PROCESSES, keepalived_file="priority 7\nb\n")
    wanted = program(text="priority 8\nauth_pass secret\n")
    assert [one for stage in difference(state, wanted).missing for one in stage.resources]
    found = wanted.deviation(state, lab_of("dr-ha"))
    assert found is not None
    assert "it has `priority 7`, `b`; it lacks `priority 8`" in found.text
    state = replace(state, keepalived_file="priority 8\nauth_pass wrong\n")
    found = wanted.deviation(state, lab_of("dr-ha"))
    assert found is not None
    assert found.text.endswith("another password")


def test_another_configuration_takes_the_place_of_the_old_one() -> None:
    assert diff.obsolete([program()], [program(text="b")]) == (program(),)
    assert diff.obsolete([program()], [program()]) == ()


def test_what_a_master_holds_is_not_undone() -> None:
    lab = lab_of("dr-ha")
    plan = planner.plan_for(lab)
    name = lab.netns("director1")
    daemon = SyncDaemonState("master", "lan", 51)
    state = NodeState(
        name,
        (link("10.60.0.2/24", "10.60.0.100/32", "10.60.0.77/32"),),
        whole=True,
        processes=PROCESSES,
        sync_daemons=(daemon,),
    )
    extra = diff.diff(plan, {name: state}).extra
    addresses = {one.address.ip for one in extra if isinstance(one, Address)}
    assert ip_address("10.60.0.77") in addresses
    assert VIP not in addresses
    assert not any(type(one).__name__ == "SyncDaemon" for one in extra)


# ── who is master ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("first", "second", "master", "one"),
    [
        ((), (), "director1", False),
        ((VIP,), (), "director1", True),
        ((), (VIP,), "director2", True),
        ((VIP,), (VIP,), "director1", False),
    ],
)
def test_the_master_holds_the_addresses(
    first: tuple[IPv4Address, ...], second: tuple[IPv4Address, ...], master: str, one: bool
) -> None:
    lab = lab_of("dr-ha")
    links = {
        name: (link(*(f"{address}/32" for address in held)),)
        for name, held in (("director1", first), ("director2", second))
    }
    assert master_in(lab, links) == master
    assert has_one_master(holders_in(lab, links)) == one
    assert vrrp_state(lab, "director2", links["director2"]) == ("master" if second else "backup")
    assert vrrp_state(lab, "client", ()) == ""


def directors(*daemons: tuple[SyncDaemonState, ...]) -> Evidence:
    """Two directors, of which the first is master, with these synchronization daemons."""
    lab = lab_of("dr-ha")
    held = (link("10.60.0.2/24", "10.60.0.100/32"), link("10.60.0.3/24"))
    states = {
        node.name: NodeState(
            lab.netns(node.name), (one,), whole=True, processes=PROCESSES, sync_daemons=found
        )
        for node, one, found in zip(lab.directors, held, daemons, strict=True)
    }
    run = Run(lab.services[0], "client", (), before=None, after=None, connections=())
    return Evidence(lab, (run,), (), (), states=states)


SENDS, RECEIVES = SyncDaemonState("master", "lan", 51), SyncDaemonState("backup", "lan", 51)


@pytest.mark.parametrize(
    ("first", "second", "verdict", "observed"),
    [
        ((SENDS,), (RECEIVES,), Verdict.PASS, "on lan"),
        ((SENDS,), (), Verdict.FAIL, "director2 receives none"),
        ((), (RECEIVES,), Verdict.FAIL, "director1 sends none"),
        ((SENDS,), (SyncDaemonState("backup", "wan", 51),), Verdict.FAIL, "receives on wan"),
        ((SENDS,), (SyncDaemonState("backup", "lan", 52),), Verdict.FAIL, "sync id 52"),
    ],
)
def test_the_backup_receives_what_the_master_sends(
    first: tuple[SyncDaemonState, ...],
    second: tuple[SyncDaemonState, ...],
    verdict: Verdict,
    observed: str,
) -> None:
    evidence = directors(first, second)
    (trace,) = traces(evidence)
    found = connections_synchronized(trace)
    assert found.verdict is verdict
    assert observed in found.observed
    named = [c for c in conclusion(evidence).causes if c.fault.startswith("sync-daemon")]
    assert bool(named) == (verdict is Verdict.FAIL)


HIGHEST, DIFFERS = "priority 150", "differs-from-topology"


def looked_at(
    lab: Lab | None = None,
    master: str = "director1",
    files: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    *frames: RawFrame,
    **states: NodeState,
) -> Evidence:
    """Evidence without requests: who holds the VIP, and what is different in the files."""
    lab = lab or lab_of("dr-ha")
    planned = {one.node: one.text for one in keepalived(lab)}
    found = {}
    for node, own in zip(lab.directors, (FIRST, SECOND), strict=True):
        text = planned[node.name]
        for before, after in files.get(node.name, {}).items():
            assert before in text
            text = text.replace(before, after)
        held = ("10.60.0.100/32",) if master in (node.name, "both") else ()
        found[node.name] = NodeState(
            lab.netns(node.name),
            (link(str(node.addresses[0]), *held, mac=own),),
            whole=True,
            processes=PROCESSES,
            sync_daemons=(SENDS,) if held else (RECEIVES,),
            keepalived_file=text,
        )
    run = Run(lab.services[0], "client", (), before=None, after=None, connections=())
    return Evidence(lab, (run,), decode_all(frames), (), states={**found, **states})


def judged(evidence: Evidence) -> dict[str, Verdict]:
    return {one.claim.id: one.verdict for one in claims.findings(evidence)}


def named(evidence: Evidence) -> set[tuple[str, str]]:
    return {(cause.fault, cause.node) for cause in conclusion(evidence).causes}


@pytest.mark.parametrize(
    ("master", "changed", "verdict", "cause"),
    [
        ("director1", {}, Verdict.PASS, None),
        ("director2", {}, Verdict.FAIL, None),
        ("director2", {HIGHEST: "priority 100"}, Verdict.FAIL, "equal-priorities"),
        ("director2", {HIGHEST: "priority 90"}, Verdict.FAIL, DIFFERS),
        ("director1", {HIGHEST: f"{HIGHEST}\n    nopreempt"}, Verdict.PASS, "preemption-off"),
        ("both", {}, Verdict.INCONCLUSIVE, None),
    ],
)
def test_the_highest_priority_is_master_and_the_file_shows_why_it_is_not(
    master: str, changed: dict[str, str], verdict: Verdict, cause: str | None
) -> None:
    evidence = looked_at(None, master, {"director1": changed})
    assert judged(evidence)["ha.failback"] is verdict
    about = {
        fault
        for fault, node in named(evidence)
        if node == "director1" and fault in ("equal-priorities", "preemption-off", DIFFERS)
    }
    assert about == (set() if cause is None else {cause})


def test_a_director_that_cannot_be_master_need_not_be() -> None:
    evidence = looked_at(None, "director2")
    stopped = replace(evidence.states["director1"], processes=())
    found = replace(evidence, states={**evidence.states, "director1": stopped})
    assert judged(found)["ha.failback"] is Verdict.PASS


def test_without_preemption_any_director_may_be_master() -> None:
    lab = lab_of("dr-ha", **{"sync: true}": "sync: true, preempt: false}"})
    assert "ha.failback" not in judged(looked_at(lab, "director2"))


def test_directors_with_one_mac_address_are_named() -> None:
    evidence = looked_at()
    copied = replace(evidence.states["director2"], links=(link("10.60.0.3/24", mac=FIRST),))
    found = replace(evidence, states={**evidence.states, "director2": copied})
    assert judged(evidence)["ha.macs-differ"] is Verdict.PASS
    assert judged(found)["ha.macs-differ"] is Verdict.FAIL
    assert ("duplicate-mac", "director2") in named(found)


GRATUITOUS = ("0a3c0064/ffffffff at 24", "00000a3c/0000ffff at 12", "00640000/ffff0000 at 16")


@pytest.mark.parametrize(
    ("match", "actions", "drops"),
    [
        (GRATUITOUS, ("drop",), True),
        (GRATUITOUS, ("pass",), False),
        (("0a3c0065/ffffffff at 24",), ("drop",), False),
        (("0a3c0000/ffff0000 at 24",), ("drop",), True),
        ((), ("drop",), False),
    ],
    ids=["fault", "passes", "another address", "the whole network", "unread"],
)
def test_a_filter_that_drops_announcements_is_named_before_a_failover(
    match: tuple[str, ...], actions: tuple[str, ...], *, drops: bool
) -> None:
    evidence = looked_at()
    one = FilterState("lan", "egress", "u32", 1, "arp", actions, match)
    filtered = replace(evidence.states["director2"], filters=(one,))
    found = named(replace(evidence, states={**evidence.states, "director2": filtered}))
    assert (("announcements-dropped", "director2") in found) == drops


@pytest.mark.parametrize("vip", ["10.60.0.100", "fd00:71::100"])
def test_the_filter_of_the_fault_is_one_that_drops_announcements(vip: str) -> None:
    one = AnnouncementFilter(netns="a", device="lan", address=ip_address(vip))
    read = queueing.filter_of(bytes(tc.add_announcement_filter(5, one)), "lan", 0xFFFFFFF3)
    assert (read.parent, read.kind, read.actions) == ("egress", "u32", ("drop",))
    text = shipped.text_of("dr-ha")
    if one.address.version == 6:
        text = text.replace("{ipv4: 10.60.0.0/24}", "{ipv6: 'fd00:71::/64'}")
        text = text.replace("{lan: 10.60.0.10}", "[lan]").replace("10.60.0.100", f"'{vip}'")
    evidence = looked_at(planner.load_lab(Topology("dr-ha", text.encode())))
    filtered = replace(evidence.states["director2"], filters=(read,))
    found = named(replace(evidence, states={**evidence.states, "director2": filtered}))
    assert ("announcements-dropped", "director2") in found


@pytest.mark.parametrize("value", ["0", "1"])
def test_a_neighbour_that_ignores_announcements_is_named_before_a_failover(value: str) -> None:
    setting = {"net.ipv4.conf.lan.drop_gratuitous_arp": value}
    found = named(looked_at(client=NodeState("lvs-dr-ha-client", sysctls=setting)))
    assert (("announcements-ignored", "client") in found) == (value == "1")


@pytest.mark.parametrize(("password", "node"), [(b"mistaken", "director2"), (b"secret", None)])
def test_a_wrong_password_is_seen_in_the_advertisements(password: bytes, node: str | None) -> None:
    lab = lab_of("dr-ha", **{"advert_int: 500ms": "password: secret"})
    found = named(
        looked_at(
            lab,
            "both",
            {},
            advertisement(0, "director1", "10.60.0.2", FIRST, 150, b"secret"),
            advertisement(1, "director2", "10.60.0.3", SECOND, 100, password),
        )
    )
    assert (("vrrp-password", node) in found) == (node is not None)


def test_what_a_fault_changed_stays_in_the_plan_that_brings_a_director_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lab = lab_of("dr-ha")
    noted = (
        InjectedFault("preemption-off", "director1"),
        InjectedFault("announcements-dropped", "director2"),
    )
    monkeypatch.setattr(paths, "read_faults", lambda _: noted)
    resources = FaultInjector(lab).broken_plan().resources
    texts = [one.text for one in resources if isinstance(one, Keepalived)]
    assert ["nopreempt" in text for text in texts] == [True, False]
    assert [one.netns for one in resources if isinstance(one, AnnouncementFilter)] == [
        "lvs-dr-ha-director2"
    ]


# ── the story ────────────────────────────────────────────────────────────────────────────────


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def raw(at: int, node: str, data: bytes) -> RawFrame:
    """A frame that a node sent ``at`` milliseconds after the action."""
    return RawFrame(
        10**9 + at * 10**6, Tap(node, "lan"), Direction.OUT, LinkType.ETHERNET, len(data), data
    )


def advertisement(
    at: int, node: str, source: str, own: str, priority: int, password: bytes = b""
) -> RawFrame:
    body = pack("!BBBBHH", 0x31, 51, priority, 1, 50, 0) + VIP.packed
    if password:  # version 2, authentication type 1 (RFC 2338, section 5.3.6)
        body = pack("!BBBBBBH", 0x21, 51, priority, 1, 1, 1, 0) + VIP.packed
        body += password.ljust(8, b"\0")
    header = pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 255, 112, 0)
    packet = header + ip_address(source).packed + ip_address("224.0.0.18").packed + body
    return raw(at, node, mac("01:00:5e:00:00:12") + mac(own) + b"\x08\x00" + packet)


def announcement(at: int, node: str, own: str) -> RawFrame:
    arp = pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac(own) + VIP.packed + bytes(6) + VIP.packed
    return raw(at, node, mac("ff:ff:ff:ff:ff:ff") + mac(own) + b"\x08\x06" + arp)


def request(at: int, to: str) -> RawFrame:
    header = pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0)
    packet = header + ip_address("10.60.0.10").packed + VIP.packed
    packet += pack("!HHIIBBHHH", 40000, 80, 1, 0, 0x50, 2, 1000, 0, 0)
    return raw(at, "client", mac(to) + mac(CLIENT) + b"\x08\x00" + packet)


def moved(*frames: RawFrame, **changed: object) -> story.Moved:
    usual = story.Moved(
        lab_of("dr-ha"),
        decode_all(frames),
        10**9,
        "director1",
        "director2",
        {VIP: ("director2",)},
        {"client": (NeighbourState(VIP, "lan", SECOND, "reachable"),)},
        {
            "director1": frozenset({FIRST}),
            "director2": frozenset({SECOND}),
            "client": frozenset({CLIENT}),
        },
        receiving=True,
    )
    return replace(usual, **changed)  # type: ignore[arg-type]


STORY = (
    advertisement(-100, "director1", "10.60.0.2", FIRST, 150),
    request(5, FIRST),
    advertisement(1700, "director2", "10.60.0.3", SECOND, 100),
    announcement(1710, "director2", SECOND),
    announcement(1711, "director2", SECOND),
    request(1720, SECOND),
)


def test_the_story_is_told_from_frames() -> None:
    steps = {step.moment: step for step in story.story(moved(*STORY))}
    assert {moment: step.at for moment, step in steps.items()} == {
        Moment.ADVERTISED: -100,
        Moment.TOOK_OVER: 1700,
        Moment.ANNOUNCED: 1710,
        Moment.FOLLOWED: 1720,
    }
    assert "2 times" in steps[Moment.ANNOUNCED].text


def test_a_master_that_resigns_is_told() -> None:
    resigns = advertisement(3, "director1", "10.60.0.2", FIRST, 0)
    moments = [step.moment for step in story.story(moved(*STORY, resigns))]
    assert Moment.RESIGNED in moments


def verdicts(one: story.Moved) -> dict[str, Verdict]:
    return {f.claim.id.removeprefix("ha."): f.verdict for f in story.findings(one, "web")}


def held(packets: int, *, survived: bool) -> HeldConnection:
    return HeldConnection(
        "10.60.0.10:1", "rs1", packets, survived, survived, "" if survived else "r"
    )


def test_a_good_failover_passes() -> None:
    good = moved(*STORY, held=(held(4, survived=True), held(2, survived=False)))
    assert set(verdicts(good).values()) == {Verdict.PASS}


@pytest.mark.parametrize(
    ("claim", "change"),
    [
        ("one-master", {"holders": {VIP: ("director1", "director2")}}),
        ("vip-announced", {"frames": ()}),
        (
            "neighbours-follow",
            {"neighbours": {"client": (NeighbourState(VIP, "lan", FIRST, "stale"),)}},
        ),
        ("connections-survive", {"held": (held(4, survived=False),)}),
    ],
)
def test_each_claim_can_fail(claim: str, change: dict[str, object]) -> None:
    found = verdicts(replace(moved(*STORY, held=(held(4, survived=True),)), **change))  # type: ignore[arg-type]
    assert found.pop(claim) is Verdict.FAIL
    assert set(found.values()) <= {Verdict.PASS}  # of two masters nothing else is promised


def test_two_masters_are_told_and_fail() -> None:
    both = {VIP: ("director1", "director2")}
    goes_on = advertisement(1750, "director1", "10.60.0.2", FIRST, 150)
    split = moved(*STORY, goes_on, holders=both, held=(held(4, survived=False),))
    assert verdicts(split) == {"one-master": Verdict.FAIL}
    steps = {step.moment: step.at for step in story.story(split)}
    assert (steps[Moment.TOOK_OVER], steps[Moment.STAYED]) == (1700, 1750)
    assert Moment.ADVERTISED not in steps


@pytest.mark.parametrize(
    ("setting", "after", "verdict"),
    [
        ("{advert_int: 500ms, sync: true}", "director1", Verdict.PASS),
        ("{advert_int: 500ms, sync: true}", "director2", Verdict.FAIL),
        ("{advert_int: 500ms, sync: true, preempt: false}", "director2", Verdict.PASS),
        ("{advert_int: 500ms, sync: true, preempt: false}", "director1", Verdict.FAIL),
    ],
)
def test_who_is_master_once_everything_is_back(setting: str, after: str, verdict: Verdict) -> None:
    lab = lab_of("dr-ha", **{"{advert_int: 500ms, sync: true}": setting})
    one = moved(lab=lab, before="director2", after=after, holders={VIP: (after,)}, back=True)
    assert verdicts(one)["failback"] is verdict


def test_a_connection_that_could_not_be_sent_is_not_promised() -> None:
    assert "connections-survive" not in verdicts(
        moved(*STORY, held=(held(4, survived=False),), receiving=None)
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([Asked(1, 1.1), Asked(2, 2.1)], []),
        ([Asked(1, 1.1), Asked(1.2, 0), Asked(1.9, 0), Asked(2, 2.1)], [Outage(1.1, 2.1, 0.3)]),
        ([Asked(1, 1.1), Asked(1.2, 2.2), Asked(2.25, 2.3)], [Outage(1.1, 2.3, 1.25)]),
        ([Asked(0.1, 0.2), Asked(0.3, 0), Asked(0.4, 0.5), Asked(2, 2.1)], []),
        ([Asked(1, 1.1), Asked(2, 0)], []),
    ],
    ids=["none", "unanswered", "answered late", "before it", "for good"],
)
def test_an_outage_lasts_from_an_answer_to_the_next(
    asked: list[Asked], expected: list[Outage]
) -> None:
    found = outages(asked, began=1.0)
    assert [tuple(map(pytest.approx, one)) for one in expected] == [tuple(one) for one in found]


# ── several active directors ─────────────────────────────────────────────────────────────────


def test_each_director_has_the_vip_and_routers_a_next_hop_for_each() -> None:
    lab = lab_of("ecmp")
    plan = planner.plan_for(lab)
    vip = ip_address("10.66.1.100")
    held = [o.netns for o in plan.resources if isinstance(o, Address) and o.address.ip == vip]
    assert {"lvs-ecmp-director1", "lvs-ecmp-director2"} <= set(held)
    (route,) = (o for o in plan.resources if isinstance(o, StaticRoute) and o.next_hops)
    assert str(route.commands()[0]) == (
        "ip -n lvs-ecmp-router route add 10.66.1.100/32 nexthop via 10.66.1.2 nexthop via 10.66.1.3"
    )
    settings = {(o.netns, o.name): o.value for o in plan.resources if isinstance(o, Sysctl)}
    assert settings["lvs-ecmp-router", "net.ipv4.fib_multipath_hash_policy"] == "1"
    assert settings["lvs-ecmp-director2", "net.ipv4.vs.sloppy_tcp"] == "1"
    assert not keepalived(lab)
    assert not lab.floating


def test_the_next_hops_of_a_route_are_read_back_as_one() -> None:
    (route,) = (
        one
        for one in planner.plan_for(lab_of("ecmp")).resources
        if isinstance(one, StaticRoute) and one.next_hops
    )

    def state(*hops: tuple[str, int]) -> NodeState:
        found = (
            RouteState(
                route.to, ip_address(via), "hub", kernel=False, hops=len(hops), weight=weight
            )
            for via, weight in hops
        )
        return NodeState(route.netns, routes=tuple(found))

    assert route.holds(state(("10.66.1.3", 1), ("10.66.1.2", 1)))
    for other in (
        state(("10.66.1.2", 1)),
        state(("10.66.1.2", 3), ("10.66.1.3", 1)),
        state(("10.66.1.2", 1), ("10.66.1.4", 1)),
        NodeState(route.netns),
    ):
        assert not route.holds(other)
        assert route.deviation(other, lab_of("ecmp")) is not None
    (weighted,) = StaticRoute.from_state(state(("10.66.1.2", 3), ("10.66.1.3", 1)))
    assert str(weighted.commands()[0]).endswith(
        "nexthop via 10.66.1.2 weight 3 nexthop via 10.66.1.3"
    )


def test_a_real_server_out_of_its_place_is_deleted_and_added_again() -> None:
    """Its place decides what a hash gives it; one that is missing takes the later ones along."""
    plan = planner.plan_for(lab_of("ecmp"))
    planned = [
        one
        for one in plan.resources
        if isinstance(one, IpvsRealServer) and one.netns == "lvs-ecmp-director1"
    ]
    (table,) = evidence_of("ecmp").states["director1"].services

    def changed(*order: int) -> tuple[list[str], list[str]]:
        # Of a report the method is read as its name.
        servers = tuple(
            table.real_servers[number]._replace(forward=ForwardingMethod.TUN) for number in order
        )
        services = (table._replace(real_servers=servers),)
        states = {planned[0].netns: NodeState(planned[0].netns, services=services)}
        found = diff.diff(Plan("ecmp", (Stage("servers", tuple(planned)),)), states)
        missing = [one for stage in found.missing for one in stage.resources]
        return nodes(found.extra), nodes(missing)

    def nodes(several: Iterable[Resource]) -> list[str]:
        return [one.real_server.node for one in several if isinstance(one, IpvsRealServer)]

    assert changed(0, 1, 2) == ([], [])
    assert changed(1, 2, 0) == (["rs2", "rs3"], ["rs2", "rs3"])
    assert changed(1, 2) == (["rs2", "rs3"], ["rs1", "rs2", "rs3"])


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("count: 2, ha: ecmp", "ha: ecmp", "is the only director: flows cannot be spread"),
        ("forward: tun", "forward: dr", "gets requests from several directors (ha: ecmp): by dr"),
        ("forward: tun", "forward: nat", "only the director that has the connection"),
        ("ha: ecmp", "ha: anycast", "did you mean 'ecmp'?"),
        ("ha: ecmp}", "ha: ecmp, keepalived: a.conf}", "sets up every director the same"),
        (
            "count: 2, ha: ecmp}",
            "ha: ecmp}\n  other: {role: director, networks: [hub], ha: vrrp}",
            "director has ha: ecmp, and other has not",
        ),
    ],
)
def test_what_does_not_fit_several_active_directors_is_said(
    before: str, after: str, said: str
) -> None:
    with pytest.raises(TopologyError) as raised:
        lab_of("ecmp", **{before: after})
    assert said in str(raised.value)


def test_tables_of_several_directors_are_added_up() -> None:
    (run,) = evidence_of("ecmp").runs
    assert run.after
    tables = [one.after for one in run.tables if one.after]
    assert len(tables) == 2
    for one in run.after.real_servers:
        own = (s for table in tables for s in table.real_servers if s.rip == one.rip)
        assert one.counters.connections == sum(s.counters.connections for s in own)
    assert added_up([]) is None
    assert added_up(tables[:1]) == tables[0]


@pytest.mark.parametrize(
    ("bend", "fault"),
    [
        (lambda s: replace(s, sysctls={**s.sysctls, "net.ipv4.vs.sloppy_tcp": "0"}), "sloppy-off"),
        (
            lambda s: replace(
                s,
                services=tuple(
                    one._replace(real_servers=one.real_servers[::-1]) for one in s.services
                ),
            ),
            "real-servers-reordered",
        ),
        (lambda s: s, ""),
    ],
)
def test_hosts_of_every_active_director_are_judged_by_their_state(
    bend: Callable[[NodeState], NodeState], fault: str
) -> None:
    """As `lvsctl check` does: no request is sent."""
    recorded = evidence_of("ecmp")
    runs = tuple(
        replace(run, exchanges=(), larges=(), large=None, others=(), rerouted=(), tables=())
        for run in recorded.runs
    )
    states = {**recorded.states, "director2": bend(recorded.states["director2"])}
    evidence = replace(recorded, runs=runs, frames=(), states=states)
    network = Network(evidence.lab, evidence.states)
    console = LabConsole("ecmp", "lvsctl up ecmp")
    found = by_state.judge(evidence, network, evidence.states.keys(), console)
    assert [(one.fault, one.node) for one in found.causes] == [(fault, "director2")] * bool(fault)


# ── one of them is lost ──────────────────────────────────────────────────────────────────────


def held_flow(*, survived: bool) -> Held:
    """A connection of the recorded lab that came to both directors, as the client saw it."""
    evidence = evidence_of("ecmp")
    (trace,) = traces(evidence)
    ends = [one[0].exchange.local for one in ecmp.moved(trace)]
    assert ends[0] is not None
    error = "" if survived else "reset"
    return Held(ends[0], error)


def test_a_lost_directors_flow_is_followed_to_another_director() -> None:
    evidence = evidence_of("ecmp")
    told = lost_director.Story(
        evidence.lab, evidence.lab.services[0], "director1", 0.0, 1.0, evidence.frames
    )
    steps = {step.moment: step for step in told.steps("client", (), again=True)}
    assert steps[Moment.ROUTED].node == "router"
    assert steps[Moment.MOVED].frame
    one = held_flow(survived=True)
    went_on = told.connection(one)
    assert went_on.survived
    assert went_on.known
    assert told.finding([went_on], 0).verdict is Verdict.PASS
    assert told.finding([replace(went_on, known=False)], 0).verdict is Verdict.INCONCLUSIVE
    ended = told.connection(held_flow(survived=False))
    assert "reset: handled by director" in ended.why
    assert told.finding([went_on, ended], 0).verdict is Verdict.FAIL
    assert told.finding([ended], 5).verdict is Verdict.INCONCLUSIVE


def test_a_next_hop_is_taken_out_of_a_route() -> None:
    hops = tuple(RouteHop(ip_address(f"10.0.0.{number}")) for number in (2, 3, 4))
    route = StaticRoute(netns="a", to=None, via=None, next_hops=hops)
    two = lost_director.without(route, [hops[0].via])
    assert two.next_hops == hops[1:]
    assert lost_director.without(two, [hops[2].via]) == StaticRoute(
        netns="a", to=None, via=hops[1].via
    )


def test_a_missing_keepalived_is_named_before_a_lab_is_created(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="director1: keepalived: command not found") as raised:
        commands.check_programs(planner.plan_for(lab_of("dr-ha")).resources)
    assert "apt-get install keepalived" in str(raised.value.hint)
    commands.check_programs(planner.plan_for(lab_of("dr")).resources)
