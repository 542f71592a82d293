"""Test whether KVM can run guests on this host, by running one.

Where nested virtualization does not work fully, /dev/kvm can be opened, but guests fail at once,
hang in their firmware, or hang when the kernel starts.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from lvsctl.machine import directories, runtime_files

DEVICE = "/dev/kvm"
TIMEOUT = 5.0
"""Seconds for the firmware to print its name."""

_PORT = "0x402"
_GREETING = b"SeaBIOS"


def obstacle(qemu: Sequence[str]) -> str:
    """Return why QEMU cannot use KVM; empty if its firmware runs with KVM.

    ``qemu`` is the command line of QEMU with KVM, without devices.
    """
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"{DEVICE} does not exist"
    except OSError as error:
        return f"{DEVICE}: {error.strerror}"
    return _remembered() or _try(qemu)


def _try(qemu: Sequence[str]) -> str:
    """Start QEMU without a guest and wait for its firmware's first message."""
    arguments = [
        *(*qemu, "-m", "64"),
        *("-chardev", "stdio,id=debug", "-device", f"isa-debugcon,iobase={_PORT},chardev=debug"),
    ]
    deadline = time.monotonic() + TIMEOUT
    output = b""
    with subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        try:
            while _GREETING not in output:
                remaining = max(0.0, deadline - time.monotonic())
                if not select.select([process.stdout], [], [], remaining)[0]:
                    return f"a guest hangs in its firmware ({TIMEOUT:.0f} s)"
                data = os.read(process.stdout.fileno(), 4096)
                if not data:
                    return _last_line(output) or "QEMU ends at once"
                output += data
            return ""
        finally:
            process.kill()


def _last_line(output: bytes) -> str:
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    relevant = [line for line in lines if "error" in line or "failed" in line]
    return (relevant or lines or [""])[0].removeprefix("qemu-system-x86_64: ")


def _memory() -> Path:
    return directories.cache_directory() / "kvm.json"


def _remembered() -> str:
    """Return why a kernel did not start with KVM earlier since the host booted."""
    try:
        found = json.loads(_memory().read_text(encoding="utf-8"))
        return str(found["reason"]) if found["boot"] == runtime_files.boot_id() else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def remember(reason: str) -> None:
    """Record that KVM does not work, until the host boots again. Raises OSError."""
    _memory().parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"boot": runtime_files.boot_id(), "reason": reason})
    draft = _memory().with_suffix(f".{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.rename(_memory())
