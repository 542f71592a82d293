"""The configuration of a machine: the user's request, the broker's arguments, the guest's.

Also which directories of the host commands may write.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lvsctl.errors import HostError, UsageError

MAIN = "lvsctl.cli.main:main"
"""The function, by name, that the guest's fork server calls for an lvsctl command."""

PRELOAD = "lvsctl.cli.main:preload"
"""The function that it calls once before the first command, to import what commands need."""

LEAST_MEMORY = 192
"""In MiB: what a lab of a few nodes, its requests and their capture need, and some more."""


class Kernel(NamedTuple):
    """A kernel: the file to start, and the directory of its modules."""

    program: Path
    modules: Path

    @property
    def release(self) -> str:
        """The release, such as ``6.1.176``."""
        return self.modules.name


class MachineRequest(NamedTuple):
    """A user's request for a machine; None leaves a choice to lvsctl.

    ``kind`` is a name of ``kinds.KINDS``, ``kernel`` a value of ``--kernel``, ``memory`` in MiB.
    """

    kind: str | None = None
    kernel: str | None = None
    memory: int | None = None
    cpus: int | None = None

    def or_else(self, other: MachineRequest) -> MachineRequest:
        """Return this request, completed by the other one.

        Kind and kernel belong together: both come from the same request.
        """
        named = self if self.kind or self.kernel else other
        return MachineRequest(
            named.kind, named.kernel, self.memory or other.memory, self.cpus or other.cpus
        )


ANYTHING = MachineRequest()
"""The request that accepts any machine."""


def request_from_environment() -> MachineRequest:
    """Return the request in ``LVSCTL_MACHINE_KIND``, ``_KERNEL``, ``_MEMORY`` and ``_CPUS``.

    Raises UsageError for a malformed number.
    """

    def number(name: str) -> int | None:
        text = os.environ.get(name, "")
        if text and not (text.isdecimal() and int(text)):
            raise UsageError(f"{name}={text!r} is not a number above 0")
        return int(text) if text else None

    return MachineRequest(
        kind=os.environ.get("LVSCTL_MACHINE_KIND") or None,
        kernel=os.environ.get("LVSCTL_MACHINE_KERNEL") or None,
        memory=number("LVSCTL_MACHINE_MEMORY"),
        cpus=number("LVSCTL_MACHINE_CPUS"),
    )


class MachineConfig(NamedTuple):
    """The configuration with which a machine is started. ``memory`` is in MiB.

    ``accelerator`` executes the guest's instructions (kvm or tcg), if the kind has a choice.
    ``path`` is the sys.path of lvsctl inside, ``fingerprint`` identifies its source code.
    """

    kind: str
    kernel: Kernel
    memory: int
    cpus: int
    accelerator: str
    writable: tuple[str, ...]
    path: tuple[str, ...]
    fingerprint: str


class BrokerArguments(NamedTuple):
    """The broker's arguments: the machine's name and configuration, and file descriptors."""

    name: str
    config: MachineConfig
    life_lock: int
    report: int

    def to_json(self) -> str:
        """Return them as JSON, for the broker's command line."""
        return json.dumps(
            {
                "name": self.name,
                "program": str(self.config.kernel.program),
                "modules": str(self.config.kernel.modules),
                "kind": self.config.kind,
                "memory": self.config.memory,
                "cpus": self.config.cpus,
                "accelerator": self.config.accelerator,
                "writable": self.config.writable,
                "path": self.config.path,
                "fingerprint": self.config.fingerprint,
                "life_lock": self.life_lock,
                "report": self.report,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> BrokerArguments:
        """Parse the output of ``to_json``."""
        fields = json.loads(text)
        config = MachineConfig(
            kind=fields["kind"],
            kernel=Kernel(Path(fields["program"]), Path(fields["modules"])),
            memory=fields["memory"],
            cpus=fields["cpus"],
            accelerator=fields["accelerator"],
            writable=tuple(fields["writable"]),
            path=tuple(fields["path"]),
            fingerprint=fields["fingerprint"],
        )
        return cls(fields["name"], config, fields["life_lock"], fields["report"])


def interpreter() -> str:
    """Return the path of the Python that runs process 1, with its standard library only."""
    return os.path.realpath(sys.executable)


def agent_script() -> str:
    """Return the path of the script that process 1 runs."""
    return str(Path(__file__).resolve().parent / "guest" / "init.py")


def visible_paths(path: Sequence[str]) -> list[str]:
    """Return the paths that must be readable in the guest, the shortest first."""
    package_root = str(Path(__file__).resolve().parents[2])
    wanted = [
        *(sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix),
        *(str(Path(sys.executable).parent), package_root),
        *(entry for entry in path if Path(entry).exists()),
    ]
    ordered = sorted({str(Path(entry).absolute()) for entry in wanted if entry}, key=len)
    return [entry for entry in ordered if entry != "/"]


def stable_paths() -> list[str]:
    """Return directories that rarely change while a machine runs: programs and packages.

    ``client.fingerprint`` detects installed and removed packages. lvsctl itself is not among
    them unless it is installed as a package: a checkout may be edited.
    """
    wanted = dict.fromkeys(["/usr", sys.base_prefix, sys.prefix])
    return [
        path
        for path in wanted
        if not any(Path(path).is_relative_to(other) for other in wanted if other != path)
    ]


def guest_config(config: MachineConfig) -> dict[str, object]:
    """Return the agent's configuration, for the CONFIG frame."""
    return {
        "modules": str(config.kernel.modules),
        "visible": visible_paths(config.path),
        "stable": stable_paths(),
        "writable": list(config.writable),
        "path": list(config.path),
        "main": MAIN,
        "preload": PRELOAD,
        "fingerprint": config.fingerprint,
    }


def quoted(word: str) -> str:
    """Quote a word for the kernel's command line. Raises HostError if that is impossible."""
    if '"' in word:
        raise HostError(f"the kernel's command line cannot contain the path {word}")
    return f'"{word}"' if any(c.isspace() for c in word) else word


_SYSTEM_TREES = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc"),
    *("/run", "/sbin", "/sys", "/usr", "/var/backups", "/var/mail", "/var/spool"),
)
"""Never writable, nor anything below them."""

_SHARED_ROOTS = ("/", "/home", "/media", "/mnt", "/opt", "/srv", "/var", "/var/lib")
"""Not writable themselves, but directories below them are."""

_USERS_OWN = ("/usr/local", "/usr/src", "/run/media", f"/run/user/{os.getuid()}")
"""Below a system tree, but where users keep or mount their own files."""


def why_not_writable(directory: str) -> str | None:
    """Return why a directory (absolute, no symlinks) must not be written; None if it may be."""
    if directory in _SHARED_ROOTS:
        return "too much of the host would be writable"
    if any(directory.startswith(f"{own}/") for own in _USERS_OWN):
        return None
    if any(directory == tree or directory.startswith(f"{tree}/") for tree in _SYSTEM_TREES):
        return "it belongs to the host's system"
    return None


def writable_trees() -> tuple[str, ...]:
    """Return the directories of this host below which any writable directory lies."""
    found: list[str] = []
    for path in _directories("/"):
        if any(tree.startswith(f"{path}/") for tree in _SYSTEM_TREES):
            found += _directories(path)
        else:
            found.append(path)
    return (*(path for path in found if path not in _SYSTEM_TREES), *_USERS_OWN)


def _directories(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))


def writable_directories(directories: Iterable[str]) -> tuple[str, ...]:
    """Return the directories that the user named, resolved and in order. Raises UsageError."""
    found: dict[str, None] = {}
    for directory in directories:
        path = os.path.realpath(directory)
        if not Path(path).is_dir():
            raise UsageError(f"cannot make {directory} writable: not a directory")
        reason = why_not_writable(path)
        if reason is not None:
            raise UsageError(
                f"cannot make {directory} writable in the machine: {reason}",
                hint="use a directory of your own",
            )
        found[path] = None
    return tuple(found)


def writable_from_environment() -> list[str]:
    """Return the directories in ``LVSCTL_WRITABLE``, separated by colons."""
    return [entry for entry in os.environ.get("LVSCTL_WRITABLE", "").split(":") if entry]
