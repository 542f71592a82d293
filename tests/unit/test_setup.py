"""Fresh checkouts: what tools/setup refuses, and what the package ships."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
HOST_CANNOT = 69


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A checkout in which nothing is set up."""
    (tmp_path / "tools").mkdir()
    shutil.copy(CHECKOUT / "tools/setup", tmp_path / "tools")
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    return tmp_path


def set_up(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "tools/setup", "lvsctl"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_python_that_is_too_old_is_named(fresh: Path) -> None:
    done = set_up(fresh, PYTHON="/bin/false")

    assert done.returncode == HOST_CANNOT
    assert "Python 3.11 or newer, and /bin/false is not" in done.stderr


def test_a_venv_that_setup_did_not_make_is_left_alone(fresh: Path) -> None:
    mine = fresh / ".venv/mine"
    mine.parent.mkdir()
    mine.touch()

    done = set_up(fresh)

    assert done.returncode == HOST_CANNOT
    assert "was made by something else" in done.stderr
    assert mine.exists()


def test_make_alone_lists_what_can_be_made() -> None:
    listed = subprocess.run(["make", "-C", CHECKOUT], capture_output=True, text=True, check=True)

    assert "make demo" in listed.stdout
    assert "make test" in listed.stdout


def test_the_demo_ends_with_commands_for_the_users_own_path() -> None:
    """With make's PATH, it would not say how `lvsctl` becomes a command of the shell."""
    would_run = subprocess.run(
        ["make", "-n", "-C", CHECKOUT, "demo"],
        env=os.environ | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "PATH='/usr/bin:/bin' " in would_run.stdout
