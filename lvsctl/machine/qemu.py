"""QEMU with a distribution's kernel: any release, several CPUs, with KVM or emulated.

KVM is tested by running a guest: where nested virtualization does not work fully, /dev/kvm can be
opened, but guests fail at once, hang in their firmware, or hang when the kernel starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from lvsctl.errors import UsageError
from lvsctl.machine import directories, initramfs, kernels, process, records
from lvsctl.machine.config import Kernel, MachineConfig, quoted
from lvsctl.machine.packages import Emit

KVM_DEVICE = "/dev/kvm"
KVM_TIMEOUT = 5.0
"""Seconds for the firmware to print its name."""

_PORT = "0x402"
_GREETING = b"SeaBIOS"


def why_no_kvm(qemu: Sequence[str]) -> str:
    """Return why QEMU cannot use KVM; empty if its firmware runs with KVM.

    ``qemu`` is the command line of QEMU with KVM, without devices.
    """
    try:
        os.close(os.open(KVM_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"{KVM_DEVICE} does not exist"
    except OSError as error:
        return f"{KVM_DEVICE}: {error.strerror}"
    return _remembered_failure() or _run_firmware(qemu)


def _run_firmware(qemu: Sequence[str]) -> str:
    """Start QEMU without a guest and wait for its firmware's first message."""
    arguments = [
        *(*qemu, "-m", "64"),
        *("-chardev", "stdio,id=debug", "-device", f"isa-debugcon,iobase={_PORT},chardev=debug"),
    ]
    deadline = time.monotonic() + KVM_TIMEOUT
    output = b""
    with subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        try:
            while _GREETING not in output:
                remaining = max(0.0, deadline - time.monotonic())
                if not select.select([process.stdout], [], [], remaining)[0]:
                    return f"a guest hangs in its firmware ({KVM_TIMEOUT:.0f} s)"
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


def _failure_file() -> Path:
    return directories.cache_directory() / "kvm.json"


def _remembered_failure() -> str:
    """Return why a kernel did not start with KVM earlier since the host booted."""
    try:
        found = json.loads(_failure_file().read_text(encoding="utf-8"))
        return str(found["reason"]) if found["boot"] == records.boot_id() else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def remember_failure(reason: str) -> None:
    """Record that KVM does not work, until the host boots again. Raises OSError."""
    _failure_file().parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"boot": records.boot_id(), "reason": reason})
    draft = _failure_file().with_suffix(f".{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.rename(_failure_file())


PROGRAM = "qemu-system-x86_64"
LINK_DEVICE = "/dev/vport0p1"
"""The port of the only virtio-serial device: a byte stream to the broker."""

MAX_CPUS = 64

BOOT_TIMEOUT = {"kvm": 30.0, "tcg": 300.0}
"""Seconds until the guest must have sent HELLO.

Nested KVM that does not work fully lets a guest hang without any message.
"""

EMULATED_CPU = "max,avx2=off,bmi2=off,erms=off,la57=off,smap=off"
"""All CPU features that QEMU can emulate, except those that are slow to emulate: string
instructions byte by byte (erms), five-level page tables (la57), checks around each access to user
memory (smap). avx2 and bmi2 go together: every CPU has both or neither, and libgcrypt, which
apt uses, executes AVX2 instructions where it finds AVX and BMI2 (cipher/sha1-avx-bmi2-amd64.S)."""

_ROOM = 64


class Qemu:
    """A kind of machine, see ``kinds.Kind``."""

    name = "qemu"
    title = "QEMU"

    def obstacle(self) -> str:
        """Return why this host cannot run it; empty if it can."""
        if platform.machine() != "x86_64":
            return f"lvsctl starts QEMU on x86_64 only, and this is {platform.machine()}"
        if shutil.which(PROGRAM) is None:
            return f"{PROGRAM} is not installed: sudo apt-get install qemu-system-x86"
        return ""

    def find(self, wanted: str | None) -> Kernel | None:
        """Return a kernel that has been prepared before."""
        return kernels.find(wanted)

    def ready(self) -> dict[str, Kernel]:
        """Return the prepared kernels by name."""
        return kernels.ready()

    def kernel(self, wanted: str | None, emit: Emit) -> Kernel:
        """Return a kernel from a file of the host, or from a package of the distribution."""
        return kernels.ensure(wanted, emit)

    def accelerator(self) -> tuple[str, str]:
        """Return kvm if it can run a guest, else tcg, which emulates."""
        reason = why_no_kvm([PROGRAM, *machine_arguments("kvm")])
        if reason:
            return "tcg", f"emulated (TCG), because KVM does not work here: {reason}"
        return "kvm", "KVM"

    def memory(self) -> int:
        """Return 1024 MiB, or half of the host's available memory."""
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
            free = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in file}
        return max(256, min(1024, free["MemAvailable"] // 2))

    def cpus(self, wanted: int | None) -> int:
        """Return the requested number, 1 by default."""
        if wanted is not None and wanted > MAX_CPUS:
            raise UsageError(f"{wanted} CPUs are too many", hint=f"the maximum is {MAX_CPUS}")
        return wanted or 1

    def work_directory(self, _plan: MachineConfig) -> Path:
        """Make a directory for the initramfs."""
        return directories.create_work_directory(_ROOM, executable=False)

    def spawn(self, config: MachineConfig, work: Path) -> process.StartedMachine:
        """Start it, confined, with its initramfs in its work directory."""
        initrd = work / "initramfs"
        modules = config.kernel.modules
        initrd.write_bytes(initramfs.content(modules, kernels.first_modules(modules)))
        return process.start_process(
            lambda fd: command_line(config, initrd, fd), work, config.writable, KVM_DEVICE
        )

    def boot_timeout(self, config: MachineConfig) -> float:
        """Return the timeout for the accelerator."""
        return BOOT_TIMEOUT[config.accelerator]

    def fallback(self, config: MachineConfig) -> tuple[MachineConfig, str] | None:
        """Return an emulated machine if one with KVM did not start."""
        if config.accelerator != "kvm":
            return None
        with contextlib.suppress(OSError):
            remember_failure(f"{config.kernel.release} does not start, although firmware does")
        message = f"KVM does not run {config.kernel.release} here: emulating (TCG), which is slower"
        return config._replace(accelerator="tcg"), message


def command_line(config: MachineConfig, initrd: Path, link: int) -> list[str]:
    """Return QEMU's arguments; ``link`` is the file descriptor that becomes the guest's port.

    The host's tree is shared three times: see ``guest.mounts``.
    """
    return [
        str(shutil.which(PROGRAM)),
        *machine_arguments(config.accelerator),
        *("-smp", str(config.cpus), "-m", f"{config.memory}M"),
        *("-serial", "stdio"),
        *("-device", "virtio-serial-pci", "-chardev", f"socket,id=link,fd={link}"),
        *("-device", "virtserialport,nr=1,chardev=link,name=lvsctl"),
        *_share("tree", "readonly=on"),
        *_share("stable", "readonly=on"),
        *_share("export", "readonly=off"),
        *("-kernel", str(config.kernel.program), "-initrd", str(initrd)),
        *("-append", kernel_arguments()),
    ]


def machine_arguments(accelerator: str) -> list[str]:
    """Return QEMU's arguments for the guest's hardware, without its devices."""
    how, cpu = ("tcg,thread=multi", EMULATED_CPU) if accelerator == "tcg" else (accelerator, "max")
    return [
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-cpu", cpu, "-accel", how),
    ]


def _share(tag: str, access: str) -> list[str]:
    # Files belong to the user who runs QEMU; inode numbers of several file systems are remapped.
    options = f"local,id={tag},path=/,security_model=none,multidevs=remap,{access}"
    return ["-fsdev", options, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def kernel_arguments() -> str:
    """Return the kernel's command line."""
    first, *rest = initramfs.arguments(LINK_DEVICE)
    words = [
        *("console=ttyS0", "quiet", "panic=-1", "mitigations=off", "net.ifnames=0"),
        *("i8042.noaux=1", "i8042.nokbd=1", "audit=0"),
        # Otherwise the kernel panics if an emulated timer is late because the host is busy.
        "no_timer_check",
        # Not an option of the kernel, which puts it into the first program's environment.
        f"LD_LIBRARY_PATH={initramfs.LIBRARIES}",
        f"rdinit={quoted(first)}",
        *("--", *(quoted(word) for word in rest)),
    ]
    return " ".join(words)
