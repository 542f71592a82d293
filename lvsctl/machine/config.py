"""What a machine is started with, whatever its kind, and what its guest is told."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lvsctl.errors import HostError, UsageError

MAIN = "lvsctl.cli.main:main"
"""What the guest's fork server calls for an lvsctl command: its arguments in, its status out."""

PRELOAD = "lvsctl.cli.main:preload"
"""What it calls once, before the first command: imports what commands need."""


class Kernel(NamedTuple):
    """A kernel: the file that is started, and the directory of its modules."""

    program: Path
    modules: Path

    @property
    def release(self) -> str:
        """The kernel's release, such as ``6.1.176``."""
        return self.modules.name


class MachineRequest(NamedTuple):
    """What the user asks of a machine; None where it is left to lvsctl. ``memory`` is in MiB.

    ``kind`` is a name of ``kinds.KINDS``, ``kernel`` what ``--kernel`` takes.
    """

    kind: str | None = None
    kernel: str | None = None
    memory: int | None = None
    cpus: int | None = None

    def or_else(self, other: MachineRequest) -> MachineRequest:
        """This wish, and the other one's where it leaves something open.

        A kind that is named says nothing about a kernel that is not, and the other way round:
        they go together.
        """
        named = self if self.kind or self.kernel else other
        return MachineRequest(
            named.kind, named.kernel, self.memory or other.memory, self.cpus or other.cpus
        )


ANYTHING = MachineRequest()
"""Whatever this host can run."""


def request_from_environment() -> MachineRequest:
    """What ``LVSCTL_MACHINE_KIND``, ``_KERNEL``, ``_MEMORY`` and ``_CPUS`` say.

    Raises UsageError.
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
    """What a machine is started with. ``memory`` is in MiB.

    ``accelerator`` is what runs the guest's instructions, where the kind has a choice.
    ``path`` is the sys.path of lvsctl inside.
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
    """What the client orders: a machine by this name, and the file descriptors to use."""

    name: str
    config: MachineConfig
    life_lock: int
    report: int

    def to_json(self) -> str:
        """As an argument for the broker's command line."""
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
        """The inverse of ``to_json``."""
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
    """The Python that runs process 1; it needs only its standard library."""
    return os.path.realpath(sys.executable)


def agent_script() -> str:
    """The script that is process 1."""
    return str(Path(__file__).resolve().parent / "guest" / "init.py")


def visible_paths(path: Sequence[str]) -> list[str]:
    """What must be readable in the guest under its own name, the shortest first."""
    package_root = str(Path(__file__).resolve().parents[2])
    wanted = [
        *(sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix),
        *(str(Path(sys.executable).parent), package_root),
        *(entry for entry in path if Path(entry).exists()),
    ]
    ordered = sorted({str(Path(entry).absolute()) for entry in wanted if entry}, key=len)
    return [entry for entry in ordered if entry != "/"]


def stable_paths() -> list[str]:
    """Where next to nothing changes while a machine runs: programs and Python packages.

    Where packages come or go ``client.fingerprint`` tells. Not lvsctl itself, unless it is a
    package like others: a checkout is being worked on.
    """
    wanted = dict.fromkeys(["/usr", sys.base_prefix, sys.prefix])
    return [
        path
        for path in wanted
        if not any(Path(path).is_relative_to(other) for other in wanted if other != path)
    ]


def guest_config(config: MachineConfig) -> dict[str, object]:
    """What the agent must know to set the guest up."""
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
    """A word of the kernel's command line. Raises HostError where it cannot be written."""
    if '"' in word:
        raise HostError(f"the kernel's command line cannot express the path {word}")
    return f'"{word}"' if any(c.isspace() for c in word) else word
