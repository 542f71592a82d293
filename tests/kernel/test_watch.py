"""`watch` on real labs: changes are seen when they happen, not when the interval is over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lvsctl.engine.inspect import watch_lab
from lvsctl.engine.labs import tear_down
from lvsctl.kernel.sampler import Sampler
from lvsctl.model.lab import Lab
from lvsctl.watch.loop import Watcher
from lvsctl.watch.view import View
from tests.kernel.by_hand import descriptors, run
from tests.kernel.labs import curl, lab_up

pytestmark = pytest.mark.ipvs

NEVER = 3600.0
"""An interval that no test lives to see: what is seen has rung."""
PATIENCE = 60.0


@pytest.fixture(scope="module")
def dr() -> Iterator[Lab]:
    with lab_up("dr") as lab:
        yield lab


@contextmanager
def ending(watcher: Watcher) -> Iterator[None]:
    """A watcher that nothing wakes is stopped in the end: a test fails then, and does not hang."""
    timer = threading.Timer(PATIENCE, watcher.stop)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def until(views: Iterator[View], condition: Callable[[View], bool]) -> View:
    seen = []
    for view in views:
        if condition(view):
            return view
        seen.append(view.troubles)
    raise AssertionError(f"never seen; amiss was {seen}")


@pytest.mark.parametrize(
    ("node", "command", "repair", "says"),
    [
        ("rs1", "ip addr del 10.10.0.100/32 dev lo", "ip addr add 10.10.0.100/32 dev lo",
         "10.10.0.100/32 removed from lo"),
        ("rs1", "ip link set lan down", "ip link set lan up", "lan is down"),
        ("client", "ip neigh replace 10.10.0.100 lladdr 02:00:0a:0a:00:0b dev lan nud permanent",
         "ip neigh del 10.10.0.100 dev lan",
         "10.10.0.100 is at rs1 (nud permanent)"),
        ("rs2", "ip route add default via 10.10.0.2", "ip route del default",
         "route default via 10.10.0.2 dev lan added"),
        # The kernel tells of rp_filter; what rings is the moment to look at the others too.
        ("rs2", "sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.lan.rp_filter=1",
         "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.lan.rp_filter=0",
         "net.ipv4.conf.all.arp_ignore 1 → 0"),
    ],
    ids=lambda word: word[:30],
)  # fmt: skip
def test_a_change_is_seen_at_once(dr: Lab, node: str, command: str, repair: str, says: str) -> None:
    with watch_lab(dr, interval=NEVER) as watcher, ending(watcher):
        views = watcher.views()
        next(views)
        try:
            run(command, netns=dr.netns(node))
            seen = until(views, lambda view: any(h.text.startswith(says) for h in view.changes))
        finally:
            run(repair, netns=dr.netns(node))
    assert any(h.node == node for h in seen.changes)


def test_the_table_is_looked_at_each_interval(dr: Lab) -> None:
    director = dr.netns("director")
    with watch_lab(dr, interval=0.2) as watcher, ending(watcher):
        views = watcher.views()
        next(views)
        try:
            run("ipvsadm -e -t 10.10.0.100:80 -r 10.10.0.11:80 -g -w 0", netns=director)
            seen = until(views, lambda view: bool(view.changes))
        finally:
            run("ipvsadm -e -t 10.10.0.100:80 -r 10.10.0.11:80 -g -w 1", netns=director)
    assert seen.changes[0].text.endswith("10.10.0.11:80: weight 1 → 0")
    assert seen.troubles == ("rs1: weight 0, not 1, drained",)


def test_it_counts_what_ipvs_and_the_nodes_count(dr: Lab) -> None:
    with watch_lab(dr, interval=0.3) as watcher, ending(watcher):
        views = watcher.views()
        before = {s.name: s.entry for s in next(views).services[0].servers}
        for _ in range(4):
            curl(dr, "http://10.10.0.100/")

        moved: set[str] = set()  # by now: a rate is one interval's, and the curls fall into two

        def counted(view: View) -> bool:
            servers = view.services[0].servers
            moved.update(s.name for s in servers if s.rates.connections > 0 and s.rates.sent > 0)
            return len(moved) == len(servers) and all(
                s.entry is not None
                and (old := before[s.name]) is not None
                and s.entry.counters.connections - old.counters.connections == 2
                for s in servers
            )

        seen = until(views, counted)
    assert seen.owners[0].owner == "director"
    assert seen.troubles == ()


def test_traffic_shows_who_answers_arp(dr: Lab) -> None:
    key = "net.ipv4.conf.all.arp_ignore"
    with watch_lab(dr, interval=0.3, probing=True) as watcher, ending(watcher):
        views = watcher.views()
        seen = until(views, lambda view: view.services[0].answered == 2)
        assert seen.owners[0].answered == ("director",)
        try:
            run(f"sysctl -qw {key}=0", netns=dr.netns("rs2"))
            both = until(views, lambda view: len(view.owners[0].answered or ()) == 2)
        finally:
            run(f"sysctl -qw {key}=1", netns=dr.netns("rs2"))
    assert set(both.owners[0].answered or ()) == {"director", "rs2"}
    assert "rs2 answered ARP for 10.10.0.100" in both.owners[0].trouble


def test_without_traffic_nothing_is_sent(dr: Lab) -> None:
    with Sampler(dr) as gauges:
        gauges.sample()
        first = gauges.sample()
        with watch_lab(dr, interval=0.1) as watcher, ending(watcher):
            for number, _ in enumerate(watcher.views()):
                if number == 5:
                    break
        last = gauges.sample()
    sent = {node: gauge.packets_sent for node, gauge in first.gauges.items()}
    assert {node: gauge.packets_sent for node, gauge in last.gauges.items()} == sent


def test_lost_handshakes_and_the_kernels_reason_are_shown() -> None:
    with lab_up("dr") as lab:
        run("ip addr del 10.10.0.100/32 dev lo", netns=lab.netns("rs1"))
        with watch_lab(lab, interval=0.3, probing=True) as watcher, ending(watcher):
            seen = until(
                watcher.views(),
                lambda view: (
                    any(t.endswith("unanswered") for t in view.troubles)
                    and any(t.startswith("web: 1 of 2 requests") for t in view.troubles)
                ),
            )
    assert ("rs1", "IpInAddrErrors") in [(loss.node, loss.counter) for loss in seen.losses]


def test_it_ends_with_its_lab_and_keeps_nothing_open() -> None:
    with lab_up("dr", name="brief") as lab:
        before = descriptors()
        watcher = watch_lab(lab, interval=0.1)
        with watcher, ending(watcher):
            views = watcher.views()
            next(views)
            run("ip netns del lvs-brief-rs1")
            assert "rs1: its namespace is gone" in until(views, lambda v: bool(v.troubles)).troubles
            tear_down("brief")
            assert list(views)[1:] == []
        assert watcher.lab_ended
        assert descriptors() == before
