"""Reports, walks and captures as a user makes them, across the machine's boundary.

   client            director             rs1         rs2
 10.10.0.10         10.10.0.2          10.10.0.11  10.10.0.12
     |          VIP 10.10.0.100          (VIP)       (VIP)
=====+==================+==================+===========+=====  lan
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsctl.capture.pcapng import read_recording
from lvsctl.cli.failure import ExitStatus
from lvsctl.output.saved_report import NAMES
from tests.patience import PATIENCE

pytestmark = [pytest.mark.machine, pytest.mark.slow]

ROOT = Path(__file__).parents[2]

ENVIRONMENTS = "hunter2-of-the-environment"

ASK = ("exec", "client", "--", "curl", "-s", "http://10.10.0.100/")
Done = subprocess.CompletedProcess[bytes]


class User:
    """Somebody in a directory of theirs, with a machine of their own and a DR lab in it."""

    def __init__(self, home: Path) -> None:
        self.cwd = home / "work"
        self.cwd.mkdir()
        self.env = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(home),
            "LVSCTL_MACHINE": "reports",
            "LVSCTL_WHERE": "machine",
            "PYTHONPATH": str(ROOT),
            "A_TOKEN": ENVIRONMENTS,
        }

    def starts(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "lvsctl", *words],
            env=self.env,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def types(self, *words: str) -> Done:
        process = self.starts(*words)
        out, err = process.communicate(timeout=PATIENCE)
        return Done(words, process.returncode, out, err)

    def gets(self, *words: str) -> str:
        done = self.types(*words)
        assert done.returncode == ExitStatus.OK, done.stdout + done.stderr
        return done.stdout.decode()


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    home = Path(tempfile.mkdtemp(prefix="lvr."))  # tmp_path is too long for a socket
    somebody = User(home)
    somebody.gets("up", "dr")
    yield somebody
    somebody.types("machine", "stop")
    shutil.rmtree(home)


@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_a_report_lands_where_it_should_and_is_judged_again_anywhere(
    user: User, place: str
) -> None:
    out = user.cwd / "out" if place == "here" else user.cwd.parent / "elsewhere" / "out"
    said = json.loads(user.gets("verify", "--report", str(out), "--format", "json"))
    assert said["verdict"] == "pass"
    assert {path.name for path in out.iterdir()} == set(NAMES)
    assert {path.stat().st_uid for path in out.iterdir()} == {os.getuid()}
    assert not [path.name for path in out.iterdir() if ENVIRONMENTS.encode() in path.read_bytes()]
    user.env["LVSCTL_WHERE"] = "host"  # which has no IPVS, and needs none
    try:
        again = json.loads(user.gets("verify", "--from", str(out), "--format", "json"))
    finally:
        user.env["LVSCTL_WHERE"] = "machine"
    assert again == said


def test_what_is_no_report_stays_and_what_failed_leaves_nothing(user: User) -> None:
    mine = user.cwd / "mine"
    mine.mkdir()
    (mine / "notes").write_text("mine")
    done = user.types("verify", "--report", "mine")
    assert (done.returncode, [p.name for p in mine.iterdir()]) == (ExitStatus.USAGE, ["notes"])
    assert user.types("verify", "nowhere", "--report", "new").returncode == ExitStatus.USAGE
    assert not (user.cwd / "new").exists()


def test_the_capture_of_what_fails_is_there_to_be_opened(user: User) -> None:
    kept = user.cwd.parent / "captures"
    user.env["LVSCTL_CAPTURES"] = str(kept)
    user.gets("verify")
    assert not kept.exists()
    user.gets("fault", "inject", "arp-ignore-unset")
    done = user.types("verify")
    user.gets("fault", "restore")
    assert done.returncode == ExitStatus.CLAIM_FAILED
    told = re.search(r"wireshark -g (\d+) (\S+)", done.stdout.decode())
    assert told
    assert told[2] == str(kept / "dr.pcapng")
    frame = read_recording(kept / "dr.pcapng").frames[int(told[1]) - 1]
    assert frame.tap.node == "rs1"
    assert frame.data[12:14] + frame.data[20:22] == b"\x08\x06\x00\x02"  # an ARP answer


def test_walk_shows_the_way_in_every_format(user: User) -> None:
    assert "direct routing" in user.gets("walk")
    assert json.loads(user.gets("walk", "--format", "json"))["answered"] is True
    assert user.gets("walk", "--format", "mermaid").startswith("sequenceDiagram")
    assert user.gets("walk", "--format", "html").startswith("<!doctype html>")
    assert user.types("walk", "--service", "mail").returncode == ExitStatus.USAGE


def test_capture_writes_a_file_of_the_users_with_an_interface_for_each_tap(user: User) -> None:
    capturing = user.starts("capture", "dr", "tcp port 80", "-w", "dr.pcapng", "--count", "10")
    _ask_until_it_ends(user, capturing)
    recording = read_recording(user.cwd / "dr.pcapng")
    assert len(recording.frames) == 10
    assert {"client:lan", "director:lan", "rs1:lan", "rs2:lan"} <= set(map(str, recording.taps))


def test_capture_streams_and_prints(user: User, tmp_path: Path) -> None:
    capturing = user.starts("capture", "-w", "-", "--tap", "director:lan", "--count", "3")
    out, err = _ask_until_it_ends(user, capturing)
    (tmp_path / "stream").write_bytes(out)
    recording = read_recording(tmp_path / "stream")
    assert {str(frame.tap) for frame in recording.frames} == {"director:lan"}
    assert b"3 frames captured, 0 lost" in err

    capturing = user.starts("capture", "dr", "tcp port 80", "--count", "5")
    out, _ = _ask_until_it_ends(user, capturing)
    assert len(out.splitlines()) == 5
    assert b"10.10.0.100:80" in out


def test_capture_ends_in_order_with_ctrl_c(user: User) -> None:
    """Once it has said that it captures, nothing that is sent is missed."""
    capturing = user.starts("capture", "dr")
    assert capturing.stderr is not None
    said = next(line for line in capturing.stderr if b"capturing at" in line)
    assert b"Ctrl-C (SIGINT) ends it" in said
    user.types(*ASK)
    capturing.send_signal(signal.SIGINT)
    out, err = capturing.communicate(timeout=PATIENCE)
    assert b"10.10.0.100:80" in out
    assert capturing.returncode == ExitStatus.OK
    assert b"frames captured" in err


def test_capture_refuses_what_is_not_there(user: User) -> None:
    for words in (["--tap", "nobody:lan"], ["--tap", "lan"], ["-w", "-", "dr", "no such filter"]):
        assert user.types("capture", *words).returncode == ExitStatus.USAGE


def _ask_until_it_ends(user: User, capturing: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Send requests, for nobody tells when a capture has begun."""
    for _ in range(60):
        if capturing.poll() is not None:
            break
        user.types(*ASK)
    return capturing.communicate(timeout=PATIENCE)


JUMPS = "while :; do date -s 2030-01-01; sleep 0.1; date -s 2001-01-01; sleep 0.1; done"


def test_a_clock_that_jumps_fails_no_claim(user: User) -> None:
    jumping = user.starts("machine", "run", "--", "sh", "-c", JUMPS)
    assert jumping.stdout is not None
    try:
        assert b"2030" in jumping.stdout.readline()
        # When frames came may be impossible to tell by such a clock: then it is said.
        verdict = user.types("verify", "dr").stdout.decode().splitlines()
        assert next(line for line in verdict if line.startswith("dr: ")).count("fail") == 0
        assert "dr: not working" not in user.types("diagnose", "dr").stdout.decode()
        assert jumping.poll() is None
    finally:
        jumping.send_signal(signal.SIGINT)
        jumping.communicate(timeout=PATIENCE)
        user.gets("machine", "run", "--", "date", "-s", f"@{time.time():.0f}")


def test_watch_without_a_terminal_prints_lines_of_json(user: User) -> None:
    looks = [json.loads(line) for line in user.gets("watch", "-c", "2", "-i", "0.2").splitlines()]
    assert [(look["version"], look["lab"]) for look in looks] == [(2, "dr"), (2, "dr")]
    watching = user.starts("watch", "dr")
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["services"][0]["name"] == "web"
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=PATIENCE)
    assert (watching.returncode, err) == (ExitStatus.OK, b"")
    assert user.types("watch", "nat").returncode == ExitStatus.USAGE
    assert user.types("watch", "-i", "0").returncode == ExitStatus.USAGE


def test_watch_fills_a_terminal_of_any_size_and_gives_it_back(user: User) -> None:
    terminal, other = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 90, 0, 0))
    with subprocess.Popen(
        ["setsid", "--ctty", "--wait", sys.executable, "-m", "lvsctl", "watch", "dr"],
        # Empty: GNU readline has put the size of pytest's terminal there, in xdist's workers.
        env={**user.env, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""},
        stdin=other,
        stdout=other,
        stderr=other,
    ) as watching:
        os.close(other)
        try:
            assert "\x1b[?1049h" in _shown_until(terminal, "real server")
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 3, 30, 0, 0))
            _shown_until(terminal, "no problems")  # what a tiny terminal says instead of the rest
            os.write(terminal, b"\x03")
            assert "\x1b[?1049l" in _shown_until(terminal, "\x1b[?25h")
            status = watching.wait(PATIENCE)
        finally:
            watching.kill()
    os.close(terminal)
    assert status == ExitStatus.OK


def _shown_until(terminal: int, text: str) -> str:
    seen = ""
    deadline = time.monotonic() + PATIENCE  # it draws for ever
    while text not in seen:
        left = max(0, deadline - time.monotonic())
        assert select.select([terminal], [], [], left)[0], f"no {text!r} in {seen[-3000:]!r}"
        seen += os.read(terminal, 4096).decode(errors="replace")
    return seen
