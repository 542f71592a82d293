"""Commands as they can be typed where the reader is.

If labs run in the throwaway kernel, the host's shell does not have their namespaces: a command for
a namespace is run by ``lvsctl exec``, or by ``lvsctl machine run`` for a switch.
"""

from __future__ import annotations

import re
import shlex

from lvsctl.model.lab import Lab

_WITH_OPTION = frozenset({"ip", "tc", "bridge"})
"""Programs whose option -n names a namespace."""

_SHELL = ("|", ">", "<", ";", "&", "$(", "`", "#")


def typeable(command: str, lab: Lab, *, in_machine: bool) -> str:
    """Return a command for a namespace of a lab as it can be typed outside the machine.

    Commands of lvsctl itself, and all commands if the labs are on the host, stay as they are.
    ``A && B`` is two commands, ``A || { B && C; }`` is one; a comment at the end stays.
    """
    if not in_machine:
        return command
    if " || " in _unquoted(command):
        return _one(command, lab)
    return " && ".join(_one(part, lab) for part in command.split(" && "))


def _one(command: str, lab: Lab) -> str:
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    found = _namespace(words)
    if found is None:
        return command
    plain, _, comment = command.partition("  # ")
    after = f"  # {comment}" if comment else ""
    if any(sign in _unquoted(plain) for sign in _SHELL):
        return f"lvsctl machine run -- sh -c {shlex.quote(plain)}{after}"
    netns, _ = found
    node = _node(netns, lab)
    if not node:
        return f"lvsctl machine run -- {plain}{after}"
    _, rest = _namespace(shlex.split(plain)) or found
    return f"lvsctl exec {lab.name}/{node} -- {shlex.join(rest)}{after}"


def _unquoted(command: str) -> str:
    return re.sub(r"'[^']*'|\"[^\"]*\"", "''", command)


def _namespace(words: list[str]) -> tuple[str, list[str]] | None:
    """Return the namespace that a command names, and the command without it."""
    match words:
        case ["ip", "netns", "exec", netns, *rest] if rest:
            return netns, rest
        case [program, "-n" | "-netns", netns, *rest] if program in _WITH_OPTION and rest:
            return netns, [program, *rest]
    return None


def _node(netns: str, lab: Lab) -> str:
    return next((node.name for node in lab.nodes if lab.netns(node.name) == netns), "")
