"""A small runner of composite actions: what GitHub's does with their shell steps.

Sources: GitHub's documentation of metadata syntax for actions (``runs.steps``), of workflow
commands (``::error``, GITHUB_ENV, GITHUB_PATH, GITHUB_OUTPUT) and of expressions. An action that a
step ``uses`` is recorded and not run: it is not here.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Execute = Callable[[str, Mapping[str, str]], "subprocess.CompletedProcess[str]"]
"""Runs a script of sh(1) where the job is, with an environment."""

SHELLS = {"sh": "sh -e", "bash": "bash --noprofile --norc -eo pipefail"}
FILES = "/tmp/lvsctl-runner"
COMMANDS = ("ENV", "PATH", "OUTPUT", "STEP_SUMMARY")

_COMMAND = re.compile(r"^::(error|warning|notice)(?: ([^:]*))?::(.*)$", re.MULTILINE)
_EXPRESSION = re.compile(r"\$\{\{ *(.*?) *\}\}")


@dataclass(frozen=True, slots=True)
class Annotation:
    """What the run's page and the change's page show."""

    level: str
    properties: dict[str, str]
    text: str


@dataclass(slots=True)
class Job:
    """What a run of an action leaves."""

    failed: bool = False
    status: int = 0
    log: str = ""
    summary: str = ""
    used: dict[str, dict[str, str]] = field(default_factory=dict)
    """The inputs of each action that a step used."""

    @property
    def annotations(self) -> list[Annotation]:
        """The workflow commands in the log, decoded."""
        return [
            Annotation(level, dict(_pairs(properties)), _decoded(text))
            for level, properties, text in _COMMAND.findall(self.log)
        ]


def run_action(
    action: Path, inputs: Mapping[str, str], github: Mapping[str, str], execute: Execute
) -> Job:
    """Run the steps of ``action`` as the step of a job that uses it with ``inputs``."""
    described = yaml.safe_load(action.read_text(encoding="utf-8"))
    defaults = {name: str(about.get("default", "")) for name, about in described["inputs"].items()}
    assert set(inputs) <= set(defaults), "GitHub warns of an input that the action does not have"
    values = {f"inputs.{name}": value for name, value in {**defaults, **inputs}.items()}
    values |= {f"github.{name}": value for name, value in github.items()}
    job = Job()
    execute(f"rm -rf {FILES} && mkdir -m 777 {FILES}", {})
    for step in described["runs"]["steps"]:
        if _holds(step.get("if", "success()"), values, failed=job.failed):
            _run_step(step, values, execute, job)
    job.summary = execute(f"cat {FILES}/STEP_SUMMARY", {}).stdout
    return job


def _run_step(
    step: Mapping[str, Any], values: Mapping[str, str], execute: Execute, job: Job
) -> None:
    if "uses" in step:
        given = {name: _filled(str(value), values) for name, value in step["with"].items()}
        job.used[step["uses"].partition("@")[0]] = given
        return
    environment = {f"GITHUB_{name}": f"{FILES}/{name}" for name in COMMANDS}
    environment |= {"CI": "true", "GITHUB_ACTIONS": "true"}
    environment |= {name: _filled(value, values) for name, value in step.get("env", {}).items()}
    script = _filled(step["run"], values)
    lines = [f"touch {' '.join(f'{FILES}/{name}' for name in COMMANDS)}"]
    lines += [f"cat >{FILES}/script <<'END OF STEP'", script, "END OF STEP"]
    lines += [f"exec {SHELLS[step['shell']]} {FILES}/script"]
    done = execute("\n".join(lines), environment)
    job.log += done.stdout + done.stderr
    job.status = job.status or done.returncode
    job.failed = job.failed or done.returncode != 0


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _EXPRESSION.sub(lambda found: values[found[1]], text)


def _holds(condition: str, values: Mapping[str, str], *, failed: bool) -> bool:
    """Evaluate the expressions that actions here use: terms joined by ``&&``."""
    if not any(f"{name}()" in condition for name in ("always", "failure", "success")):
        condition = f"success() && {condition}"
    functions = {"always()": True, "failure()": failed, "success()": not failed}
    return all(_term(term.strip(), values, functions) for term in condition.split("&&"))


def _term(term: str, values: Mapping[str, str], functions: Mapping[str, bool]) -> bool:
    if term in functions:
        return functions[term]
    name, operator, literal = term.split(" ", 2)
    equal = values[name] == literal.strip("'")
    return {"==": equal, "!=": not equal}[operator]


def _pairs(properties: str) -> list[tuple[str, str]]:
    pairs = (part.partition("=") for part in properties.split(",") if part)
    return [(name, _decoded(value)) for name, _, value in pairs]


def _decoded(text: str) -> str:
    for code, character in (("%0A", "\n"), ("%0D", "\r"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, character)
    return text
