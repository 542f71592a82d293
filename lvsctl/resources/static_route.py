"""A static route."""

from __future__ import annotations

import errno
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from lvsctl.model.addresses import IPAddress, IPNetwork
from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState
from lvsctl.resources.base import Command, Deviation, Resource

_GATEWAY = "{self.via} must be on a network of the node, and no address of its own"


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticRoute(Resource):
    """A route of the main table; ``to`` None is the default route."""

    HINTS: ClassVar[dict[int, str]] = {
        errno.EHOSTUNREACH: _GATEWAY,
        errno.EINVAL: _GATEWAY,
        errno.ENETUNREACH: _GATEWAY,
    }

    to: IPNetwork | None
    via: IPAddress

    @property
    def key(self) -> Hashable:
        return StaticRoute, self.netns, self.to, self.via.version

    def _route(self, verb: str) -> tuple[Command, ...]:
        return (self.command("ip", "route", verb, self.to or "default", "via", self.via),)

    def commands(self) -> tuple[Command, ...]:
        return self._route("add")

    def edit_commands(self) -> tuple[Command, ...]:
        return self._route("replace")

    def undo_commands(self) -> tuple[Command, ...]:
        return self._route("del")

    def holds(self, state: NodeState) -> bool:
        return any((route.to, route.via) == (self.to, self.via) for route in state.routes)

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for route in state.routes:
            if not route.kernel and route.via is not None:
                yield cls(netns=state.netns, to=route.to, via=route.via)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        return Deviation(f"no route to {self.to or 'anywhere (default)'} via {self.via}", self.why)

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(
            f"a route to {self.to or 'anywhere (default)'} via {self.via} is there, "
            "which the topology does not say"
        )
