"""Fresh checkouts: what tools/setup refuses, and what the package ships."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel

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


def test_the_wheel_ships_topologies_types_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CHECKOUT)

    with zipfile.ZipFile(tmp_path / build_wheel(str(tmp_path))) as wheel:
        names = set(wheel.namelist())
        commands = next(name for name in names if name.endswith("entry_points.txt"))
        entry_points = wheel.read(commands).decode()

    shipped = {path.name for path in CHECKOUT.glob("topologies/*.yaml")}
    assert shipped
    assert {f"lvsctl/topologies/{name}" for name in shipped} <= names
    assert "lvsctl/py.typed" in names
    assert "lvsctl = lvsctl.cli.main:entry" in entry_points
