"""Namespaces made before they have names: taken once each, and gone if nobody takes them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lvsctl.kernel import ahead as ahead_module
from lvsctl.kernel import letting_go, netns
from lvsctl.kernel.ahead import AT_MOST, Ahead
from lvsctl.kernel.worker import in_worker
from lvsctl.model.event import ignore
from tests.kernel.by_hand import descriptors, eventually
from tests.kernel.moments import ended

HERE = "/proc/thread-self/ns/net"


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is something to be gained; it works on one as well."""
    monkeypatch.setattr(ahead_module, "cpus", lambda: 2)


def test_on_one_cpu_none_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead_module, "cpus", lambda: 1)
    with Ahead(10) as ahead:
        ahead.expect(5)
        assert is_done()
        assert ahead.left() == 0


def identities(taken: list[int]) -> set[int]:
    return {os.fstat(fd).st_ino for fd in taken}


def all_taken(ahead: Ahead) -> list[int]:
    taken = []
    while (fd := ahead.take()) is not None:
        taken.append(fd)
    return taken


def is_done() -> bool:
    return not any(thread.name == "lvsctl-ahead" for thread in threading.enumerate())


def test_each_is_a_new_namespace_and_the_callers_thread_stays_where_it_is() -> None:
    before, interval = Path(HERE).readlink(), sys.getswitchinterval()
    with Ahead(5) as ahead:
        eventually(is_done)
        ahead.stop()
        taken = all_taken(ahead)
        assert len(identities(taken)) == len(taken) == 5
        assert Path(HERE).stat().st_ino not in identities(taken)
        for fd in taken:
            assert netns.run_inside(f"/proc/self/fd/{fd}", os.getpid)
            os.close(fd)
    assert Path(HERE).readlink() == before
    assert sys.getswitchinterval() == interval


@pytest.mark.parametrize("stopped", [True, False])
def test_what_nobody_takes_is_let_go_of(stopped: bool) -> None:
    before = descriptors()
    with contextlib.suppress(ZeroDivisionError), Ahead(30) as ahead:
        eventually(lambda: bool(ahead._made))
        if stopped:
            ahead.stop()
        raise ZeroDivisionError
    assert is_done()
    assert descriptors() == before


def test_none_are_made_where_none_are_wanted_and_never_more_than_there_is_time_for() -> None:
    with Ahead(0) as ahead:
        assert ahead.take() is None
    with Ahead(10**6) as ahead:
        assert ahead._count == AT_MOST


def test_what_was_guessed_too_many_is_let_go_of_once_that_is_known() -> None:
    before = descriptors()
    with Ahead(10) as ahead:
        eventually(is_done)
        ahead.expect(4)
        assert len(all_taken(ahead)) == 4
        ahead.expect(0)
        ahead.expect(7)
        assert ahead.take() is None
    assert len(descriptors()) == len(before) + 4


def test_no_more_are_made_once_it_is_known_that_none_are_needed() -> None:
    before, interval = descriptors(), sys.getswitchinterval()
    with Ahead(AT_MOST) as ahead:
        eventually(lambda: bool(ahead._made))
        ahead.expect(0)
        assert is_done()
        assert ahead.left() == 0
        assert sys.getswitchinterval() == interval
    assert descriptors() == before


def test_where_there_are_no_more_to_be_had_those_that_there_are_remain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, left = netns.create_nameless, [3]

    def refused() -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        return made()

    monkeypatch.setattr(netns, "create_nameless", refused)
    with Ahead(10) as ahead:
        eventually(is_done)
        taken = all_taken(ahead)
        assert len(taken) == 3
        for fd in taken:
            os.close(fd)


def ahead_begins() -> None:
    with Ahead(3):
        pass


def worker_begins() -> None:
    in_worker(lambda _say, _stop: None, ignore)


def other_thread_begins() -> None:
    netns.in_thread(lambda: None)


def waiting_begins() -> None:
    with letting_go.watched("no-such-lab"):
        pass


@pytest.mark.parametrize(
    "begins", [waiting_begins, ahead_begins, worker_begins, other_thread_begins]
)
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_thread_begins_is_that_signal(
    begins: Callable[[], None], sign: signal.Signals
) -> None:
    """It comes when the one that starts the thread is about to take Python's lock again."""

    def work() -> None:
        restore = threading.Condition._acquire_restore  # type: ignore[attr-defined]

        def signalled(condition: threading.Condition, state: object) -> None:
            threading.Condition._acquire_restore = restore  # type: ignore[attr-defined]
            os.kill(os.getpid(), sign)
            restore(condition, state)

        threading.Condition._acquire_restore = signalled  # type: ignore[attr-defined]
        for _ in range(1000):  # a thread that is quicker is not waited for
            begins()

    found = ended(work)
    assert (found.status, found.said) == (128 + sign, "")
