"""The kinds of machine, behind one interface, and which of them is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from lvsctl.errors import HostError, UsageError
from lvsctl.machine import qemu, uml
from lvsctl.machine.config import Kernel, MachineConfig, MachineRequest
from lvsctl.machine.process import StartedMachine

Emit = Callable[[str], None]


class Kind(Protocol):
    """A way to run another kernel in an ordinary process of the user's.

    What differs between kinds is in here and in ``guest.host_tree``; the broker, the line's
    frames, the agent and every command are the same for all.
    """

    @property
    def name(self) -> str:
        """What ``--kind`` takes."""

    @property
    def title(self) -> str:
        """What people call it."""

    def obstacle(self) -> str:
        """Why this host cannot run it, and what to type; empty where it can.

        A kernel that is not there but can be fetched is no obstacle.
        """

    def find(self, wanted: str | None) -> Kernel | None:
        """The kernel that ``--kernel`` names (None: the usual one), where it is ready."""

    def ready(self) -> Mapping[str, Kernel]:
        """The kernels that can be started at once, by what ``--kernel`` calls them."""

    def kernel(self, wanted: str | None, emit: Emit) -> Kernel:
        """The same, fetched and prepared if need be. Raises HostError and UsageError."""

    def accelerator(self) -> tuple[str, str]:
        """What ``MachineConfig.accelerator`` should be on this host, and why, in words."""

    def memory(self) -> int:
        """MiB for a machine of which nothing is said."""

    def cpus(self, wanted: int | None) -> int:
        """How many processors the machine gets. Raises UsageError where it cannot have them."""

    def work_directory(self, config: MachineConfig) -> Path:
        """Make the directory for the machine's files. Raises HostError."""

    def spawn(self, config: MachineConfig, work: Path) -> StartedMachine:
        """Start it, confined.

        The process has a session of its own and never sees the user's terminal. Raises HostError.
        """

    def boot_timeout(self, config: MachineConfig) -> float:
        """Seconds until its guest must have said HELLO."""

    def fallback(self, config: MachineConfig) -> tuple[MachineConfig, str] | None:
        """Another plan after this one failed to start, and what to tell; None: that was it."""


KINDS: dict[str, Kind] = {kind.name: kind for kind in (uml.Uml(), qemu.Qemu())}
"""The one that needs least first."""


def choose_kind(request: MachineRequest) -> Kind:
    """The kind that is wished, else the first that this host can run.

    Raises UsageError for one that does not exist, and HostError where there is none.
    """
    name = request.kind or ("qemu" if request.kernel else None)
    if name is not None:
        if name not in KINDS:
            raise UsageError(
                f"there is no kind of machine called {name!r}", hint=f"one of {', '.join(KINDS)}"
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
        hint="what one of them asks for",
    )


class Found(NamedTuple):
    """What this host makes of a kind of machine.

    ``obstacle`` is why it cannot run it, ``how`` how it does, and ``kernels`` are those that are
    ready to start: what they are called → their release.
    """

    name: str
    title: str
    obstacle: str
    how: str
    kernels: Mapping[str, str]


def survey_kinds() -> tuple[Found, ...]:
    """Every kind, tried as far as it goes without starting a kernel."""
    found = []
    for kind in KINDS.values():
        obstacle = kind.obstacle()
        how = "" if obstacle else kind.accelerator()[1]
        kernels = {name: kernel.release for name, kernel in kind.ready().items()}
        found.append(Found(kind.name, kind.title, obstacle, how, kernels))
    return tuple(found)


_LIST = "lvsctl machine list shows what it can run"
