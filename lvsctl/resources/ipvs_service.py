"""A virtual service in a director's IPVS table."""

from __future__ import annotations

import errno
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import ClassVar, Self

from lvsctl.model.addresses import Endpoint
from lvsctl.model.lab import Lab
from lvsctl.model.service import (
    FLAGGED,
    FwMark,
    Protocol,
    Scheduler,
    SchedulerFlag,
    ServiceMatch,
    VirtualService,
)
from lvsctl.model.state import NodeState
from lvsctl.resources.base import ELSEWHERE, Command, Deviation, Part, Resource

SERVICE_FLAG = {Protocol.TCP: "-t", Protocol.UDP: "-u", Protocol.SCTP: "--sctp-service"}
"""ipvsadm's option for a virtual service of each protocol."""

FLAG_WORDS = {SchedulerFlag.FALLBACK: "flag-1", SchedulerFlag.PORT: "flag-2"}
"""The flags of sh and mh among IPVS's own (linux/ip_vs.h, IP_VS_SVC_F_SCHED_SH_FALLBACK …)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IpvsService(Resource):
    """A virtual service. ``persistence`` in seconds; 0: none.

    ``flags``, ``netmask`` (bits, 0: all) and ``engine`` are as in ``ServiceState``.
    """

    HINTS: ClassVar[dict[int, str]] = {
        errno.EAFNOSUPPORT: "this kernel's IPVS has no IPv6" + ELSEWHERE,
        errno.ENOENT: "modprobe {self.own_modules}, if this kernel has {self.engine_too}"
        + ELSEWHERE,
        errno.EPROTONOSUPPORT: "this kernel's IPVS does not balance {self.service.protocol}"
        + ELSEWHERE,
    }

    service: ServiceMatch
    scheduler: Scheduler
    persistence: int = 0
    flags: tuple[str, ...] = ()
    netmask: int = 0
    engine: str = ""

    @classmethod
    def of(cls, service: VirtualService, netns: str, why: str = "") -> Self:
        """Return a topology's virtual service in the IPVS table of one namespace."""
        return cls(
            netns=netns,
            service=service.match,
            scheduler=service.scheduler,
            persistence=service.persistence,
            flags=(
                *(("ops",) if service.one_packet else ()),
                *(FLAG_WORDS[flag] for flag in service.flags),
            ),
            netmask=service.netmask,
            engine=service.engine or "",
            why=why,
        )

    @property
    def own_modules(self) -> str:
        """The modules of its scheduler and persistence engine: either may be what is missing."""
        engine = f" ip_vs_pe_{self.engine}" if self.engine else ""
        return f"ip_vs_{self.scheduler}{engine}"

    @property
    def engine_too(self) -> str:
        """What of the service a kernel may lack, in words."""
        return "them" if self.engine else "that scheduler"

    @property
    def key(self) -> Hashable:
        return IpvsService, self.netns, self.service

    def _ipvsadm(self, verb: str) -> tuple[Command, ...]:
        words = [verb, *service_words(self.service), "-s", str(self.scheduler)]
        if self.persistence:
            words += ["-p", str(self.persistence)]
            if self.netmask:
                words += ["-M", mask_words(self.service.version, self.netmask)]
        if self.engine:
            words += ["--pe", self.engine]
        if flags := flag_names(self.scheduler, self.flags):
            words += ["-b", ",".join(flags)]
        if "ops" in self.flags:
            words.append("-o")
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
            except ValueError:  # a module that lvsctl does not know: left alone
                continue
            yield cls(
                netns=state.netns,
                service=service.match,
                scheduler=scheduler,
                persistence=service.persistence,
                flags=service.flags,
                netmask=service.netmask if service.persistence else 0,
                engine=service.engine,
            )

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        for one in self.from_state(state):
            if one.service == self.service:
                differences = ", ".join(self._differences(one))
                return Deviation(f"virtual service {self.service} has {differences}")
        known = any(service.match == self.service for service in state.services)
        text = "has an unknown scheduler" if known else "is missing"
        return Deviation(f"virtual service {self.service} {text}", f"scheduler {self.scheduler}")

    def _differences(self, found: IpvsService) -> Iterator[str]:
        pairs = (
            ("scheduler", found.scheduler, self.scheduler),
            ("persistence", _seconds(found.persistence), _seconds(self.persistence)),
            ("flags", found._flags(), self._flags()),
            ("netmask", found.netmask or "all bits", self.netmask or "all bits"),
            ("engine", found.engine or "none", self.engine or "none"),
        )
        for name, has, should in pairs:
            if has != should:
                yield f"{name} {has}, not {should}"

    def _flags(self) -> str:
        names = flag_names(self.scheduler, self.flags)
        return ",".join((*names, *(word for word in self.flags if word == "ops"))) or "none"

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(f"virtual service {self.service} is there, not from the topology")


def _seconds(persistence: int) -> str:
    return f"{persistence} s" if persistence else "none"


def flag_names(scheduler: Scheduler | str, flags: Iterable[str]) -> list[str]:
    """Return a scheduler's flags as ipvsadm names them: ``sh-port`` for sh's ``flag-2``."""
    names = {word: f"{scheduler}-{flag}" for flag, word in FLAG_WORDS.items()}
    known = names if scheduler in FLAGGED else {}
    return [known.get(word, word) for word in flags if word != "ops"]


def mask_words(version: int, bits: int) -> str:
    """Return a netmask as ipvsadm takes it: for IPv6 a number of bits."""
    return str(bits) if version == 6 else str(ip_network(f"0.0.0.0/{bits}").netmask)


def service_words(key: ServiceMatch) -> list[str]:
    """Return ipvsadm's words that name a virtual service."""
    if isinstance(key, FwMark):
        family = ["-6"] if key.version == 6 else []
        return ["-f", str(key.mark), *family]
    return [SERVICE_FLAG[key.protocol], str(Endpoint(key.vip, key.port))]


def service_part(netns: str, key: ServiceMatch) -> Part:
    """Return a virtual service as a part that its real servers rest on."""
    return "service", netns, key
