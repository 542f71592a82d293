"""Answers to the shell's completion function, when somebody presses TAB.

Where labs live in the machine, the whole request is handed on to the lvsctl inside, which
has everything imported: that is quicker than to load Typer here first.
"""

from __future__ import annotations

import os

from lvsctl.errors import LvsctlError

VARIABLE = "_LVSCTL_COMPLETE"
"""Set by the shell's completion function, to what is wanted (``complete_bash``)."""


def answer() -> int:
    """Print the completions of the words that the shell has put into the environment."""
    status = _in_machine()
    return _here() if status is None else status


def _in_machine() -> int | None:
    """Complete in the machine if the labs are there; None where this process has to."""
    from lvsctl.cli import where

    asked = os.environ.get("LVSCTL_WHERE", "auto")
    if where.inside_machine() or asked == "host":
        return None
    try:
        if (asked != "machine" and where.why_not_here() is None) or not where.machine_is_running():
            return None
        return where.forward([])
    except LvsctlError:
        return None


def _here() -> int:
    from lvsctl.cli import tree

    _do_without_rich()
    try:
        tree.enough_for(_words_before()).main([], prog_name=tree.NAME)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    return 0


def _words_before() -> list[str]:
    """The words that are whole, from the command on; a command itself being completed: ``["?"]``.

    Shells that count say which word is at the cursor; in others it is the last one, or is
    still to come.
    """
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    words = line.split()
    at = os.environ.get("COMP_CWORD", "")
    whole = words[: int(at)] if at.isdecimal() else words if line[-1:].isspace() else words[:-1]
    return whole[1:] or ["?"]


def _do_without_rich() -> None:
    """Our help has no markup: nothing to import rich for, and its 60 ms, at each TAB."""
    from typer import _completion_classes

    _completion_classes._sanitize_help_text = lambda text: text  # noqa: SLF001
