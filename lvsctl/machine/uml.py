"""User-Mode Linux: a kernel that is an ordinary program. Needs neither root nor KVM; one CPU."""

from __future__ import annotations

import os
from pathlib import Path

from lvsctl.errors import UsageError
from lvsctl.machine import process, uml_package, work_directory, xstate
from lvsctl.machine.config import Kernel, MachineConfig, agent_script, interpreter, quoted
from lvsctl.machine.packages import Emit

SKIPPED_INITCALLS = ("raid6_select_algo", "init_zswap", "init_jfs_fs")
"""Initcalls that labs do not need and that take long (a RAID 6 benchmark)."""

BOOT_TIMEOUT = 60.0
"""Seconds until the guest must have sent HELLO."""


class Uml:
    """A kind of machine, see ``kinds.Kind``."""

    name = "uml"
    title = "User-Mode Linux"

    def obstacle(self) -> str:
        """Return why this host cannot run it; empty if it can."""
        return uml_package.obstacle()

    def find(self, wanted: str | None) -> Kernel | None:
        """Return the installed kernel."""
        self._refuse(wanted)
        return uml_package.find()

    def ready(self) -> dict[str, Kernel]:
        """Return the installed kernel by its name."""
        kernel = uml_package.find()
        return {} if kernel is None else {"linux.uml": kernel}

    def kernel(self, wanted: str | None, emit: Emit) -> Kernel:
        """Return the kernel, from Debian's package if necessary."""
        self._refuse(wanted)
        kernel = uml_package.ensure_installed(emit)
        if xstate.is_needed():
            xstate.ensure_library(emit)
        return kernel

    def _refuse(self, wanted: str | None) -> None:
        if wanted is not None:
            raise UsageError(
                f"User-Mode Linux is itself a kernel: it cannot run {wanted}",
                hint=f"--kind qemu --kernel {wanted}",
            )

    def accelerator(self) -> tuple[str, str]:
        """Return no accelerator: the host's CPU executes its instructions."""
        return "", "an ordinary process, one CPU"

    def memory(self) -> int:
        """Return 1024 MiB, or half of what the work directory can hold."""
        return max(192, min(1024, work_directory.room() // 2))

    def cpus(self, wanted: int | None) -> int:
        """Return 1, the maximum."""
        if wanted not in (None, 1):
            raise UsageError("User-Mode Linux has one CPU", hint="--kind qemu can have several")
        return 1

    def work_directory(self, config: MachineConfig) -> Path:
        """Make a directory for its memory, a file mapped executable, and its sockets."""
        return work_directory.directory(config.memory, executable=True)

    def spawn(self, config: MachineConfig, work: Path) -> process.StartedMachine:
        """Start it, confined."""
        preload = xstate.library() if xstate.is_needed() else None
        return process.start_process(
            lambda fd: command_line(config, work, fd), work, config.writable, preload=preload
        )

    def boot_timeout(self, _plan: MachineConfig) -> float:
        """Return the timeout, which is the same for every configuration."""
        return BOOT_TIMEOUT

    def fallback(self, _plan: MachineConfig) -> tuple[MachineConfig, str] | None:
        """Return None: it has no other configuration to try."""
        return None


def command_line(config: MachineConfig, work: Path, link: int) -> list[str]:
    """Return the arguments; ``link`` is the file descriptor that becomes /dev/ttyS0."""
    return [
        str(config.kernel.program),
        f"mem={config.memory}M",
        f"uml_dir={work}",
        "umid=uml",
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
        "quiet",
        f"initcall_blacklist={','.join(SKIPPED_INITCALLS)}",
        # No legacy pseudo-terminals: the kernel would start a hotplug process for each of 512.
        "pty.legacy_count=0",
        *os.environ.get("LVSCTL_KERNEL_OPTIONS", "").split(),
        *("con=null", "con0=null,fd:1", f"ssl0=fd:{link}"),
        f"init={quoted(interpreter())}",
        *("--", "-I", "-S", quoted(agent_script()), "/dev/ttyS0"),
    ]
