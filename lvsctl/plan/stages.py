"""A plan: what ``up`` does for a lab, as resources in stages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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
