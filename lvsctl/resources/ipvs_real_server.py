"""A real server of a virtual service in a director's IPVS table."""

from __future__ import annotations

import errno
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Self

from lvsctl.model.addresses import Endpoint
from lvsctl.model.lab import Lab
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    RealServer,
    ServiceMatch,
    TunnelChecksum,
    tunnel_text,
)
from lvsctl.model.state import NodeState, RealServerState
from lvsctl.resources.base import Command, Deviation, Part, Resource, States
from lvsctl.resources.ipvs_service import service_part, service_words

FORWARD_FLAG = {
    ForwardingMethod.NAT: "-m",
    ForwardingMethod.TUN: "-i",
    ForwardingMethod.DR: "-g",
}
"""ipvsadm's option for each forwarding method (ipvsadm(8): masquerading, ipip, gatewaying)."""


_ORDER = "a hash gives flows to real servers by the order in which they were added, too"


@dataclass(frozen=True, slots=True, kw_only=True)
class IpvsRealServer(Resource):
    """A real server of a virtual service, with its own forwarding method.

    ``after`` are those that must have been added before it, where their order decides.
    """

    HINTS: ClassVar[dict[int, str]] = {
        errno.EAFNOSUPPORT: "this kernel's IPVS has no IPv6",
        errno.EINVAL: "is the director's lo up, and is the address neither broadcast nor "
        "multicast?",
        errno.ESRCH: "the virtual service is missing: it must come first",
    }

    service: ServiceMatch
    real_server: RealServer
    after: tuple[Endpoint, ...] = field(default=(), compare=False)

    @property
    def key(self) -> Hashable:
        server = self.real_server
        return IpvsRealServer, self.netns, self.service, server.rip, server.port

    @property
    def endpoint(self) -> Endpoint:
        """The address and port that requests are sent to."""
        return Endpoint(self.real_server.rip, self.real_server.port)

    def _named(self, verb: str) -> list[str]:
        return ["ipvsadm", verb, *service_words(self.service), "-r", str(self.endpoint)]

    def _ipvsadm(self, verb: str) -> tuple[Command, ...]:
        server = self.real_server
        words = [*self._named(verb), FORWARD_FLAG[server.forward], "-w", str(server.weight)]
        if server.forward is ForwardingMethod.TUN:
            words += tunnel_words(server.encapsulation, server.tunnel_port, server.checksum)
        if server.upper:
            words += ["-x", str(server.upper)]
        if server.lower:
            words += ["-y", str(server.lower)]
        return (self.command(*words),)

    def commands(self) -> tuple[Command, ...]:
        return self._ipvsadm("-a")

    def edit_commands(self) -> tuple[Command, ...]:
        return self._ipvsadm("-e")

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command(*self._named("-d")),)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {service_part(self.netns, self.service)}

    def holds(self, state: NodeState) -> bool:
        found = self._present(state)
        return found is not None and not any(self._differences(found)) and self._in_order(state)

    def _table(self, state: NodeState) -> Iterator[RealServerState]:
        """Yield the service's real servers in the order in which they were added."""
        for service in state.services:
            if service.match == self.service:
                yield from service.real_servers

    def _present(self, state: NodeState) -> RealServerState | None:
        """Return what the table has at its address and port."""
        own = (self.real_server.port, self.real_server.rip)
        return next((one for one in self._table(state) if (one.port, one.rip) == own), None)

    def _in_order(self, state: NodeState) -> bool:
        """Return whether all of ``after`` were added before it. One that is missing was not."""
        if not self.after:
            return True
        added = [Endpoint(one.rip, one.port) for one in self._table(state)]
        return set(self.after) <= set(added[: added.index(self.endpoint)])

    def in_the_way(self, states: States) -> tuple[Resource, ...]:
        state = states.get(self.netns)
        if state is None or self._present(state) is None or self._in_order(state):
            return ()
        return (self,)  # it is deleted, and added again after the others

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for service in state.services:
            for server in service.real_servers:
                if isinstance(server.forward, ForwardingMethod):
                    yield cls(
                        netns=state.netns,
                        service=service.match,
                        real_server=RealServer(
                            node="",
                            rip=server.rip,
                            port=server.port,
                            weight=server.weight,
                            upper=server.upper,
                            lower=server.lower,
                            forward=server.forward,
                            encapsulation=server.encapsulation,
                            tunnel_port=server.tunnel_port,
                            checksum=checksum_of(server),
                        ),
                    )

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        wanted, why = self.real_server, f"the topology's real server of {self.service}"
        where = f"{wanted.node} ({self.endpoint})"
        found = self._present(state)
        if found is None:
            return Deviation(f"{where} is missing in IPVS", why)
        differences = ", ".join(self._differences(found))
        if differences:
            return Deviation(f"{where} has {differences}", why)
        if not set(self.after) <= {Endpoint(s.rip, s.port) for s in self._table(state)}:
            return None  # one of them is missing, which is a difference of its own
        others = ", ".join(map(str, self.after))
        return Deviation(f"{where} was not added after {others}", _ORDER)

    def _differences(self, found: RealServerState) -> Iterator[str]:
        wanted = self.real_server
        pairs = (
            ("forwarding method", found.forward, wanted.forward),
            ("tunnel", _tunnel(found), _tunnel(wanted)),
            ("weight", found.weight, wanted.weight),
            ("upper threshold", found.upper, wanted.upper),
            ("lower threshold", found.lower, wanted.lower),
        )
        for name, has, should in pairs:
            if has != should:
                yield f"{name} {has}, not {should}"

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(f"real server {self.endpoint} of {self.service} is not from the topology")


def _tunnel(server: RealServerState | RealServer) -> str:
    """Return the encapsulation with its options; "none" where nothing is encapsulated."""
    if server.forward is not ForwardingMethod.TUN:
        return "none"
    flags = server.checksum.flags if isinstance(server, RealServer) else server.tunnel_flags
    return tunnel_text(server.encapsulation, server.tunnel_port, flags)


def checksum_of(server: RealServerState) -> TunnelChecksum:
    """Return the checksum that IPVS's flags ask for; of both, the one that the kernel prefers."""
    known = (one for one in TunnelChecksum if one.flags == server.tunnel_flags)
    return next(known, TunnelChecksum.REMOTE)


CHECKSUM_WORD = {TunnelChecksum.FULL: "--tun-csum", TunnelChecksum.REMOTE: "--tun-remcsum"}
"""ipvsadm's options; it sets none otherwise (--tun-nocsum)."""


def tunnel_words(
    encapsulation: Encapsulation, port: int, checksum: TunnelChecksum = TunnelChecksum.NONE
) -> list[str]:
    """Return ipvsadm's words for a tunnel that is not its ordinary one, IP in IP (ipvsadm(8))."""
    if encapsulation is Encapsulation.IPIP:
        return []
    words = ["--tun-type", str(encapsulation)]
    words += ["--tun-port", str(port)] if port else []
    return words + ([CHECKSUM_WORD[checksum]] if checksum in CHECKSUM_WORD else [])
