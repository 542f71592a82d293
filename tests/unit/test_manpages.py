"""The manual pages: as the commands' help is now, and as man(1) can show them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lvsctl.cli import commands
from tests.witness import witness
from tools import manpages

PAGES = sorted((manpages.ROOT / "man").glob("*.1"))


def test_they_are_as_fresh_as_the_help() -> None:
    kept = {path.name: path.read_text() for path in PAGES}

    assert kept == manpages.pages(), "write them anew: make man"


def test_every_command_has_one_and_every_option_is_in_it() -> None:
    for name, command in commands.command().commands.items():
        if command.hidden:
            continue
        text = (manpages.ROOT / f"man/lvsctl-{name}.1").read_text().replace("\\-", "-")
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or option in text, (name, option)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_mandoc_has_nothing_to_say_against_it(path: Path) -> None:
    said = subprocess.run(
        [witness("mandoc"), "-T", "lint", "-W", "warning", path],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (said.stdout, said.stderr) == ("", "")


def test_what_roff_would_take_for_its_own_is_escaped() -> None:
    shown = subprocess.run(
        [witness("mandoc"), "-T", "utf8"],
        input=f".TH X 1 2026-01-01\n.SH NAME\nx \\- y\n.PP\n{manpages._text(ODD)}\n",
        capture_output=True,
        text=True,
        check=True,
    )

    assert ODD in shown.stdout.replace("\x08", "")


ODD = ".B it's a --flag \\fB ~ ^ ` → ä"
