"""Two directors with real keepalived: one is master, and the other takes over."""

from __future__ import annotations

import os
import signal

import pytest

from lvsctl.engine.failover import fail_over
from lvsctl.engine.inspect import inspect_lab, verify_lab
from lvsctl.engine.up import bring_up
from lvsctl.kernel import commands, masters
from lvsctl.model.claim import Verdict
from lvsctl.model.failover import Moment
from lvsctl.resources.keepalived import Keepalived
from tests.kernel.by_hand import run
from tests.kernel.labs import lab_up, topology_of
from tests.witness import witness

pytestmark = pytest.mark.ipvs


def test_a_director_takes_over_from_another_and_gives_it_back() -> None:
    witness("keepalived")
    with lab_up("dr-ha") as lab:
        vip = str(lab.services[0].endpoint.vip)
        held = [vip in run("ip -br addr", netns=lab.netns(d.name)) for d in lab.directors]
        assert held == [True, False]
        assert not bring_up(topology_of("dr-ha")).changed

        for pid in commands.keepalived_pids(lab.name, lab.netns("director2"))[:1]:
            os.kill(pid, signal.SIGKILL)
        commands.end_keepalived(lab.name, lab.netns("director2"))  # its other processes end too
        assert any("keepalived" in one.text for one in inspect_lab(lab, ["director2"]).deviations)
        again = bring_up(topology_of("dr-ha"))
        assert [one.node for one in again.added if isinstance(one, Keepalived)] == ["director2"]
        assert verify_lab(lab).verdict is Verdict.PASS

        result = fail_over(lab)
        assert (result.before, result.after) == ("director1", "director2")
        assert {one.claim.id: one.verdict for one in result.findings} == dict.fromkeys(
            (
                *("ha.one-master", "ha.vip-announced"),
                *("ha.neighbours-follow", "ha.connections-survive"),
            ),
            Verdict.PASS,
        )
        moments = [step.moment for step in result.steps]
        assert moments.index(Moment.TOOK_OVER) < moments.index(Moment.ANNOUNCED)
        assert result.outage
        lost = [one for one in result.held if not one.survived]
        assert lost
        assert all("sync_threshold is 3 50" in one.why for one in lost if one.packets < 3)

        fail_over(lab, back=True)
        assert masters.active_director(lab).name == "director1"
