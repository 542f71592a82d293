"""Start a machine: start its broker and wait until the guest is ready."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lvsctl.errors import HostError
from lvsctl.machine import runtime_files
from lvsctl.machine.config import BrokerArguments, MachineConfig, MachineRequest
from lvsctl.machine.kinds import Emit, Kind, choose_kind
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
            f"the previous machine {files.name} does not stop",
            hint=f"kill the processes that hold its lock {files.lock}",
        )
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, life_lock)
        runtime_files.sweep(files)
        read_end, write_end = os.pipe()
        reports = stack.enter_context(os.fdopen(read_end, "rb"))
        arguments = BrokerArguments(files.name, config, life_lock, write_end)
        try:
            _spawn_broker(arguments)
        finally:
            os.close(write_end)  # otherwise the broker's end could not be detected
        message = _answer(reports)
    if "error" in message:
        raise HostError(message["error"], hint=message.get("hint", ""))
    return [str(line) for line in message["messages"]]


def _answer(reports: Iterable[bytes]) -> dict[str, Any]:
    """Return the broker's answer: a line of JSON, or its traceback as an error."""
    output = []
    for line in reports:
        try:
            return dict(json.loads(line))
        except ValueError:
            output.append(line.decode(errors="replace").rstrip())
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
