"""Work that changes its thread's namespace, away from the caller's thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from lvsctl.model.event import Emit, Event


def in_worker(work: Callable[[Emit, threading.Event], None], emit: Emit) -> None:
    """Run ``work`` in a thread of its own; its events are emitted here, its errors raised here.

    Where this thread is interrupted meanwhile, the worker ends after the namespace
    that it is at, before this returns.
    """
    said: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    stop = threading.Event()
    errors: list[BaseException] = []

    def body() -> None:
        try:
            work(said.put, stop)
        except BaseException as error:  # noqa: BLE001 (handed over to the caller)
            errors.append(error)
        finally:
            said.put(None)

    thread = threading.Thread(target=body, name="lvsctl-execute", daemon=True)
    thread.start()
    try:
        while (event := said.get()) is not None:
            emit(event)
        thread.join()
    except BaseException:
        stop.set()
        _join_whatever_happens(thread)
        raise
    if errors:
        raise errors[0]


def _join_whatever_happens(thread: threading.Thread) -> None:
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt:  # a second Ctrl-C: the worker is about to end anyway
            continue
