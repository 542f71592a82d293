"""Errors for programs: one line of JSON on stderr if LVSCTL_ERRORS is ``json``.

``{version, error, message, hint}``: ``error`` is the name of a class of ``lvsctl.errors``. A
TopologyError also has ``source`` and ``problems: [{line, column, path, message, hint}]``, a
KernelError ``node``, ``command`` and ``errno``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lvsctl import errors
from lvsctl.errors import KernelError, LvsctlError, Problem, TopologyError

VERSION = 2
VARIABLE = "LVSCTL_ERRORS"
"""Environment variable."""

_KINDS = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, LvsctlError)
}


def error_json(error: LvsctlError) -> dict[str, Any]:
    """Describe an error so that a program can raise it again."""
    document: dict[str, Any] = {
        "version": VERSION,
        "error": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
    }
    if isinstance(error, TopologyError):
        document |= {"source": error.source, "problems": [asdict(p) for p in error.problems]}
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
