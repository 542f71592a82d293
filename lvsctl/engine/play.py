"""Play a drill: carry out its steps in a running lab while clients ask, and measure."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

from lvsctl.claims.flows import Observed, case_of, not_started, result
from lvsctl.engine import failover
from lvsctl.engine.experiment import Experiment
from lvsctl.engine.failover import Outage, outages
from lvsctl.engine.labs import find_node
from lvsctl.errors import LabError, UsageError
from lvsctl.faults import FAULTS
from lvsctl.faults.injector import FaultInjector
from lvsctl.kernel import masters, paths, registry, undo
from lvsctl.model.claim import Verdict
from lvsctl.model.drill import Drill, DrillStep, Limit, Measure, Verb
from lvsctl.model.flows import FlowKind, FlowRecord, FlowResult, Outcome
from lvsctl.model.lab import Lab
from lvsctl.model.played import Expectation, Phase, Played
from lvsctl.model.service import IpvsTimeouts, Protocol, VirtualService
from lvsctl.plan import planner
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.sysctl import Sysctl
from lvsctl.topology.drill import check_names
from lvsctl.topology.problems import ProblemCollector
from lvsctl.traffic.every import PROMPT, Asked, SteadyClient, is_prompt
from lvsctl.traffic.flows import Flows, Wanted
from lvsctl.traffic.responder import set_stopped

BEFORE = 5
"""Requests that are answered at once before the time line begins."""

BEGIN_SECONDS = 15.0
"""How long clients may take to begin, on a slow machine."""

LAST_SECONDS = 3.0
"""How long the last requests may take: TCP sends a lost SYN again after one and three seconds."""


def play(
    lab: Lab,
    drill: Drill,
    problems: ProblemCollector,
    report: Callable[[str], None] = lambda _: None,
) -> Played:
    """Carry out a drill in a running lab; afterwards it is what its topology says.

    Also on an exception or Ctrl-C. ``problems`` are those of the drill's file, which places what
    does not fit the lab. ``report`` gets each step. Raises TopologyError for names that the lab
    does not have, LabError where the service does not answer before anything is done.
    """
    check_names(drill, lab, tuple(FAULTS), problems)
    service = _service(lab, drill)
    client = find_node(lab, drill.client) if drill.client else lab.default_client
    name, endpoint = lab.netns(client.name), service.endpoint
    wanted = (Wanted(FlowKind.HELD, service.name, endpoint),) * drill.hold
    done: list[tuple[float, float]] = []
    with registry.lock(lab.name), _put_back(lab) as stopped:
        with (
            Flows(name, "", wanted) as flows,
            SteadyClient(name, endpoint.vip, endpoint.port, 1 / drill.rate) as steady,
        ):
            flows.wait_until_begun(BEGIN_SECONDS)
            if not steady.wait_for_answers(0.0, BEFORE, BEGIN_SECONDS):
                raise LabError(
                    f"service {service.name} does not answer",
                    hint=f"lvsctl diagnose {lab.name} says why",
                )
            began = time.time()
            for step in drill.steps:
                flows.wait_until(began + step.at)
                report(f"at {step.at:g} s: {step.text}")
                start = time.time()
                _carry_out(lab, step, stopped)
                done.append((start, time.time()))
            flows.wait_until(began + drill.length)
            until = time.time()
            steady.wait_for_those_before(until, LAST_SECONDS)
            asked = sorted(one for one in steady.asked if began <= one.sent < until)
        asked = sorted({*asked, *(one for one in steady.asked if began <= one.sent < until)})
        records = flows.records
    held = tuple(_held(lab, one, began, until) for one in records)
    return _played(lab, drill, service, client.name, asked, held, (began, until), done)


def _service(lab: Lab, drill: Drill) -> VirtualService:
    over_tcp = [one for one in lab.services if one.endpoint.protocol is Protocol.TCP]
    named = [one for one in over_tcp if drill.service in ("", one.name)]
    if not named:
        what = f"service {drill.service}" if drill.service else f"lab {lab.name}"
        raise UsageError(f"{what} has no service over TCP, with which it is measured")
    return named[0]


def _serve_again(lab: Lab, stopped: set[str]) -> None:
    if stopped:
        stopped.clear()
        set_stopped(lab, ())


@contextmanager
def _put_back(lab: Lab) -> Iterator[set[str]]:
    """Put the lab back; yield the set of the real servers whose process was ended."""
    stopped: set[str] = set()
    try:
        yield stopped
    finally:
        _serve_again(lab, stopped)
        failover.bring_back(lab)
        masters.wait_for_master(lab, masters.takeover_seconds(lab))


# ── steps ────────────────────────────────────────────────────────────────────────────────────


def _carry_out(lab: Lab, step: DrillStep, stopped: set[str]) -> None:
    """``stopped`` are the real servers whose process has ended."""
    words = step.words
    match step.verb:
        case Verb.BACK:
            _serve_again(lab, stopped)
            failover.bring_back(lab)
        case Verb.KILL:
            failover.kill_director(lab, lab.node(words[0]))
        case Verb.CUT:
            node, network = failover.link_of(lab, lab.directors[0], words[0])
            failover.cut_links(lab, node, (network,))
        case Verb.INJECT:
            # How long the others take to notice is what the drill is about.
            FaultInjector(lab).inject_held(FAULTS[words[0]], *words[1:], wait=False)
        case Verb.STOP:
            stopped.add(words[0])
            set_stopped(lab, stopped)
        case Verb.START:
            stopped.discard(words[0])
            set_stopped(lab, stopped)
        case Verb.RESTORE:
            _restore(lab, words)
        case Verb.SYSCTL:
            key, _, value = words[1].partition("=")
            _experiment(lab, words[0]).apply(
                Sysctl(netns=lab.netns(words[0]), name=key, value=value)
            )
        case _:
            _change_server(lab, step)


def _restore(lab: Lab, words: Sequence[str]) -> None:
    meant = [
        one
        for one in paths.read_faults(lab.name)
        if words[:1] in ([], (), (one.fault,)) and words[1:2] in ([], (), (one.node,))
    ]
    FaultInjector(lab).restore_held(meant)


def _experiment(lab: Lab, node: str) -> Experiment:
    return Experiment(lab, lab.node(node), lab.default_client, ())


def _change_server(lab: Lab, step: DrillStep) -> None:
    """Change a real server in the table of every director, or what serves on it."""
    experiment = _experiment(lab, step.words[0])
    directors = experiment.directors()
    entries = [one for found in directors.values() for one in experiment.entries(found)]
    planned = planner.plan_for(lab).resources
    match step.verb:
        case Verb.WEIGHT:
            weight = int(step.words[1])
            experiment.apply(
                *(replace(e, real_server=replace(e.real_server, weight=weight)) for e in entries)
            )
        case Verb.DELETE:
            undo.undo(entries, lab.name)
        case Verb.ADD:
            experiment.apply(
                *(
                    one
                    for one in planned
                    if isinstance(one, IpvsRealServer) and one.real_server.node == step.words[0]
                )
            )


# ── what came of it ──────────────────────────────────────────────────────────────────────────


def _held(lab: Lab, record: FlowRecord, began: float, until: float) -> FlowResult:
    if record.trouble:
        return not_started(record)
    persistence = {one.name: one.persistence for one in lab.services}
    seen = Observed(
        lab, record.server, began, began, until, {}, persistence, IpvsTimeouts(), (), ()
    )
    return result(case_of(seen, record), "")


def _played(
    lab: Lab,
    drill: Drill,
    service: VirtualService,
    client: str,
    asked: Sequence[Asked],
    held: tuple[FlowResult, ...],
    when: tuple[float, float],
    done: Sequence[tuple[float, float]],
) -> Played:
    began, until = when
    worst = max(outages(asked, began), key=lambda one: one.seconds, default=None)
    again = bool(asked) and any(is_prompt(one) for one in asked[-3:])
    gaps = [later - earlier for earlier, later in pairwise([one.sent for one in asked])]
    lost = sum(not one.answered for one in asked)
    late = sum(one.answered > 0 and not is_prompt(one) for one in asked)
    broken = sum(one.outcome is not Outcome.WENT_ON for one in held)
    slow = max(gaps, default=until - began) > PROMPT
    measures = {
        Measure.LOST: (float(lost), len(asked)),
        Measure.LATE: (float(late), len(asked)),
        Measure.OUTAGE: (_outage(worst) if again else until - began, 1),
        Measure.BROKEN: (float(broken), len(held)),
    }
    return Played(
        lab.name,
        drill.source,
        drill.description,
        service.name,
        client,
        round(1000 / drill.rate, 1),
        round(until - began, 2),
        len(asked),
        late,
        lost,
        round(_outage(worst) * 1000, 1) if again else None,
        round((worst.blur if worst is not None else max(gaps, default=0.0)) * 1000, 1),
        tuple(_phases(drill, asked, when, done)),
        held,
        tuple(
            expected(one, limit, *measures[one], slow=slow) for one, limit in drill.expect.items()
        ),
    )


def _outage(worst: Outage | None) -> float:
    return worst.seconds if worst is not None else 0.0


def expected(
    measure: Measure, limit: Limit, value: float, total: int, *, slow: bool
) -> Expectation:
    """Compare what was measured with what was expected. ``slow``: the client could not keep up."""
    compared = value / total if limit.share and total else value
    good = compared < limit.value if limit.below else compared <= limit.value
    observed = f"{value:.2f} s" if measure is Measure.OUTAGE else f"{value:.0f} of {total}"
    verdict = Verdict.PASS if good else Verdict.FAIL
    if not good and slow and measure in (Measure.LATE, Measure.OUTAGE):
        verdict = Verdict.INCONCLUSIVE
        observed += "; but the client itself paused for longer than an answer may take"
    return Expectation(measure, limit.text, observed, verdict)


def _phases(
    drill: Drill,
    asked: Sequence[Asked],
    when: tuple[float, float],
    done: Sequence[tuple[float, float]],
) -> Iterator[Phase]:
    began, until = when
    starts = [began, *(start for start, _ in done), until]
    steps: list[DrillStep | None] = [None, *drill.steps]
    took = [0.0, *(end - start for start, end in done)]
    for step, seconds, (first, last) in zip(steps, took, pairwise(starts), strict=True):
        mine = [one for one in asked if first <= one.sent < last]
        yield Phase(
            step.text if step is not None else "",
            step.at if step is not None else 0.0,
            round(first - began, 3),
            round(seconds * 1000, 1),
            len(mine),
            sum(one.answered > 0 and not is_prompt(one) for one in mine),
            sum(not one.answered for one in mine),
            dict(Counter(one.server or "an unknown server" for one in mine if one.answered)),
        )
