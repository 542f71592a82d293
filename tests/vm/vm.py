"""A virtual machine started from an image, entered by ssh as its user.

QEMU runs in a network namespace of its own, which has a loopback device and nothing else: its
user-mode network gives the guest an address by DHCP and one way in, from that namespace's port 22.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lvsctl.machine.qemu import PROGRAM, machine_arguments, remember_failure, why_no_kvm
from tests.vm.image import CHECKOUT, USER, Image

MEMORY, CPUS = 1024, 2
"""The Vagrantfile's defaults; MiB."""

BOOT_TIMEOUT = {"kvm": 120, "tcg": 900}
"""Seconds until sshd answers."""

KVM_TIMEOUT = 20
"""Seconds until a kernel must have printed something: where KVM works in part, it hangs at once."""

_LOOPBACK = "ip link set lo up && exec "


@dataclass(frozen=True, slots=True)
class Vm:
    """A running virtual machine."""

    process: subprocess.Popen[bytes]
    accelerator: str
    image: Image
    directory: Path

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command line as the image's user."""
        return subprocess.run(
            [*self._ssh(), command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def write(self, path: str, content: str) -> None:
        """Write a file of the user's."""
        words = [*self._ssh(), f"cat >{shlex.quote(path)}"]
        subprocess.run(words, input=content, text=True, check=True)

    def copy_checkout(self, target: str) -> None:
        """Copy what is, or is to be, in version control."""
        list_files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(list_files, cwd=CHECKOUT, check=True, capture_output=True).stdout
        there = b"\0".join(n for n in names.split(b"\0") if n and (CHECKOUT / n.decode()).is_file())
        pack = ["tar", "--create", "--null", "--files-from=-"]
        archive = subprocess.run(pack, cwd=CHECKOUT, check=True, input=there, capture_output=True)
        unpack = f"mkdir -p {target} && tar --extract --directory {target}"
        subprocess.run([*self._ssh(), unpack], check=True, input=archive.stdout)

    def console(self) -> str:
        """What the guest has printed on its serial line."""
        return (self.directory / "console").read_text(errors="replace")

    def _ssh(self) -> list[str]:
        namespace = f"--net=/proc/{self.process.pid}/ns/net"
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "60",
            # Emulated, a handshake takes seconds: one connection serves all commands.
            "ControlMaster": "auto",
            "ControlPath": str(self.directory / "control"),
            "ControlPersist": "yes",
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        key = str(self.image.key)
        return ["nsenter", namespace, "ssh", "-F", "none", "-i", key, *words, f"{USER}@127.0.0.1"]

    def wait_until_it_answers(self) -> None:
        """Wait for sshd. Raises AssertionError with the console's last lines."""
        deadline = time.monotonic() + BOOT_TIMEOUT[self.accelerator]
        while self.run("true").returncode != 0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=1)
            said = "\n".join(self.console().splitlines()[-30:])
            assert self.process.poll() is None, f"QEMU ended:\n{said}"
            assert time.monotonic() < deadline, f"sshd does not answer:\n{said}"

    def kernel_starts(self) -> bool:
        """Whether the kernel prints something; waits for it."""
        deadline = time.monotonic() + KVM_TIMEOUT
        while self.process.poll() is None and time.monotonic() < deadline:
            if self.console():
                return True
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=0.2)
        return False

    def stop(self) -> None:
        """End QEMU; the ssh client that kept the connection ends with it."""
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def running(image: Image) -> Iterator[Vm]:
    """Start a virtual machine whose changes to the disk are forgotten at its end."""
    with tempfile.TemporaryDirectory(prefix="lvsctl-vm-") as name:
        machine = _spawn(accelerator(image), image, Path(name))
        try:
            machine.wait_until_it_answers()
            yield machine
        finally:
            machine.stop()


def _program() -> str:
    program = shutil.which(PROGRAM)
    assert program is not None, "QEMU is not installed: type tools/setup qemu"
    return program


def accelerator(image: Image) -> str:
    """Return kvm if the image's kernel starts with it, else tcg, which emulates."""
    if why_no_kvm([_program(), *machine_arguments("kvm")]):
        return "tcg"
    with tempfile.TemporaryDirectory(prefix="lvsctl-vm-") as name:
        machine = _spawn("kvm", image, Path(name))
        try:
            if machine.kernel_starts():
                return "kvm"
        finally:
            machine.stop()
    remember_failure("a kernel does not start, although firmware does")
    return "tcg"


def _spawn(how: str, image: Image, directory: Path) -> Vm:
    console = directory / "console"
    console.touch()
    words = [_program(), *_arguments(image, how, console)]
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", _LOOPBACK + shlex.join(words)], stdin=subprocess.DEVNULL
    )
    return Vm(process, how, image, directory)


def _arguments(image: Image, how: str, console: Path) -> list[str]:
    append = "root=/dev/vda rw console=ttyS0 systemd.show_status=0 no_timer_check"
    return [
        *machine_arguments(how),
        *("-smp", str(CPUS), "-m", f"{MEMORY}M"),
        *("-serial", f"file:{console}"),
        *("-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on,cache=unsafe"),
        *("-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:22-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", append),
    ]
