"""A signal that arrives while a thread starts is neither lost nor turned into another error."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from lvsctl.kernel import netns, netns_cleanup
from lvsctl.kernel.worker import in_worker
from lvsctl.model.event import ignore
from tests.kernel.moments import ended


def worker_begins() -> None:
    in_worker(lambda _say, _stop: None, ignore)


def other_thread_begins() -> None:
    netns.in_thread(lambda: None)


def waiting_begins() -> None:
    with netns_cleanup.wait_for_cleanup("no-such-lab"):
        pass


@pytest.mark.parametrize("begins", [waiting_begins, worker_begins, other_thread_begins])
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
