"""Start a machine: its broker, the supervisor that cleans up after the broker, and the guest."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lvsctl import linux
from lvsctl.errors import HostError
from lvsctl.machine import records, runtime_files
from lvsctl.machine.config import LEAST_MEMORY, BrokerArguments, MachineConfig, MachineRequest
from lvsctl.machine.kinds import KINDS, Emit, Kind, choose_kind
from lvsctl.machine.runtime_files import RuntimeFiles


def choose_config(
    request: MachineRequest, directories: Sequence[str], fingerprint: str, emit: Emit
) -> tuple[Kind, MachineConfig]:
    """Return the kind and configuration for a request; download the kernel if necessary.

    Raises HostError if this host cannot run it, UsageError if no host could.
    """
    kind = choose_kind(request)
    cpus = kind.cpus(request.cpus)
    kernel = kind.kernel(request.kernel, emit)
    accelerator, how = kind.accelerator()
    config = MachineConfig(
        kind=kind.name,
        kernel=kernel,
        memory=request.memory or kind.memory(),
        cpus=cpus,
        accelerator=accelerator,
        writable=tuple(directories),
        path=tuple(str(Path(entry).absolute()) for entry in sys.path),
        fingerprint=fingerprint,
    )
    if config.memory < LEAST_MEMORY:
        emit(
            f"{config.memory} MiB of memory may be too little: a lab can end for lack of it, or "
            f"make the machine so slow that it does not respond (--memory {LEAST_MEMORY} or more)"
        )
    by = f", {how}" if accelerator else ""
    emit(f"starting the throwaway kernel ({kind.title} {kernel.release}{by})")
    return kind, config


def launch(files: RuntimeFiles, kind: Kind, config: MachineConfig, emit: Emit) -> None:
    """Start the machine; the caller holds the lock for starting. Raises HostError."""
    try:
        messages = _start_broker(files, config)
    except HostError:
        second = kind.fallback(config)
        if second is None:
            raise
        config, why = second
        emit(why)
        messages = _start_broker(files, config)
    for message in messages:
        emit(message)


def _start_broker(files: RuntimeFiles, config: MachineConfig) -> Sequence[str]:
    """Start the broker and wait until its machine is ready; return messages for the user.

    Raises HostError.
    """
    life_lock = runtime_files.take_life_lock(files, runtime_files.END_TIMEOUT)
    if life_lock is None:
        raise HostError(
            f"the previous machine {files.name} does not stop", hint="lvsctl machine stop"
        )
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, life_lock)
        runtime_files.sweep(files)
        read_end, write_end = os.pipe()
        stack.callback(os.close, read_end)
        arguments = BrokerArguments(files.name, config, life_lock, write_end)
        try:
            _spawn_broker(arguments)
        finally:
            os.close(write_end)  # otherwise the broker's end could not be detected
        patience = KINDS[config.kind].boot_timeout(config) + ANSWER_TIMEOUT
        message = _answer(read_end, time.monotonic() + patience)
    if "error" in message:
        raise HostError(message["error"], hint=message.get("hint", ""))
    return [str(line) for line in message["messages"]]


ANSWER_TIMEOUT = 30.0
"""Seconds beyond the boot's for the broker to answer."""


def _answer(reports: int, deadline: float) -> dict[str, Any]:
    """Return the broker's answer: a line of JSON, or its traceback as an error."""
    output: list[str] = []
    data = b""
    while select.select([reports], [], [], max(0.0, deadline - time.monotonic()))[0]:
        more = os.read(reports, 65536)
        *lines, data = (data + more).split(b"\n")
        for line in lines if more else [data]:
            try:
                return dict(json.loads(line))
            except ValueError:
                output.append(line.decode(errors="replace").rstrip())
        if not more:
            break
    else:
        return {
            "error": "the machine's background process does not respond",
            "hint": "end it: lvsctl machine stop",
        }
    return {"error": "\n".join(["the machine's background process died:", *output[-8:]])}


def _spawn_broker(arguments: BrokerArguments) -> None:
    package_root = str(Path(__file__).resolve().parents[2])
    search = [package_root, *filter(None, [os.environ.get("PYTHONPATH", "")])]
    # -P: do not import an lvsctl from the current directory.
    broker = subprocess.Popen(
        [sys.executable, "-P", "-m", "lvsctl.machine.broker", arguments.to_json()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=arguments.report,
        pass_fds=(arguments.life_lock, arguments.report),
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": ":".join(search)},
    )
    broker.wait()  # it forks into the background at once


POWER_OFF_TIMEOUT = 3.0
"""Seconds for the guest of a killed broker to power off, which it does when its link closes."""


def guard(files: RuntimeFiles, life_lock: int, report: int) -> None:
    """Fork: return in the child (the broker); in the parent, wait for it and clean up.

    Both hold the life lock. The kernel is the broker's child, and becomes the supervisor's if the
    broker dies.
    """
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    supervisor = os.getpid()
    broker = os.fork()
    if broker == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        # If the supervisor dies, the broker stops the machine.
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:
            raise SystemExit(1)
        return
    os.close(report)
    # The broker handles signals that ask to stop.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: _forward(broker, received))
    os.waitpid(broker, 0)
    _clean_up(files)
    os.close(life_lock)
    os._exit(0)


def _forward(broker: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(broker, number)


def _clean_up(files: RuntimeFiles) -> None:
    record = records.read(files.record)
    if record is not None:
        _wait_for_power_off(record)
    runtime_files.sweep(files)
    # Last, while it is still held: a process that has opened it meanwhile tries again.
    files.lock.unlink(missing_ok=True)


def _wait_for_power_off(record: records.Record) -> None:
    """Reap the kernel, which is the supervisor's child by now, until it has ended or time is up."""
    deadline = time.monotonic() + POWER_OFF_TIMEOUT
    while records.members(record):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return
        signal.sigtimedwait({signal.SIGCHLD}, min(remaining, 0.1))
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
