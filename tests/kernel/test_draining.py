"""Flows while a real server is taken out and after silence; everything is put back."""

from __future__ import annotations

import pytest

from lvsctl.engine import drain as engine
from lvsctl.engine.drain import drain
from lvsctl.engine.idle import idle
from lvsctl.engine.play import play
from lvsctl.engine.up import bring_up
from lvsctl.model.claim import Verdict
from lvsctl.model.flows import FlowKind, Outcome, Way
from lvsctl.topology.loading import parse_drill
from lvsctl.traffic.flows import Flows
from tests.kernel.by_hand import run
from tests.kernel.labs import lab_up, topology_of

pytestmark = pytest.mark.ipvs


DRILL = """\
version: 1
traffic: {rate: 20/s, hold: 6, service: web}
timeline: {at 200ms: weight rs1 0, at 400ms: stop rs1, at 900ms: [start rs1, weight rs1 1]}
for: 1200ms
expect: {lost: 0}
"""


def test_flows_of_a_removed_server_and_silent_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with lab_up("draining") as lab:
        director = lab.netns("director")
        shown = (
            "sysctl -n net.ipv4.vs.expire_nodest_conn; ipvsadm -S -n | sort; ipvsadm -L --timeout"
        )
        run("ipvsadm -e -t 10.65.0.100:80 -r 10.65.0.11:80 -g -w 3", netns=director)
        before = run(f"sh -c '{shown}'", netns=director)

        def interrupted(self: Flows, seconds: float) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Flows, "wait_until_over", interrupted)
            with pytest.raises(KeyboardInterrupt):
                drain(lab, "rs1", Way.DELETE, timeout=3)
        assert run(f"sh -c '{shown}'", netns=director) == before

        monkeypatch.setattr(engine, "WINDOW", 2.0)  # a silent connection ends after three seconds
        kinds = (FlowKind.HELD, FlowKind.NEW, FlowKind.PERSISTENT, FlowKind.UDP)
        found = drain(lab, "rs1", Way.DELETE, kinds, timeout=2)
        assert {one.kind: (one.outcome, bool(one.silent)) for one in found.flows} == {
            FlowKind.HELD: (Outcome.RESET, True),
            FlowKind.NEW: (Outcome.MOVED, False),
            FlowKind.PERSISTENT: (Outcome.MOVED, False),
            FlowKind.UDP: (Outcome.MOVED, True),
        }
        assert "director itself reset" in found.flows[0].why
        assert run(f"sh -c '{shown}'", netns=director) == before

        silent = idle(lab, (FlowKind.IDLE, FlowKind.HALF_CLOSED, FlowKind.REUSED_PORT))
        assert [(one.outcome, one.failed) for one in silent.flows] == [
            (Outcome.RESET, 6),
            (Outcome.RESET, 1),
            (Outcome.WENT_ON, 0),
        ]
        assert all("had timed out" in one.why for one in silent.flows[:2])
        assert run(f"sh -c '{shown}'", netns=director) == before

        drill, problems = parse_drill(DRILL, "drill.yaml")
        played = play(lab, drill, problems)
        assert (played.verdict, played.sent > 20, len(played.held)) == (Verdict.PASS, True, 6)
        assert played.phases[2].servers.keys() == {"rs2"}  # while rs1 was stopped
        # A process that ends with a request unread resets the connection (RFC 1122, 4.2.2.13).
        outcomes = {one.outcome for one in played.held}
        assert outcomes - {Outcome.CLOSED, Outcome.RESET} == {Outcome.WENT_ON}
        assert outcomes != {Outcome.WENT_ON}
        # Also the weight that was set by hand: the lab is what its topology says.
        assert not bring_up(topology_of("draining")).changed
