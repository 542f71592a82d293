"""The CI workflow and the action: right by GitHub's schemas, safe by zizmor, and not stale."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
WORKFLOW = CHECKOUT / ".github/workflows/ci.yml"
WEEKLY = WORKFLOW.with_name("weekly.yml")
ACTION = CHECKOUT / "action.yml"


def judged(*command: str | Path) -> str:
    """What a linter, installed beside this Python, complains of; nothing where all is well."""
    program = Path(sys.executable).with_name(str(command[0]))
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize(
    ("schema", "file"), [("workflows", WORKFLOW), ("workflows", WEEKLY), ("actions", ACTION)]
)
def test_the_schema_holds(schema: str, file: Path, tmp_path: Path) -> None:
    check = ("check-jsonschema", "--builtin-schema", f"vendor.github-{schema}")
    assert not judged(*check, file)

    wrong = tmp_path / file.name
    wrong.write_text(re.sub(r"\b(runs-on|description):", r"\1ly:", file.read_text()))
    assert judged(*check, wrong)


def test_zizmor_finds_nothing(tmp_path: Path) -> None:
    assert not judged("zizmor", "--offline", "--no-progress", WORKFLOW, WEEKLY, ACTION)

    unsafe = tmp_path / "action.yml"
    unsafe.write_text(ACTION.read_text().replace("$TOPOLOGY'", "${{ inputs.topology }}'"))
    assert "template-injection" in judged("zizmor", "--offline", "--no-progress", unsafe)


def test_what_the_workflow_runs_exists() -> None:
    text = WORKFLOW.read_text() + WEEKLY.read_text() + ACTION.read_text()
    makefile = (CHECKOUT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z-]+)", text))
    assert {"lint", "test", "test-unit", "test-host", "test-provision"} <= targets
    assert not [target for target in targets if f"\n{target}:" not in makefile]
    scripts = set(re.findall(r"\btools/[a-z-]+", text))
    assert scripts
    assert not [script for script in scripts if not (CHECKOUT / script).is_file()]


def test_what_takes_too_long_for_every_change_runs_each_week() -> None:
    """What stands in a job, and not the times at which GitHub starts it."""
    weekly = yaml.safe_load(WEEKLY.read_text())
    (when,) = weekly[True]["schedule"]  # YAML 1.1 takes `on` for a boolean
    assert re.fullmatch(r"\d+ \d+ \* \* \d", when["cron"])
    steps = [step.get("run", "") for job in weekly["jobs"].values() for step in job["steps"]]
    assert set(re.findall(r"\bmake ([a-z-]+)", "\n".join(steps))) == {"test-all", "fuzz", "soak"}
    assert all(int(job["timeout-minutes"]) < 360 for job in weekly["jobs"].values())


def test_every_supported_python_is_tried() -> None:
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    for job in ("unit", "machine"):
        tried = jobs[job]["strategy"]["matrix"]["python"]
        assert tried == ["3.11", "3.12", "3.13", "3.14"]
