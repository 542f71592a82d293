"""Results about labs as a whole, and about the kernels that can run them."""

from __future__ import annotations

from dataclasses import dataclass

from lvsctl.kernel.probe import Feature
from lvsctl.kernel.registry import Entry
from lvsctl.model.lab import Lab
from lvsctl.resources.base import Resource


@dataclass(frozen=True, slots=True)
class Up:
    """A lab that ``up`` created, or changed so that it matches its topology.

    ``created`` is true if the lab is new; otherwise ``added`` and ``removed`` are the changes.
    ``edited`` are those of ``added`` that replaced something of the same kind: a virtual
    service's scheduler, a real server's weight. ``restored`` are the faults that were removed
    before anything else.
    """

    lab: Lab
    created: bool
    added: tuple[Resource, ...] = ()
    removed: tuple[Resource, ...] = ()
    restored: tuple[str, ...] = ()
    edited: tuple[Resource, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return bool(self.created or self.added or self.removed or self.restored)

    def commands(self, resource: Resource) -> tuple[str, ...]:
        """Return the equivalent shell commands of one of ``added``."""
        commands = resource.edit_commands() if resource in self.edited else resource.commands()
        return tuple(map(str, commands))


@dataclass(frozen=True, slots=True)
class Listed:
    """A lab in the list. ``lab`` is None if its entry cannot be read (``entry.problem``).

    ``answering``: whether the process that answers for its real servers is running.
    ``faults`` are the injected faults with their nodes.
    """

    entry: Entry
    lab: Lab | None
    answering: bool
    faults: tuple[str, ...] = ()


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
