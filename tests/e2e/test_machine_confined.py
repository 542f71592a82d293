"""Root in the machine, who wants to write on the host what nobody named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lvsctl.machine import writable

pytestmark = [pytest.mark.machine, pytest.mark.slow]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """A shell's words, run in a machine of these tests' own."""
    environment = {**os.environ, "LVSCTL_MACHINE": f"confined-{os.getpid()}"}
    machine = [sys.executable, "-m", "lvsctl", "machine"]

    def typed(words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*machine, "run", "--", "sh", "-c", words],
            env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip

    yield typed
    subprocess.run([*machine, "stop"], env=environment, check=False, capture_output=True)


MARK = f"lvsctl-was-here-{os.getpid()}"
# mount(8) 2.39 and newer takes the place on the host for a parameter's name, if not by mount(2).
MOUNT = "LIBMOUNT_FORCE_MOUNT2=always mount"
REMOUNT = f"{MOUNT} -o remount,rw / && "
ANEW = f"mkdir -p /tmp/all && {MOUNT} -t hostfs -o / none /tmp/all && "


@pytest.mark.parametrize("place", ["/etc", "/usr", "/usr/bin", "/boot", "/var/spool", "/"])
@pytest.mark.parametrize("way", ["", REMOUNT, ANEW], ids=["plainly", "remounted", "mounted-anew"])
def test_of_the_hosts_system_nothing_is_written(run: Run, place: str, way: str) -> None:
    root = "/tmp/all" if way == ANEW else ""
    done = run(f"{way}echo mount-worked; echo x > {root}{place}/{MARK}")
    assert done.returncode != 0
    assert "mount-worked" in done.stdout, done.stderr
    assert not (Path(place) / MARK).exists()


def test_nor_are_its_processes(run: Run) -> None:
    """A file of /proc that changes the process whose file it is: who is killed first, here."""
    file = Path("/proc/self/oom_score_adj")
    before = file.read_text()
    other = int(before) + 1
    place = f"/tmp/all/proc/{os.getpid()}/oom_score_adj"
    done = run(f"{ANEW} cat {place} && echo mount-worked; echo {other} > {place}")
    assert "mount-worked" in done.stdout, done.stderr
    assert file.read_text() == before
    file.write_text(before)  # which can be written, but not from in there


def test_directories_that_nobody_named_are_read_only(run: Run, tmp_path: Path) -> None:
    mine, beside = tmp_path / "mine", tmp_path / "beside"
    mine.mkdir()
    beside.mkdir()
    done = run(f"echo x > here; mkdir -p {beside}; echo x > {beside}/there", cwd=mine)
    assert done.returncode in {0, 1, 2}
    assert (mine / "here").read_text() == "x\n"
    assert list(beside.iterdir()) == []


def test_every_directory_that_may_be_named_can_be_written(tmp_path: Path) -> None:
    """What the guest may be asked to write lies below what its process may write."""
    for place in (tmp_path, Path("/usr/local/mine"), Path.home() / "x", Path("/srv/x")):
        named = writable.refusal(str(place)) is None
        covered = any(place.is_relative_to(tree) for tree in writable.trees())
        assert covered or not named, place
