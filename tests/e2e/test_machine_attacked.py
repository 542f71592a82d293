"""The throwaway kernel under attack: stopped processes, garbage, floods, no memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess

import pytest

from lvsctl.machine import frames
from tests.e2e.test_machine_lifecycle import Machine, _wait, fresh, machine
from tests.patience import PATIENCE

pytestmark = [pytest.mark.machine, pytest.mark.slow]

__all__ = ["fresh", "machine"]  # fixtures


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_input_on_its_way_does_not_outlive_the_machine(fresh: Machine, how: str) -> None:
    with contextlib.ExitStack() as stack:
        yes = stack.enter_context(subprocess.Popen(["yes"], stdout=subprocess.PIPE))
        script = "echo up; cat > /dev/null"
        reader = fresh.spawn("exec", "sh", "-c", script, stdin=yes.stdout, stderr=subprocess.PIPE)
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"up\n"
        record = fresh.record()
        if how == "killed":
            os.kill(record.pid, signal.SIGKILL)
        else:
            assert fresh.call("stop").stdout == "True\n"
        reader.communicate(timeout=PATIENCE)
        yes.kill()
    fresh.assert_nothing_left(record)


@pytest.mark.parametrize("victim", ["broker", "supervisor"])
def test_a_stopped_process_does_not_keep_the_machine(fresh: Machine, victim: str) -> None:
    fresh.call("start")
    record = fresh.record()
    found = record.broker if victim == "broker" else record.supervisor
    os.kill(found.pid, signal.SIGSTOP)
    if victim == "broker":
        refused = fresh.call("status")
        assert "HostError: the machine does not respond" in refused.stderr
    assert fresh.call("stop").stdout == "True\n"
    fresh.assert_nothing_left(record)


def test_a_start_can_be_stopped(fresh: Machine) -> None:
    starting = fresh.spawn("start", stderr=subprocess.PIPE)
    _wait(fresh.where.record.exists, "the record of a machine that starts")
    assert fresh.call("stop").stdout == "True\n"
    _, said = starting.communicate(timeout=PATIENCE)
    assert starting.returncode == 0 or b"HostError: the machine was stopped" in said
    _wait(lambda: not fresh.where.lock.exists(), "the machine's lock to go")
    assert [path.name for path in fresh.where.directory.iterdir()] == []


GARBAGE = {
    "not JSON": [(frames.RUN, b"{")],
    "no request": [(frames.RUN, b"{}")],
    "a list": [(frames.RUN, b"[]")],
    "deep": [(frames.RUN, b"[" * 100_000)],
    "a kind of its own": [(99, b"")],
    "a number of two bytes": [(frames.RUN, b"VALID"), (frames.SIGNAL, b"xx")],
    "a signal that does not exist": [(frames.RUN, b"VALID"), (frames.SIGNAL, frames.number(9999))],
    "a size that is none": [(frames.RUN, b"VALID"), (frames.RESIZE, frames.pair(1 << 20, 1))],
    "a second request": [(frames.RUN, b"VALID"), (frames.RUN, b"VALID")],
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE)
def test_garbage_costs_its_sender_only(machine: Machine, sent: list[tuple[int, bytes]]) -> None:
    assert machine.exec("true").returncode == 0
    request = {
        "kind": "exec",
        "argv": ["sleep", "1000"],
        "cwd": "/",
        "umask": 18,
        "writable": [],
        "visible": [],
        "fingerprint": "",
        "env": {"PATH": "/bin"},
        "terminal": ["0", "1", "2"],
        "size": ["24", "80"],
    }
    valid = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(machine.where.socket))
        for kind, payload in sent:
            client.sendall(frames.frame(kind, 0, valid if payload == b"VALID" else payload))
        assert machine.exec("echo", "alive").stdout == "alive\n"


def test_a_request_that_is_too_large_names_the_limit(machine: Machine) -> None:
    driver = "import os; os.environ['A'] = 'x' * 5_000_000\n" + machine.argv()[3]
    command = [*machine.argv()[:3], driver, "exec", "true"]
    done = subprocess.run(
        command, env=machine.env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert "UsageError" in done.stderr
    assert "the machine accepts 2048 KiB" in done.stderr


EAT = "import ctypes; held = [bytearray(b'x' * 2**20) for _ in range(4096)]"


def test_a_command_that_eats_all_memory_is_told_so(fresh: Machine) -> None:
    fresh.env["LVSCTL_MACHINE_MEMORY"] = "160"
    done = fresh.exec("python3", "-c", EAT)
    assert "the machine ran out of its memory" in done.stderr
    assert done.returncode != 0
    assert fresh.exec("echo", "alive").stdout == "alive\n"


BOMB = """
import os, time
open("/proc/sys/kernel/threads-max", "w").write("60")
try:
    while os.fork(): pass
except OSError:
    print("full", flush=True)
time.sleep(900)
"""


def test_a_machine_without_processes_says_so(fresh: Machine) -> None:
    bomb = fresh.spawn("exec", "python3", "-c", BOMB)
    assert bomb.stdout is not None
    assert bomb.stdout.readline() == b"full\n"
    done = fresh.exec("true")
    assert "the machine cannot start the command" in done.stderr
    assert "lvsctl machine stop" in done.stderr
    assert done.returncode == 69
    assert fresh.call("stop").stdout == "True\n"
    bomb.communicate(timeout=PATIENCE)
