"""Errors for programs: one line of JSON on stderr where ``LVSCTL_ERRORS=json`` asks for it.

``{version, error, message, hint}``: ``error`` is the name of a class of ``lvsctl.errors``. A
SpecError has ``source`` and ``problems: [{line, column, path, message, hint}]`` too, a
KernelError ``node``, ``command`` and ``errno``. The rules are those of ``serialize``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lvsctl import errors
from lvsctl.errors import KernelError, LvsctlError, Problem, SpecError

VERSION = 2
VARIABLE = "LVSCTL_ERRORS"
"""Environment variable: ``json`` asks for this."""

_KINDS = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, LvsctlError)
}


def error_json(error: LvsctlError) -> dict[str, Any]:
    """What a program needs to raise ``error`` again."""
    said: dict[str, Any] = {
        "version": VERSION,
        "error": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
    }
    if isinstance(error, SpecError):
        said |= {"source": error.source, "problems": [asdict(p) for p in error.problems]}
    if isinstance(error, KernelError):
        said |= {"node": error.node, "command": error.command, "errno": error.errno}
    return said


def error_from(said: dict[str, Any]) -> LvsctlError:
    """The error that ``error_json`` described; a class of a newer version is a LvsctlError."""
    kind = _KINDS.get(said["error"], LvsctlError)
    if kind is SpecError:
        return SpecError(said["source"], [Problem(**problem) for problem in said["problems"]])
    if kind is KernelError:
        return KernelError(
            said["message"],
            node=said["node"],
            command=said["command"],
            errno=said["errno"],
            hint=said["hint"],
        )
    return kind(said["message"], hint=said["hint"])
