"""The misconfigurations that lvsctl injects."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

from lvsctl.engine.faults import show_fault
from lvsctl.faults import FAULTS
from lvsctl.faults.base import Fault
from tools.docs.reference.markdown import block, claim_link, code, prose, table

TITLE = "# Faults"
SOURCE = "lvsctl/faults"

_INTRODUCTION = """\
A fault is a common misconfiguration. `lvsctl fault inject NAME` injects it into a running lab, and
`lvsctl fault restore` removes it. [Faults and diagnosis](../faults.md) is a tutorial.

*Breaks* lists the claims that must fail; no others may fail, except those under *may break*, which
depend on the order of events. The commands are for the named shipped topology."""


def text() -> str:
    """Return all faults in a table, then each in full."""
    rows = [
        (f"[{fault.id}](#{fault.id})", ", ".join(fault.modes), fault.text)
        for fault in FAULTS.values()
    ]
    return "\n\n".join(
        [
            _INTRODUCTION,
            table(("fault", "modes", "what it is"), rows),
            *map(_section, FAULTS.values()),
        ]
    )


def _section(fault: Fault) -> str:
    shown = show_fault(None, fault.id)
    rows = [
        ("modes", ", ".join(fault.modes)),
        ("injected at", " or ".join(f"a {role}" for role in fault.at)),
        ("on the wire", fault.symptom),
        ("breaks", _claims(shown.predicted)),
    ]
    if fault.may_break:
        rows.append(("may break", _claims(fault.may_break)))
    return "\n\n".join(
        [
            f"## {fault.id}",
            f"**{fault.text[0].upper()}{fault.text[1:]}.**",
            prose(_about(fault.changes)),
            table(("", ""), rows),
            f"Injected at {code(shown.node)} of lab {code(shown.lab)} by",
            block("\n".join(shown.commands), "sh"),
            "and restored by",
            block("\n".join(shown.remedy), "sh"),
        ]
    )


def _claims(names: tuple[str, ...]) -> str:
    return ", ".join(map(claim_link, names)) or "none"


def _about(changes: Callable[..., object]) -> str:
    """The docstring of the fault's file."""
    return inspect.cleandoc(sys.modules[changes.__module__].__doc__ or "")
