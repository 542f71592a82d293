"""What lvsctl does, command by command: the only place where the rooms are put together.

Runs where the labs are: on the host's kernel, or inside the machine. Which of the two,
and everything about terminals, is the business of ``cli``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Each part is imported when something of it is first asked for: `ls` needs no planner.
if TYPE_CHECKING:
    from lvsctl.app.breaking import (
        applying,
        fault_names,
        fault_shown,
        faults,
        inject,
        matrix_column,
        matrix_topologies,
        prove,
        restore,
    )
    from lvsctl.app.bringing_up import up
    from lvsctl.app.looking import (
        ask,
        diagnose,
        inspect,
        listening,
        recomputed,
        service_of,
        verify,
        walk,
        watching,
    )
    from lvsctl.app.plans import lab_of, plan_of
    from lvsctl.app.registered import addressed, down, labs, node_of, running

__all__ = [
    "addressed",
    "applying",
    "ask",
    "diagnose",
    "down",
    "fault_names",
    "fault_shown",
    "faults",
    "inject",
    "inspect",
    "lab_of",
    "labs",
    "listening",
    "matrix_column",
    "matrix_topologies",
    "node_of",
    "plan_of",
    "prove",
    "recomputed",
    "restore",
    "running",
    "service_of",
    "up",
    "verify",
    "walk",
    "watching",
]

_PARTS = {
    "breaking": (
        "applying",
        "fault_names",
        "fault_shown",
        "faults",
        "inject",
        "matrix_column",
        "matrix_topologies",
        "prove",
        "restore",
    ),
    "bringing_up": ("up",),
    "registered": ("addressed", "down", "labs", "node_of", "running"),
    "looking": (
        "ask",
        "diagnose",
        "inspect",
        "listening",
        "recomputed",
        "service_of",
        "verify",
        "walk",
        "watching",
    ),
    "plans": ("lab_of", "plan_of"),
}


if not TYPE_CHECKING:  # who checks types knows the names, and which there are not

    def __getattr__(name: str) -> Any:
        for part, names in _PARTS.items():
            if name in names:
                found = getattr(import_module(f"{__name__}.{part}"), name)
                globals()[name] = found
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
