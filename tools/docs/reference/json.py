"""The JSON interface, from the docstrings of the functions that write it."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from lvsctl.output import error_json, fault_json, jsonable, matrix_text, walk_json, watch_json
from tools.docs.reference.markdown import prose

TITLE = "# JSON"
SOURCE = "the docstrings in lvsctl/report of the functions that write it"

_HOW_TO_READ = """\
Read `{a, b: [c]}` as an object with a key `a` and a key `b`, which is a list of `c`.
[Reading JSON](../json.md) has real output."""

_WRITERS: tuple[tuple[str, Callable[..., object]], ...] = (
    ("lvsctl up TOPOLOGY --format json", jsonable.up),
    ("lvsctl ls --format json", jsonable.listing),
    ("lvsctl inspect LAB --format json", jsonable.inspection),
    ("lvsctl verify LAB --format json", jsonable.verification),
    ("lvsctl verify LAB --prove --format json", fault_json.proof),
    ("lvsctl diagnose LAB --format json", jsonable.diagnosis),
    ("lvsctl walk LAB --format json", walk_json.walk),
    ("lvsctl watch LAB --format json", watch_json.moment),
    ("lvsctl fault list --format json", fault_json.listing),
    ("lvsctl fault show FAULT --format json", fault_json.shown),
    ("lvsctl fault inject FAULT --format json", fault_json.shown),
    ("lvsctl fault restore --format json", fault_json.restored),
    ("lvsctl fault matrix --format json", matrix_text.json),
    ("lvsctl plan TOPOLOGY --format json", jsonable.plan),
    ("lvsctl topologies --format json", jsonable.topologies),
    ("lvsctl doctor --format json", jsonable.features),
    ("lvsctl machine status --format json", jsonable.machine),
    ("lvsctl machine list --format json", jsonable.machine_kinds),
)
"""A command and who writes its JSON. A test holds it against the command line."""


def text() -> str:
    """The rules, then each command's value."""
    rules = inspect.cleandoc(jsonable.__doc__ or "").split("\n\n")[1].rpartition("\ntests/")[0]
    parts = [
        "`--format json` is for programs, and a stable interface.",
        prose(rules),
        _HOW_TO_READ,
    ]
    for words, writer in _WRITERS:
        parts += [f"## {words.removesuffix(' --format json')}", _described(writer)]
    parts += ["## Errors", prose(inspect.cleandoc(error_json.__doc__ or ""))]
    return "\n\n".join(parts)


def commands() -> frozenset[str]:
    """The commands described here, without their arguments."""
    return frozenset(
        " ".join(word for word in words.split()[1:] if word.islower() and word.isalpha())
        .removesuffix("json")
        .strip()
        for words, _ in _WRITERS
    )


def _described(writer: Callable[..., object]) -> str:
    return prose(inspect.cleandoc(writer.__doc__ or ""))
