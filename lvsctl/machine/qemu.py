"""QEMU with a distribution's kernel: any release, several CPUs; by KVM, or emulated."""

from __future__ import annotations

import contextlib
import platform
import shutil
from pathlib import Path

from lvsctl.errors import UsageError
from lvsctl.machine import initramfs, kernels, kvm, process, work_directory
from lvsctl.machine.config import Kernel, MachineConfig, quoted
from lvsctl.machine.packages import Emit

PROGRAM = "qemu-system-x86_64"
LINE = "/dev/vport0p1"
"""The port of the only virtio-serial device: a byte stream to the broker."""

MAX_CPUS = 64

BOOT_TIMEOUT = {"kvm": 30.0, "tcg": 300.0}
"""Seconds until the guest must have said HELLO: it takes one by KVM; emulated, ten to a hundred.

KVM inside a machine that only half supports it lets a guest hang without a word.
"""

EMULATED_CPU = "max,avx2=off,erms=off,la57=off,smap=off"
"""All that QEMU can emulate, but for what saves time in silicon and costs it in software: one
byte at a time where the kernel trusts in fast string instructions, a fifth level of page tables,
a check around each access to a process's memory. Forking and starting programs takes a fourth
less of the host's time so (QEMU 7.2, kernel 6.1)."""

_ROOM = 64


class Qemu:
    """A kind of machine, see ``kinds.Kind``."""

    name = "qemu"
    title = "QEMU"

    def obstacle(self) -> str:
        """Why this host cannot run it."""
        if platform.machine() != "x86_64":
            return f"lvsctl starts QEMU on x86_64 only, and this is {platform.machine()}"
        if shutil.which(PROGRAM) is None:
            return f"{PROGRAM} is not installed: sudo apt-get install qemu-system-x86"
        return ""

    def find(self, wanted: str | None) -> Kernel | None:
        """A kernel that has been prepared before."""
        return kernels.find(wanted)

    def ready(self) -> dict[str, Kernel]:
        """Those that have been fetched."""
        return kernels.ready()

    def kernel(self, wanted: str | None, emit: Emit) -> Kernel:
        """A kernel file of the host's, or one out of the distribution's package."""
        return kernels.ensure(wanted, emit)

    def accelerator(self) -> tuple[str, str]:
        """KVM where it runs a guest, else TCG, which emulates."""
        reason = kvm.obstacle(PROGRAM)
        if reason:
            return "tcg", f"emulated (TCG), for KVM does not work here: {reason}"
        return "kvm", "KVM"

    def memory(self) -> int:
        """A gigabyte where half of what is free allows it."""
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
            free = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in file}
        return max(256, min(1024, free["MemAvailable"] // 2))

    def cpus(self, wanted: int | None) -> int:
        """As many as are wanted, one by default: labs mostly wait."""
        if wanted is not None and wanted > MAX_CPUS:
            raise UsageError(f"{wanted} CPUs are too many", hint=f"{MAX_CPUS} at most")
        return wanted or 1

    def work_directory(self, _plan: MachineConfig) -> Path:
        """For the initramfs."""
        return work_directory.directory(_ROOM, executable=False)

    def spawn(self, config: MachineConfig, work: Path) -> process.StartedMachine:
        """Start it, with its initramfs in its work directory."""
        initrd = work / "initramfs"
        modules = config.kernel.modules
        initrd.write_bytes(initramfs.content(modules, kernels.first_modules(modules)))
        return process.started(
            lambda line: command_line(config, initrd, line), work, config.writable, kvm.DEVICE
        )

    def boot_timeout(self, config: MachineConfig) -> float:
        """By what runs it."""
        return BOOT_TIMEOUT[config.accelerator]

    def fallback(self, config: MachineConfig) -> tuple[MachineConfig, str] | None:
        """Emulated, where KVM did not get to the end of the boot."""
        if config.accelerator != "kvm":
            return None
        with contextlib.suppress(OSError):
            kvm.remember(f"{config.kernel.release} does not start, though firmware does")
        told = f"KVM does not run {config.kernel.release} here: emulating (TCG), which is slower"
        return config._replace(accelerator="tcg"), told


def command_line(config: MachineConfig, initrd: Path, line: int) -> list[str]:
    """QEMU's arguments; ``line`` is the file descriptor that becomes the guest's port.

    The host's tree goes in three times: ``guest.host_tree`` says what for.
    """
    return [
        str(shutil.which(PROGRAM)),
        *machine_arguments(config.accelerator),
        *("-smp", str(config.cpus), "-m", f"{config.memory}M"),
        *("-serial", "stdio"),
        *("-device", "virtio-serial-pci", "-chardev", f"socket,id=line,fd={line}"),
        *("-device", "virtserialport,nr=1,chardev=line,name=lvsctl"),
        *_share("tree", "readonly=on"),
        *_share("stable", "readonly=on"),
        *_share("export", "readonly=off"),
        *("-kernel", str(config.kernel.program), "-initrd", str(initrd)),
        *("-append", kernel_arguments()),
    ]


def machine_arguments(accelerator: str) -> list[str]:
    """What the guest's hardware is, but for its devices."""
    how, cpu = ("tcg,thread=multi", EMULATED_CPU) if accelerator == "tcg" else (accelerator, "max")
    return [
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-cpu", cpu, "-accel", how),
    ]


def _share(tag: str, access: str) -> list[str]:
    # Files belong to the user who runs QEMU; several file systems below /, one number space.
    options = f"local,id={tag},path=/,security_model=none,multidevs=remap,{access}"
    return ["-fsdev", options, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def kernel_arguments() -> str:
    """The kernel's command line."""
    first, *rest = initramfs.arguments(LINE)
    words = [
        *("console=ttyS0", "quiet", "panic=-1", "mitigations=off", "net.ifnames=0"),
        *("i8042.noaux=1", "i8042.nokbd=1", "audit=0"),
        # Some milliseconds without a tick, and the kernel panics, holding the timer for broken:
        # where the host is busy an emulated one may well be that late.
        "no_timer_check",
        # A variable of the first program's environment: the kernel does not know it.
        f"LD_LIBRARY_PATH={initramfs.LIBRARIES}",
        f"rdinit={quoted(first)}",
        *("--", *(quoted(word) for word in rest)),
    ]
    return " ".join(words)
