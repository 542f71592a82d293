"""From a command line to an exit status: the one place where exceptions end."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lvsctl.cli import completion, failure, output
from lvsctl.cli.exit_status import ExitStatus
from lvsctl.cli.signals import Signalled, raising
from lvsctl.errors import LvsctlError


def entry() -> NoReturn:
    """The console script."""
    gc.disable()  # what is imported stays: looking through it for garbage is a twentieth of a start
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a sign that the terminal lacks is no bug
    _leave(main(sys.argv[1:]))


def _leave(status: int) -> NoReturn:
    """End at once: taking all of its objects apart takes Python 3 ms, for a large lab 9 and more.

    Nothing waits for that: files are closed where they are written, threads joined where they
    are needed, and nothing of ours is registered with atexit.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = ExitStatus.BROKEN_PIPE
    except OSError as error:  # what Typer printed
        status = failure.explain(output.unwritten(error))
    with contextlib.suppress(OSError):  # as in ``failure``
        sys.stderr.flush()
    os._exit(status)


def _open_closed_streams() -> None:
    """Standard streams that are closed (`lvsctl ls >&-`) become /dev/null, as in daemons.

    Otherwise the next file that is opened takes the number 1, and what is printed goes there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this very one: those below are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def main(argv: Sequence[str]) -> int:
    """Run one command line, as the console script does and as the machine's agent does."""
    try:
        with raising():
            return _status(argv)
    except Signalled as signalled:
        failure.say(str(signalled).lower())
        return signalled.status
    except BrokenPipeError:  # the reader has seen enough: no reason to say anything
        output.let_go()
        return ExitStatus.BROKEN_PIPE


def _status(argv: Sequence[str]) -> int:
    try:
        if completion.VARIABLE in os.environ:
            return completion.answer()
        from lvsctl.cli import plain

        status = plain.run(argv)
        if status is None:
            from lvsctl.cli import tree

            status = tree.run(argv)
        return status
    except LvsctlError as error:
        return failure.explain(error)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, it is ours)
        if isinstance(error, OSError) and output.was_refused(error):  # Typer's, as for --help
            output.let_go()
            return failure.explain(output.unwritten(error))
        return failure.confess(error)
