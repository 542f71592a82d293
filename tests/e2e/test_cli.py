"""lvsctl as a user types it, in a throwaway kernel of the test's own.

   client            director             rs1         rs2
 10.10.0.10         10.10.0.2          10.10.0.11  10.10.0.12
     |          VIP 10.10.0.100          (VIP)       (VIP)
=====+==================+==================+===========+=====  lan
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsctl.cli.failure import ExitStatus
from lvsctl.topology import shipped
from tests.patience import PATIENCE

pytestmark = [pytest.mark.machine, pytest.mark.slow]

ROOT = Path(__file__).parents[2]

WEB = "http://10.10.0.100/"
MANY = 200
"""Real servers enough for `up` to be caught in the act."""

UNTIL_BEGUN = "until test -e /run/lvsctl/dr/netns/lvs-dr-client; do sleep 0.01; done"


class User:
    """Somebody with a machine, a runtime directory and a cache of their own."""

    def __init__(self, home: Path) -> None:
        self.runtime, self.cwd = home, home / "work"
        self.cwd.mkdir()
        self.env = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(home),
            "LVSCTL_MACHINE": "cli",
            "LVSCTL_WHERE": "machine",
            "PYTHONPATH": str(ROOT),
            "SHELL": "/bin/sh",
            "TERM": "xterm",
        }

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "lvsctl", *words]

    def types(
        self, *words: str, stdin: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words),
            env={**self.env, **(env or {})},
            cwd=self.cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def gets(self, *words: str, stdin: str = "") -> str:
        done = self.types(*words, stdin=stdin)
        assert done.returncode == ExitStatus.OK, done.stdout + done.stderr
        return done.stdout

    def starts(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*words),
            env=self.env,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def labs(self) -> list[str]:
        return [lab["name"] for lab in json.loads(self.gets("ls", "--format", "json"))["labs"]]

    def namespaces(self) -> list[str]:
        listed = self.gets("machine", "run", "--", "ip", "netns", "list")
        return [line.split()[0] for line in listed.splitlines()]


@pytest.fixture(scope="module")
def machine() -> Iterator[User]:
    home = Path(tempfile.mkdtemp(prefix="lvc."))  # tmp_path is too long for a socket
    user = User(home)
    user.gets("machine", "start")
    yield user
    user.gets("machine", "stop")
    shutil.rmtree(home)


@pytest.fixture
def user(machine: User) -> Iterator[User]:
    """The same, before and after without labs."""
    assert machine.labs() == []
    yield machine
    machine.types("down", "--all")


def wait_for(condition: object, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)  # noqa: TID251 (nobody tells when a lab begins)


# ── the main job ─────────────────────────────────────────────────────────────────────────────


def test_up_exec_verify_down(user: User) -> None:
    said = user.gets("up", "dr")
    assert "lab dr is up" in said
    assert "lvsctl verify dr" in said

    answers = [user.gets("exec", "client", "--", "curl", "-s", WEB) for _ in range(2)]
    assert sorted(answer.split()[0] for answer in answers) == ["rs1", "rs2"]

    assert user.labs() == ["dr"]
    assert "rs1" in user.gets("exec", "dr/client", "curl", "-s", "--retry", "0", WEB) + "rs1"
    assert "10.10.0.100:80" in user.gets("exec", "director", "ipvsadm", "-Ln")
    assert "10.10.0.100" in user.gets("inspect", "dr", "director")
    assert "10.10.0.100" in user.gets("verify")

    assert "lab dr is down" in user.gets("down")
    assert user.labs() == []
    assert user.namespaces() == []


def test_demo_shows_the_modes_and_leaves_nothing(user: User) -> None:
    said = user.gets("demo", "nat", "dr", "--requests", "4")

    assert said.index("NAT:") < said.index("DR:") < said.index("Next:")
    assert said.count("▇▇ 2") == 4
    assert user.namespaces() == []


def test_up_twice_changes_nothing_and_says_so(user: User) -> None:
    user.gets("up", "dr")

    assert "unchanged" in user.gets("up", "dr")


def test_two_labs_at_the_same_time(user: User) -> None:
    starting = [user.starts("up", "dr"), user.starts("up", "dr", "--name", "other")]
    for command in starting:
        _, complaint = command.communicate(timeout=PATIENCE)
        assert command.returncode == ExitStatus.OK, complaint

    assert user.labs() == ["dr", "other"]
    undecided = user.types("verify")
    assert undecided.returncode == ExitStatus.USAGE
    assert "2 labs are running: dr, other" in undecided.stderr
    for lab in ("dr", "other"):
        assert "answered" in user.gets("exec", "--lab", lab, "client", "--", "curl", "-s", WEB)
    user.gets("down", "dr", "other")
    assert user.namespaces() == []


# ── topologies from everywhere ───────────────────────────────────────────────────────────────


def test_a_topology_from_standard_input(user: User) -> None:
    user.gets("up", "-", "--name", "piped", stdin=user.gets("topologies", "dr"))

    assert user.labs() == ["piped"]


def test_a_topology_from_a_file_of_the_users(user: User) -> None:
    (user.cwd / "mine.yaml").write_text(user.gets("topologies", "dr"))

    user.gets("up", "mine.yaml", "--name", "mine")

    assert user.labs() == ["mine"]


def test_a_file_in_tmp_that_an_editor_replaced_is_read_anew(user: User) -> None:
    text = shipped.text_of("dr")
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="lvc.") as directory:
        file, edited = Path(directory, "mine.yaml"), Path(directory, "mine.yaml.new")
        file.write_text(text)
        user.gets("up", str(file))  # its responder lives on
        for scheduler in ("wlc", "sed"):
            edited.write_text(text.replace("scheduler: rr", f"scheduler: {scheduler}"))
            edited.replace(file)
            assert f"-s {scheduler}" in user.gets("up", str(file))


def test_a_topology_from_a_pipe_with_a_name(user: User) -> None:
    fifo = user.cwd / "fifo"
    os.mkfifo(fifo)
    text = user.gets("topologies", "dr")
    starting = user.starts("up", str(fifo))
    fifo.write_text(text)

    _, complaint = starting.communicate(timeout=PATIENCE)

    assert starting.returncode == ExitStatus.OK, complaint
    assert user.labs() == ["dr"]


# ── commands on nodes ────────────────────────────────────────────────────────────────────────


def test_streams_and_status_are_the_commands_own(user: User) -> None:
    user.gets("up", "dr")

    assert user.gets("exec", "rs1", "--", "cat", stdin="hello\n") == "hello\n"
    done = user.types("exec", "rs1", "--", "sh", "-c", "echo to err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "to err\n")
    assert user.types("exec", "rs1", "--", "no-such-command").returncode == ExitStatus.NOT_FOUND
    # A writer whose reader leaves is ended by SIGPIPE, as everywhere: it complains otherwise.
    done = user.types("exec", "rs1", "--", "bash", "-c", "yes | head -1; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_a_shell_says_where_it_is(user: User) -> None:
    user.gets("up", "dr")
    terminal, other = pty.openpty()
    in_front = ["setsid", "--ctty", "--wait"]  # as a shell's job is: it may read the terminal
    with subprocess.Popen(
        [*in_front, *user.argv("shell", "rs2")],
        env=user.env,
        stdin=other,
        stdout=other,
        stderr=other,
    ) as shell:
        os.close(other)
        _expect(terminal, r"\[dr/rs2\]")
        # Debian 13's ip colours what it writes to a terminal.
        os.write(terminal, b"ip -c=never -o -4 addr show lan; exit 3\n")
        _expect(terminal, r"10\.10\.0\.12/24")
        status = shell.wait(PATIENCE)
    os.close(terminal)

    assert status == 3


def _expect(terminal: int, pattern: str) -> None:
    seen = ""
    while not re.search(pattern, seen):
        ready, _, _ = select.select([terminal], [], [], PATIENCE)
        assert ready, f"no {pattern} in {seen!r}"
        seen += os.read(terminal, 4096).decode(errors="replace")


# ── what does not work ───────────────────────────────────────────────────────────────────────


def test_what_is_not_there_is_told_with_what_is(user: User) -> None:
    user.gets("up", "dr")

    for words, message in {
        ("exec", "clinet", "--", "true"): "lab dr has no node 'clinet'",
        ("inspect", "dr", "rs9"): "it has: client, director, rs1, rs2",
        ("verify", "drr"): "did you mean dr?",
        ("down", "other"): "lab other is not running",
        ("exec", "--lab", "dr", "nat/client", "--", "true"): "name two labs",
    }.items():
        done = user.types(*words)
        assert done.returncode == ExitStatus.USAGE, words
        assert message in done.stderr
    assert user.labs() == ["dr"]


def test_down_goes_on_after_a_lab_that_is_not_there(user: User) -> None:
    user.gets("up", "dr")

    done = user.types("down", "nope", "dr")

    assert done.returncode == ExitStatus.USAGE
    assert "lab dr is down" in done.stdout
    assert user.labs() == []


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, ExitStatus.INTERRUPTED),
        (signal.SIGTERM, ExitStatus.TERMINATED),
        pytest.param(signal.SIGHUP, ExitStatus.HUNG_UP, marks=pytest.mark.exhaustive),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else "",
)
def test_up_that_is_interrupted_leaves_nothing(
    user: User, number: signal.Signals, status: ExitStatus
) -> None:
    begun = user.starts("machine", "run", "--", "sh", "-c", UNTIL_BEGUN)
    starting = user.starts("up", "dr", "--servers", str(MANY))
    _, complaint = begun.communicate(timeout=PATIENCE)
    assert begun.returncode == 0, complaint

    starting.send_signal(number)
    _, complaint = starting.communicate(timeout=PATIENCE)

    assert starting.returncode == status, complaint
    assert "removing the incomplete lab dr" in complaint
    assert user.labs() == []
    assert user.namespaces() == []


@pytest.mark.parametrize(
    ("words", "lab"),
    [
        (("demo", "tun"), "demo-tun"),
        (("fault", "matrix", "dr", "--fault", "vip-missing"), "matrix-dr"),
    ],
    ids=["demo", "matrix"],
)
def test_a_lab_for_one_command_goes_with_it_however_often_that_is_interrupted(
    user: User, words: tuple[str, ...], lab: str
) -> None:
    running = user.starts(*words)
    wait_for(lambda: user.labs() == [lab], f"the lab {lab}")

    for _ in range(3):
        running.send_signal(signal.SIGINT)
    running.communicate(timeout=PATIENCE)

    assert running.returncode == ExitStatus.INTERRUPTED
    assert user.namespaces() == []


# ── completion ───────────────────────────────────────────────────────────────────────────────


def completions(user: User, words: str) -> list[str]:
    done = user.types(
        env={
            "_LVSCTL_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
    )
    assert done.returncode == ExitStatus.OK, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


def test_names_complete_by_what_runs_in_the_machine(user: User) -> None:
    user.gets("up", "dr")
    user.gets("up", "dr", "--name", "drum")

    assert completions(user, "lvsctl down d") == ["dr", "drum"]
    assert completions(user, "lvsctl up nat-o") == ["nat-one-arm"]
    assert completions(user, "lvsctl inspect dr r") == ["rs1", "rs2"]
    assert completions(user, "lvsctl exec drum/r") == ["drum/rs1", "drum/rs2"]
    assert completions(user, "lvsctl exec --lab drum r") == ["rs1", "rs2"]
    assert completions(user, "lvsctl ver") == ["verify"]


# ── the machine ──────────────────────────────────────────────────────────────────────────────


def test_the_machine_tells_of_itself(user: User) -> None:
    status = json.loads(user.gets("machine", "status", "--format", "json"))

    assert status["version"] == 2
    assert "was running already" in user.gets("machine", "start")
    assert user.types("machine", "run", "--", "sh", "-c", "exit 5").returncode == 5
    inside = user.types("machine", "run", "--", *user.argv("machine", "stop"))
    assert inside.returncode == ExitStatus.USAGE
    assert "from inside the machine" in inside.stderr


def test_doctor_finds_that_the_machine_can(user: User) -> None:
    said = json.loads(user.gets("doctor", "--format", "json"))

    assert said["version"] == 2
    assert said["machine"]


def test_where_auto_says_why_it_takes_the_machine(user: User) -> None:
    done = user.types("up", "dr", env={"LVSCTL_WHERE": "auto"})
    if "machine" not in done.stderr:
        assert user.types("down", "dr", env={"LVSCTL_WHERE": "host"}).returncode == 0
        pytest.fail("this host has root and IPVS: run these tests where it has not")

    assert done.returncode == ExitStatus.OK
    assert len(done.stderr.splitlines()) == 1
    assert "using the throwaway kernel (lvsctl machine)" in done.stderr
