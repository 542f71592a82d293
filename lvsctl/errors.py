"""What can go wrong, sorted by whose fault it is.

Every error says what is wrong, where, and what to type next. Only the ``cli``
room turns them into exit statuses (see ``lvsctl.cli.failure``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class LvsctlError(Exception):
    """Base of every error that lvsctl raises on purpose.

    ``message`` says what is wrong and where, in one or more lines.
    ``hint`` says what to type or change; empty where nothing helps.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"→ {hint}")  # for tracebacks: in scripts, and in pytest's reports

    def add(self, text: str) -> None:
        """One thing more, known only now: what came of the attempt to undo what was done."""
        self.message += f"\n{text}"
        self.args = (self.message,)


class UsageError(LvsctlError):
    """The command line names something that does not exist or cannot be combined."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a topology file.

    ``line`` and ``column`` count from 1; 0 means that the place is not known.
    ``path`` is the key's path, such as ``services[0].port``.
    ``hint`` says what would be right.
    """

    line: int
    column: int
    path: str
    message: str
    hint: str = ""


class SpecError(LvsctlError):
    """The topology is wrong: all its problems at once, in the order of the file."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(sorted(problems))
        lines = []
        for problem in self.problems:
            place = f"{source}:{problem.line}:{problem.column}" if problem.line else source
            path = f"{problem.path}: " if problem.path else ""
            lines.append(f"{place}: {path}{problem.message}")
            if problem.hint:
                lines.append(f"    {problem.hint}")
        super().__init__("\n".join(lines))


class HostError(LvsctlError):
    """This host cannot: a privilege, a kernel feature, a tool or disk space is missing."""


class DamagedFile(LvsctlError):
    """A file that lvsctl wrote once, such as a saved report, is not as it was written."""


class LabError(LvsctlError):
    """The lab is not in a state in which this can be done: not running, or held by another."""


class KernelError(LvsctlError):
    """The kernel refused an operation of a plan.

    ``node`` is the node concerned, ``command`` the equivalent shell command, and
    ``errno`` the kernel's error number (0 where there is none).
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
    """``text`` without what could steer a terminal, its line breaks and tabs kept.

    An error is often about a command, and a command in a topology is anybody's.
    """
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "?" for sign in text)
