"""The plan of every shipped topology, as people and as shells read it, against golden files.

``UPDATE_GOLDEN=1 pytest tests/plan`` writes them anew; read the difference as someone who
knows LVS before it is committed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pytest

from lvsctl import modes
from lvsctl.model.lab import Lab
from lvsctl.output.shell_script import script
from lvsctl.output.text.plan import format_plan
from lvsctl.output.text.style import Style
from lvsctl.plan import commanded, planner
from lvsctl.resources.keepalived import Keepalived
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.topology import shipped
from lvsctl.topology.loading import parse_topology
from tests.witness import witness

GOLDEN = Path(__file__).parent / "golden"


def lab_of(name: str) -> Lab:
    found = shipped.find(name, BytesIO())
    return parse_topology(found.text, found.source, rules=modes.violations)


def as_text(lab: Lab) -> str:
    return format_plan(planner.plan_for(lab), style=Style(color=False, width=100))


def as_script(lab: Lab) -> str:
    return script(lab, planner.plan_for(lab))


SHELLS = [shell for shell in ("sh", "dash", "bash", "busybox sh") if shutil.which(shell.split()[0])]
"""Those that are here; sh is everywhere."""

FORMS = {"txt": as_text, "sh": as_script}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", shipped.names())
def test_the_plan_is_the_golden_one(name: str, form: str) -> None:
    said = FORMS[form](lab_of(name))
    file = GOLDEN / f"{name}.{form}"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(said, encoding="utf-8")
    assert said == file.read_text(encoding="utf-8"), "read it, then UPDATE_GOLDEN=1"


def test_no_golden_file_is_left_over() -> None:
    wanted = {f"{name}.{form}" for name in shipped.names() for form in FORMS}
    assert {file.name for file in GOLDEN.iterdir()} == wanted


@pytest.mark.parametrize("name", shipped.names())
@pytest.mark.parametrize("shell", SHELLS)
def test_shells_can_parse_the_script(name: str, shell: str) -> None:
    words = shell.split()
    done = subprocess.run(
        [*words, "-n"], input=as_script(lab_of(name)), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", shipped.names())
def test_shellcheck_has_nothing_to_say(name: str) -> None:
    done = subprocess.run(
        [witness("shellcheck"), "-s", "sh", "-"],
        input=as_script(lab_of(name)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""


@pytest.mark.parametrize("name", shipped.names())
def test_every_command_of_the_plan_is_in_the_script(name: str) -> None:
    lab = lab_of(name)
    plan = planner.plan_for(lab)
    words = as_script(lab).replace("\\\n", " ").split()
    joined = " ".join(words)
    for op in (one for stage in commanded.without_owned(plan.stages) for one in stage.resources):
        if isinstance(op, Keepalived):  # its files are in the script's own directory
            assert f"run {op.netns} /bin/sh -c" in joined
            continue
        if isinstance(op, OffloadsOff):  # a function of the script, for hosts without ethtool
            assert re.search(rf"offloads_off {op.netns}( \S+)* {op.device}\b", joined)
            continue
        for command in op.describe():
            wanted = command.split()[-1] if "sysctl" in command else " ".join(command.split())
            assert wanted in joined


@pytest.mark.parametrize("name", shipped.names())
def test_every_operation_says_why(name: str) -> None:

    assert [op for op in planner.plan_for(lab_of(name)).resources if not op.why] == []
