"""Every feature of this host that labs may need: root, the kernel's, and programs.

lvsctl runs none of the programs itself; people do, in a lab.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

from lvsctl.kernel import probe, probe_kernel

_PATIENCE = 5.0  # seconds for a program to tell its version
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_MODPROBE = re.compile(r"^modprobe: .*", re.MULTILINE)
"""What ipvsadm has modprobe say, where there is no IPVS: it names the kernel's version."""


@dataclass(frozen=True, slots=True)
class _Tool:
    command: str
    question: str
    """The option that makes it tell its version."""
    package: str
    needed_for: str


_TOOLS = (
    _Tool("ip", "-V", "iproute2", "the script of `lvsctl plan`, and `ip netns exec` by hand"),
    _Tool("ipvsadm", "--version", "ipvsadm", "the script of `lvsctl plan`, and `ipvsadm -Ln`"),
    _Tool("sysctl", "--version", "procps", "the script of `lvsctl plan`"),
    _Tool("ethtool", "--version", "ethtool", "the script of `lvsctl plan`"),
    _Tool("curl", "--version", "curl", "requests by hand: `lvsctl exec client -- curl …`"),
    _Tool("tcpdump", "--version", "tcpdump", "captures by hand"),
    _Tool("tshark", "--version", "tshark", "reading captures in detail"),
)


def features() -> tuple[probe.Feature, ...]:
    """Test everything that labs may need of this host, the most important first.

    Takes a few tenths of a second. Leaves nothing behind but, perhaps, a kernel module.
    """
    root = probe.has_root()
    privilege = probe.Feature(
        id="root",
        text=("" if root else "no ") + "CAP_NET_ADMIN and CAP_SYS_ADMIN",
        present=root,
        needed_for="every mode",
        remedy="run it with sudo, or use the throwaway kernel: --where machine",
    )
    return (privilege, *probe_kernel.features(try_them=root), *programs())


def programs() -> tuple[probe.Feature, ...]:
    """Find the programs, all at once."""
    asked = [(tool, _ask(tool)) for tool in _TOOLS]
    return tuple(_feature(tool, process) for tool, process in asked)


def _ask(tool: _Tool) -> subprocess.Popen[str] | None:
    command = probe.which(tool.command)
    if command is None:
        return None
    try:
        return subprocess.Popen(
            [command, tool.question],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError:  # found, but cannot be run
        return None


def _feature(tool: _Tool, process: subprocess.Popen[str] | None) -> probe.Feature:
    return probe.Feature(
        id=tool.command,
        text="not installed" if process is None else _version(process),
        present=process is not None,
        needed_for=tool.needed_for,
        remedy=f"sudo apt-get install {tool.package}",
        optional=True,
    )


def _version(process: subprocess.Popen[str]) -> str:
    try:
        output, _ = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "installed, but does not answer"
    found = _VERSION.search(_MODPROBE.sub("", output))
    return found.group() if found else "installed"
