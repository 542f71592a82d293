"""A plan: what ``up`` does for a lab, as resources in stages; and the outcome of ``up``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lvsctl.model.lab import Lab
from lvsctl.resources.base import Resource
from lvsctl.resources.namespace import Namespace


@dataclass(frozen=True, slots=True)
class Stage:
    """Resources that belong together, under a title for people.

    Within a stage the resources of one namespace come in order; those of different
    namespaces do not depend on each other, so they may be interleaved.
    """

    title: str
    resources: tuple[Resource, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that ``up`` does for a lab, in order."""

    lab: str
    stages: tuple[Stage, ...]

    @property
    def resources(self) -> tuple[Resource, ...]:
        """The resources of all stages, in order."""
        return tuple(resource for stage in self.stages for resource in stage.resources)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces that the lab owns, in order of creation."""
        return tuple(one.netns for one in self.resources if isinstance(one, Namespace))


def unique(resources: Iterable[Resource]) -> tuple[Resource, ...]:
    """Return ``resources`` in order, each thing once (the first reason given stays)."""
    return tuple(dict.fromkeys(resources))


@dataclass(frozen=True, slots=True)
class Left:
    """Something that is not from the topology and was left alone, and what would remove it.

    ``netns`` is the namespace that it is in; the command is typed where the lab runs.
    """

    netns: str
    text: str
    command: str


@dataclass(frozen=True, slots=True)
class Up:
    """A lab that ``up`` created, or changed so that it matches its topology.

    ``created`` is true if the lab is new; otherwise ``added`` and ``removed`` are the changes.
    ``edited`` are those of ``added`` that replaced something of the same kind: a virtual
    service's scheduler, a real server's weight. ``restored`` are the faults that were removed
    before anything else. ``left`` is what differs from the topology still, and was left alone.
    """

    lab: Lab
    created: bool
    added: tuple[Resource, ...] = ()
    removed: tuple[Resource, ...] = ()
    restored: tuple[str, ...] = ()
    edited: tuple[Resource, ...] = ()
    left: tuple[Left, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return bool(self.created or self.added or self.removed or self.restored)

    def is_change(self, resource: Resource) -> bool:
        """Return whether one of ``added`` or ``removed`` gives something another value.

        A setting of what is added itself, such as that a new link is up, does not.
        """
        if resource in self.edited:
            return True
        coming = frozenset[object]().union(*(one.provides() for one in self.added))
        return resource.is_setting and resource.rests_on().isdisjoint(coming)

    def commands(self, resource: Resource) -> tuple[str, ...]:
        """Return the equivalent shell commands of one of ``added``."""
        commands = resource.edit_commands() if resource in self.edited else resource.commands()
        return tuple(map(str, commands))
