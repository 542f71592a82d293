"""The kinds of machine, their common interface, the choice between them, and their features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from lvsctl.errors import HostError, UsageError
from lvsctl.machine import qemu, uml
from lvsctl.machine.config import Kernel, MachineConfig, MachineRequest
from lvsctl.machine.guest.modules import load_order, name_of
from lvsctl.machine.process import StartedMachine

Emit = Callable[[str], None]


class Kind(Protocol):
    """A way to run another kernel in an ordinary process of the user's.

    What differs between kinds is here and in ``guest.mounts``; broker, frames, agent and
    commands are the same for all.
    """

    @property
    def name(self) -> str:
        """The name, a value of ``--kind``."""

    @property
    def title(self) -> str:
        """The name for people."""

    def obstacle(self) -> str:
        """Return why this host cannot run it, and the remedy; empty if it can.

        A kernel that is missing but can be downloaded is not an obstacle.
        """

    def find(self, wanted: str | None) -> Kernel | None:
        """Return the kernel that ``--kernel`` names (None: the default one), if it is ready."""

    def ready(self) -> Mapping[str, Kernel]:
        """Return the kernels that can be started without a download, by value of ``--kernel``."""

    def kernel(self, wanted: str | None, emit: Emit) -> Kernel:
        """Return the kernel, downloaded and prepared if necessary. Raises HostError, UsageError."""

    def accelerator(self) -> tuple[str, str]:
        """Return ``MachineConfig.accelerator`` for this host, and a description for people."""

    def memory(self) -> int:
        """Return the default memory in MiB."""

    def cpus(self, wanted: int | None) -> int:
        """Return the number of CPUs. Raises UsageError if it cannot have as many as requested."""

    def work_directory(self, config: MachineConfig) -> Path:
        """Create the directory for the machine's files. Raises HostError."""

    def spawn(self, config: MachineConfig, work: Path) -> StartedMachine:
        """Start the process, confined, in a session of its own. Raises HostError."""

    def boot_timeout(self, config: MachineConfig) -> float:
        """Return the seconds until its guest must have sent HELLO."""

    def fallback(self, config: MachineConfig) -> tuple[MachineConfig, str] | None:
        """Return what to try if this configuration did not start, and a message; else None."""


KINDS: dict[str, Kind] = {kind.name: kind for kind in (uml.Uml(), qemu.Qemu())}
"""The one with the fewest requirements first."""


def choose_kind(request: MachineRequest) -> Kind:
    """Return the requested kind, else the first that this host can run.

    Raises UsageError for a kind that does not exist, and HostError if this host can run none.
    """
    name = request.kind or ("qemu" if request.kernel else None)
    if name is not None:
        if name not in KINDS:
            raise UsageError(
                f"unknown kind of machine {name!r}", hint=f"use one of {', '.join(KINDS)}"
            )
        kind = KINDS[name]
        if reason := kind.obstacle():
            raise HostError(f"this host cannot run {kind.title}: {reason}", hint=_LIST)
        return kind
    reasons = []
    for kind in KINDS.values():
        reason = kind.obstacle()
        if not reason:
            return kind
        reasons.append(f"{kind.name}: {reason}")
    raise HostError(
        "this host cannot run a throwaway kernel\n" + "\n".join(reasons),
        hint="install what one of them needs",
    )


class KindStatus(NamedTuple):
    """The result of testing whether this host can run a kind of machine.

    ``obstacle`` is why it cannot, ``how`` how it does. ``kernels`` are ready to start: value of
    ``--kernel`` → release.
    """

    name: str
    title: str
    obstacle: str
    how: str
    kernels: Mapping[str, str]


def survey_kinds() -> tuple[KindStatus, ...]:
    """Return every kind, tested without starting a kernel."""
    found = []
    for kind in KINDS.values():
        obstacle = kind.obstacle()
        how = "" if obstacle else kind.accelerator()[1]
        kernels = {name: kernel.release for name, kernel in kind.ready().items()}
        found.append(KindStatus(kind.name, kind.title, obstacle, how, kernels))
    return tuple(found)


_LIST = "lvsctl machine list shows what it can run"


def has_module(kernel: Kernel, name: str) -> bool | None:
    """Return whether a machine with this kernel loads the module, or has it built in.

    None if that is unknown: not every kernel comes with the list of its built-in modules.
    """
    try:
        text = (kernel.modules / "modules.dep").read_text(encoding="utf-8")
        if name in map(name_of, load_order(text)):
            return True
        builtin = (kernel.modules / "modules.builtin").read_text(encoding="utf-8")
    except OSError:
        return None
    return name in map(name_of, builtin.split())


def default_kernel_has_module(request: MachineRequest, name: str) -> bool | None:
    """Return the same for the kernel that this request would start; None if none is ready."""
    try:
        kernel = choose_kind(request).find(request.kernel)
    except HostError:
        return None
    return None if kernel is None else has_module(kernel, name)


def command_to_start_with(name: str, without: str) -> str | None:
    """Return the command that starts a machine with a kernel that has the module, if any is ready.

    ``without`` is the release of a kernel in which the feature was tested and is missing.
    """
    for kind in KINDS.values():
        if kind.obstacle():
            continue
        for called, kernel in kind.ready().items():
            if kernel.release != without and has_module(kernel, name):
                which = "--kind uml" if kind.name == "uml" else f"--kernel {called}"
                return f"lvsctl machine start {which}"
    return None
