"""What a command may import: what it does not import costs nothing at each call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAVY = {"pyroute2", "yaml", "rich", "asyncio", "pydantic", "multiprocessing", "jsonschema"}

DUMP = """
import sys
from lvsctl.cli.main import main
status = main(sys.argv[2:])
modules = sorted(sys.modules)
import json
json.dump([status, modules], open(sys.argv[1], "w"))
"""

COMPLETION = {"_LVSCTL_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
FISH = {"_LVSCTL_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
ENGINE = {"lvsctl.app", "lvsctl.kernel", "lvsctl.machine"}
BUDGET: dict[str, tuple[list[str], dict[str, str], set[str]]] = {
    "help": (["--help"], {}, HEAVY | ENGINE),
    "help of a command": (["up", "--help"], {}, HEAVY | ENGINE),
    "version": (["--version"], {}, HEAVY | ENGINE),
    "topologies": (["topologies"], {}, HEAVY | {"lvsctl.app", "lvsctl.machine"}),
    "ls": (["ls"], {}, HEAVY | {"lvsctl.machine"}),
    "plan": (["plan", "dr"], {}, (HEAVY - {"yaml"}) | {"lvsctl.machine"}),
    "complete a topology": (
        [],
        {**COMPLETION, "COMP_WORDS": "lvsctl up "},
        HEAVY | {"lvsctl.app", "lvsctl.machine"},
    ),
    "complete a lab": (
        [],
        {**COMPLETION, "COMP_WORDS": "lvsctl down "},
        HEAVY | {"lvsctl.app", "lvsctl.machine"},
    ),
    "complete a command, with help": (
        [],
        {**FISH, "_TYPER_COMPLETE_ARGS": "lvsctl "},
        HEAVY | ENGINE,
    ),
}
"""A command line, its environment, and the modules that must stay out."""


def modules_of(words: list[str], env: dict[str, str], report: Path) -> set[str]:
    """The modules that a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", DUMP, str(report), *words],
        cwd=ROOT,
        env={**os.environ, "LVSCTL_WHERE": "host", "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=True,
    )
    status, modules = json.loads(report.read_text())
    assert status == 0, done.stderr
    return set(modules)


@pytest.mark.parametrize("case", BUDGET)
def test_what_stays_out(case: str, tmp_path: Path) -> None:
    words, env, banned = BUDGET[case]

    assert banned.isdisjoint(modules_of(words, env, tmp_path / "modules"))
