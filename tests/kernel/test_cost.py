"""What `up` and `down` ask of the kernel, counted by strace(1): counts hold where times do not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

pytestmark = pytest.mark.ipvs

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)")
UNFINISHED = "<unfinished ...>"
NEW_PROCESSES = ("fork", "vfork", "clone", "clone3", "execve", "execveat")
SLEEPS = ("nanosleep", "clock_nanosleep", "select", "pselect6")
WAITS = ("poll", "ppoll", "epoll_wait", "epoll_pwait", "epoll_pwait2")

UP_AND_DOWN = """
import os, sys
from lvsctl.cli.main import main
topology, servers = sys.argv[1:]
up = main(["up", topology, "--name", "cost", "--servers", servers, "--where", "host"])
os.getpriority(os.PRIO_PROCESS, 0)  # where the trace is cut in two
raise SystemExit(up or main(["down", "cost", "--where", "host"]))
"""
"""Both in one process: strace goes on for as long as any process lives, the responder too."""

Call = tuple[str, str]
"""A system call's name; its arguments and result."""


def calls_in(lines: Iterable[str]) -> list[Call]:
    """What strace(1) wrote, in the order in which the calls began.

    A call during which another thread made one stands on two lines; what came of it is on
    the second.
    """
    found: list[Call] = []
    unfinished: dict[str, int] = {}
    for match in filter(None, map(LINE.match, lines)):
        thread, resumed, begun, rest = match.groups()
        if resumed:
            place = unfinished.pop(thread)
            assert found[place][0] == resumed
            found[place] = resumed, found[place][1] + rest
            continue
        if rest.endswith(UNFINISHED):
            unfinished[thread] = len(found)
        found.append((begun, rest.removesuffix(UNFINISHED)))
    return found


def test_calls_are_read_whole_where_threads_interrupt_each_other() -> None:
    written = """\
71 poll([{fd=3, events=POLLIN}], 1, 100 <unfinished ...>
72 clone3({flags=CLONE_VM|CLONE_THREAD, exit_signal=0} <unfinished ...>
73 epoll_wait(4, [], 512, 1000)   = 0
72 <... clone3 resumed> => {parent_tid=[74]}, 88) = 74
74 poll([{fd=5, events=POLLIN}], 1, -1 <unfinished ...>
71 <... poll resumed>)                = 0 (Timeout)
74 <... poll resumed>)                = 1 ([{fd=5, revents=POLLIN}])
71 clock_nanosleep(CLOCK_MONOTONIC, 0, {tv_sec=1, tv_nsec=0}, <unfinished ...>
71 +++ killed by SIGKILL +++"""
    calls = calls_in(written.splitlines())
    names = ["poll", "clone3", "epoll_wait", "poll", "clock_nanosleep"]
    assert [name for name, _ in calls] == names
    assert [name for name, _ in polls(calls)] == ["poll", "epoll_wait", "clock_nanosleep"]
    assert new_processes(calls) == []


def traced(
    tmp_path: Path, servers: int, *names: str, topology: str = "dr"
) -> tuple[list[Call], list[Call]]:
    """What `lvsctl up`, its threads and its children call of ``names``; and what `down` does."""
    log = tmp_path / f"strace-{servers}"
    done = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-o", str(log),
         "-e", f"trace={','.join((*names, 'getpriority'))}",
         sys.executable, "-c", UP_AND_DOWN, topology, str(servers)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    calls = calls_in(log.read_text().splitlines())
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


@pytest.mark.parametrize("topology", ["dr", "nat"])
def test_up_forks_the_responder_down_forks_nothing_and_neither_execs_or_polls(
    tmp_path: Path, topology: str
) -> None:
    """The responder takes two forks, as daemons do, and is the same program: nothing is run."""
    up, down = traced(tmp_path, 2, *NEW_PROCESSES, *SLEEPS, *WAITS, topology=topology)

    assert len(new_processes(up)) == 2
    assert not [name for name, _ in up if name.startswith("exec")]
    assert not polls(up)

    assert not new_processes(down)
    assert not polls(down)


def test_what_each_real_server_costs(tmp_path: Path) -> None:
    """The difference between few and many, so that what a lab costs once does not count."""
    few, many = 2, 22
    counted = ("sendto", "unshare", "setns", *NEW_PROCESSES, *SLEEPS, *WAITS)
    ups, downs = zip(*(traced(tmp_path, servers, *counted) for servers in (few, many)), strict=True)
    count = [Counter(name for name, _ in up) for up in ups]
    each = {name: (count[1][name] - count[0][name]) / (many - few) for name in counted}
    assert each["unshare"] == 1
    assert each["sendto"] <= 6.2, "twice to build it, four times to read it back"
    assert each["setns"] <= 3.1, "for its sysctls; the responder enters and leaves"

    assert len(new_processes(ups[1])) == 2
    assert not polls([*ups[1], *downs[1]])
    assert not new_processes(downs[1])
