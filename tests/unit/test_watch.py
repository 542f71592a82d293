"""What is made of samples: rates, owners, losses, changes; and one screen."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest
from rich.console import Console

from lvsctl.model import nstat
from lvsctl.model.evidence import Answers, Exchange, Failure
from lvsctl.model.lab import Lab
from lvsctl.model.service import ForwardingMethod, FwMark
from lvsctl.model.state import (
    Counters,
    NodeState,
    RealServerState,
    RouteState,
    Sample,
    ServiceState,
)
from lvsctl.output.text.watch_screen import Screen
from lvsctl.watch.changes import ChangeEvent, add_change, changes
from lvsctl.watch.view import View, leftovers, view
from tests.unit.watch_samples import VIP, lab_of, mac_of, sample, with_state

RS1 = ip_address("10.10.0.11")


@pytest.fixture(scope="module")
def lab() -> Lab:
    return lab_of()


def drawn(seen: View, width: int, height: int, encoding: str = "utf-8", **words: object) -> str:
    """What a terminal of that size shows."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    console = Console(file=out, width=width, height=height, force_terminal=False, color_system=None)
    options = console.options.update(height=height)
    console.print(Screen(seen, **words), end="", height=options.height)  # type: ignore[arg-type]
    out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    return out.buffer.getvalue().decode(encoding)


# ── rates ────────────────────────────────────────────────────────────────────────────────────


def test_rates_are_over_two_seconds(lab: Lab) -> None:
    taken = [sample(lab, t, connections=c) for t, c in ((0, 0), (1, 0), (2, 8), (3, 8))]
    (service,) = view(lab, taken).services
    assert [s.rates.connections for s in service.servers] == [4.0, 4.0]  # 8 from 1 to 3
    assert [s.rates.bytes_in for s in service.servers] == [400.0, 400.0]


def test_the_first_look_has_no_rates(lab: Lab) -> None:
    seen = view(lab, [sample(lab, 0, connections=5)])
    assert seen.seconds == 0
    assert seen.services[0].rates.connections == 0


def test_a_counter_that_was_begun_anew_is_not_negative(lab: Lab) -> None:
    seen = view(lab, [sample(lab, 0, connections=50), sample(lab, 2, connections=4)])
    assert seen.services[0].servers[0].rates.connections == 2.0


# ── what is amiss ────────────────────────────────────────────────────────────────────────────


def test_nothing_is_amiss_in_a_healthy_lab(lab: Lab) -> None:
    assert view(lab, [sample(lab, 0), sample(lab, 2, connections=4)]).troubles == ()


def test_another_owner_of_the_vip(lab: Lab) -> None:
    (owner,) = view(lab, [sample(lab, 0, owner="rs1")]).owners
    assert (owner.node, owner.owner, owner.state) == ("client", "rs1", "reachable")
    assert "takes rs1 for 10.10.0.100" in owner.trouble


def test_who_answers_a_question_aloud(lab: Lab) -> None:
    both = (mac_of(lab, "director"), mac_of(lab, "rs2"))
    (owner,) = view(lab, [sample(lab, 0)], (), Answers({}, {("client", VIP): both})).owners
    assert owner.answered == ("director", "rs2")
    assert owner.trouble == "rs2 answered ARP for 10.10.0.100"
    (owner,) = view(lab, [sample(lab, 0)], (), Answers({}, {("client", VIP): ()})).owners
    assert owner.trouble == "the director did not answer ARP for 10.10.0.100"


def test_a_handshake_that_does_not_end(lab: Lab) -> None:
    waiting = frozenset({(RS1, "tcp 10.10.0.10:4711 10.10.0.100:80")})
    new = view(lab, [sample(lab, 0), sample(lab, 1, half_open=waiting)])
    assert new.services[0].servers[0].half_open == 1
    assert not new.troubles
    stuck = [sample(lab, 0, half_open=waiting), sample(lab, 1, half_open=waiting)]
    assert view(lab, stuck).troubles == ("rs1: 1 connection unanswered",)
    assert view(lab, [sample(lab, 0, half_open=None)]).services[0].servers[0].half_open is None


def test_a_handshake_that_did_not_end_is_over_once_others_are_answered(lab: Lab) -> None:
    waiting = frozenset({(RS1, "tcp 10.10.0.10:4711 10.10.0.100:80")})
    more = waiting | {(RS1, "tcp 10.10.0.10:4712 10.10.0.100:80")}
    before = sample(lab, 0, half_open=waiting)
    failing = sample(lab, 1, half_open=more, connections=1)
    assert leftovers(lab, before, failing) == frozenset()
    answered = sample(lab, 1, half_open=waiting, connections=1)
    answered = replace(answered, left=leftovers(lab, before, answered))
    assert answered.left == waiting
    quiet = sample(lab, 3, half_open=waiting, connections=1)
    quiet = replace(quiet, left=leftovers(lab, answered, quiet))
    assert view(lab, [before, answered, quiet]).troubles == ()


def test_a_change_that_repeats_is_counted() -> None:
    happened: list[ChangeEvent] = []
    for second in range(50):
        for owner in ("director", "rs1"):
            add_change(happened, ChangeEvent(second, "client", f"the VIP is at {owner}"))
    assert [(one.text, one.times) for one in happened] == [
        ("the VIP is at director", 50),
        ("the VIP is at rs1", 50),
    ]


def test_what_the_table_lacks_or_has_otherwise(lab: Lab) -> None:
    taken = sample(lab, 0)
    (service,) = taken.table
    first, second = service.real_servers
    drained = replace(taken, table=(service._replace(real_servers=(first._replace(weight=0),)),))
    assert view(lab, [drained]).troubles == (
        "rs1: weight 0, not 1, drained",
        "rs2: not in IPVS's table",
    )
    assert view(lab, [replace(taken, table=())]).troubles == ("web: not in IPVS's table",)
    other = service._replace(real_servers=(first, second._replace(forward="local")))
    assert view(lab, [replace(taken, table=(other,))]).troubles == ("rs2: forwarded by local",)


def test_services_that_the_topology_does_not_have_are_shown_too(lab: Lab) -> None:
    def marked(at: float, connections: int) -> Sample:
        taken = sample(lab, at)
        server = RealServerState(RS1, 0, ForwardingMethod.DR, 1, 0, 0, 0, 0, Counters(connections))
        other = ServiceState(FwMark(9, 4), "rr", 0, (server,), Counters(connections))
        return replace(taken, table=(*taken.table, other))

    shown = view(lab, [marked(0, 0), marked(2, 8)])
    other = shown.services[-1]
    assert (other.name, str(other.match), other.forward) == ("not in topology", "fwmark 9", "dr")
    assert (other.servers[0].name, other.servers[0].rates.connections) == ("rs1", 4.0)
    assert shown.troubles == ()


def test_a_device_that_is_down_and_a_namespace_that_is_gone(lab: Lab) -> None:
    taken = sample(lab, 0)
    (link,) = taken.states["rs1"].links
    down = with_state(taken, "rs1", links=(replace(link, up=False),))
    assert view(lab, [down]).troubles == ("rs1: lan is down",)
    gone = replace(taken, states={n: s for n, s in taken.states.items() if n != "rs2"})
    assert view(lab, [gone]).troubles == ("rs2: its namespace is gone",)


def test_requests_that_are_not_answered(lab: Lab) -> None:
    one = Exchange(0.0, None, 200, "rs1", None, None, 0.1)
    lost = replace(one, status=0, node="", error=Failure.TIMED_OUT)
    seen = view(lab, [sample(lab, 0)], (), Answers({"web": (one, lost)}, {}))
    assert seen.troubles == ("web: 1 of 2 requests: timed out",)


def test_losses_are_what_grew(lab: Lab) -> None:
    taken = [
        sample(lab, t, counters={"rs1": {"TcpExtIPReversePathFilter": n, "IpInReceives": 9 * n}})
        for t, n in ((0, 5), (1, 7), (2, 8))
    ]
    (loss,) = view(lab, taken).losses
    assert (loss.node, loss.counter, loss.count, loss.total) == (
        "rs1", "TcpExtIPReversePathFilter", 1, 3,
    )  # fmt: skip


# ── what changed ─────────────────────────────────────────────────────────────────────────────


def said(before: Sample, after: Sample) -> Sequence[str]:
    return [f"{one.node}: {one.text}" for one in changes(before, after, "director")]


def test_nothing_changes_where_only_counters_do(lab: Lab) -> None:
    assert said(sample(lab, 0), sample(lab, 1, connections=7)) == []


def test_changes_of_a_node(lab: Lab) -> None:
    one = sample(lab, 0)
    (link,) = one.states["rs1"].links
    vip = ip_interface("10.10.0.100/32")
    route = RouteState(None, RS1, "lan", kernel=False)
    for change, expected in (
        ({"sysctls": {"net.ipv4.x": "0"}}, "net.ipv4.x 1 → 0"),
        ({"links": (replace(link, up=False),)}, "lan is down"),
        ({"links": (replace(link, carrier=False),)}, "lan has no carrier"),
        ({"links": (replace(link, mtu=1400),)}, "lan: mtu 1500 → 1400"),
        ({"links": (replace(link, addresses=(*link.addresses, vip)),)},
         "10.10.0.100/32 added on lan"),
        ({"links": (replace(link, addresses=()),)}, "10.10.0.11/24 removed from lan"),
        ({"links": ()}, "lan is gone"),
        ({"links": (replace(link),), "routes": (route,)},
         "route default via 10.10.0.11 dev lan added"),
    ):  # fmt: skip
        assert said(one, with_state(one, "rs1", **change)) == [f"rs1: {expected}"]


def test_a_neighbour_that_moved(lab: Lab) -> None:
    assert said(sample(lab, 0), sample(lab, 1, owner="rs1")) == [
        "client: 10.10.0.100 is at rs1 now, was at director"
    ]


def test_a_namespace_that_went_and_came(lab: Lab) -> None:
    one = sample(lab, 0)
    less: dict[str, NodeState] = {n: s for n, s in one.states.items() if n != "rs1"}
    assert said(one, replace(one, states=less)) == ["rs1: its namespace is gone"]
    assert said(replace(one, states=less), one) == ["rs1: its namespace exists again"]


def test_changes_of_the_table(lab: Lab) -> None:
    one = sample(lab, 0)
    (service,) = one.table
    first, second = service.real_servers

    def changed(**words: object) -> Sequence[str]:
        other = service._replace(**words)  # type: ignore[arg-type]
        return said(one, replace(one, table=(other,)))

    name = "director: 10.10.0.100:80/tcp"
    assert changed(scheduler="sh") == [f"director: service {name[10:]}: scheduler rr → sh"]
    assert changed(real_servers=(first,)) == [f"{name} → 10.10.0.12:80 removed"]
    assert changed(real_servers=(first._replace(weight=0), second)) == [
        f"{name} → 10.10.0.11:80: weight 1 → 0"
    ]
    assert said(one, replace(one, table=())) == [f"director: service {name[10:]} removed"]


# ── a screen ─────────────────────────────────────────────────────────────────────────────────


def test_a_screen_shows_all_where_there_is_room(lab: Lab) -> None:
    before = sample(lab, 0, connections=0)
    after = sample(lab, 2, connections=6, owner="rs1", counters={"rs2": {"IpInAddrErrors": 2}})
    happened = tuple(changes(before, after, "director"))
    text = drawn(view(lab, [before, after], happened), 120, 30, happened=happened)
    for part in (
        "dr  ", "web  tcp 10.10.0.100:80  dr  rr", "rs1", "10.10.0.12:80", "weight", "3",
        "VIP 10.10.0.100  client: rs1 02:00:00:00:00:02 (reachable)",
        "! takes rs1 for 10.10.0.100, not the director",
        "rs2 IpInAddrErrors +2 (2 in all)", "client: 10.10.0.100 is at rs1 now, was at director",
    ):  # fmt: skip
        assert part in text, text


@pytest.mark.parametrize("servers", [2, 100])
@pytest.mark.parametrize(
    ("width", "height"), [(200, 60), (80, 24), (60, 9), (40, 12), (28, 4), (10, 3), (1, 1)]
)
def test_a_screen_fits_any_terminal(servers: int, width: int, height: int) -> None:
    many_servers = lab_of(servers=servers)
    before, after = sample(many_servers, 0), sample(many_servers, 2, connections=6, owner="rs1")
    happened = tuple(changes(before, after, "director")) * 20
    lines = drawn(
        view(many_servers, [before, after], happened), width, height, happened=happened
    ).splitlines()
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    if height >= 2 and width >= 28:
        assert "problem" in lines[0] or any(line.startswith("!") for line in lines)


def test_where_not_all_fit_what_is_amiss_is_shown_first() -> None:
    lab = lab_of(servers=100)
    taken = sample(lab, 0)
    (service,) = taken.table
    entries = list(service.real_servers)
    entries[76] = entries[76]._replace(weight=0)
    drained = replace(taken, table=(service._replace(real_servers=tuple(entries)),))
    text = drawn(view(lab, [drained]), 100, 24)
    assert "rs77" in text
    assert "drained" in text
    assert "more real servers" in text


def test_a_terminal_that_knows_only_ascii(lab: Lab) -> None:
    before, after = sample(lab, 0), sample(lab, 1)
    after = with_state(after, "rs1", sysctls={"net.ipv4.x": "0"})
    happened = tuple(changes(before, after, "director"))
    text = drawn(view(lab, [before, after], happened), 40, 12, "ascii", happened=happened)
    assert "net.ipv4.x 1 > 0" in text


def test_a_silent_lab_says_how_to_see_something(lab: Lab) -> None:
    assert "--traffic" in drawn(view(lab, [sample(lab, 0)]), 80, 24)
    assert "--traffic" not in drawn(view(lab, [sample(lab, 0)]), 80, 24, probing=True)


# ── the kernel's counters ────────────────────────────────────────────────────────────────────


def test_counters_have_nstats_names() -> None:
    text = "IpExt: InNoRoutes InOctets\nIpExt: 3 0\nIp: Forwarding InAddrErrors\nIp: 1 2\n"
    assert dict(nstat.parse_paired(text)) == {"IpExtInNoRoutes": 3, "IpInAddrErrors": 2}
    assert dict(nstat.parse_single("Ip6InReceives \t5\nIp6InDiscards\t0\n")) == {"Ip6InReceives": 5}
    assert nstat.growth({"a": 1, "b": 2}, {"a": 4, "b": 2, "c": 1}) == {"a": 3, "c": 1}
