"""Commands at once: on one lab they come one after the other; different labs never meet."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from lvsctl.engine import ask_services, collect
from lvsctl.engine.faults import inject_fault, restore_faults
from lvsctl.engine.inspect import send_requests, verify_lab
from lvsctl.engine.labs import list_labs, running_lab, tear_down
from lvsctl.engine.up import bring_up
from lvsctl.errors import LabError, LvsctlError
from lvsctl.kernel import paths, registry
from lvsctl.model.claim import Verdict
from lvsctl.topology.overrides import Overrides
from tests.kernel.initial import differences, glance, initial_namespace
from tests.kernel.labs import topology_of
from tests.kernel.planted import planted
from tests.kernel.test_killed import failing, untouched
from tests.patience import PATIENCE

pytestmark = pytest.mark.ipvs

SAID, CRASHED = 3, 4


def at_once(*works: Callable[[], object]) -> list[int]:
    """Each in a process of its own, as commands are; their exit statuses.

    0: done. SAID: it ended with words for the user. CRASHED: with a traceback, printed.
    """
    children = []
    for work in works:
        child = os.fork()
        if child == 0:
            status = CRASHED
            try:
                work()
                status = 0
            except LvsctlError as error:
                status = SAID
                sys.stderr.write(f"{error}\n")  # where that was not to be expected
            except BaseException:  # noqa: BLE001 (told by the status)
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def up(lab: str, **overrides: object) -> object:
    return bring_up(topology_of("dr"), Overrides(name=lab, **overrides))  # type: ignore[arg-type]


def answers(lab: str) -> None:
    running = running_lab(lab)
    assert all(exchange.answered for exchange in send_requests(running, 0, 2)), lab


@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.exhaustive)])
def test_labs_at_once(count: int) -> None:
    """Each is proven while others are there."""
    check_labs_at_once(count, answers)


def meeting(count: int) -> Callable[[int], None]:
    """What each of ``count`` processes calls with its number; it returns once all have.

    Of semaphores, which leave no descriptor open behind them; multiprocessing's Barrier does.
    """
    fork = multiprocessing.get_context("fork")
    arrived = [fork.Semaphore(0) for _ in range(count)]

    def meet(own: int) -> None:
        for semaphore in arrived:
            semaphore.release()
        for _ in arrived:
            assert arrived[own].acquire(timeout=PATIENCE), "the others have not come"

    return meet


def proven(labs: Sequence[str]) -> None:
    """Each by a process of its own, while the others' captures are open too.

    Each asks only once all captures are open, and closes its own once all have asked.
    """
    asking, asked = meeting(len(labs)), meeting(len(labs))
    ask = ask_services.ask_all

    def prove(own: int) -> None:
        running = running_lab(labs[own])
        assert len(running.services) == 1  # as often as there are, it would meet the others

        def together(*words: Any, **more: Any) -> Any:
            asking(own)
            run = ask(*words, **more)
            asked(own)
            return run

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(collect, "ask_all", together)
            assert verify_lab(running).verdict is Verdict.PASS, labs[own]

    assert at_once(*(partial(prove, own) for own in range(len(labs)))) == [0] * len(labs)


def check_labs_at_once(
    count: int,
    answers: Callable[[str], object],
    proven: Callable[[Sequence[str]], object] = proven,
) -> None:
    """Of the same addresses, each in its own networks: up, asked and down, in parallel."""
    names = [f"many-{number}" for number in range(count)]
    with untouched(*names) as before:
        assert at_once(*(partial(up, n) for n in names)) == [0] * count
        assert [one.entry.lab for one in list_labs() if one.answering] == sorted(names)
        assert at_once(*(partial(answers, n) for n in names)) == [0] * count
        proven(names[:2])
        some, others = names[::2], names[1::2]
        statuses = at_once(
            *(partial(tear_down, n) for n in some),
            *(partial(answers, n) for n in others),
        )
        assert statuses == [0] * count
        assert at_once(*(partial(tear_down, n) for n in others)) == [0] * len(others)
        assert differences(before) == {}


def rounds(works: Sequence[Callable[[], object]], count: int) -> set[int]:
    return {status for _ in range(count) for status in at_once(*works)}


def test_commands_on_one_lab_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`up`, `down`, faults, verify: whichever comes first, each ends well or with words."""
    monkeypatch.setattr(registry, "LOCK_SECONDS", PATIENCE)  # one after the other, emulated too
    host = initial_namespace()
    with planted("dr"):
        before = glance()
        assert at_once(*[lambda: up("dr")] * 3) == [0, 0, 0]
        assert [one.entry.lab for one in list_labs() if one.answering] == ["dr"]
        answers("dr")

        def fault() -> None:
            inject_fault(running_lab("dr"), "arp-ignore-unset")
            restore_faults(running_lab("dr"))

        mixed: list[Callable[[], object]] = [
            lambda: up("dr", servers=3),
            lambda: tear_down("dr"),
            fault,
            lambda: up("dr"),
            lambda: verify_lab(running_lab("dr")),
            list_labs,
        ]
        assert rounds(mixed, 2) <= {0, SAID}
        up("dr")
        answers("dr")
        assert failing("dr") == []
        statuses = at_once(*[lambda: tear_down("dr")] * 3)
        assert sorted(statuses) == [0, SAID, SAID], "one removes it, the others are told that"
        assert differences(before) == {}
    assert initial_namespace() == host


def test_who_holds_the_lab_is_said() -> None:
    """By a child: its parent, this pytest, is the holder."""
    holder = os.getpid()

    def second() -> None:
        with pytest.raises(LabError, match=f"lab dr is being changed by process {holder} "):
            registry.lock("dr", 0.1).__enter__()

    with registry.lock("dr"):
        assert at_once(second) == [0]
    assert not paths.of("dr").lock.exists()
