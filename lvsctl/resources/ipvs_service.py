"""A virtual service in a director's IPVS table."""

from __future__ import annotations

import errno
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from lvsctl.model.addresses import Endpoint
from lvsctl.model.lab import Lab
from lvsctl.model.service import FwMark, Protocol, Scheduler, ServiceMatch
from lvsctl.model.state import NodeState
from lvsctl.resources.base import ELSEWHERE, Command, Deviation, Part, Resource

SERVICE_FLAG = {Protocol.TCP: "-t", Protocol.UDP: "-u", Protocol.SCTP: "--sctp-service"}
"""ipvsadm's option for a virtual service of each protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IpvsService(Resource):
    """A virtual service. ``persistence`` in seconds; 0: none."""

    HINTS: ClassVar[dict[int, str]] = {
        errno.EAFNOSUPPORT: "this kernel's IPVS has no IPv6",
        errno.ENOENT: "modprobe ip_vs_{self.scheduler}, if this kernel has that scheduler"
        + ELSEWHERE,
        errno.EPROTONOSUPPORT: "this kernel's IPVS does not balance {self.service.protocol}"
        + ELSEWHERE,
    }

    service: ServiceMatch
    scheduler: Scheduler
    persistence: int = 0

    @property
    def key(self) -> Hashable:
        return IpvsService, self.netns, self.service

    def _ipvsadm(self, verb: str) -> tuple[Command, ...]:
        words = [verb, *service_words(self.service), "-s", str(self.scheduler)]
        if self.persistence:
            words += ["-p", str(self.persistence)]
        return (self.command("ipvsadm", *words),)

    def commands(self) -> tuple[Command, ...]:
        return self._ipvsadm("-A")

    def edit_commands(self) -> tuple[Command, ...]:
        return self._ipvsadm("-E")

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("ipvsadm", "-D", *service_words(self.service)),)

    def provides(self) -> frozenset[Part]:
        return frozenset({service_part(self.netns, self.service)})

    def modules(self) -> tuple[str, ...]:
        return ("ip_vs",)

    def holds(self, state: NodeState) -> bool:
        return self in self.from_state(state)

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for service in state.services:
            try:
                scheduler = Scheduler(service.scheduler)
            except ValueError:  # a module of somebody else's: it is left alone
                continue
            yield cls(
                netns=state.netns,
                service=service.match,
                scheduler=scheduler,
                persistence=service.persistence,
            )

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        known = any(service.match == self.service for service in state.services)
        text = "is configured otherwise" if known else "is missing"
        return Deviation(f"virtual service {self.service} {text}", f"scheduler {self.scheduler}")

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(f"virtual service {self.service} is there, not from the topology")


def service_words(key: ServiceMatch) -> list[str]:
    """Return ipvsadm's words that name a virtual service."""
    if isinstance(key, FwMark):
        family = ["-6"] if key.version == 6 else []
        return ["-f", str(key.mark), *family]
    return [SERVICE_FLAG[key.protocol], str(Endpoint(key.vip, key.port))]


def service_part(netns: str, key: ServiceMatch) -> Part:
    """Return a virtual service as a part that its real servers rest on."""
    return "service", netns, key
