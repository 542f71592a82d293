"""What `up` and `down` ask of the kernel, counted by strace(1): counts hold where times do not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.ipvs

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^(\d+) +(\w+)\((.*)")
NEW_PROCESSES = ("fork", "vfork", "clone", "clone3", "execve", "execveat")
SLEEPS = ("nanosleep", "clock_nanosleep", "select", "pselect6")
WAITS = ("poll", "ppoll", "epoll_wait", "epoll_pwait", "epoll_pwait2")

UP_AND_DOWN = """
import os, sys
from lvsctl.cli.main import main
up = main(["up", "dr", "--name", "cost", "--servers", sys.argv[1], "--where", "host"])
os.getpriority(os.PRIO_PROCESS, 0)  # where the trace is cut in two
raise SystemExit(up or main(["down", "cost", "--where", "host"]))
"""
"""Both in one process: strace goes on for as long as any process lives, the responder too."""

IMPORTS = """
import sys
from lvsctl.cli.main import main
status = main(["up", "dr", "--name", "imports", "--where", "host"])
modules = set(sys.modules)
status = main(["down", "imports", "--where", "host"]) or status
print(*modules, file=sys.stderr)
raise SystemExit(status)
"""

UP_NEVER_IMPORTS = {
    "typer", "pyroute2", "dataclasses", "inspect", "ast", "asyncio", "shutil", "subprocess",
    "traceback", "tokenize", "multiprocessing", "textwrap", "hashlib", "lvsctl.kernel.ipvs",
    "lvsctl.kernel.state", "lvsctl.verify", "lvsctl.machine", "lvsctl.observe",
}  # fmt: skip
"""What no ordinary lab needs to come up; most of it takes longer than building a small one."""

Call = tuple[str, str]
"""A system call's name; its arguments and result."""


def traced(tmp_path: Path, servers: int, *names: str) -> tuple[list[Call], list[Call]]:
    """What `lvsctl up`, its threads and its children call of ``names``; and what `down` does."""
    log = tmp_path / f"strace-{servers}"
    done = subprocess.run(
        ["strace", "-f", "-o", str(log), "-e", f"trace={','.join((*names, 'getpriority'))}",
         sys.executable, "-c", UP_AND_DOWN, str(servers)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [LINE.match(line) for line in log.read_text().splitlines()]
    calls = [(match[2], match[3]) for match in found if match]
    cut = [name for name, _ in calls].index("getpriority")
    return calls[1:cut], calls[cut + 1 :]  # the first is the execve(2) of Python itself


def new_processes(calls: list[Call]) -> list[str]:
    """The calls that made a process or ran a program; a thread is neither."""
    return [name for name, rest in calls if name in NEW_PROCESSES and "CLONE_THREAD" not in rest]


def polls(calls: list[Call]) -> list[Call]:
    """Sleeps, and waits that ended because time had passed and not because something happened."""
    return [
        (name, rest)
        for name, rest in calls
        if name in SLEEPS or (name in WAITS and ("(Timeout)" in rest or rest.endswith("= 0")))
    ]


def test_up_forks_the_responder_down_forks_nothing_and_neither_execs_or_polls(
    tmp_path: Path,
) -> None:
    """The responder takes two forks, as daemons do, and is the same program: nothing is run."""
    up, down = traced(tmp_path, 2, *NEW_PROCESSES, *SLEEPS, *WAITS)

    assert len(new_processes(up)) == 2
    assert not [name for name, _ in up if name.startswith("exec")]
    assert not polls(up)

    assert not new_processes(down)
    assert not polls(down)


def test_what_up_imports() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert UP_NEVER_IMPORTS & set(done.stderr.split()) == set()


def test_what_each_real_server_costs(tmp_path: Path) -> None:
    """The difference between 2 and 12, so that what a lab costs once does not count."""
    few, many = (
        Counter(name for name, _ in traced(tmp_path, servers, "sendto", "unshare", "setns")[0])
        for servers in (2, 12)
    )
    each = {name: (many[name] - few[name]) / 10 for name in many}
    assert each["unshare"] == 1
    assert each["sendto"] <= 2.1, "its device, addresses and routes; then the VIP"
    assert each["setns"] <= 2.1, "none to build it; the responder goes in and out"
