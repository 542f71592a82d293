"""What this host can do, tested by doing it, never guessed from a version.

``has_root`` and ``has_ipvs`` are checked before every command and read two or three small files.
``kernel.features`` tests everything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from lvsctl.errors import HostError

CAP_NET_ADMIN, CAP_SYS_MODULE, CAP_SYS_ADMIN = 12, 16, 21

MACHINE = "use the throwaway kernel: --where machine"
"""What helps wherever this host's kernel cannot."""

OTHER_KERNEL = (
    "another kernel may have it: lvsctl machine stop, then lvsctl machine start --kernel 6.12"
)
"""A remedy where the throwaway kernel lacks something: Debian 13's kernel in QEMU has it all."""

_SYSTEM_PATHS = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that a lab may need of the host.

    ``text`` is what was found, in a few words; ``needed_for`` what does not work
    without it; ``remedy`` the command that fixes it, or what to do instead.
    ``optional``: its absence is a remark and no error. ``known`` is false if it could not be
    found out; ``present`` is false then, too.
    """

    id: str
    text: str
    present: bool
    needed_for: str
    remedy: str
    optional: bool = False
    known: bool = True


@dataclass(frozen=True, slots=True)
class Features:
    """What a kernel, the host's or the machine's, offers labs (``where``).

    ``remark`` explains why there are no features: the machine is not running.
    """

    where: str
    features: tuple[Feature, ...]
    remark: str = ""

    @property
    def able(self) -> bool:
        """Whether only optional features are missing."""
        return bool(self.features) and all(one.present or one.optional for one in self.features)


def inside_machine() -> bool:
    """Return whether this is the throwaway kernel."""
    return bool(os.environ.get("LVSCTL_IN_MACHINE"))


def has_root() -> bool:
    """Return whether this process may create and configure namespaces (capabilities(7))."""
    wanted = 1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN
    return _capabilities() & wanted == wanted


def has_ipvs() -> bool:
    """Return whether the kernel has IPVS, or its module and this process may load it.

    Asking generic netlink instead would have the kernel start modprobe each time where
    IPVS is missing: milliseconds. Its table in /proc says the same for nothing.
    """
    return ipvs_loaded() or (has_module("ip_vs") and _may_load_modules())


def ipvs_loaded() -> bool:
    """Return whether IPVS is loaded: every namespace has its table then."""
    return os.path.exists("/proc/self/net/ip_vs")  # noqa: PTH110  asked on every command


def has_module(name: str) -> bool:
    """Return whether the kernel has the module ``name``: loaded, built in or loadable."""
    if os.path.exists(f"/sys/module/{name}"):  # noqa: PTH110  as above
        return True
    wanted = f"/{name}.ko".encode()
    for listing in ("modules.builtin", "modules.dep"):
        try:
            with open(f"{_modules()}/{listing}", "rb") as modules:  # noqa: PTH123  as above
                if wanted in modules.read():
                    return True
        except OSError:
            continue
    return False


def modules_are_listed() -> bool:
    """Return whether the lists that ``has_module`` reads are installed."""
    return os.path.exists(f"{_modules()}/modules.builtin")  # noqa: PTH110  as above


def load_ipvs() -> None:
    """Make sure that the kernel has IPVS, loading its module where it is missing.

    Raises HostError, saying what to type, where that fails.
    """
    if ipvs_loaded():
        return
    if not has_module("ip_vs"):
        raise HostError(f"the kernel {os.uname().release} has no IPVS (ip_vs)", hint=MACHINE)
    modprobe = which("modprobe")
    if modprobe is None:
        raise HostError(
            "IPVS is not loaded, and there is no modprobe", hint="sudo apt-get install kmod"
        )
    done = subprocess.run(
        [modprobe, "ip_vs"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode or not ipvs_loaded():
        reason = done.stderr.strip() or "modprobe loaded it, but the kernel still has none"
        raise HostError(f"cannot load IPVS: {reason}", hint=f"sudo modprobe ip_vs, or {MACHINE}")


def which(command: str) -> str | None:
    """Where a command is, in the places for administrators too: users often lack them in PATH."""
    return shutil.which(command) or shutil.which(command, path=_SYSTEM_PATHS)


def _modules() -> str:
    return f"/lib/modules/{os.uname().release}"


def _capabilities() -> int:
    with open("/proc/self/status", "rb") as status:  # noqa: PTH123  asked on every command
        for line in status:
            if line.startswith(b"CapEff:"):
                return int(line[7:], 16)
    return 0


def _may_load_modules() -> bool:
    if not _capabilities() >> CAP_SYS_MODULE & 1:
        return False
    try:
        with open("/proc/sys/kernel/modules_disabled", "rb") as disabled:  # noqa: PTH123
            return disabled.read().strip() == b"0"
    except OSError:
        return False
