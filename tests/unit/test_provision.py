"""tools/provision, as far as it goes without root. `make test-provision` runs all of it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.witness import witness

SCRIPT = Path(__file__).parents[2] / "tools/provision"
NOBODY = 65534
USAGE, HOST_CANNOT = 2, 69


def provision(*options: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-s", "--", *options] if user else [SCRIPT, *options],
        input=SCRIPT.read_text() if user else None,
        cwd="/",
        user=user,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_says_each_option() -> None:
    done = provision("--help")
    assert done.returncode == 0
    options = re.findall(r"^ +(--\w+)\)", SCRIPT.read_text(), re.MULTILINE)
    assert len(options) == 4
    assert all(option in done.stdout for option in options if option != "--help")


def test_an_unknown_option_is_named() -> None:
    done = provision("--hots")
    assert done.returncode == USAGE
    assert "what is --hots?" in done.stderr


def test_without_root_it_says_what_to_type() -> None:
    done = provision("--host", user=NOBODY if os.geteuid() == 0 else None)
    assert done.returncode == HOST_CANNOT
    assert "it needs root. Type: sudo" in done.stderr
    assert "--host" in done.stderr


@pytest.mark.parametrize("script", ["ci-verify", "provision", "setup"])
def test_shellcheck_has_nothing_to_say(script: str) -> None:
    done = subprocess.run(
        [witness("shellcheck"), SCRIPT.with_name(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
