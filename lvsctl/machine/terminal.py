"""The user's terminal: its size, its raw mode, and its restoration."""

from __future__ import annotations

import contextlib
import os
import stat
import termios
import tty
from collections.abc import Sequence
from typing import NamedTuple, Self


class Streams(NamedTuple):
    """The way in which the three standard streams are passed to a command.

    ``terminal`` are those that become a terminal in the guest. ``forward_stdin`` is false
    if another process reads standard input.
    """

    terminal: tuple[int, ...]
    forward_stdin: bool
    raw: bool


def streams(tty_wanted: bool | None) -> Streams:
    """Decide from this process's streams; ``tty_wanted`` overrides the decision (None: does not).

    In ``lvsctl ls | less`` both could read the keyboard: lvsctl leaves it, and its mode, to the
    pager unless ``tty_wanted``.
    """
    terminals = tuple(fd for fd in range(3) if tty_wanted is not False and _is_terminal(fd))
    if 0 not in terminals:
        return Streams(terminals, forward_stdin=not _is_terminal(0) or _foreground(), raw=False)
    if not _foreground() or (_is_pipe(1) and not tty_wanted):
        return Streams(tuple(fd for fd in terminals if fd), forward_stdin=False, raw=False)
    return Streams(terminals, forward_stdin=True, raw=True)


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False


def _foreground() -> bool:
    """Return whether this process may read its terminal; a background job would be stopped."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def size(fds: Sequence[int]) -> tuple[int, int]:
    """Return rows and columns of the first terminal among ``fds``; 24, 80 if there is none."""
    for fd in fds:
        with contextlib.suppress(OSError):
            found = os.get_terminal_size(fd)
            if found.lines and found.columns:
                return found.lines, found.columns
    return 24, 80


class RawMode:
    """While entered, the terminal on standard input is raw: every key goes to the guest."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._saved: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> Self:
        if self._wanted:
            self._saved = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)
        return self

    def __exit__(self, *_: object) -> None:
        if self._saved is not None:
            # DRAIN, not FLUSH: keys typed ahead belong to the shell.
            with contextlib.suppress(termios.error):  # the terminal has been closed
                termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
