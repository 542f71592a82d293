"""A port on which a real server answers."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Lab
from lvsctl.model.service import Protocol
from lvsctl.model.state import ListenerState, NodeState
from lvsctl.resources.base import Command, Deviation, Resource, States


def responder_program() -> str:
    """Return a server in Python that needs no lvsctl, for scripts and other programs' labs."""
    return Path(__file__).with_name("respond.py").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponderPort(Resource):
    """The built-in responder answers on ``port`` of every address of ``node``.

    With ``addresses``, of these alone: an SCTP socket that is bound to no address offers all of
    its host's as paths to the client (RFC 9260, section 5.1.2), the RIP beside the VIP.

    One process serves all listeners of a lab; `respond` is a function of the script.
    """

    node: str
    protocol: Protocol
    port: int
    addresses: tuple[IPAddress, ...] = ()

    @property
    def key(self) -> Hashable:
        return ResponderPort, self.netns, self.protocol, self.port

    def commands(self) -> tuple[Command, ...]:
        words = ["respond", self.netns, self.node, str(self.port)]
        if self.protocol is not Protocol.TCP:
            words.append(str(self.protocol))
        words += map(str, self.addresses)
        return (Command(tuple(words)),)

    def undo_commands(self) -> tuple[Command, ...]:
        stop = f"{self.node}: stop the server on {self.protocol} port {self.port}"
        return (Command((), comment=stop),)

    def holds(self, state: NodeState) -> bool:
        own = [one for one in self._listeners(state) if not one.foreign]
        return bool(own) and {one.address for one in own} >= set(self.addresses)

    def _listeners(self, state: NodeState) -> tuple[ListenerState, ...]:
        wanted = (self.port, self.protocol)
        return tuple(one for one in state.listeners if (one.port, one.protocol) == wanted)

    def taken_by(self, states: States) -> ListenerState | None:
        """Return the socket of another process that has the port; None: it is free or ours."""
        state = states.get(self.netns)
        if state is None or self.holds(state):
            return None
        return next(iter(self._listeners(state)), None)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        for one in self._listeners(state):
            holder = f"{one.process} ({one.pid})"
            return Deviation(f"{holder} has {self.protocol} port {self.port}", self.why)
        return Deviation(f"nothing listens on {self.protocol} port {self.port}", self.why)
