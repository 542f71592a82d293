"""Every scheduler on the real kernel against its definition, twice: the second time it remembers.

client ── lan ── director ── rs1 (weight 1), rs2 (weight 3), rs3 (drained)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lvsctl.engine.inspect import verify_lab
from lvsctl.engine.labs import tear_down
from lvsctl.engine.up import bring_up
from lvsctl.model.claim import Finding, Verdict
from lvsctl.model.lab import Lab
from lvsctl.model.service import Scheduler
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology
from tests.kernel.by_hand import run

pytestmark = pytest.mark.ipvs

TEXT = """
version: 1
name: schedulers
networks: {lan: {ipv4: 10.60.0.0/24}}
nodes:
  client:   {role: client, networks: [lan]}
  director: {role: director, networks: [lan]}
  rs:       {role: real-server, networks: [lan], count: 3}
services:
  - name: web
    vip: 10.60.0.100
    port: 80
    forward: dr
    scheduler: rr
    real_servers:
      - {node: rs1, weight: 1}
      - {node: rs2, weight: 3}
      - {node: rs3, weight: 0}
"""
NAME = "schedulers"
ALWAYS = {Scheduler.LBLCR, Scheduler.OVF}
"""Those that remember most and refuse first; rr and wrr are the shipped topologies'."""


def up(text: str = TEXT, scheduler: Scheduler | None = None) -> Lab:
    return bring_up(Topology("test.yaml", text.encode()), Overrides(scheduler=scheduler)).lab


@pytest.fixture(scope="module")
def lab() -> Iterator[None]:
    try:
        yield
    finally:
        tear_down(NAME)


def claims(lab: Lab) -> dict[str, Finding]:
    return {finding.claim.id: finding for finding in verify_lab(lab).findings}


@pytest.mark.parametrize(
    "scheduler",
    [
        pytest.param(s, marks=() if s in ALWAYS else pytest.mark.exhaustive)
        for s in Scheduler
        if s is not Scheduler.TWOS  # not in the kernel of the machine
    ],
)
def test_a_scheduler_does_what_it_says(lab: None, scheduler: Scheduler) -> None:
    running = up(scheduler=scheduler)
    for _ in range(2):
        found = claims(running)
        wrong = [f for f in found.values() if f.verdict is not Verdict.PASS]
        assert not wrong, [(f.claim.id, f.expected, f.observed) for f in wrong]
        assert "rs3" not in found["all.distribution"].observed  # drained
    assert f"-s {scheduler}" in run("ipvsadm -Sn", netns=running.netns("director"))


def test_thresholds_hold_and_leave_no_room_the_second_time() -> None:
    limited = TEXT.replace("weight: 1}", "upper: 2}").replace("weight: 3}", "upper: 3, lower: 1}")
    # A lab of its own: IPVS gives a real server that comes back its old connections.
    running = up(limited.replace(NAME, "thresholds"))
    try:
        found = claims(running)
        assert found["all.distribution"].observed == "rs1 2, rs2 3"
        assert "rs2 at most 3" in found["all.distribution"].expected
        assert {f.verdict for f in found.values()} == {Verdict.PASS}
        again = claims(running)
        assert {f.verdict for f in again.values()} <= {Verdict.PASS, Verdict.INCONCLUSIVE}
        assert again["all.requests-answered"].verdict is Verdict.INCONCLUSIVE
    finally:
        tear_down("thresholds")


def test_persistence_keeps_a_client_with_its_real_server(lab: None) -> None:
    running = up(TEXT.replace("scheduler: rr", "scheduler: rr\n    persistence: 60"))
    found = claims(running)
    assert {f.verdict for f in found.values()} == {Verdict.PASS}
    run("ipvsadm -E -t 10.60.0.100:80 -s rr", netns=running.netns("director"))
    assert claims(running)["all.distribution"].verdict is Verdict.FAIL
