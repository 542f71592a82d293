"""What a configuration of another program says about virtual services, whatever its format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from lvsctl.errors import Problem, TopologyError, quoted
from lvsctl.formats.keepalived.numbers import number
from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    IpvsTimeouts,
    Protocol,
    Scheduler,
    TunnelChecksum,
    VipPort,
)

MAX_PROBLEMS = 100
MAX_SERVICES = 200
"""As many as a topology can have."""


MAX_DESTINATIONS = 20_000
"""How many real servers all virtual services may have together."""


class Place(NamedTuple):
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Remark(NamedTuple):
    """Something in the file that the topology does not contain, and why."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class Notes:
    """What is wrong with a file, and what of it is not carried over; each with its place."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.files: list[str] = []
        """The files that it includes."""
        self._problems: dict[Problem, None] = {}
        self._remarks: dict[Remark, None] = {}
        self._ended = False

    def end(self, place: Place, message: str, hint: str = "") -> None:
        """Record why the rest of the file was not read: what would follow from that is none."""
        self._problems.clear()
        self.wrong(place, message, hint)
        self._ended = True

    def wrong(self, place: Place, message: str, hint: str = "") -> None:
        """Record a mistake. ``hint`` is what would be right."""
        if len(self._problems) < MAX_PROBLEMS and not self._ended:
            file = place.file if place.file != self.source else ""
            self._problems[Problem(place.line, 0, "", message, hint, file)] = None

    def remark(self, place: Place, text: str) -> None:
        """Record something that is not carried over, or carried over as something else."""
        if len(self._remarks) < 10 * MAX_PROBLEMS:
            self._remarks[Remark(place, text)] = None

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """All remarks: the file's own in the order of its lines, then those of included files."""
        return tuple(
            sorted(self._remarks, key=lambda one: (one.place.file != self.source, one.place))
        )

    def raise_any(self) -> None:
        """Raise TopologyError with all mistakes, if there are any."""
        if self._problems:
            raise TopologyError(self.source, tuple(self._problems))


@dataclass(frozen=True, slots=True)
class Destination:
    """A real server of a service.

    ``port`` 0: the service's. ``weight``, ``upper`` and ``lower`` as in ``model.service``.
    ``checks`` are the names of its health checks. ``local``: it is the director itself.
    """

    rip: IPAddress
    port: int
    place: Place
    weight: int = 1
    upper: int = 0
    lower: int = 0
    forward: ForwardingMethod = ForwardingMethod.NAT
    encapsulation: Encapsulation = Encapsulation.IPIP
    tunnel_port: int = 0
    checksum: TunnelChecksum = TunnelChecksum.NONE
    checks: tuple[str, ...] = ()
    local: bool = False


class Mark(NamedTuple):
    """A firewall mark and the address family that it is for (4 or 6)."""

    mark: int
    version: int


@dataclass(frozen=True, slots=True)
class Service:
    """One virtual service, named by a VIP and port, or by a firewall mark.

    ``persistence`` in seconds (0: none), ``netmask`` in bits (0: all), ``flags`` as in
    ``model.state.ServiceState``, in their order. ``port`` 0 of a VIP means all ports.
    """

    match: VipPort | Mark
    place: Place
    scheduler: Scheduler = Scheduler.WLC
    flags: tuple[str, ...] = ()
    persistence: int = 0
    netmask: int = 0
    engine: str = ""
    forward: ForwardingMethod = ForwardingMethod.NAT
    destinations: tuple[Destination, ...] = ()
    sorry: Destination | None = None

    @property
    def servers(self) -> tuple[Destination, ...]:
        """Its real servers and its sorry server, but for the director: what hosts it needs."""
        every = self.destinations if self.sorry is None else (*self.destinations, self.sorry)
        return tuple(one for one in every if not one.local)

    @property
    def protocol(self) -> Protocol | None:
        """The transport protocol; None with a mark."""
        return self.match.protocol if isinstance(self.match, VipPort) else None


class Setting(NamedTuple):
    """What a line sets, as it is written; empty: a word alone."""

    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Instance:
    """A VRRP instance: the addresses of whoever is master.

    ``settings`` are its single-line settings by their keywords. ``peers`` are the other directors'
    own addresses, and ``source`` this one's, where advertisements are unicast.
    """

    name: str
    place: Place
    interface: str = ""
    addresses: tuple[tuple[IPInterface, str], ...] = ()
    settings: dict[str, Setting] = field(default_factory=dict, hash=False)
    peers: tuple[IPAddress, ...] = ()
    source: IPAddress | None = None


class RouteLine(NamedTuple):
    """A route of a director: to a subnet (None: default) by a gateway; 0: no such limit.

    ``virtual``: the master's only.
    """

    to: IPNetwork | None
    via: IPAddress
    place: Place
    mtu: int = 0
    mss: int = 0
    virtual: bool = False


class SyncGroup(NamedTuple):
    """VRRP instances that move together, by their names."""

    name: str
    members: tuple[str, ...]
    place: Place


class SyncDaemon(NamedTuple):
    """IPVS's synchronization daemon, which follows a VRRP instance."""

    interface: str
    instance: str
    place: Place


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a file says.

    ``addresses`` are those of interfaces, as far as the file has them: an address with its prefix
    length, and the name of its interface (empty: unknown). ``files`` are those that it includes.
    """

    source: str
    program: str
    services: tuple[Service, ...]
    instances: tuple[Instance, ...] = ()
    addresses: tuple[tuple[IPInterface, str], ...] = ()
    timeouts: IpvsTimeouts | None = None
    daemon: SyncDaemon | None = None
    sync_groups: tuple[SyncGroup, ...] = ()
    remarks: tuple[Remark, ...] = ()
    files: tuple[str, ...] = ()
    routes: tuple[RouteLine, ...] = ()


_FLAGS = ("ops", "flag-1", "flag-2", "flag-3")
_FLAG_OF = {
    f"{scheduler}-{word}": flag
    for scheduler in (Scheduler.SH, Scheduler.MH)
    for word, flag in (("fallback", "flag-1"), ("port", "flag-2"))
}
"""include/uapi/linux/ip_vs.h, IP_VS_SVC_F_SCHED_SH_FALLBACK and the following lines."""


def in_order(flags: Iterable[str]) -> tuple[str, ...]:
    """Return flags by the kernel's names, each once, in the order of ``ServiceState``."""
    found = {_FLAG_OF.get(flag, flag) for flag in flags}
    return tuple(flag for flag in _FLAGS if flag in found)


def is_flag(word: str) -> bool:
    """Return whether a word of ipvsadm's -b, or of keepalived, is a scheduler's flag."""
    return word in _FLAG_OF or word in _FLAGS[1:]


class PortMapping(NamedTuple):
    """Ports that differ although the forwarding method cannot map them."""

    message: str
    hint: str


def port_mapping(forward: str, vip_port: int, port: int, keyword: str) -> PortMapping:
    """Return what to say about a port that only NAT could map."""
    return PortMapping(
        f"{keyword} cannot map port {vip_port} to {port}: {forward} does not rewrite packets",
        f"write port {vip_port}, or use NAT, the only forwarding method that rewrites ports",
    )


def unmapped(keyword: str, vip_port: int, port: int) -> str:
    """Return what to remark on a port that ipvsadm replaces by the service's.

    It does so for every method but NAT, in silence (process_options in ipvsadm.c).
    """
    return f"{keyword} cannot map port {vip_port} to {port}: ipvsadm takes port {vip_port}"


SERVICE_PORTS = {
    "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "http": 80, "www": 80,
    "pop3": 110, "nntp": 119, "ntp": 123, "imap2": 143, "imap": 143, "ldap": 389, "https": 443,
    "syslog": 514, "submission": 587, "ldaps": 636, "imaps": 993, "pop3s": 995, "openvpn": 1194,
    "ms-sql-s": 1433, "radius": 1812, "radius-acct": 1813, "mysql": 3306, "postgresql": 5432,
    "sip": 5060, "sips": 5061, "redis": 6379, "http-alt": 8080, "webcache": 8080,
}  # fmt: skip
"""Ports that files call by the service's name, as in /etc/services of Debian; no host is asked."""


def service_port(text: str) -> int | None:
    """Return the port of a number, or of a service's name; None if it is neither."""
    return SERVICE_PORTS.get(text) or number(text, 0, 65535)


def unknown_scheduler(word: str) -> tuple[str, str]:
    """Return what to say about a scheduler that IPVS does not have, and what would be right."""
    return f"{quoted(word)} is not a scheduler of IPVS", f"schedulers: {', '.join(Scheduler)}"
