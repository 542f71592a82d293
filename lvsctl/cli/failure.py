"""What goes wrong, in words on stderr: never a traceback, unless somebody asks for one."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from lvsctl.cli.exit_status import ExitStatus, status_of
from lvsctl.errors import LvsctlError, SpecError, legible


def say(text: str) -> None:
    """A message on stderr, as one of lvsctl's."""
    _print(f"lvsctl: {text}")


def hint(text: str) -> None:
    """What to type or change, below the message."""
    _print(f"  → {text}")


def _print(text: str) -> None:
    # Where stderr cannot be written there is nobody to tell, and the status still says it.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def explain(error: LvsctlError) -> ExitStatus:
    """Say what is wrong and what helps; the exit status that goes with it."""
    if os.environ.get("LVSCTL_ERRORS") == "json":
        return _explain_to_program(error)
    if isinstance(error, SpecError):
        count = len(error.problems)
        say(f"{legible(error.source)} has {count} mistake{'' if count == 1 else 's'}:")
        _print(legible(error.message))  # one each line, as editors expect them
    else:
        say(legible(error.message))
    if error.hint:
        hint(legible(error.hint))
    if _debugging():
        _print_traceback(error)
    return status_of(error)


def _explain_to_program(error: LvsctlError) -> ExitStatus:
    import json

    from lvsctl.output.error_json import error_json

    _print(json.dumps(error_json(error)))
    return status_of(error)


def confess(error: BaseException) -> ExitStatus:
    """A bug: keep the traceback in a file for a report, or show it where none can be written."""
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
    import traceback

    _print("".join(traceback.format_exception(error)).rstrip("\n"))


def _write_report(error: BaseException) -> Path | None:
    import platform
    import time
    import traceback

    from lvsctl import __version__

    base = os.environ.get("XDG_CACHE_HOME", "")
    lines = [
        f"lvsctl {__version__}, Python {platform.python_version()}, {platform.platform()}\n",
        f"command: {sys.argv}\n\n",
        *traceback.format_exception(error),
    ]
    try:
        directory = (Path(base) if base else Path.home() / ".cache") / "lvsctl"
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / f"bug-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        file.write_text("".join(lines), encoding="utf-8")
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return None
    return file
