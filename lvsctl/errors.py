"""The exceptions of lvsctl, by cause.

Each error says what is wrong, where, and what to type next. Only ``lvsctl.cli.failure`` maps them
to exit statuses. ``error_json`` describes one for programs, ``error_from`` creates it again.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class LvsctlError(Exception):
    """Base of every error that lvsctl raises deliberately.

    ``message`` says what is wrong and where, in one or more lines.
    ``hint`` says what to type or change; empty if there is no remedy.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"→ {hint}")  # for tracebacks in scripts and pytest's reports

    def add(self, text: str) -> None:
        """Append to the message, for example how the rollback ended."""
        self.message += f"\n{text}"
        self.args = (self.message,)


class UsageError(LvsctlError):
    """The command line names something that does not exist or cannot be combined."""


class Problem(NamedTuple):
    """One mistake in a topology file, or in a file that is imported.

    ``line`` and ``column`` count from 1; 0 means that the position is unknown.
    ``path`` is the key's path, such as ``services[0].port``.
    ``hint`` says what would be right. ``file`` is where it is, if in a file that the source
    includes.
    """

    line: int
    column: int
    path: str
    message: str
    hint: str = ""
    file: str = ""


class TopologyError(LvsctlError):
    """The topology has mistakes: all of them, in the order of the file."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(sorted(problems, key=lambda one: (one.file, *one)))
        lines = []
        for problem in self.problems:
            position = [str(number) for number in (problem.line, problem.column) if number]
            place = ":".join([problem.file or source, *position])
            path = f"{problem.path}: " if problem.path else ""
            lines.append(f"{place}: {path}{problem.message}")
            if problem.hint:
                lines.append(f"    {problem.hint}")
        super().__init__("\n".join(lines))


class HostError(LvsctlError):
    """The host lacks a privilege, a kernel feature, a tool or disk space."""


class DamagedFile(LvsctlError):
    """A file written by lvsctl, such as a saved report, was damaged or changed."""


class LabError(LvsctlError):
    """The lab is not in the required state: not running, or in use by another command."""


class KernelError(LvsctlError):
    """The kernel rejected an operation of a plan.

    ``node`` is the node concerned, ``command`` the equivalent shell command, and
    ``errno`` the kernel's error number (0 if there is none).
    """

    def __init__(
        self,
        message: str,
        *,
        node: str = "",
        command: str = "",
        errno: int = 0,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.node = node
        self.command = command
        self.errno = errno


def legible(text: str) -> str:
    """Replace the characters that could control a terminal, except line breaks and tabs.

    Errors quote commands, and a topology from an untrusted source can contain any command.
    """
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "?" for sign in text)


def quoted(text: str) -> str:
    """Quote a text for a message: shortened, and without control characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def nearest(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return at most three known words similar to ``word``, the most similar first."""
    if len(word) > 64:
        return ()
    return tuple(difflib.get_close_matches(word.lower(), list(known), 3, 0.6))


def choice_hint(word: str, known: Iterable[str], what: str) -> str:
    """Return a hint: the most similar of the known words, and all of them."""
    words = list(known)
    if not words:
        return f"there are no {what}"
    near = nearest(word, words)
    listed = ", ".join(words[:16]) + (f", … ({len(words)} in all)" if len(words) > 16 else "")
    meant = f"did you mean {quoted(near[0])}? " if near else ""
    return f"{meant}{what}: {listed}"


JSON_VARIABLE = "LVSCTL_ERRORS"
"""Environment variable: with the value ``json``, errors are printed for programs."""

JSON_VERSION = 2

_KINDS = {
    kind.__name__: kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, LvsctlError)
}


def error_json(error: LvsctlError) -> dict[str, Any]:
    """Describe an error for programs: a line of JSON on stderr if LVSCTL_ERRORS is ``json``.

    ``{version, error, message, hint}``: ``error`` is the name of its class. A TopologyError also
    has ``source`` and ``problems: [{line, column, path, message, hint}]``, a KernelError ``node``,
    ``command`` and ``errno``.
    """
    document: dict[str, Any] = {
        "version": JSON_VERSION,
        "error": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
    }
    if isinstance(error, TopologyError):
        document |= {"source": error.source, "problems": [p._asdict() for p in error.problems]}
    if isinstance(error, KernelError):
        document |= {"node": error.node, "command": error.command, "errno": error.errno}
    return document


def error_from(document: dict[str, Any]) -> LvsctlError:
    """Create the error that ``error_json`` described; LvsctlError if its class is unknown."""
    kind = _KINDS.get(document["error"], LvsctlError)
    if kind is TopologyError:
        return TopologyError(
            document["source"], [Problem(**problem) for problem in document["problems"]]
        )
    if kind is KernelError:
        return KernelError(
            document["message"],
            node=document["node"],
            command=document["command"],
            errno=document["errno"],
            hint=document["hint"],
        )
    return kind(document["message"], hint=document["hint"])
