"""What a namespace may have that no plan sets: found in a state, and removed.

Policies of IPsec, next hop objects, what TCP learnt, entries and VLANs of a bridge, processes that
were stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Self

from lvsctl.model.lab import Lab
from lvsctl.model.state import FdbState, NextHopState, NodeState, TcpMetricsState, XfrmState
from lvsctl.resources.base import Command, Deviation, Part, Resource, link_part, nexthop_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Xfrm(Resource):
    """A policy or state of IPsec, or that packets without a policy are blocked."""

    PLANNED: ClassVar[bool] = False

    found: XfrmState

    @property
    def is_setting(self) -> bool:
        return self.found.what == "default"

    def commands(self) -> tuple[Command, ...]:
        return (Command((), self.netns, comment=f"xfrm {self.found.what} {self.found.text}"),)

    def undo_commands(self) -> tuple[Command, ...]:
        words = self.found.text.split()
        if self.found.what == "default":
            every = "in accept fwd accept out accept"
            return (self.command("ip", "xfrm", "policy", "setdefault", *every.split()),)
        if self.found.what == "policy":  # without the action
            words = words[: words.index("action")]
        return (self.command("ip", "xfrm", self.found.what, "delete", *words),)

    def holds(self, state: NodeState) -> bool:
        return self.found in state.xfrm

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for one in state.xfrm:
            yield cls(netns=state.netns, found=one)

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(f"xfrm {self.found.what}: {self.found.text}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NextHopObject(Resource):
    """A next hop object. The routes that use it go with it."""

    PLANNED: ClassVar[bool] = False

    found: NextHopState
    routes: tuple[str, ...] = field(default=(), compare=False)
    """The destinations of the routes that use it."""

    def commands(self) -> tuple[Command, ...]:
        words = ("ip", "nexthop", "add", "id", self.found.id, *self.found.text.split())
        return (self.command(*words),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("ip", "nexthop", "del", "id", self.found.id),)

    def provides(self) -> frozenset[Part]:
        return frozenset({nexthop_part(self.netns, self.found.id)})

    def rests_on(self) -> frozenset[Part]:
        device = self.found.device
        own = Resource.rests_on(self)
        return own | {link_part(self.netns, device)} if device else own

    def holds(self, state: NodeState) -> bool:
        return self.found in state.nexthops

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for one in state.nexthops:
            number = ("nhid", str(one.id))
            every = (*state.routes, *state.other_routes)
            routes = (str(each.to or "default") for each in every if each.by_object == number)
            yield cls(netns=state.netns, found=one, routes=tuple(dict.fromkeys(routes)))

    def surplus(self, lab: Lab) -> Deviation | None:
        used = f", used by the route to {', '.join(self.routes)}" if self.routes else ""
        return Deviation(f"next hop object {self.found.id}: {self.found.text}{used}")


SLOW = 1000
"""A round-trip time, in milliseconds, that TCP's first timeout is made for (RFC 6298)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpMetrics(Resource):
    """What TCP has learnt of a peer and changes what new connections to it do.

    Each connection leaves an entry. It matters where it is slow, for then what is lost is sent
    again later than it would be, and with a cookie of TCP Fast Open, for then SYNs carry data.
    """

    PLANNED: ClassVar[bool] = False

    found: TcpMetricsState

    def commands(self) -> tuple[Command, ...]:
        return (Command((), self.netns, comment=f"TCP metrics of {self.found.address}"),)

    def undo_commands(self) -> tuple[Command, ...]:
        source = ("source", self.found.source) if self.found.source is not None else ()
        return (self.command("ip", "tcp_metrics", "delete", self.found.address, *source),)

    def holds(self, state: NodeState) -> bool:
        return self in self.from_state(state)

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for one in state.tcp_metrics:
            if one.fastopen or one.rtt >= SLOW:
                yield cls(netns=state.netns, found=one)

    def surplus(self, lab: Lab) -> Deviation | None:
        what = f"a round-trip time of {self.found.rtt} ms"
        if self.found.fastopen:
            what = "something of TCP Fast Open"
        return Deviation(f"TCP has learnt {what} for {self.found.address}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FdbEntry(Resource):
    """An entry of a bridge's forwarding table that was set and not learned."""

    PLANNED: ClassVar[bool] = False

    found: FdbState
    of_bridge: bool = field(default=False, compare=False)

    def _typed(self, verb: str) -> tuple[Command, ...]:
        place = "self" if self.of_bridge else "master"
        words = ["bridge", "fdb", verb, self.found.mac, "dev", self.found.device, place]
        words += list(self.found.flags) if verb == "add" else []
        words += ["vlan", str(self.found.vlan)] if self.found.vlan else []
        return (self.command(*words),)

    def commands(self) -> tuple[Command, ...]:
        return self._typed("add")

    def undo_commands(self) -> tuple[Command, ...]:
        return self._typed("del")

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.found.device)}

    def holds(self, state: NodeState) -> bool:
        return self.found in state.fdb

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for one in state.fdb:
            yield cls(netns=state.netns, found=one, of_bridge=_is_bridge(state, one.device))

    def surplus(self, lab: Lab) -> Deviation | None:
        flags = " ".join(self.found.flags)
        return Deviation(f"{self.found.mac} is bound to port {self.found.device} ({flags})")


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeVlan(Resource):
    """A VLAN that a port of a bridge, or the bridge itself, is in."""

    PLANNED: ClassVar[bool] = False

    device: str
    vlan: int
    of_bridge: bool = field(default=False, compare=False)

    def _typed(self, verb: str) -> tuple[Command, ...]:
        own = ("self",) if self.of_bridge else ()
        words = ("bridge", "vlan", verb, "vid", self.vlan, "dev", self.device, *own)
        return (self.command(*words),)

    def commands(self) -> tuple[Command, ...]:
        return self._typed("add")

    def undo_commands(self) -> tuple[Command, ...]:
        return self._typed("del")

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}

    def holds(self, state: NodeState) -> bool:
        return self in self.from_state(state)

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for one in state.vlans:
            yield cls(
                netns=state.netns,
                device=one.device,
                vlan=one.vlan,
                of_bridge=_is_bridge(state, one.device),
            )

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(f"port {self.device} is in VLAN {self.vlan}")


def _is_bridge(state: NodeState, device: str) -> bool:
    link = state.link(device)
    return link is not None and link.kind == "bridge"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedProcess(Resource):
    """A process of the lab that a signal has stopped."""

    PLANNED: ClassVar[bool] = False

    pid: int
    process: str = field(compare=False)

    @property
    def is_setting(self) -> bool:
        return True

    def commands(self) -> tuple[Command, ...]:
        return (Command(("kill", "-STOP", str(self.pid))),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (Command(("kill", "-CONT", str(self.pid))),)

    def holds(self, state: NodeState) -> bool:
        return self in self.from_state(state)

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for one in state.processes:
            if one.state == "T":
                yield cls(netns=state.netns, pid=one.pid, process=one.process)

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(f"process {self.process} ({self.pid}) is stopped by a signal")
