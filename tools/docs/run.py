"""Run a page's commands as its reader would: in a shell, in order, in a fresh machine."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tools.docs import ROOT
from tools.docs.alike import essence
from tools.docs.page import Command, Console, File, Page, Piece, has_commands

TIMEOUT = 120.0
"""Seconds that one command may take."""

WIDTH = 80


class RunError(Exception):
    """A command ended with another status than the page says; the message has its output."""


@contextmanager
def fresh_machine(name: str) -> Iterator[dict[str, str]]:
    """Start an empty throwaway kernel, and yield the environment that selects it."""
    programs = [ROOT / ".venv/bin", ROOT / ".tools/bin", Path(sys.executable).parent]
    environment = {
        **os.environ,
        "PATH": ":".join([*map(str, programs), os.environ["PATH"], "/usr/sbin", "/sbin"]),
        "LVSCTL_MACHINE": name,
        "LVSCTL_WHERE": "machine",
        "COLUMNS": str(WIDTH),
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
    }
    lvsctl = [sys.executable, "-m", "lvsctl", "machine"]
    quiet = {"env": environment, "cwd": ROOT, "capture_output": True, "text": True}
    try:
        started = subprocess.run([*lvsctl, "start"], check=False, **quiet)  # type: ignore[call-overload]
        if started.returncode != 0:
            raise RunError(f"the machine does not start:\n{started.stdout}{started.stderr}")
        yield environment
    finally:
        subprocess.run([*lvsctl, "stop"], check=False, **quiet)  # type: ignore[call-overload]


def output_of(command: Command, cwd: Path, environment: dict[str, str]) -> tuple[str, ...]:
    """Return what a command prints on both streams. Raises RunError for another exit status."""
    done = subprocess.run(
        ["/bin/sh", "-c", command.words],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode != command.status:
        raise RunError(
            f"$ {command.words}\nended with status {done.returncode}, "
            f"and the page says {command.status}. It printed:\n{done.stdout}"
        )
    # Spaces at the end of a line, as ipvsadm prints them, do not survive editors.
    return tuple(line.rstrip() for line in done.stdout.rstrip().splitlines())


def rerun(page: Page) -> Page:
    """Return the page with the output of its commands now; equivalent output stays as it was."""
    name = f"docs-{page.path.stem}-{os.getpid()}"
    with fresh_machine(name) as environment, tempfile.TemporaryDirectory() as directory:
        cwd = Path(directory)

        def again(piece: Piece) -> Piece:
            if isinstance(piece, File):
                (cwd / piece.name).write_text("\n".join(piece.lines) + "\n", encoding="utf-8")
            if not isinstance(piece, Console):
                return piece
            return Console(tuple(_again(page, one, cwd, environment) for one in piece.commands))

        return replace(page, pieces=tuple(again(piece) for piece in page.pieces))


def _again(page: Page, command: Command, cwd: Path, environment: dict[str, str]) -> Command:
    try:
        output = output_of(command, cwd, environment)
    except (RunError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{page.path}:{command.line}: {error}") from None
    if essence(output) == essence(command.output):
        return command
    return replace(command, output=output)


def differences(before: Page, after: Page) -> str:
    """Return what a rerun would change, as a unified diff of the page; empty: nothing."""
    name = str(before.path)
    return "\n".join(
        difflib.unified_diff(
            before.text().splitlines(), after.text().splitlines(), name, f"{name}, run now", "", ""
        )
    )


def pages(docs: Path) -> list[Path]:
    """Return every page that has a command to run, sorted by name."""
    return [path for path in sorted(docs.rglob("*.md")) if has_commands(path)]
