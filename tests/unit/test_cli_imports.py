"""What a command may import: what it does not import costs nothing at each call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lvsctl.cli.exit_status import ExitStatus
from lvsctl.kernel.probe import has_root

ROOT = Path(__file__).parents[2]

ENGINE = {"app", "modes", "ops", "planner", "removing", "results", "routing", "spec"}
"""The rooms that turn a topology into a plan."""

DUMP = """
import sys
from lvsctl.cli.main import main
status = main(sys.argv[2:])
modules = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
import json
json.dump([status, modules], open(sys.argv[1], "w"))
"""

BASH = {"_LVSCTL_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
FISH = {"_LVSCTL_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}

MAY_IMPORT: dict[str, tuple[list[str], dict[str, str], set[str], set[str]]] = {
    "help": (["--help"], {}, set(), set()),
    "help of a command": (["up", "--help"], {}, set(), set()),
    "version": (["--version"], {}, set(), set()),
    "topologies": (["topologies"], {}, ENGINE - {"app"} | {"converge", "report"}, set()),
    "ls": (["ls"], {}, ENGINE | {"kernel", "report"}, set()),
    "down": (["down", "no-such-lab"], {}, {"kernel", "removing"}, set()),
    "plan": (["plan", "dr"], {}, ENGINE | {"converge", "kernel", "report"}, set()),
    "plan of a file in JSON": (
        ["plan", "tests/unit/spec/small.json"],
        {},
        ENGINE | {"converge", "kernel", "report"},
        set(),
    ),
    "complete a topology": ([], {**BASH, "COMP_WORDS": "lvsctl up "}, {"spec"}, set()),
    "complete a lab": ([], {**BASH, "COMP_WORDS": "lvsctl down "}, {"kernel"}, set()),
    "complete a command": ([], {**FISH, "_TYPER_COMPLETE_ARGS": "lvsctl "}, set(), set()),
}
"""A command line and its environment; the rooms and the packages that it may import besides
those that every command does."""

ALWAYS = {"annotations", "cli", "errors", "model", "values"}
ALWAYS_PACKAGES = {"annotated_doc", "shellingham", "typer", "typing_extensions"}
"""Typer, and what it imports."""
OF_PYTHON = {"_distutils_hack", "__editable___lvsctl_finder"}
"""What .pth files of the environment import at every start."""

NEVER_MODULES = {
    "asyncio", "hashlib", "multiprocessing", "pickle", "tempfile",
    "lvsctl.model.finding", "lvsctl.model.frame", "lvsctl.model.packet",
}  # fmt: skip
"""Heavy ones that none of these needs."""

PLAIN = {"ls", "down"}
"""Cases whose command line is read without Typer."""
NEVER_WHERE_PLAIN = {
    "typer", "dataclasses", "inspect", "ast", "shutil", "subprocess", "traceback", "tokenize",
    "datetime", "textwrap", "typing", "unicodedata", "yaml", "socket",
}  # fmt: skip
"""What those do without, from Python's own library too."""

KERNEL_IS_LIGHT = {"lvsctl.kernel.execute", "lvsctl.kernel.perform", "lvsctl.kernel.wire"}
"""What makes labs: looking at what is registered needs none of it."""


def modules_of(words: list[str], env: dict[str, str], report: Path) -> dict[str, str]:
    """The modules that a command has imported when it ends, and their files."""
    done = subprocess.run(
        [sys.executable, "-c", DUMP, str(report), *words],
        cwd=ROOT,
        env={**os.environ, "LVSCTL_WHERE": "host", "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=True,
    )
    status, modules = json.loads(report.read_text())
    absent = ExitStatus.USAGE if has_root() else ExitStatus.HOST_CANNOT
    assert status == (absent if "no-such-lab" in words else ExitStatus.OK), done.stderr
    return dict(modules)


def packages_in(modules: dict[str, str]) -> set[str]:
    """Those that pip installed, lvsctl aside."""
    installed = {name for name, file in modules.items() if "site-packages" in file}
    return {name.partition(".")[0] for name in installed} - OF_PYTHON - {"lvsctl"}


@pytest.mark.parametrize("case", MAY_IMPORT)
def test_what_a_command_imports(case: str, tmp_path: Path) -> None:
    words, env, rooms, packages = MAY_IMPORT[case]
    modules = modules_of(words, env, tmp_path / "modules")

    imported = {name.split(".")[1] for name in modules if name.startswith("lvsctl.")}
    assert imported - ALWAYS <= rooms
    if case in PLAIN:
        assert not packages_in(modules)
        assert not NEVER_WHERE_PLAIN & modules.keys()
    assert packages_in(modules) - ALWAYS_PACKAGES <= packages
    assert not NEVER_MODULES & modules.keys()
    assert not KERNEL_IS_LIGHT & modules.keys()
