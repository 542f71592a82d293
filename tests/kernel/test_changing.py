"""`up` of another topology on a running lab: applied in place, or the lab is as it was before.

   client            director             rs1         rs2    (rs3)    (rs4)
     |          VIP 10.10.0.100          (VIP)       (VIP)
=====+==================+==================+===========+========+========+==  lan
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from lvsctl.engine.inspect import verify_lab
from lvsctl.engine.labs import list_labs, running_lab, tear_down
from lvsctl.engine.up import bring_up
from lvsctl.errors import HostError, KernelError, LabError
from lvsctl.kernel import paths, processes
from lvsctl.kernel.registry import State
from lvsctl.model.claim import Verdict
from lvsctl.model.event import Event, Notice, Restoring, RollingBack, StageStarted
from lvsctl.model.lab import Lab
from lvsctl.output.text.labs import format_labs
from lvsctl.output.text.style import Style
from lvsctl.plan import planner
from lvsctl.plan.stages import Plan
from lvsctl.resources.base import Resource
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.user_command import UserCommand
from lvsctl.topology import shipped
from tests.kernel.by_hand import run
from tests.kernel.initial import differences, glance, initial_namespace
from tests.kernel.labs import curl, lab_up, topology_of, url_of
from tests.kernel.test_registry_trouble import file_system
from tests.patience import FACTOR

pytestmark = pytest.mark.ipvs

DR = shipped.text_of("dr")
SERVER = "[python3, -m, http.server, '80', --directory, /run/netns]"


def with_servers(words: str) -> str:
    """dr, its real servers with ``words``, and another scheduler."""
    return DR.replace("count: 2}", f"{words}}}").replace("scheduler: rr", "scheduler: wlc")


LOOK = """
ip -o addr; ip -o route show table all; tc qdisc
sysctl -e net.ipv4.tcp_syncookies net.ipv4.ip_forward net.ipv4.conf.all.arp_ignore
case $0 in *director) ipvsadm -Sn;; esac
ethtool -k lan 2>/dev/null | grep checksumming || :
"""


def state() -> dict[str, object]:
    """The whole lab, as the witnesses see it, and what runs in it."""
    names = sorted(p.name for p in Path("/run/netns").glob("lvs-dr-*"))
    return {
        name: (
            run(f"sh -c {shlex.quote(LOOK)} {name}", netns=name).replace(" \\", ""),
            run(f"ip netns pids {name}").split(),
        )
        for name in names
    }


def is_up_and_proven() -> None:
    (listed,) = list_labs()
    assert (listed.entry.state, listed.answering) == (State.UP, True)
    assert verify_lab(running_lab("dr")).verdict is Verdict.PASS


class Events(list[Event]):
    """Remembers them; ``work`` is done when the stage of that title begins."""

    def __init__(self, stage: str = "", work: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.stage, self.work = stage, work

    def __call__(self, event: Event) -> None:
        self.append(event)
        if isinstance(event, StageStarted) and event.title == self.stage:
            self.stage = ""
            self.work()


FAILING = {
    "count: 4, sysctls: {net.ipv4.tcp_syncookies: 0, net.ipv4.no_such: 1}": "no_such",
    "count: 4, run: 'sleep 3600 & echo oops; exit 3'": "oops",
    "count: 1, sysctls: {net.ipv4.tcp_syncookies: 0}, run: 'sleep 0.5; echo oops'": "oops",
}
"""What is made of the real servers, and what is said of it."""


def test_what_fails_half_way_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # Emulated, or beside others, a shell takes longer to end than a command is watched.
    monkeypatch.setattr(processes, "GRACE_SECONDS", 20 * FACTOR * processes.GRACE_SECONDS)
    host = initial_namespace()
    with lab_up("dr"):
        before = state()
        for words, said in FAILING.items():
            events = Events()
            with pytest.raises(KernelError, match=said) as caught:
                bring_up(topology_of(with_servers(words)), emit=events)
            assert "lab dr was rolled back" in caught.value.message
            assert Restoring("dr") in events
            assert state() == before, words
            again = bring_up(topology_of("dr"))
            assert (again.created, again.added, again.removed) == (False, (), ()), words
        is_up_and_proven()
    assert initial_namespace() == host


INTERFERING = {
    "ip addr del 10.10.0.100/32 dev lan": ("director", "10.10.0.100"),
    "sysctl -qw net.ipv4.conf.all.arp_ignore=0": ("rs1", "arp_ignore"),
    "ip link set lan down": ("rs2", "lan"),
    "ipvsadm -d -t 10.10.0.100:80 -r 10.10.0.11:80": ("director", "10.10.0.11:80"),
    "ipvsadm -e -t 10.10.0.100:80 -r 10.10.0.11:80 -m": ("director", "10.10.0.11:80"),
}
"""What another program changes while `up` works, at which node, and what the error names."""


ALWAYS = ("sysctl", "ip link", "ipvsadm -d")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(one, marks=() if one.startswith(ALWAYS) else pytest.mark.exhaustive)
        for one in INTERFERING
    ],
)
def test_a_state_that_differs_from_the_plan_is_an_error(command: str) -> None:
    """`up` reads back what it applied: a new lab is removed, a running one changed again."""
    node, named = INTERFERING[command]

    def interfere() -> None:
        run(command, netns=f"lvs-dr-{node}")

    host = initial_namespace()
    with pytest.raises(KernelError, match="does not have it") as created:
        bring_up(topology_of("dr"), emit=Events("servers", interfere))
    assert created.value.node == node
    assert named in created.value.command
    assert f"wanted: {created.value.command}\n    found: " in created.value.message
    assert list_labs() == ()
    assert initial_namespace() == host
    with lab_up("dr"):
        bring_up(topology_of(with_servers("count: 3")), emit=Events("servers", interfere))
        assert not bring_up(topology_of(with_servers("count: 3"))).changed
        is_up_and_proven()
    assert initial_namespace() == host


def ipvs_table() -> str:
    return run("ipvsadm -Sn", netns="lvs-dr-director")


def refused(op: Resource) -> Resource:
    """The third real server with thresholds the wrong way round: ERANGE (ip_vs_ctl.c)."""
    if isinstance(op, IpvsRealServer) and op.real_server.rip == ip_address("10.10.0.13"):
        return replace(op, real_server=replace(op.real_server, upper=1, lower=2))
    return op


def test_what_the_kernel_refuses_among_ipvs_messages_is_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It carries out those after the refused one, in a lab that runs and in a new one."""

    def plan_for(lab: Lab, plan_for: Callable[[Lab], Plan] = planner.plan_for) -> Plan:
        plan = plan_for(lab)
        return replace(
            plan,
            stages=tuple(
                replace(s, resources=tuple(map(refused, s.resources))) for s in plan.stages
            ),
        )

    class Tables(Events):
        """Remembers the IPVS table as it is when what was done begins to be taken back."""

        table = ""

        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, (Restoring, RollingBack)):
                self.table = ipvs_table()

    monkeypatch.setattr(planner, "plan_for", plan_for)
    four = topology_of(with_servers("count: 4"))
    host, new, running = initial_namespace(), Tables(), Tables()
    with pytest.raises(KernelError, match="director: Numerical result out of range") as created:
        bring_up(four, emit=new)
    assert list_labs() == ()
    assert initial_namespace() == host
    with lab_up("dr"):
        table = ipvs_table()
        with pytest.raises(KernelError, match="director: Numerical result out of range") as changed:
            bring_up(four, emit=running)
        assert "lab dr was rolled back" in changed.value.message
        assert ipvs_table() == table
    for error, events in ((created.value, new), (changed.value, running)):
        assert "-r 10.10.0.13:80 -g -w 1 -x 1 -y 2" in error.command
        there = [number for number in (11, 12, 13, 14) if f"-r 10.10.0.{number}:80" in events.table]
        assert there == [11, 12, 14]


def test_what_is_interrupted_half_way_is_taken_back() -> None:
    """At the beginning of each stage, on the way to four servers and to one."""

    def stop() -> None:
        raise KeyboardInterrupt

    host = initial_namespace()
    with lab_up("dr"):
        before = state()
        for words in ("count: 4", "count: 1, sysctls: {net.ipv4.tcp_syncookies: 0}"):
            trial = Events()
            bring_up(topology_of(with_servers(words)), emit=trial)
            stages = [event.title for event in trial if isinstance(event, StageStarted)]
            assert stages
            tear_down("dr")
            bring_up(topology_of("dr"))
            for stage in stages:
                events = Events(stage, stop)
                with pytest.raises(KeyboardInterrupt):
                    bring_up(topology_of(with_servers(words)), emit=events)
                assert events[-1] == Notice("lab dr was rolled back"), (words, stage)
        assert state() == before
        is_up_and_proven()
    assert initial_namespace() == host


def test_where_the_way_back_is_closed_the_lab_is_neither() -> None:
    """It says so, nothing is proven about it, and `up` and `down` work."""
    filler = paths.RUN / "filler"

    def fill() -> None:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    host = initial_namespace()
    with file_system(paths.RUN, "size=256k"):
        before = glance()
        for repair in ("up", "down"):
            bring_up(topology_of("dr"))
            more, full = topology_of(with_servers("count: 4")), Events("virtual services", fill)
            with pytest.raises(HostError, match="No space left") as caught:
                bring_up(more, emit=full)
            filler.unlink()
            assert "lab dr could not be rolled back" in caught.value.message
            assert "`lvsctl down dr` removes it" in caught.value.message
            listing = format_labs(list_labs(), style=Style(color=False, width=80))
            assert "may match neither its old nor its new topology" in " ".join(listing.split())
            with pytest.raises(LabError, match="neither its old nor its new topology"):
                running_lab("dr")
            if repair == "up":
                assert bring_up(topology_of("dr")).created
                is_up_and_proven()
            tear_down("dr")
            assert differences(before) == {}
    assert initial_namespace() == host


def test_where_it_cannot_be_mended_it_is_not_whole() -> None:
    """The same topology again, of which a node was removed by hand and the way is closed."""

    def stop() -> None:
        raise KeyboardInterrupt

    with lab_up("dr"):
        run("ip netns del lvs-dr-rs1")
        events = Events("links", stop)
        with pytest.raises(KeyboardInterrupt):
            bring_up(topology_of("dr"), emit=events)
        (notice,) = (event.text for event in events if isinstance(event, Notice))
        assert "is still incomplete: `lvsctl up dr` creates it again" in notice
        assert bring_up(topology_of("dr")).created
        is_up_and_proven()


@pytest.mark.parametrize(
    "words",
    [
        f"count: 2, run: {SERVER}",
        pytest.param(
            "count: 2, sysctls: {net.ipv4.tcp_syncookies: 0}", marks=pytest.mark.exhaustive
        ),
    ],
)
def test_what_cannot_be_taken_back_is_refused_before_anything_is_done(words: str) -> None:
    """A setting whose earlier value nobody knows, a command of the user's own."""
    with lab_up(with_servers(words)):
        before = state()
        with pytest.raises(LabError, match="cannot be taken back meanwhile:\n  ") as caught:
            bring_up(topology_of("dr"))
        assert "`lvsctl down dr`" in caught.value.hint
        assert state() == before
        assert [one.entry.state for one in list_labs()] == [State.UP]


def test_a_command_of_the_users_own_takes_the_place_of_our_server() -> None:
    """It is started, and what answered there until then is not in its way."""
    with lab_up("dr") as lab:
        own = DR.replace("count: 2}", f"count: 2, run: {SERVER}}}")
        changed = bring_up(topology_of(own))
        assert [type(op) for op in changed.added] == [UserCommand, UserCommand]
        assert "python3" in run(f"ps -o args= {run('ip netns pids lvs-dr-rs1')}")
        assert "Directory listing" in curl(lab, url_of(lab))
        is_up_and_proven()


def test_a_node_is_added_between_others_and_taken_away() -> None:
    """Its place in the file decides where it is plugged in: those after it are plugged anew."""
    between = "  other: {role: client, networks: {lan: 10.10.0.50}}\n  director:"
    with lab_up("dr"):
        for text in (DR.replace("  director:", between), DR):
            bring_up(topology_of(text))
            is_up_and_proven()
            assert bring_up(topology_of(text)).added == ()
