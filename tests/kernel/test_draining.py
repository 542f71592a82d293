"""A real server is taken out of a running lab while flows run, and everything is put back."""

from __future__ import annotations

import pytest

from lvsctl.engine.drain import drain
from lvsctl.engine.up import bring_up
from lvsctl.model.drain import FlowKind, Outcome, Way
from lvsctl.traffic.flows import Flows
from tests.kernel.by_hand import run
from tests.kernel.labs import lab_up, topology_of

pytestmark = pytest.mark.ipvs


def test_flows_of_a_removed_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with lab_up("draining") as lab:
        director = lab.netns("director")
        shown = (
            "sysctl -n net.ipv4.vs.expire_nodest_conn; ipvsadm -S -n | sort; ipvsadm -L --timeout"
        )
        run("ipvsadm -e -t 10.80.0.100:80 -r 10.80.0.11:80 -g -w 3", netns=director)
        before = run(f"sh -c '{shown}'", netns=director)

        def interrupted(self: Flows, seconds: float) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Flows, "wait_until_over", interrupted)
            with pytest.raises(KeyboardInterrupt):
                drain(lab, "rs1", Way.DELETE, timeout=3)
        assert run(f"sh -c '{shown}'", netns=director) == before

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
        assert bring_up(topology_of("draining")).edited  # the weight that was set by hand
