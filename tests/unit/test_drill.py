"""Drills: reading their files, and comparing what was measured with what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvsctl.engine.play import expected
from lvsctl.engine.timeline import check_timeline
from lvsctl.errors import TopologyError
from lvsctl.faults import FAULTS
from lvsctl.model.claim import Verdict
from lvsctl.model.drill import Limit, Measure, Verb
from lvsctl.plan import planner
from lvsctl.topology import shipped
from lvsctl.topology.drill import check_names, parse_limit
from lvsctl.topology.loading import parse_drill
from lvsctl.topology.shipped import Topology

EXAMPLES = Path(__file__).parents[2] / "examples/drills"
DRAINING = planner.load_lab(Topology("draining", shipped.text_of("draining").encode()))

GOOD = """\
version: 1
traffic: 50/s
timeline:
  at 2s: [stop rs1, fault inject vip-missing rs2]
  500ms: weight rs1 0
expect: {lost: 0, late: < 1%, outage: < 2s}
"""


def test_steps_come_in_the_order_of_time() -> None:
    drill, _ = parse_drill(GOOD, "drill.yaml")
    assert [(one.at, one.verb, one.words) for one in drill.steps] == [
        (0.5, Verb.WEIGHT, ("rs1", "0")),
        (2.0, Verb.STOP, ("rs1",)),
        (2.0, Verb.INJECT, ("vip-missing", "rs2")),
    ]
    assert (drill.rate, drill.hold, drill.length) == (50, 2, 5)
    assert drill.expect[Measure.LATE] == Limit(0.01, share=True, below=True, text="< 1%")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_fit_their_topologies(path: Path) -> None:
    drill, problems = parse_drill(path.read_bytes(), path.name)
    name = drill.topology
    lab = planner.load_lab(Topology(name, shipped.text_of(name).encode()))
    check_names(drill, lab, tuple(FAULTS), problems)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\n", "1: the key 'timeline' is missing"),
        ("version: 1\ntimeline: {at soon: back}\n", "'at soon' is no time"),
        ("version: 1\ntimeline: {at 1s: wieght rs1 0}\n", "did you mean 'weight'?"),
        ("version: 1\ntimeline: {at 1s: weight rs1}\n", "write: weight RS NUMBER"),
        ("version: 1\ntimeline: {at 1s: weight rs1 no}\n", "write: weight RS NUMBER"),
        ("version: 1\ntimeline: {at 5s: back}\nfor: 2s\n", "ends before the last step"),
        ("version: 1\ntimeline: {at 1s: back}\nexpect: {lost: few}\n", "'few' is no limit"),
        ("version: 1\ntimeline: {at 1s: back}\ntraffic: 9000/s\n", "is no rate from 1/s"),
        ("version: 1\ntimeline: {at 1s: weight rs7 0}\n", "'rs7' is no real server"),
        ("version: 1\ntimeline: {at 1s: kill director}\n", "has one director"),
        ("version: 1\ntimeline: {at 1s: fault inject nothing}\n", "'nothing' is no fault"),
        ("version: 1\ntimeline: {at 1s: back}\ntraffic: {service: wep}\n", "did you mean 'web'?"),
    ],
)
def test_mistakes_are_named_with_their_place(text: str, said: str) -> None:
    with pytest.raises(TopologyError) as raised:
        check_names(*_with_lab(text))
    assert said in str(raised.value)
    assert all(one.line for one in raised.value.problems)


def _with_lab(text: str) -> tuple:  # type: ignore[type-arg]  # arguments of check_names
    drill, problems = parse_drill(text, "drill.yaml")
    return drill, DRAINING, tuple(FAULTS), problems


IN_TOPOLOGY = (
    shipped.text_of("draining")
    + """
timeline:
  at 1s: weight rs1 0
traffic: 50/s
"""
)


def test_a_topology_may_have_a_drill_in_it() -> None:
    lab = planner.load_lab(Topology("mine.yaml", IN_TOPOLOGY.encode()))
    drill, _ = parse_drill(IN_TOPOLOGY, "mine.yaml")
    assert lab == DRAINING
    assert drill.inside
    assert (drill.rate, drill.steps[0].text, drill.source) == (50, "weight rs1 0", "mine.yaml")
    with pytest.raises(TopologyError, match="the topology has no timeline"):
        parse_drill(shipped.text_of("draining"), "draining.yaml")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("weight rs1 0", "weight rs7 0", "timeline.at 1s: 'rs7' is no real server"),
        ("weight rs1 0", "wieght rs1 0", "did you mean 'weight'?"),
        ("at 1s:", "soon:", "'soon' is no time"),
        ("50/s", "9000/s", "is no rate from 1/s"),
        ("timeline:\n  at 1s: weight rs1 0\n", "", "traffic is of a drill"),
        ("timeline:", "drill:", "did you mean 'timeline'?"),
    ],
)
def test_mistakes_in_a_topologys_time_line_are_found_when_it_is_loaded(
    before: str, after: str, said: str
) -> None:
    text = IN_TOPOLOGY.replace(before, after)
    with pytest.raises(TopologyError) as raised:
        planner.load_lab(Topology("mine.yaml", text.encode()))
    assert said in str(raised.value)
    assert all(one.line for one in raised.value.problems)


def test_faults_of_a_topologys_time_line_must_exist() -> None:
    wrong = Topology("mine.yaml", IN_TOPOLOGY.replace("weight rs1 0", "fault inject gone").encode())
    with pytest.raises(TopologyError, match="'gone' is no fault"):
        check_timeline(wrong, planner.load_lab(wrong))
    check_timeline(Topology("draining", shipped.text_of("draining").encode()), DRAINING)


@pytest.mark.parametrize(
    ("measure", "limit", "value", "slow", "verdict"),
    [
        (Measure.LOST, "0", 0, False, Verdict.PASS),
        (Measure.LOST, "0", 1, False, Verdict.FAIL),
        (Measure.LOST, "0", 1, True, Verdict.FAIL),
        (Measure.LATE, "< 5%", 9, False, Verdict.PASS),
        (Measure.LATE, "< 5%", 10, False, Verdict.FAIL),
        (Measure.LATE, "< 5%", 10, True, Verdict.INCONCLUSIVE),
        (Measure.OUTAGE, "< 500ms", 0.49, False, Verdict.PASS),
        (Measure.OUTAGE, "500ms", 0.51, False, Verdict.FAIL),
        (Measure.OUTAGE, "500ms", 0.51, True, Verdict.INCONCLUSIVE),
    ],
)
def test_what_was_measured_is_compared_with_what_was_expected(
    measure: Measure, limit: str, value: float, slow: bool, verdict: Verdict
) -> None:
    assert expected(measure, parse_limit(limit), value, 200, slow=slow).verdict is verdict
