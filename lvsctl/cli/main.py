"""The console script: from a command line to an exit status. Every exception ends here."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from lvsctl.cli import commands, failure, output, where
from lvsctl.cli.failure import ExitStatus, Signalled, raise_on_signals
from lvsctl.errors import HostError, LvsctlError

COMPLETE_VARIABLE = "_LVSCTL_COMPLETE"
"""Set by the shell's completion function, to the kind of answer wanted (``complete_bash``)."""


def entry() -> NoReturn:
    """Run the command line of this process, and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Before and after the command, Ctrl-C ends the process, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # for terminals without Unicode
    sys.exit(_flushed(main(sys.argv[1:])))


def _flushed(status: int) -> int:
    """Write what Typer has left in the buffers; return the exit status."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        output.discard()
        status = ExitStatus.BROKEN_PIPE
    except OSError as error:
        output.discard()
        status = failure.explain(output.cannot_write(error))
    try:
        sys.stderr.flush()
    except OSError:
        output.discard(sys.stderr)
    return status


def _open_closed_streams() -> None:
    """Open /dev/null in place of standard streams that are closed (`lvsctl ls >&-`).

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
    """Run one command line and return its exit status; the machine's fork server calls it too."""
    try:
        with raise_on_signals() as ignore:
            status = _run(argv)
            if status in (ExitStatus.HUNG_UP, ExitStatus.INTERRUPTED, ExitStatus.TERMINATED):
                ignore()  # it has been passed on to the command in the machine
            return status
    except Signalled as signalled:
        failure.say(str(signalled))
        return signalled.status
    except BrokenPipeError:  # the reader has closed the pipe, as head(1) does: not an error
        output.discard()
        return ExitStatus.BROKEN_PIPE


def preload() -> None:
    """Import every command, so that processes forked from this one need not."""
    # Slow to import, and not needed by every command: what applies a plan, reads nftables, writes
    # JSON and reports, prints what was found.
    from lvsctl.engine import up  # noqa: F401
    from lvsctl.netlink import nftables  # noqa: F401
    from lvsctl.output import evidence, saved_report, serialize  # noqa: F401
    from lvsctl.output.text import inspection, verification  # noqa: F401

    for name in commands.command().commands:
        commands.command().commands[name]


def _run(argv: Sequence[str]) -> int:
    try:
        if COMPLETE_VARIABLE in os.environ:
            status = _complete_in_machine()
            return commands.complete() if status is None else status
        return commands.run(argv)
    except LvsctlError as error:
        return failure.explain(error)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever is left is a bug)
        if isinstance(error, OSError) and output.is_full_disk(error):  # Typer's, as for --help
            output.discard()
            return failure.explain(output.cannot_write(error))
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            return failure.explain(_too_many_files())
        return failure.report_bug(error)


def _too_many_files() -> HostError:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return HostError(f"this process may have {soft} files open: too few", hint="ulimit -n 1024")


def _complete_in_machine() -> int | None:
    """Complete in the machine if the labs run there; return None otherwise. Starts nothing."""
    chosen = os.environ.get(where.WHERE_VARIABLE, "auto")
    if where.inside_machine() or chosen == "host":
        return None
    with contextlib.suppress(LvsctlError):
        here = chosen != "machine" and where.why_not_here() is None
        if not here and where.machine_is_running():
            return where.forward([])
    return None
