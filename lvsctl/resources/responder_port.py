"""A port on which a real server answers."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from lvsctl.model.lab import Lab
from lvsctl.model.service import Protocol
from lvsctl.model.state import NodeState
from lvsctl.resources.base import Command, Deviation, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponderPort(Resource):
    """The built-in responder answers on ``port`` of every address of ``node``.

    One process serves all listeners of a lab; `respond` is a function of the script.
    """

    node: str
    protocol: Protocol
    port: int

    @property
    def key(self) -> Hashable:
        return ResponderPort, self.netns, self.protocol, self.port

    def commands(self) -> tuple[Command, ...]:
        words = ["respond", self.netns, self.node, str(self.port)]
        if self.protocol is not Protocol.TCP:
            words.append(str(self.protocol))
        return (Command(tuple(words)),)

    def undo_commands(self) -> tuple[Command, ...]:
        stop = f"{self.node}: stop the server on {self.protocol} port {self.port}"
        return (Command((), comment=stop),)

    def holds(self, state: NodeState) -> bool:
        return any(
            (one.port, one.protocol) == (self.port, self.protocol) for one in state.listeners
        )

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        return Deviation(f"nothing listens on {self.protocol} port {self.port}", self.why)
