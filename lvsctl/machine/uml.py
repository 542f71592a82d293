"""User-Mode Linux: a kernel that is an ordinary program. Needs neither root nor KVM; one CPU.

The kernel is the host's own if Debian's package is installed, otherwise it is downloaded and
unpacked.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lvsctl.errors import HostError, UsageError
from lvsctl.machine import directories, host_cpu, packages, process, xstate
from lvsctl.machine.config import (
    LEAST_MEMORY,
    Kernel,
    MachineConfig,
    agent_script,
    interpreter,
    quoted,
)
from lvsctl.machine.packages import Emit

PACKAGE = "user-mode-linux"
INSTALL_HINT = f"install it: sudo apt-get install {PACKAGE}"


def unpack_directory() -> Path:
    """Return the directory in which the package is unpacked."""
    return directories.cache_directory() / "uml"


def find_kernel() -> Kernel | None:
    """Return the kernel installed on the host, else the one in the cache, else None."""
    program = shutil.which("linux.uml")
    installed = _kernel_in(Path("/"), Path(program)) if program else None
    return installed or _kernel_in(unpack_directory() / "current", None)


def _kernel_in(root: Path, program: Path | None) -> Kernel | None:
    program = program or root / "usr/bin/linux.uml"
    modules = sorted(root.glob("usr/lib/uml/modules/*/modules.dep"))
    if not modules or not os.access(program, os.X_OK):
        return None
    return Kernel(program.resolve(), modules[-1].parent.resolve())


def _is_below(kernel: Kernel, place: Path) -> bool:
    return kernel.program.is_relative_to(place.resolve())


def why_no_kernel() -> str:
    """Return why this host has no such kernel and cannot download it; empty if it has or can."""
    if os.uname().machine not in ("x86_64", "i686"):
        return f"it does not exist for {os.uname().machine}"
    tool = packages.missing_tool()
    if tool and find_kernel() is None:
        return (
            f"the package {PACKAGE} is not installed, and {tool} is missing to download it: "
            "put linux.uml on PATH and its modules below /usr/lib/uml/modules"
        )
    return ""


def ensure_kernel(emit: Emit) -> Kernel:
    """Return the kernel, downloaded if it is missing. Raises HostError."""
    kernel = find_kernel()
    place = unpack_directory()
    if kernel is not None:
        reason = directories.damaged(place / "current") if _is_below(kernel, place) else ""
        if not reason:
            return kernel
        emit(f"the throwaway kernel is damaged: {reason}")
    if reason := why_no_kernel():
        raise HostError(f"this host cannot run User-Mode Linux: {reason}", hint=INSTALL_HINT)
    emit(f"unpacking the throwaway kernel (Debian package {PACKAGE}, 41 MB) into {place}")
    try:
        place.mkdir(parents=True, exist_ok=True)
        with directories.scratch_directory(place) as scratch:
            package = packages.download(PACKAGE, scratch, emit, INSTALL_HINT)
            tree = scratch / "tree"
            packages.unpack(package, tree, f"it needs 300 MB below {place}; or {INSTALL_HINT}")
            _publish(tree, place)
    except OSError as error:
        raise HostError(
            f"cannot unpack the throwaway kernel into {place}: {error.strerror or error}",
            hint=f"set XDG_CACHE_HOME to a directory with 300 MB of free space, or {INSTALL_HINT}",
        ) from error
    kernel = find_kernel()
    if kernel is None:
        raise HostError(
            f"the package {PACKAGE} does not contain the kernel and its modules", hint=INSTALL_HINT
        )
    return kernel


def _publish(tree: Path, place: Path) -> None:
    """Rename the unpacked tree to its final place, unless another process has done so."""
    target = place / "current"
    if _kernel_in(target, None) is not None and not directories.damaged(target):
        return  # another process has done it
    if target.exists():  # not a kernel, or a damaged one: replace it
        target.rename(tree.parent / "broken")
    try:
        directories.publish(tree, target)
    except OSError:
        if _kernel_in(target, None) is None:
            raise


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
        return why_no_kernel()

    def find(self, wanted: str | None) -> Kernel | None:
        """Return the installed kernel."""
        self._refuse(wanted)
        return find_kernel()

    def ready(self) -> dict[str, Kernel]:
        """Return the installed kernel by its name."""
        kernel = find_kernel()
        return {} if kernel is None else {"linux.uml": kernel}

    def kernel(self, wanted: str | None, emit: Emit) -> Kernel:
        """Return the kernel, from Debian's package if necessary."""
        self._refuse(wanted)
        kernel = ensure_kernel(emit)
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
        return max(LEAST_MEMORY, min(1024, directories.work_directory_room() // 2))

    def cpus(self, wanted: int | None) -> int:
        """Return 1, the maximum."""
        if wanted not in (None, 1):
            raise UsageError("User-Mode Linux has one CPU", hint="--kind qemu can have several")
        return 1

    def work_directory(self, config: MachineConfig) -> Path:
        """Make a directory for its memory, a file mapped executable, and its sockets."""
        return directories.create_work_directory(config.memory, executable=True)

    def spawn(self, config: MachineConfig, work: Path) -> process.StartedMachine:
        """Start it, confined, on one of the host's CPUs."""
        return process.start_process(
            lambda fd: command_line(config, work, fd),
            work,
            config.writable,
            preload=xstate.library() if xstate.is_needed() else None,
            cpu=host_cpu.claim(),
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
