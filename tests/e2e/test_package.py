"""What is published: an sdist, the wheel built from it, and that in a clean environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lvsctl import __version__
from lvsctl.cli.failure import ExitStatus

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the unpacked sdist, as it is from PyPI where no wheel fits."""
    made = tmp_path_factory.mktemp("dist")
    built = _python(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", made)
    assert built.returncode == 0, built.stderr
    (archive,) = made.glob("*.tar.gz")
    subprocess.run(["tar", "-C", made, "-xf", archive], check=True)
    source = made / archive.name.removesuffix(".tar.gz")
    _python(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", made, cwd=source)
    (found,) = made.glob("*.whl")
    return found


def _python(*words: str | Path, cwd: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_sdist_has_all_that_the_wheel_and_the_tests_need(wheel: Path) -> None:
    source = wheel.parent / f"lvsctl-{__version__}"

    for part in ("tests/conftest.py", "tools/setup", "examples/shop/shop.yaml", "CHANGELOG.md"):
        assert (source / part).is_file()


def test_the_wheel_has_topologies_types_manual_pages_and_the_plugin(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        words = archive.read(entry_points).decode()

    shared = f"lvsctl-{__version__}.data/data/share/man/man1"
    assert {f"lvsctl/topologies/{path.name}" for path in CHECKOUT.glob("topologies/*")} <= names
    assert {f"{shared}/{path.name}" for path in CHECKOUT.glob("man/*")} <= names
    assert "lvsctl/py.typed" in names
    assert "lvsctl = lvsctl.__main__:main" in words
    assert "lvsctl = lvsctl.testing.plugin" in words
    assert not [name for name in names if name.startswith(("tests", "tools"))]


@dataclass(frozen=True)
class Installed:
    """A clean environment with nothing but lvsctl in it, and a home of its own."""

    environment: Path
    home: Path

    def types(self, *words: str) -> subprocess.CompletedProcess[str]:
        kept = ("PATH", "LANG", "XDG_CACHE_HOME", "HOME")
        given = {key: os.environ[key] for key in kept if key in os.environ}
        return subprocess.run(
            [self.environment / "bin/lvsctl", *words],
            cwd=self.home,
            env={**given, "XDG_RUNTIME_DIR": str(self.home), "LVSCTL_WHERE": "machine"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Iterator[Installed]:
    home = Path(tempfile.mkdtemp(prefix="lvw."))  # tmp_path is too long for a socket
    venv.create(home / "venv", symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "venv/bin/python")]
    done = _python(*pip, "install", "--quiet", "--disable-pip-version-check", str(wheel))
    assert done.returncode == 0, done.stderr
    checked = _python(*pip, "check")
    assert checked.returncode == 0, checked.stdout
    yield Installed(home / "venv", home)
    shutil.rmtree(home)


@pytest.mark.slow
def test_installed_it_plans_completes_and_has_its_pages(installed: Installed) -> None:
    assert installed.types("--version").stdout == f"lvsctl {__version__}\n"
    assert "plan of lab dr" in installed.types("plan", "dr").stdout
    # It shows what the shell needs from which it is typed, and looks for that among its parents.
    asked = f"{installed.environment}/bin/lvsctl --show-completion; true"
    shown = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert "complete -o default" in shown.stdout
    pages = installed.environment / "share/man/man1"
    assert {path.name for path in pages.iterdir()} == {p.name for p in CHECKOUT.glob("man/*")}


@pytest.mark.slow
@pytest.mark.machine
def test_installed_it_brings_a_lab_up_and_proves_it(installed: Installed) -> None:
    try:
        for words, said in (
            (("up", "dr"), "lab dr is up"),
            (("verify", "dr"), "dr: pass ("),
            (("down", "dr"), "lab dr is down"),
        ):
            done = installed.types(*words)
            assert done.returncode == ExitStatus.OK, done.stdout + done.stderr
            assert said in done.stdout
    finally:
        installed.types("machine", "stop")
