"""Signals that end a command, as exceptions, so that unfinished changes are rolled back."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DESCRIPTIONS: dict[int, str] = {signal.SIGINT: "interrupted"}


class Signalled(BaseException):
    """A signal has asked this command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(_DESCRIPTIONS.get(number) or str(signal.strsignal(number)).lower())
        self.number = number

    @property
    def status(self) -> int:
        """The exit status that shells give a command ended by this signal."""
        return 128 + self.number


@contextlib.contextmanager
def raise_on_signals() -> Iterator[None]:
    """While entered, raise Signalled at the first signal that would end this process.

    Later ones are ignored: a second Ctrl-C must not interrupt the rollback.
    """
    before = {number: signal.getsignal(number) for number in _ENDING}
    # A signal that nohup(1) or a shell has set to be ignored stays ignored.
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
    """Reset the signals that Python ignores, for the command that replaces this process.

    exec(2) keeps ignored signals ignored: without SIGPIPE, `yes | head` would print an error.
    """
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
