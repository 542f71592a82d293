"""Namespaces made ahead, by another CPU, while Python still reads what is to be done with them.

Making one is a third of a millisecond of the kernel's work and none of Python's: for a hundred
nodes it is a third of bringing a lab up. They have no name yet, so that nothing but descriptors
here keeps them: whatever becomes of this process, they are gone with it.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Self

from lvsctl.kernel import netns
from lvsctl.kernel.descriptors import make_table_hold
from lvsctl.kernel.undisturbed import undisturbed

AT_MOST = 200
"""More than can be made in the time there is."""

SWITCH_SECONDS = 1e-5
"""How long a thread that comes back from the kernel waits for Python's lock; else that is 5 ms,
longer than making ten namespaces takes."""


def cpus() -> int:
    """How many this process may run on."""
    return len(os.sched_getaffinity(0))


class Ahead:
    """Up to ``count`` new namespaces, while entered; what nobody took is let go of at the end.

    ``count`` may be a guess (``expect``). Where there is but one CPU, none: two threads that
    pass Python's lock to and fro on it take longer than one that does both.
    """

    def __init__(self, count: int) -> None:
        self._count = min(count, AT_MOST) if cpus() > 1 else 0
        self._begun = 0
        self._made: list[int] = []
        self._enough = False
        self._interval = sys.getswitchinterval()
        self._thread = threading.Thread(target=self._make, name="lvsctl-ahead", daemon=True)

    def __enter__(self) -> Self:
        if self._count > 0:
            make_table_hold(2 * self._count)
            sys.setswitchinterval(SWITCH_SECONDS)
            try:
                with undisturbed():
                    self._thread.start()
            except BaseException:  # a signal: the thread is on its way, and has to be waited for
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._keep(0)

    def _make(self) -> None:
        while self._begun < self._count and not self._enough:
            self._begun += 1
            try:
                self._made.append(netns.create_nameless())
            except OSError:  # whoever needs one tries again, and says why it cannot be had
                return

    def _keep(self, count: int) -> None:
        while len(self._made) > count:
            os.close(self._made.pop())

    def expect(self, count: int) -> None:
        """It is ``count`` that are needed. Where more were guessed, the others are let go of.

        Where it was fewer, those are all that there will be.
        """
        if count < self._count:
            self._count = count
            if not count:
                self.stop()
            self._keep(count)

    def stop(self) -> None:
        """Make no more of them. For when the threads that use them begin."""
        self._enough = True
        with undisturbed():
            if self._thread.is_alive():
                self._thread.join()
            sys.setswitchinterval(self._interval)

    def left(self) -> int:
        """How many there are to take."""
        return len(self._made)

    def take(self) -> int | None:
        """The descriptor of a new namespace, the caller's to close; None: there is none left.

        May be called from several threads.
        """
        try:
            return self._made.pop()
        except IndexError:
            return None
