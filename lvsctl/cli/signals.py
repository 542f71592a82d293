"""Signals that end a command, as exceptions: so that what is half done gets undone."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signalled(BaseException):
    """The user or the system wants this command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.strsignal(number))
        self.number = number

    @property
    def status(self) -> int:
        """The exit status that shells use for it."""
        return 128 + self.number


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """While entered, the first signal that would end this process raises Signalled.

    Later ones are ignored: an impatient second Ctrl-C must not stop the undoing half-way.
    """
    before = {number: signal.getsignal(number) for number in _ENDING}
    # What nohup(1) or the shell of a background job has set to be ignored stays so.
    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        for each in caught:
            signal.signal(each, signal.SIG_IGN)
        raise Signalled(number)

    try:
        for number in caught:
            signal.signal(number, end)
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])


def restore_for_exec() -> None:
    """Give the command that replaces this process the signals that it expects.

    Python ignores SIGPIPE, and exec would hand that on: `yes | head` would complain.
    """
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
