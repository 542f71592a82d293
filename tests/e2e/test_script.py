"""`plan --format sh` and `up` make the same lab: two kernels, compared by others' tools."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lvsctl.topology import shipped

pytestmark = [pytest.mark.machine, pytest.mark.slow]

HERE = Path(__file__).parent
ALWAYS = "tun-gue"
"""It has dr's operations, and more; a topology takes half a minute on a busy machine."""
LVSCTL = (sys.executable, "-m", "lvsctl")


class Machine:
    """A throwaway kernel of this test's own."""

    def __init__(self, name: str, scratch: Path) -> None:
        self._env = {
            **os.environ,
            "LVSCTL_MACHINE": f"{name}-{os.getpid()}",
            "LVSCTL_WHERE": "machine",
        }
        self._scratch = scratch

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            command, env=self._env, cwd=self._scratch, capture_output=True, text=True, check=False
        )
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def inside(self, *command: str) -> str:
        return self.run(*LVSCTL, "machine", "run", "--", *command)

    def in_terminal(self, *command: str) -> str:
        """Run a command in the machine, from a terminal that is gone afterwards."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            ["setsid", "--ctty", "--wait", *LVSCTL, "machine", "run", "--", *command],
            env=self._env, cwd=self._scratch, stdin=theirs, stdout=theirs, stderr=theirs,
        ) as running:  # fmt: skip
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
                while more := os.read(ours, 4096):
                    shown += more
        os.close(ours)
        assert running.returncode == 0, shown
        return shown.decode()

    def dump(self, lab: str) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(
            self.inside(sys.executable, str(HERE / "dump_lab.py"), lab)
        )
        return said


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Machine]]:
    scratch = tmp_path_factory.mktemp("machines")
    two = Machine("script", scratch), Machine("up", scratch)
    try:
        yield two
    finally:
        for machine in two:
            machine.run(*LVSCTL, "machine", "stop", check=False)


NAMES = [
    name
    for name in shipped.names()
    # What curl can ask, and scripts that need no iptables, which is not among the witnesses.
    if not {"protocol:", "snat:", "mss_clamp:"} & set(shipped.text_of(name).split())
]


@pytest.mark.parametrize(
    "name",
    [n if n == ALWAYS else pytest.param(n, marks=pytest.mark.exhaustive) for n in NAMES],
)
def test_the_script_builds_what_up_builds(
    machines: tuple[Machine, Machine], name: str, tmp_path: Path
) -> None:
    by_script, by_up = machines
    script = tmp_path / f"{name}.sh"
    script.write_text(by_up.run(*LVSCTL, "plan", name, "--format", "sh"), encoding="utf-8")
    vip = vip_of(name)
    url = f"http://[{vip}]/" if ":" in vip else f"http://{vip}/"

    def scripted_state() -> dict[str, Any]:
        by_script.inside("sh", str(script))
        return by_script.dump(name)

    def brought_up_state() -> dict[str, Any]:
        by_up.run(*LVSCTL, "up", name)
        return by_up.dump(name)

    with ThreadPoolExecutor() as both:  # each kernel has one CPU, and there are two
        futures = [both.submit(scripted_state), both.submit(brought_up_state)]
        scripted, brought_up = [future.result() for future in futures]
    assert list(scripted) == list(brought_up)
    assert list(differences(scripted, brought_up)) == []

    curl = ("ip", "netns", "exec", f"lvs-{name}-client", "curl", "-sS", "--max-time", "5")
    retry = ("--retry", "30", "--retry-connrefused", "--retry-max-time", "20")
    for machine in machines:  # the script's responder may take a moment to start
        assert machine.inside(*curl, *retry, url).startswith("rs")

    by_script.inside("sh", str(script), "down")
    by_up.run(*LVSCTL, "down", name)
    for machine in machines:
        assert f"lvs-{name}-" not in machine.inside("ip", "netns", "list")


def test_servers_that_a_script_started_outlive_its_terminal(
    machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    """The last one had no session of its own yet when the terminal hung up."""
    machine, _ = machines
    script = tmp_path / "dr.sh"
    script.write_text(machine.run(*LVSCTL, "plan", "dr", "--format", "sh"), encoding="utf-8")
    ask = f"curl -sS --max-time 5 http://{vip_of('dr')}/"

    assert "dr: is up" in machine.in_terminal("sh", str(script))

    loop = f"for i in 1 2 3 4; do {ask}; done"
    said = machine.inside("ip", "netns", "exec", "lvs-dr-client", "sh", "-c", loop)
    assert sorted(line.split()[0] for line in said.splitlines()) == ["rs1", "rs1", "rs2", "rs2"]
    machine.inside("sh", str(script), "down")


def vip_of(name: str) -> str:
    words = shipped.text_of(name).split("vip: ")[1].split()
    return words[0]


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Where two states differ: hundreds of settings, of which only that is worth reading."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from differences(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{place}/{number}")
    elif one != other:
        yield f"{place}: {one!r} is not {other!r}"
