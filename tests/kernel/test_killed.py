"""Ended at any moment, by any signal, a command leaves nothing that the next one cannot deal with.

For each moment (``tests.kernel.moments``) of a command: it is ended there; then `down` leaves
the host as it was, or the next `up` makes the lab whole. All the while there are things of
another user's, with names like ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator

import pytest

from lvsctl.engine.faults import inject_fault, restore_faults
from lvsctl.engine.inspect import send_requests, verify_lab
from lvsctl.engine.labs import running_lab, tear_down
from lvsctl.engine.up import bring_up
from lvsctl.errors import LabError
from lvsctl.kernel import paths, registry
from lvsctl.model.claim import Verdict
from lvsctl.plan import planner
from lvsctl.topology.overrides import Overrides
from tests.companions import INSIDE
from tests.kernel.by_hand import namespaces
from tests.kernel.initial import differences, glance, initial_namespace
from tests.kernel.labs import OVER_TCP, topology_of
from tests.kernel.moments import NEVER, Ended, ended, spread, tried, unseen
from tests.kernel.planted import planted

pytestmark = pytest.mark.ipvs

FEW = 3
"""Moments that are tried always; `make test-all` tries every one."""

KILLED = -signal.SIGKILL
BY_SIGNAL = {
    signal.SIGKILL: KILLED,
    signal.SIGINT: 128 + signal.SIGINT,
    signal.SIGTERM: 128 + signal.SIGTERM,
}

RARELY = pytest.mark.exhaustive


def rows(
    signs: Iterable[signal.Signals], *always: tuple[str, signal.Signals]
) -> pytest.MarkDecorator:
    """Each signal in each shipped topology; only those that are ``always`` tried are not rare."""
    return pytest.mark.parametrize(
        ("name", "sign"),
        [
            pytest.param(n, s, id=f"{n}-{s.name}", marks=() if (n, s) in always else RARELY)
            for n in OVER_TCP
            for s in signs
        ],
    )


every_sign = pytest.mark.parametrize(
    "sign",
    [signal.SIGKILL, *(pytest.param(s, marks=RARELY) for s in (signal.SIGINT, signal.SIGTERM))],
)
"""Natively all of them are tried always."""

every_moment = pytest.mark.parametrize(
    "wanted", [FEW, pytest.param(NEVER, marks=RARELY)], ids=["few", "every"]
)


def up(name: str, **overrides: object) -> Callable[[], object]:
    return lambda: bring_up(topology_of(name), Overrides(**overrides))  # type: ignore[arg-type]


def down(lab: str) -> None:
    with contextlib.suppress(LabError):
        tear_down(lab)


def answers(lab: str) -> bool:
    """Whether each virtual service answers."""
    running = running_lab(lab)
    return all(send_requests(running, i, 1)[0].answered for i in range(len(running.services)))


def failing(lab: str) -> list[str]:
    """The claims that do not hold."""
    findings = verify_lab(running_lab(lab)).findings
    return [f"{f.claim.id}: {f.observed}" for f in findings if f.verdict is not Verdict.PASS]


@contextlib.contextmanager
def untouched(*labs: str) -> Iterator[dict[str, object]]:
    """The initial namespace, to the byte, and what others own are afterwards as before.

    What others own has names like the first lab's; whatever happens, ``labs`` are removed.
    """
    with namespaces("first"):  # ip(8) makes /run/netns a mount, and leaves it
        pass
    host = {} if INSIDE in os.environ else initial_namespace()  # there `planted` looks at it itself
    with planted(labs[0]):
        try:
            yield glance()
        finally:
            for lab in labs:
                down(lab)
    if host:
        assert initial_namespace() == host


def told(problems: dict[object, object]) -> None:
    """Fail with all of them, each on a line."""
    lines = [f"{where}: {what}"[:1500] for where, what in problems.items()]
    assert not lines, "\n".join(lines)


def whole(name: str, begin: Callable[[], object], work: Callable[[], object]) -> Ended:
    """``work`` undisturbed, for the moments that it goes through."""
    up(name)()  # what is found out once in a process is known from now on
    down(name)
    begin()
    found = ended(work)
    assert (found.status, found.said) == (0, ""), found.said
    down(name)
    return found


def check_up_killed(
    name: str, wanted: int, answers: Callable[[str], bool], **overrides: object
) -> int:
    """At how many moments it was tried."""
    problems: dict[object, object] = {}
    work = up(name, **overrides)
    with untouched(name) as before:
        found = whole(name, lambda: None, work)
        lab = planner.load_lab(topology_of(name), Overrides(**overrides))  # type: ignore[arg-type]
        blind = unseen(planner.plan_for(lab).resources, found.moments)
        assert blind == [], "the plan goes past the moments"
        numbers = tried(found.moments, wanted)
        for number in numbers:
            where = f"{number}: {found.moments[number]}"
            for repair in ("down", "up"):
                killed = ended(work, number)
                if killed.status != KILLED:
                    problems[where] = killed
                if repair == "up":
                    work()
                    if not answers(name):
                        problems[where, repair] = "no answer"
                down(name)
                if left := differences(before):
                    problems[where, repair] = left
    told(problems)
    return len(numbers)


def check_up_interrupted(
    name: str, sign: signal.Signals, wanted: int, answers: Callable[[str], bool]
) -> int:
    """At how many moments it was tried."""
    problems: dict[object, object] = {}
    with untouched(name) as before:
        found = whole(name, lambda: None, up(name))
        numbers = tried(found.moments, wanted)
        for number in numbers:
            where = f"{number}: {found.moments[number]}"
            stopped = ended(up(name), number, sign)
            if stopped.status != BY_SIGNAL[sign]:
                problems[where, "status"] = stopped
            entry = registry.read(name)
            if entry is not None and entry.state is registry.State.UP and answers(name):
                down(name)  # it had done all by then
            if left := differences(before):
                problems[where] = left
                down(name)
    told(problems)
    return len(numbers)


def check_down_ended(
    name: str, sign: signal.Signals, wanted: int, answers: Callable[[str], bool]
) -> int:
    """At how many moments it was tried; of a few after a signal, each is repaired in one way."""
    problems: dict[object, object] = {}
    both = ("down", "up")
    with untouched(name) as before:
        found = whole(name, up(name), lambda: tear_down(name))
        numbers = tried(found.moments, wanted)
        for turn, number in enumerate(numbers):
            for repair in both if wanted > FEW or sign is signal.SIGKILL else both[turn % 2 :][:1]:
                where = f"{number}: {found.moments[number]}", repair
                up(name)()
                stopped = ended(lambda: tear_down(name), number, sign)
                if stopped.status != BY_SIGNAL[sign]:
                    problems[(*where, "status")] = stopped
                if repair == "up":
                    up(name)()
                    if not answers(name):
                        problems[(*where, "up")] = "no answer"
                down(name)
                if left := differences(before):
                    problems[where] = left
    told(problems)
    return len(numbers)


# ── with IPVS ────────────────────────────────────────────────────────────────────────────────


@every_moment
@pytest.mark.parametrize(
    "name",
    [n if n == "tun" else pytest.param(n, marks=RARELY) for n in OVER_TCP],
)
def test_up_killed(name: str, wanted: int) -> None:
    """`down` leaves nothing; and after the same again, `up` over what is left makes it whole."""
    check_up_killed(name, wanted, answers)


@every_moment
@rows(
    (signal.SIGINT, signal.SIGTERM),
    ("dr", signal.SIGINT),
    ("tun-gue", signal.SIGTERM),
)
def test_up_interrupted(name: str, sign: signal.Signals, wanted: int) -> None:
    """It undoes what it has done, says so by its status, and leaves nothing for `down`."""
    check_up_interrupted(name, sign, wanted, answers)


@every_moment
@rows(
    BY_SIGNAL,
    ("dr", signal.SIGKILL),
    ("tun-gue", signal.SIGTERM),
)
def test_down_ended(name: str, sign: signal.Signals, wanted: int) -> None:
    """The next `down` goes on from there, where there is anything left; and so does `up`."""
    check_down_ended(name, sign, wanted, answers)


@every_moment
@every_sign
@pytest.mark.parametrize(("old", "new"), [(2, 4), pytest.param(4, 2, marks=RARELY)])
def test_a_changing_up_ended(old: int, new: int, sign: signal.Signals, wanted: int) -> None:
    """Whichever topology `up` is then given, it makes the lab that; and `down` removes it.

    Interrupted, it has made the lab what it was, or was done.
    """
    name = "dr"
    problems: dict[object, object] = {}
    with untouched(name) as before:
        change = up(name, servers=new, scheduler="wlc")
        found = whole(name, up(name, servers=old), change)
        for number in spread(len(found.moments), wanted):
            for repair in (old, new, 0):
                where = f"{number}: {found.moments[number]}", f"then {repair}"
                up(name, servers=old)()
                stopped = ended(change, number, sign)
                if stopped.status != BY_SIGNAL[sign]:
                    problems[(*where, "status")] = stopped
                entry = registry.read(name)
                if sign is not signal.SIGKILL and (not entry or entry.state != "up"):
                    problems[(*where, "back")] = entry, stopped
                if repair:
                    up(name, servers=repair)()
                    there = {s for s in glance()["/run/netns"] if "/lvs-dr-rs" in s}  # type: ignore[attr-defined]
                    wrong = failing(name)
                    if len(there) != repair or wrong:
                        problems[(*where, "up")] = there, wrong
                down(name)
                if left := differences(before):
                    problems[where] = left
    told(problems)


@every_moment
@pytest.mark.parametrize(
    "fault",
    [
        "service-stopped",
        pytest.param("arp-ignore-unset", marks=RARELY),
        pytest.param("real-server-removed", marks=RARELY),
    ],
)
def test_fault_inject_and_restore_killed(fault: str, wanted: int) -> None:
    """`up` makes the lab whole, however far the fault or its taking back had got."""
    name = "dr"
    problems: dict[object, object] = {}

    def inject() -> object:
        return inject_fault(running_lab(name), fault)

    def restore() -> object:
        return restore_faults(running_lab(name))

    with untouched(name) as before:
        up(name)()
        there, back = ended(inject), ended(restore)
        assert (there.status, back.status) == (0, 0), (there.said, back.said)
        rows = [(inject, n, m) for n, m in enumerate(there.moments)]
        rows += [(restore, n, m) for n, m in enumerate(back.moments)]
        for row in spread(len(rows), wanted):
            work, number, moment = rows[row]
            if work is restore:
                inject()
            assert ended(work, number).status == KILLED
            up(name)()
            where = f"{fault} {work.__name__} {number}: {moment}"
            wrong = failing(name)
            if paths.read_faults(name) or wrong:
                problems[where] = paths.read_faults(name), wrong
        down(name)
        if left := differences(before):
            problems["down"] = left
    told(problems)


@every_sign
def test_verify_ended(sign: signal.Signals) -> None:
    """It has no effects to undo, and leaves nothing: the next verify finds the lab as it was."""
    name = "dr"
    with untouched(name) as before:
        up(name)()
        beside = glance()
        verify = lambda: verify_lab(running_lab(name))  # noqa: E731
        found = ended(verify)
        assert found.status == 0, found.said
        for number in spread(len(found.moments), FEW):
            assert ended(verify, number, sign).status == BY_SIGNAL[sign]
            assert differences(beside) == {}
        assert failing(name) == []
        down(name)
        assert differences(before) == {}
