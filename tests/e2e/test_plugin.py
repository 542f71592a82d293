"""The pytest plugin and the Python interface, as their users meet them: pytest on test files.

   client            director             rs1         rs2
 10.10.0.10         10.10.0.2          10.10.0.11  10.10.0.12
     |          VIP 10.10.0.100          (VIP)       (VIP)
=====+==================+==================+===========+=====  lan
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsctl import Lab
from lvsctl.api.command import Command
from lvsctl.errors import LabError, TopologyError, UsageError
from lvsctl.output.saved_report import NAMES

pytestmark = [pytest.mark.machine, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/shop"
PATIENCE = 300.0
FAILED, INTERRUPTED = 1, 2
"""pytest's exit statuses."""


class Somebody:
    """Who runs pytest in a directory of theirs, with machines of their own."""

    def __init__(self, home: Path, machine: str = "") -> None:
        self.work = home / "work"
        self.work.mkdir()
        self.runtime = home / "lvsctl"
        given = {"XDG_RUNTIME_DIR": str(home), "LVSCTL_WHERE": "machine", "LVSCTL_MACHINE": machine}
        self.env = {**os.environ, **given}
        self.command = Command(environment=given)

    def starts(self, *options: str) -> subprocess.Popen[str]:
        words = ["-m", "pytest", "--rootdir", ".", "-p", "no:cacheprovider", *options]
        return subprocess.Popen(
            [sys.executable, *words, "-c", os.devnull, "--basetemp", "tmp"],
            cwd=self.work,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def runs(self, *options: str) -> tuple[int, str]:
        process = self.starts(*options)
        out, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, out

    def writes(self, name: str, text: str) -> None:
        (self.work / name).write_text(textwrap.dedent(text))

    def labs(self) -> list[str]:
        return [lab["name"] for lab in self.command.json("ls")["labs"]]

    def waits_until_no_lab_is_left(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.labs():
            assert time.monotonic() < deadline
            select.select([], [], [], 0.1)


@pytest.fixture
def home() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="lvp."))  # tmp_path is too long for a socket
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def user() -> Iterator[Somebody]:
    """With a machine that runs before and after each pytest."""
    directory = Path(tempfile.mkdtemp(prefix="lvp."))
    somebody = Somebody(directory, "shared")
    somebody.command.run("machine", "start")
    yield somebody
    somebody.command.run("machine", "stop")
    shutil.rmtree(directory)


@pytest.mark.parametrize("how", ["alone", pytest.param("xdist", marks=pytest.mark.exhaustive)])
def test_the_example_runs_as_a_user_runs_it_and_leaves_nothing(home: Path, how: str) -> None:
    somebody = Somebody(home)
    shutil.copytree(EXAMPLE, somebody.work, dirs_exist_ok=True)
    # With xdist each worker has a machine and a lab of its own.
    options = ["-n2", "-k", "customers"] if how == "xdist" else []

    status, out = somebody.runs(*options, "-W", "error")

    assert status == 0, out
    assert "throwaway kernel" in out
    assert list(somebody.runtime.iterdir()) == []


def test_a_failure_shows_the_findings_and_the_cause_and_leaves_the_capture(user: Somebody) -> None:
    user.writes(
        "test_broken.py",
        """
        def test_broken(lvs):
            lab = lvs.up("dr")
            lab.node("rs1").run(["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0"], check=True)
            assert lab.verify()
        """,
    )

    status, out = user.runs("test_broken.py", "--lvs-report-dir", "reports", "--junitxml", "j.xml")

    assert status == FAILED, out
    assert "assert <dr-" in out  # the claims that fail, in the assertion's own line
    assert "FAIL dr.only-director-answers-arp (web)" in out
    assert "observed  answered by director, rs1" in out
    assert "rs1: arp_ignore is not set on a real server" in out
    directory = user.work / "reports/test_broken.py-test_broken"
    assert {path.name for path in (directory / "dr").iterdir()} == set(NAMES)
    assert str(directory / "dr/capture.pcapng") in out
    assert str(directory) in (user.work / "j.xml").read_text()
    assert user.labs() == []


def test_ctrl_c_in_a_test_takes_its_lab_down(user: Somebody) -> None:
    user.writes(
        "test_long.py",
        """
        from pathlib import Path

        def test_long(lvs):
            lab = lvs.up("dr")
            Path("is-up").write_text(lab.name)
            lab.node("client").run(["sleep", "600"])
        """,
    )

    process = user.starts("test_long.py")
    try:
        _wait_for(user.work / "is-up", process)
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()

    assert process.returncode == INTERRUPTED, out
    assert user.labs() == []


def test_a_worker_that_is_killed_leaves_no_lab(user: Somebody) -> None:
    user.writes(
        "test_killed.py",
        """
        import os, signal

        def test_killed(lvs):
            lvs.up("dr")
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )

    status, out = user.runs("test_killed.py", "-n1", "--max-worker-restart=0")

    assert status == FAILED, out
    assert "crashed" in out
    user.waits_until_no_lab_is_left()


def test_labs_from_python(user: Somebody) -> None:
    with Lab.up("dr", name="py", servers=3, command=user.command) as lab:
        with pytest.raises(LabError, match="lab py is running already"):
            Lab.up("dr", name="py", command=user.command)
        assert lab.node("client").run("echo a; hostname").stdout == "a\nclient\n"
        assert list(lab.nodes) == ["client", "director", "rs1", "rs2", "rs3"]
        assert str(lab.services["web"].endpoint.vip) == "10.10.0.100"
        verification = lab.verify()
        assert verification
        assert verification.finding("dr.reply-direct").verdict == "pass"
        assert {str(frame.tap) for frame in verification.frames} >= {"client:lan", "rs3:lan"}
        ran = lab.node("client").run(["sh", "-c", "cat; echo ä >&2; exit 69"], stdin="ö")
        assert (ran.returncode, ran.stdout, ran.stderr) == (69, "ö", "ä\n")
        with pytest.raises(UsageError, match="command not found"):
            lab.node("client").run(["no-such-command"])
        with pytest.raises(subprocess.TimeoutExpired):
            lab.node("client").run(["sleep", "600"], timeout=1)
        with lab.broken("vip-missing", "rs2") as fault:
            assert lab.diagnose().causes[0].node == fault.node == "rs2"
            assert not lab.inspect("rs2")
        assert lab.inspect("rs2")
        assert Lab.running("py", command=user.command).walk().server in lab.nodes
    with pytest.raises(LabError, match="lab py is not running"):
        lab.verify()


def test_mistakes_of_a_topology_come_back_as_they_were_found(user: Somebody) -> None:
    with pytest.raises(TopologyError) as caught:
        Lab.up("version: 1\nname: x\n", command=user.command)
    assert [problem.line for problem in caught.value.problems] == [1, 1, 1]
    assert str(caught.value).startswith("the topology:1:1: the key 'networks' is missing")
    with pytest.raises(TopologyError, match=r"^the topology: the key 'networks' is missing"):
        Lab.up({"version": 1, "name": "x"}, command=user.command)


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        select.select([], [], [], 0.05)
