"""A UDP port at which a node decapsulates GUE."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from lvsctl.model.lab import Lab
from lvsctl.model.service import GUE_PORT
from lvsctl.model.state import NodeState
from lvsctl.resources.base import Command, Deviation, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class GuePort(Resource):
    """A UDP port at which the node decapsulates GUE; what is inside continues as without it."""

    HINTS: ClassVar[dict[int, str]] = {
        errno.EADDRINUSE: "another socket has UDP port {self.port} of the node"
    }

    port: int = GUE_PORT
    version: int = 4
    """The IP version of the packets around UDP."""

    def commands(self) -> tuple[Command, ...]:
        return (self.command(*self._ip, "add", "port", self.port, "gue"),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command(*self._ip, "del", "port", self.port),)

    @property
    def _ip(self) -> tuple[str, ...]:
        return ("ip", "fou") if self.version == 4 else ("ip", "-6", "fou")

    def modules(self) -> tuple[str, ...]:
        return ("fou",) if self.version == 4 else ("fou", "fou6")

    def holds(self, state: NodeState) -> bool:
        return self.port in (state.gue_ports if self.version == 4 else state.gue_ports6)

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for port in state.gue_ports:
            yield cls(netns=state.netns, port=port)
        for port in state.gue_ports6:
            yield cls(netns=state.netns, port=port, version=6)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        return Deviation(f"GUE is not decapsulated at UDP port {self._where}", self.why)

    @property
    def _where(self) -> str:
        return str(self.port) if self.version == 4 else f"{self.port} of IPv6"

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(f"GUE is decapsulated at UDP port {self._where}, not from the topology")
