"""Work that changes its thread's namespace, away from the caller's thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from lvsctl.kernel.undisturbed import undisturbed
from lvsctl.model.event import Emit, Event, OpsDone

TELL_SECONDS = 0.05
"""Between two words about how far the worker is: each wakes the caller's thread, which then
competes for the interpreter's lock (for 500 namespaces: half of the time)."""


class _Saying:
    """An ``Emit`` for the worker that adds OpsDone events up, and puts one now and then.

    It may be called from several threads.
    """

    def __init__(self, said: queue.SimpleQueue[Event | None]) -> None:
        self._said = said
        self._done = 0
        self._next = time.monotonic() + TELL_SECONDS
        self._counting = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._counting:
            if isinstance(event, OpsDone):
                self._done += event.count
                if time.monotonic() < self._next:
                    return
            self._flush()
        if not isinstance(event, OpsDone):
            self._said.put(event)

    def flush(self) -> None:
        """What is done and not yet said."""
        with self._counting:
            self._flush()

    def _flush(self) -> None:
        if self._done:
            self._said.put(OpsDone(self._done))
        self._done = 0
        self._next = time.monotonic() + TELL_SECONDS


def in_worker(work: Callable[[Emit, threading.Event], None], emit: Emit) -> None:
    """Run ``work`` in a thread of its own; its events are emitted here, its errors raised here.

    Where this thread is interrupted meanwhile, the worker ends after the namespace
    that it is at, before this returns.
    """
    said: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    saying = _Saying(said)
    stop, begun, ended = threading.Event(), threading.Event(), threading.Event()
    beginning = threading.Lock()
    errors: list[BaseException] = []

    def body() -> None:
        with beginning:
            if stop.is_set():
                return
            begun.set()
        try:
            work(saying, stop)
        except BaseException as error:  # noqa: BLE001 (handed over to the caller)
            errors.append(error)
        finally:
            ended.set()
            saying.flush()
            said.put(None)

    thread = threading.Thread(target=body, name="lvsctl-execute", daemon=True)
    try:
        with undisturbed():  # at the end of it a signal may raise, with the worker on its way
            thread.start()
        while (event := said.get()) is not None:
            emit(event)
        thread.join()
    except BaseException:
        with beginning:
            stop.set()
        if begun.is_set():
            _wait_whatever_happens(said, ended)
        raise
    if errors:
        raise errors[0]


def _wait_whatever_happens(said: queue.SimpleQueue[Event | None], ended: threading.Event) -> None:
    """Until the worker has ``ended``. Its last word comes after that, so there is one to wait for.

    Waiting for the Event itself would not bear a signal (``undisturbed``). In the command
    line only the first signal raises (``cli.signals``); elsewhere a second Ctrl-C may.
    """
    while not ended.is_set():
        try:
            said.get()
        except KeyboardInterrupt:  # a second Ctrl-C: the worker is about to end anyway
            continue
