"""From a command line to an exit status: the one place where exceptions end."""

from __future__ import annotations

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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a sign that the terminal lacks is no bug
    sys.exit(main(sys.argv[1:]))


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
        from lvsctl.cli import tree

        return tree.run(argv)
    except LvsctlError as error:
        return failure.explain(error)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, it is ours)
        return failure.confess(error)
