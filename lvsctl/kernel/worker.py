"""A worker thread, for work that changes its thread's namespace."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator

from lvsctl.model.event import Emit, Event, OpsDone

REPORT_SECONDS = 0.05
"""Between two reports of progress: each wakes the caller's thread, which then competes for the
interpreter's lock."""

_ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@contextlib.contextmanager
def block_signals() -> Iterator[None]:
    """Deliver the signals that end a command after the block; threads started in it get none.

    A handler that raises between two steps of ``Thread.start`` leaves ``threading`` with a lock
    in the wrong state: "release unlocked lock" is raised instead of the signal's exception.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def fork() -> int:
    """os.fork(), in whose child the signals that end a command end the process.

    Blocked meanwhile: otherwise the parent's handler could raise in the child, which would then
    roll the parent's work back, or in one of Python's callbacks, which discard the exception.
    """
    with block_signals():
        pid = os.fork()
        if pid == 0:
            for number in _ENDING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)
    return pid


class _Progress:
    """An ``Emit`` for the worker that adds OpsDone events up, and passes on one now and then."""

    def __init__(self, events: queue.SimpleQueue[Event | None]) -> None:
        self._events = events
        self._done = 0
        self._next = time.monotonic() + REPORT_SECONDS

    def __call__(self, event: Event) -> None:
        if isinstance(event, OpsDone):
            self._done += event.number
            if time.monotonic() < self._next:
                return
        self.flush()
        if not isinstance(event, OpsDone):
            self._events.put(event)

    def flush(self) -> None:
        """Pass on what is done and not reported yet."""
        if self._done:
            self._events.put(OpsDone(self._done))
        self._done = 0
        self._next = time.monotonic() + REPORT_SECONDS


def in_worker(work: Callable[[Emit, threading.Event], None], emit: Emit) -> None:
    """Run ``work`` in a thread of its own; emit its events and raise its errors here.

    Where the calling thread is interrupted, the worker ends after the namespace that it is
    working on, before this returns.
    """
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    progress = _Progress(events)
    stop, begun, ended = threading.Event(), threading.Event(), threading.Event()
    beginning = threading.Lock()
    errors: list[BaseException] = []

    def body() -> None:
        with beginning:
            if stop.is_set():
                return
            begun.set()
        try:
            work(progress, stop)
        except BaseException as error:  # noqa: BLE001 (raised by the caller's thread)
            errors.append(error)
        finally:
            ended.set()
            progress.flush()
            events.put(None)

    thread = threading.Thread(target=body, name="lvsctl-worker", daemon=True)
    try:
        with block_signals():
            thread.start()
        while (event := events.get()) is not None:
            emit(event)
        thread.join()
    except BaseException:
        with beginning:
            stop.set()
        if begun.is_set():
            _wait_until_ended(events, ended)
        raise
    if errors:
        raise errors[0]


def _wait_until_ended(events: queue.SimpleQueue[Event | None], ended: threading.Event) -> None:
    """Wait until the worker has ended; its last event comes after ``ended`` is set.

    Not for the Event itself, whose lock is not safe from signals (``block_signals``). In the
    command line only the first signal raises (``cli.failure``); elsewhere a second Ctrl-C may.
    """
    while not ended.is_set():
        try:
            events.get()
        except KeyboardInterrupt:  # a second Ctrl-C: the worker is about to end anyway
            continue
