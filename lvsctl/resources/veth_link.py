"""The link of a node's interface to its network: a veth pair."""

from __future__ import annotations

import errno
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import ClassVar

from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState
from lvsctl.resources.base import (
    ELSEWHERE,
    Command,
    Deviation,
    Part,
    Resource,
    States,
    link_part,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VethLink(Resource):
    """A veth pair, both ends up: a node's interface, and a port of a network's bridge.

    ``netns`` is the switch's namespace, ``port`` the end there, a port of ``bridge``;
    ``device`` is the interface in the node's namespace ``node_netns``. Both ends have
    their ifindex given, and different ones: with equal ones the link takes a second
    to come up (see the docstring of ``plan.planner``).
    """

    HINTS: ClassVar[dict[int, str]] = {
        errno.EOPNOTSUPP: "modprobe veth" + ELSEWHERE,
        errno.EXFULL: "a bridge has 1,023 ports at most: put fewer nodes on the network",
    }

    port: str
    port_index: int
    bridge: str
    bridge_index: int
    node_netns: str
    device: str
    device_index: int
    mac: str

    @property
    def key(self) -> Hashable:
        """Which numbers its ends have is no matter: others come and go beside it."""
        return VethLink, self.netns, self.port, self.node_netns, self.device, self.mac

    @property
    def namespaces(self) -> tuple[str, ...]:
        return self.netns, self.node_netns

    def commands(self) -> tuple[Command, ...]:
        return (
            self.command(
                *("ip", "link", "add", "name", self.port, "index", self.port_index),
                *("numtxqueues", 1, "numrxqueues", 1, "type", "veth", "peer"),
                *("name", self.device, "index", self.device_index, "address", self.mac),
                *("numtxqueues", 1, "numrxqueues", 1, "netns", self.node_netns),
            ),
            self.command("ip", "link", "set", "dev", self.port, "master", self.bridge, "up"),
            Command(("ip", "link", "set", "dev", self.device, "up"), self.node_netns),
        )

    def edit_commands(self) -> tuple[Command, ...]:
        """Return the commands that set both ends up, where the pair exists."""
        return self.commands()[1:]

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("ip", "link", "del", "dev", self.port),)

    def provides(self) -> frozenset[Part]:
        return frozenset(
            {link_part(self.netns, self.port), link_part(self.node_netns, self.device)}
        )

    def exists(self, states: States) -> bool:
        """Return whether the pair is there with both its ends, up or not."""
        if self.netns not in states or self.node_netns not in states:
            return False
        port = states[self.netns].link(self.port)
        device = states[self.node_netns].link(self.device)
        if port is None or device is None:
            return False
        if port.peer and device.peer and (port.peer, device.peer) != (device.index, port.index):
            return False  # each has another end
        return (port.master, device.mac) == (self.bridge, self.mac)

    def satisfied_by(self, states: States) -> bool:
        if not self.exists(states):
            return False
        ends = states[self.netns].link(self.port), states[self.node_netns].link(self.device)
        return all(end is not None and end.up for end in ends)

    def port_deviation(
        self, state: NodeState, ports: Collection[str] = (), node: NodeState | None = None
    ) -> Deviation | None:
        """Say how the switch's end differs; ``state`` is that of the switch.

        ``ports`` are the names of the switch's ports in the topology: none of them is a new name.
        ``node`` is the node's state, which says what number the port has.
        """
        port = state.link(self.port)
        if port is None:
            end = node.link(self.device) if node is not None else None
            number = end.peer if end is not None and end.peer else self.port_index
            other = next((one for one in state.links if one.index == number), None)
            if other is not None and other.kind == "veth" and other.name not in ports:
                return Deviation(f"port {self.port} is now called {other.name}", self.why)
            return Deviation(f"port {self.port} is missing", self.why)
        if port.master != self.bridge:
            return Deviation(f"port {self.port} is not in the bridge", self.why)
        return None if port.up else Deviation(f"port {self.port} is down", self.why)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        """Say how the node's end differs; the switch's end shows in its carrier."""
        link = state.link(self.device)
        if link is None:
            other = next((one for one in state.links if one.index == self.device_index), None)
            if other is not None and other.kind == "veth":
                return Deviation(f"{self.device} is now called {other.name}", self.why)
            return Deviation(f"{self.device} is missing", self.why)
        if not link.up:
            return Deviation(f"{self.device} is down", self.why)
        if not link.carrier:
            return Deviation(f"{self.device} has no carrier: its switch's port is down", self.why)
        if link.mac != self.mac:
            wrong = f"{self.device} has the MAC address {link.mac}, not {self.mac}"
            return Deviation(wrong, self.why)
        return None
