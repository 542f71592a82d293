"""Exit statuses, errors as messages on standard error, and signals as exceptions.

The exit statuses are a stable interface for scripts. A traceback is printed only on request.
Signals that end a command become exceptions, so that unfinished changes are rolled back.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lvsctl import __version__
from lvsctl.errors import (
    DamagedFile,
    HostError,
    KernelError,
    LabError,
    LvsctlError,
    TopologyError,
    UsageError,
    error_json,
    legible,
)
from lvsctl.kernel import probe
from lvsctl.machine.directories import cache_directory


class ExitStatus(IntEnum):
    """The exit statuses of lvsctl; 65, 69 and 70 are those of sysexits(3)."""

    OK = 0
    CLAIM_FAILED = 1
    USAGE = 2
    BAD_TOPOLOGY = 65
    HOST_CANNOT = 69
    BUG = 70
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127
    HUNG_UP = 129
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


MEANINGS = (
    (ExitStatus.OK, "success"),
    (ExitStatus.CLAIM_FAILED, "verify: a claim did not pass; diagnose: a cause was found"),
    (
        ExitStatus.USAGE,
        "usage error, or the lab does not exist or is in use by another command",
    ),
    (
        ExitStatus.BAD_TOPOLOGY,
        "the topology has mistakes (all are listed with their lines), or a report is damaged",
    ),
    (ExitStatus.HOST_CANNOT, "the host cannot run this; the message says what to do"),
    (ExitStatus.BUG, "a bug in lvsctl"),
    (ExitStatus.INTERRUPTED, "interrupted by Ctrl-C; unfinished changes were rolled back"),
)
"""The table for ``lvsctl --help``."""

_OF_ERROR: tuple[tuple[type[LvsctlError], ExitStatus], ...] = (
    (UsageError, ExitStatus.USAGE),
    # Neither the host nor lvsctl is at fault: another command line would have worked.
    (LabError, ExitStatus.USAGE),
    (TopologyError, ExitStatus.BAD_TOPOLOGY),
    # 65 is sysexits(3)'s EX_DATAERR: the input is wrong, be it a topology or something else.
    (DamagedFile, ExitStatus.BAD_TOPOLOGY),
    (HostError, ExitStatus.HOST_CANNOT),
    (KernelError, ExitStatus.HOST_CANNOT),
)


def status_of(error: LvsctlError) -> ExitStatus:
    """Return the exit status of a command that ends with ``error``."""
    return next((status for kind, status in _OF_ERROR if isinstance(error, kind)), ExitStatus.BUG)


def say(text: str) -> None:
    """Print a message of lvsctl's on standard error."""
    _print(f"lvsctl: {text}")


def warn(text: str) -> None:
    """Print a message about a line of a file on standard error, as compilers do."""
    _print(text)


def hint(text: str) -> None:
    """Print what to type or change, below the message."""
    _print(f"  → {text}")


def _print(text: str) -> None:
    # If standard error cannot be written, the exit status still reports the failure.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def explain(error: LvsctlError) -> ExitStatus:
    """Print an error and its remedy, and return its exit status."""
    if os.environ.get("LVSCTL_ERRORS") == "json":
        _print(json.dumps(error_json(error)))
        return status_of(error)
    if isinstance(error, TopologyError):
        count = len(error.problems)
        say(f"{legible(error.source)} has {count} mistake{'' if count == 1 else 's'}:")
        _print(legible(error.message))  # one a line, as editors expect them
    else:
        say(legible(error.message))
    if found := remedy_here(error.hint):
        hint(legible(found))
    if _debugging():
        _print_traceback(error)
    return status_of(error)


_ELSEWHERE = re.compile(r"(, or |; )?((use|in) )?the throwaway kernel(:| with) --where machine")


def remedy_here(text: str) -> str:
    """Return a hint without the advice to use the throwaway kernel where it is in use already."""
    if not (probe.inside_machine() and _ELSEWHERE.search(text)):
        return text
    rest = _ELSEWHERE.sub("", text)
    return f"{rest}; {probe.OTHER_KERNEL}" if rest else probe.OTHER_KERNEL


def report_bug(error: BaseException) -> ExitStatus:
    """Write the traceback of a bug to a file, or print it if no file can be written."""
    say(f"this is a bug: {type(error).__name__}: {error}")
    report = None if _debugging() else _write_report(error)
    if report is None:
        _print_traceback(error)
        hint("please report it with the lines above")
    else:
        hint(f"please report it with {report}")
    return ExitStatus.BUG


def _debugging() -> bool:
    return os.environ.get("LVSCTL_DEBUG", "") not in ("", "0")


def _print_traceback(error: BaseException) -> None:
    _print("".join(traceback.format_exception(error)).rstrip("\n"))


def _write_report(error: BaseException) -> Path | None:
    host = " ".join(os.uname()[index] for index in (0, 2, 4))  # kernel, release, machine
    lines = [
        f"lvsctl {__version__}, Python {sys.version.split()[0]}, {host}\n",
        f"command: {sys.argv}\n\n",
        *traceback.format_exception(error),
    ]
    try:
        directory = cache_directory()
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / f"bug-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        file.write_text("".join(lines), encoding="utf-8")
    except (OSError, HostError):  # HostError: the user has no home directory
        return None
    return file


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RAISE_AGAIN = 0.005
"""Seconds until a discarded Signalled is raised again, outside the code that discarded it."""

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
def raise_on_signals() -> Iterator[Callable[[], None]]:
    """While entered, raise Signalled at the first signal that would end this process.

    Later ones are ignored, also after it: a second Ctrl-C must not interrupt the rollback, nor
    the end of the process. Where Python discards the exception, because the signal came in a
    destructor or a callback of fork(2), it is raised again.

    The value is a function that ignores signals from now on: for a command that one has ended.
    """
    before = {number: signal.getsignal(number) for number in _ENDING}
    # A signal that nohup(1) or a shell has set to be ignored stays ignored.
    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        ignore(number)
        raise Signalled(number)

    def ignore(number: int = 0) -> None:
        for each in caught:
            signal.signal(each, signal.SIG_IGN)
        received.append(number)

    def again(_number: int, _frame: FrameType | None) -> NoReturn:
        raise Signalled(received[0])

    def discarded(unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, Signalled):
            signal.signal(signal.SIGALRM, again)
            signal.setitimer(signal.ITIMER_REAL, RAISE_AGAIN)
        else:
            hook(unraisable)

    received: list[int] = []
    hook = sys.unraisablehook
    try:
        sys.unraisablehook = discarded
        for number in caught:
            signal.signal(number, end)
        # The machine's fork server starts a command with these blocked, so that none is lost.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        yield ignore
    finally:
        sys.unraisablehook = hook
        for number in caught:
            if not received:
                signal.signal(number, before[number])


def restore_for_exec() -> None:
    """Reset the signals that Python ignores, for the command that replaces this process.

    exec(2) keeps ignored signals ignored: without SIGPIPE, `yes | head` would print an error.
    """
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
