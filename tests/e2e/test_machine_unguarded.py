"""Hosts that cannot confine a machine in every way: it starts there, and says what it cannot keep.

What they lack is taken away for real: a seccomp filter that the machine inherits answers for the
system calls, as such a kernel or a container's would.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsctl.machine import client

pytestmark = [pytest.mark.machine, pytest.mark.slow]

LANDLOCK_CREATE_RULESET, OPEN_TREE = 444, 428  # the same on every architecture
NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 38, 22, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
ROOT = os.geteuid() == 0


def without(call: int, error: int) -> None:
    """Let a system call fail in this process and its children, for good (seccomp(2))."""
    rules = [(LOAD, 0, 0, 0), (EQUAL, 0, 1, call), (RETURN, 0, 0, FAIL | error),
             (RETURN, 0, 0, ALLOW)]  # fmt: skip
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
    where = struct.pack("@HP", len(rules), ctypes.addressof(program))
    libc = ctypes.CDLL(None)
    if not ROOT:
        libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if libc.prctl(SET_SECCOMP, FILTER, where):
        raise OSError("no seccomp filter here")


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """In which commands mean a machine of this test's own."""
    root = str(Path(__file__).parents[2])
    name = f"unguarded-{os.getpid()}"
    yield {**os.environ, "LVSCTL_MACHINE": name, "PYTHONPATH": root}
    lvsctl({**os.environ, "LVSCTL_MACHINE": name, "PYTHONPATH": root}, "machine", "stop")


def lvsctl(
    environment: dict[str, str], *words: str, lacking: tuple[int, int] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lvsctl", *words],
        preexec_fn=(lambda: without(*lacking)) if lacking else None,
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


REFUSED = "open_tree {work}: Operation not permitted"
CHANGED = "root in the machine could change modes, owners and times of this host's files"
ROWS = {
    "no Landlock": (
        (LANDLOCK_CREATE_RULESET, errno.ENOSYS),
        "this kernel has no Landlock (Linux 5.13, and in its lsm=): root in the machine could "
        + ("write this host's devices" if ROOT else "write all that you can write"),
    ),
    "no mounts": ((OPEN_TREE, errno.EPERM), f"no mount namespace ({REFUSED}): {CHANGED}"),
}


@pytest.mark.parametrize("row", ROWS if ROOT else ["no Landlock"])
def test_what_cannot_be_kept_is_said(
    environment: dict[str, str], row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking, told = ROWS[row]
    started = lvsctl(environment, "machine", "start", lacking=lacking)
    assert started.returncode == 0, started.stderr
    _, *said = started.stderr.splitlines()
    monkeypatch.setenv("LVSCTL_MACHINE", environment["LVSCTL_MACHINE"])
    status = client.status()
    before, _, after = told.partition("{work}")
    assert len(said) == 1, "once"
    assert said[0].startswith(f"lvsctl: {before}")
    assert said[0].endswith(after)
    anew = "mkdir /tmp/all && LIBMOUNT_FORCE_MOUNT2=always mount -t hostfs -o / none /tmp/all"
    mark = f"etc/lvsctl-was-here-{os.getpid()}"
    words = f"{anew} && ls -d /tmp/all/etc && echo x > /tmp/all/{mark}"
    tried = lvsctl(environment, "machine", "run", "--", "sh", "-c", words)
    assert status is not None
    assert status.complaints == (said[0].removeprefix("lvsctl: "),), "and when asked"
    assert (tried.stdout, tried.returncode) == ("/tmp/all/etc\n", 2), "what it has keeps that"
    assert not Path("/", mark).exists()


def test_nothing_is_said_where_everything_is_kept(environment: dict[str, str]) -> None:
    started = lvsctl(environment, "machine", "start")
    assert len(started.stderr.splitlines()) == 1, started.stderr
