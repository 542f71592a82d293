"""Libraries that are slow to import are loaded only by the commands that need them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAVY = {"asyncio", "cattrs", "jsonschema", "rich", "scapy"}
"""Half of what the quick commands take would be spent on importing any of these."""

COMMANDS: dict[str, tuple[list[str], dict[str, str]]] = {
    "help": (["--help"], {}),
    "help of a command": (["up", "--help"], {}),
    "version": (["--version"], {}),
    "topologies": (["topologies"], {}),
    "ls": (["ls"], {}),
    "down": (["down", "no-such-lab"], {}),
    "plan": (["plan", "dr"], {}),
    "completion": ([], {"_LVSCTL_COMPLETE": "complete_bash", "COMP_CWORD": "2",
                        "COMP_WORDS": "lvsctl up "}),
}  # fmt: skip
"""Command lines and what is added to their environment."""

DUMP = """
import json, sys
from lvsctl.cli.main import main
main(sys.argv[2:])
json.dump(sorted({name.partition(".")[0] for name in sys.modules}), open(sys.argv[1], "w"))
"""


@pytest.mark.parametrize("case", COMMANDS)
def test_command_imports_no_heavy_library(case: str, tmp_path: Path) -> None:
    words, env = COMMANDS[case]
    report = tmp_path / "modules"
    subprocess.run(
        [sys.executable, "-c", DUMP, str(report), *words],
        cwd=ROOT,
        env={**os.environ, "LVSCTL_WHERE": "host", "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        check=True,
    )
    assert HEAVY & set(json.loads(report.read_text())) == set()


@pytest.mark.parametrize(
    "module", ["capture", "failover", "fault", "inspect", "matrix", "verify", "watch"]
)
def test_a_command_that_is_only_forwarded_does_not_import_the_engine(module: str) -> None:
    """It is forwarded to the throwaway kernel, which has imported the engine already."""
    found = subprocess.run(
        [sys.executable, "-c", f"import sys, lvsctl.cli.{module}; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"lvsctl.diagnosis", "lvsctl.engine.collect"}.isdisjoint(found.stdout.split())
