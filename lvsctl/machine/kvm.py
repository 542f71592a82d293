"""Whether KVM runs guests here: tried, for its device says little.

Inside a machine that only half supports it, /dev/kvm is there and opens, and guests fail at
once, hang in their firmware, or hang when the kernel starts.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path

from lvsctl.machine import cache, runtime_files

DEVICE = "/dev/kvm"
TIMEOUT = 5.0
"""Seconds for the firmware to say its name; it takes a tenth of one."""

_PORT = "0x402"
_GREETING = b"SeaBIOS"


def obstacle(program: str) -> str:
    """Why QEMU cannot use KVM; empty where its firmware ran by KVM just now."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"there is no {DEVICE}"
    except OSError as error:
        return f"{DEVICE}: {error.strerror}"
    return _remembered() or _tried(program)


def _tried(program: str) -> str:
    """Start QEMU without any guest and wait for its firmware's first words."""
    from lvsctl.machine.qemu import machine_arguments

    arguments = [
        *(program, *machine_arguments("kvm"), "-m", "64"),
        *("-chardev", "stdio,id=debug", "-device", f"isa-debugcon,iobase={_PORT},chardev=debug"),
    ]
    deadline = time.monotonic() + TIMEOUT
    said = b""
    with subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        try:
            while _GREETING not in said:
                remaining = max(0.0, deadline - time.monotonic())
                if not select.select([process.stdout], [], [], remaining)[0]:
                    return f"a guest hangs in its firmware ({TIMEOUT:.0f} s)"
                data = os.read(process.stdout.fileno(), 4096)
                if not data:
                    return _last_line(said) or "QEMU ends at once"
                said += data
            return ""
        finally:
            process.kill()


def _last_line(said: bytes) -> str:
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line or "failed" in line]
    return (telling or lines or [""])[0].removeprefix("qemu-system-x86_64: ")


def _memory() -> Path:
    return cache.directory() / "kvm.json"


def _remembered() -> str:
    """Why a kernel did not start by KVM earlier in this boot of the host."""
    try:
        found = json.loads(_memory().read_text(encoding="utf-8"))
        return str(found["reason"]) if found["boot"] == runtime_files.boot_id() else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def remember(reason: str) -> None:
    """Spare the next start the wait, until the host boots again. Raises OSError."""
    _memory().parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"boot": runtime_files.boot_id(), "reason": reason})
    draft = _memory().with_suffix(f".{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.rename(_memory())
