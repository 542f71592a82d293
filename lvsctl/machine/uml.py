"""User-Mode Linux: a kernel that is an ordinary program. No root, no KVM, one processor."""

from __future__ import annotations

import os
from pathlib import Path

from lvsctl.errors import UsageError
from lvsctl.machine import process, uml_package, work_directory, xstate
from lvsctl.machine.config import Kernel, MachineConfig, agent_script, interpreter, quoted
from lvsctl.machine.packages import Emit

SKIPPED_INITCALLS = ("raid6_select_algo", "init_zswap", "init_jfs_fs")
"""Parts of the kernel that take half of its boot (a RAID 6 benchmark) and serve no lab."""

BOOT_TIMEOUT = 60.0
"""Seconds until the guest must have said HELLO; it takes one on an idle machine."""


class Uml:
    """A kind of machine, see ``kinds.Kind``."""

    name = "uml"
    title = "User-Mode Linux"

    def obstacle(self) -> str:
        """Why this host cannot run it."""
        return uml_package.obstacle()

    def find(self, wanted: str | None) -> Kernel | None:
        """Where its program and modules are."""
        self._refuse(wanted)
        return uml_package.find()

    def ready(self) -> dict[str, Kernel]:
        """The one that there is."""
        kernel = uml_package.find()
        return {} if kernel is None else {"linux.uml": kernel}

    def kernel(self, wanted: str | None, emit: Emit) -> Kernel:
        """The program, from Debian's package if need be."""
        self._refuse(wanted)
        kernel = uml_package.ensure_installed(emit)
        if xstate.is_needed():
            xstate.ensure_library(emit)
        return kernel

    def _refuse(self, wanted: str | None) -> None:
        if wanted is not None:
            raise UsageError(
                f"User-Mode Linux is a kernel of its own: it cannot run {wanted}",
                hint=f"--kind qemu --kernel {wanted}",
            )

    def accelerator(self) -> tuple[str, str]:
        """None: its instructions are the host's."""
        return "", "an ordinary process, one CPU"

    def memory(self) -> int:
        """A gigabyte where a work directory has it, else what is safe."""
        return max(192, min(1024, work_directory.room() // 2))

    def cpus(self, wanted: int | None) -> int:
        """One, which is all that it can."""
        if wanted not in (None, 1):
            raise UsageError("User-Mode Linux has one CPU", hint="--kind qemu can have several")
        return 1

    def work_directory(self, config: MachineConfig) -> Path:
        """For its memory, which is a file mapped executable, and its sockets."""
        return work_directory.directory(config.memory, executable=True)

    def spawn(self, config: MachineConfig, work: Path) -> process.StartedMachine:
        """Start it."""
        preload = xstate.library() if xstate.is_needed() else None
        return process.started(
            lambda line: command_line(config, work, line), work, config.writable, preload=preload
        )

    def boot_timeout(self, _plan: MachineConfig) -> float:
        """Always the same."""
        return BOOT_TIMEOUT

    def fallback(self, _plan: MachineConfig) -> tuple[MachineConfig, str] | None:
        """There is no other way to start it."""
        return None


def command_line(config: MachineConfig, work: Path, line: int) -> list[str]:
    """UML's arguments; ``line`` is the file descriptor that becomes /dev/ttyS0."""
    return [
        str(config.kernel.program),
        f"mem={config.memory}M",
        f"uml_dir={work}",
        "umid=uml",
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
        "quiet",
        f"initcall_blacklist={','.join(SKIPPED_INITCALLS)}",
        # 512 devices that nothing opens, each with a process for /sbin/hotplug: half of its boot.
        "pty.legacy_count=0",
        *os.environ.get("LVSCTL_KERNEL_OPTIONS", "").split(),
        *("con=null", "con0=null,fd:1", f"ssl0=fd:{line}"),
        f"init={quoted(interpreter())}",
        *("--", "-I", "-S", quoted(agent_script()), "/dev/ttyS0"),
    ]
