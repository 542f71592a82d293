"""Moments in which no signal may raise: Python's own locks do not bear it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

_ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that end a command come at the end of it; threads begun in here never see them.

    A handler that raises between two steps of ``Thread.start`` leaves ``threading`` with a lock
    that is not what it takes it for: "release unlocked lock" comes instead of the signal.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
