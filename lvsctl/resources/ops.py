"""The operations that a plan is made of.

Each is a frozen value that says what must be so in one namespace, can describe
itself as the equivalent shell commands, and carries in ``why`` the reason it is
there. Only ``kernel.execute`` performs them.

Two operations are equal where they ask for the same thing, whatever the reason.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.lab import Impairment
from lvsctl.model.service import (
    GUE_PORT,
    Encapsulation,
    ForwardingMethod,
    Protocol,
    RealServer,
    Scheduler,
    ServiceKey,
)

FORWARD_FLAG = {
    ForwardingMethod.NAT: "-m",
    ForwardingMethod.TUN: "-i",
    ForwardingMethod.DR: "-g",
}
"""ipvsadm's flag for each forwarding method (ipvsadm(8): masquerading, ipip, gatewaying)."""

SERVICE_FLAG = {Protocol.TCP: "-t", Protocol.UDP: "-u", Protocol.SCTP: "--sctp-service"}
"""ipvsadm's flag for a virtual service of each protocol."""


def _typed(words: Iterable[str]) -> str:
    """``words`` as they are typed in a shell."""
    import shlex  # not for `up`, which describes nothing

    return shlex.join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One thing that must be so in the namespace ``netns`` (its name, as `ip netns` lists it)."""

    netns: str
    why: str = field(default="", compare=False)

    def describe(self) -> tuple[str, ...]:
        """The equivalent shell commands, each ready to be typed as root."""
        raise NotImplementedError

    def _ip(self, *words: object) -> str:
        return _typed(["ip", "-n", self.netns, *map(str, words)])

    def _exec(self, *words: object) -> str:
        return _typed(["ip", "netns", "exec", self.netns, *map(str, words)])


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNamespace(Op):
    """A network namespace: a node, or the switch of a network."""

    def describe(self) -> tuple[str, ...]:
        return (_typed(["ip", "netns", "add", self.netns]),)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSysctl(Op):
    """A sysctl of the namespace, ``key`` dotted as sysctl(8) takes it.

    ``optional``: kernels without the key do without (IPv6 compiled out).
    """

    key: str
    value: str
    optional: bool = False

    def describe(self) -> tuple[str, ...]:
        flags = ["-qe"] if self.optional else ["-q"]
        return (self._exec("sysctl", *flags, "-w", f"{self.key}={self.value}"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLinkUp(Op):
    """A device that exists, up."""

    device: str

    def describe(self) -> tuple[str, ...]:
        return (self._ip("link", "set", "dev", self.device, "up"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddBridge(Op):
    """The switch of a network: an Ethernet bridge without address, up."""

    device: str
    index: int

    def describe(self) -> tuple[str, ...]:
        return (
            self._ip(
                *("link", "add", "name", self.device, "index", self.index, "type", "bridge"),
                *("mcast_snooping", 0, "vlan_default_pvid", 0),
            ),
            self._ip("link", "set", "dev", self.device, "up"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AddLink(Op):
    """A cable from a node's interface to a port of a network's switch: a veth pair, both ends up.

    ``netns`` is the switch's namespace, ``port`` its end there, a port of ``bridge``;
    ``device`` is the interface in the node's namespace ``node_netns``. Both ends have
    their ifindex given, and different ones: with equal ones the link takes a second
    to come up (measured; see the docstring of ``planner``).
    """

    port: str
    port_index: int
    bridge: str
    bridge_index: int
    node_netns: str
    device: str
    device_index: int
    mac: str

    def describe(self) -> tuple[str, ...]:
        return (
            self._ip(
                *("link", "add", "name", self.port, "index", self.port_index),
                *("numtxqueues", 1, "numrxqueues", 1, "type", "veth", "peer"),
                *("name", self.device, "index", self.device_index, "address", self.mac),
                *("numtxqueues", 1, "numrxqueues", 1, "netns", self.node_netns),
            ),
            self._ip("link", "set", "dev", self.port, "master", self.bridge, "up"),
            _typed(["ip", "-n", self.node_netns, "link", "set", "dev", self.device, "up"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DisableOffloads(Op):
    """A device that hands over frames as a wire would carry them: checksums in, nothing merged."""

    device: str

    def describe(self) -> tuple[str, ...]:
        features = "tx off sg off tso off gso off gro off"
        return (self._exec("ethtool", "-K", self.device, *features.split()),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Impair(Op):
    """What leaves ``device`` is delayed, lost or slowed down (tc-netem(8))."""

    device: str
    impairment: Impairment

    def describe(self) -> tuple[str, ...]:
        words = ["qdisc", "replace", "dev", self.device, "root", "netem"]
        if self.impairment.delay:
            words += ["delay", f"{self.impairment.delay:g}ms"]
        if self.impairment.loss:
            words += ["loss", f"{self.impairment.loss:g}%"]
        if self.impairment.rate:
            words += ["rate", f"{self.impairment.rate}bit"]
        return (_typed(["tc", "-n", self.netns, *words]),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddTunnel(Op):
    """A tunnel device that decapsulates whatever reaches the node, from any sender; up.

    A kernel that makes fallback devices in new namespaces has made ``tunl0`` and ``gre0``
    already (net.core.fb_tunnels_only_for_init_net=0): then it only has to be set up.
    ``encapsulation`` is what the device understands: IPIP or GRE.
    """

    device: str
    index: int
    encapsulation: Encapsulation

    def describe(self) -> tuple[str, ...]:
        kind = self.encapsulation
        add = self._ip("link", "add", "name", self.device, "index", self.index, "type", kind)
        have = self._ip("link", "show", "dev", self.device)
        # Not the other way round: looking first, and loading the module by adding, makes it twice.
        return (
            f"{add} 2>/dev/null || {have} >/dev/null",
            self._ip("link", "set", "dev", self.device, "up"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AddGuePort(Op):
    """A UDP port at which the node takes GUE off; what is inside goes on as if without it."""

    port: int = GUE_PORT

    def describe(self) -> tuple[str, ...]:
        return (self._ip("fou", "add", "port", self.port, "gue"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddAddress(Op):
    """An address on a device."""

    device: str
    address: IPInterface

    def describe(self) -> tuple[str, ...]:
        nodad = ["nodad"] if self.address.version == 6 else []
        return (self._ip("addr", "add", self.address, "dev", self.device, *nodad),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRoute(Op):
    """A static route; ``to`` None is the default route."""

    to: IPNetwork | None
    via: IPAddress

    def describe(self) -> tuple[str, ...]:
        return (self._ip("route", "add", self.to or "default", "via", self.via),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddService(Op):
    """A virtual service in the director's IPVS table. ``persistence`` in seconds; 0: none."""

    service: ServiceKey
    scheduler: Scheduler
    persistence: int = 0

    def describe(self) -> tuple[str, ...]:
        words = ["-A", *service_words(self.service), "-s", str(self.scheduler)]
        if self.persistence:
            words += ["-p", str(self.persistence)]
        return (self._exec("ipvsadm", *words),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRealServer(Op):
    """A real server of a virtual service in the director's IPVS table.

    ``encapsulation`` counts in TUN only, ``tunnel_port`` (the real server's UDP port) with
    GUE only; without them they are IPIP and 0.
    """

    service: ServiceKey
    forward: ForwardingMethod
    real_server: RealServer
    encapsulation: Encapsulation = Encapsulation.IPIP
    tunnel_port: int = 0

    def describe(self) -> tuple[str, ...]:
        server = self.real_server
        words = ["-a", *service_words(self.service), "-r", endpoint(server.rip, server.port)]
        words += [FORWARD_FLAG[self.forward], "-w", str(server.weight)]
        if self.forward is ForwardingMethod.TUN:
            words += tunnel_words(self.encapsulation, self.tunnel_port)
        if server.upper:
            words += ["-x", str(server.upper)]
        if server.lower:
            words += ["-y", str(server.lower)]
        return (self._exec("ipvsadm", *words),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen(Op):
    """The built-in responder answers on ``port`` of every address of ``node``."""

    node: str
    protocol: Protocol
    port: int

    def describe(self) -> tuple[str, ...]:
        words = ["respond", self.netns, self.node, str(self.port)]
        if self.protocol is not Protocol.TCP:
            words.append(str(self.protocol))
        return (_typed(words),)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCommand(Op):
    """The user's own command, running in the node's namespace."""

    node: str
    argv: tuple[str, ...]

    def describe(self) -> tuple[str, ...]:
        return (_typed(["run", self.netns, *self.argv]),)


@dataclass(frozen=True, slots=True)
class Stage:
    """Operations that belong together, under a title for people.

    Within a stage the operations of one namespace come in order; those of different
    namespaces do not depend on each other, so they may be interleaved.
    """

    title: str
    ops: tuple[Op, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that ``up`` does for a lab, in order."""

    lab: str
    stages: tuple[Stage, ...]

    @property
    def ops(self) -> tuple[Op, ...]:
        """The operations of all stages, in order."""
        return tuple(op for stage in self.stages for op in stage.ops)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces that the lab owns, in order of creation."""
        return tuple(op.netns for op in self.ops if isinstance(op, AddNamespace))


def endpoint(address: IPAddress, port: int) -> str:
    """``address:port`` as ipvsadm takes it, IPv6 in brackets."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def service_words(key: ServiceKey) -> list[str]:
    """ipvsadm's words that name a virtual service."""
    return [SERVICE_FLAG[key.protocol], endpoint(key.vip, key.port)]


def tunnel_words(encapsulation: Encapsulation, port: int) -> list[str]:
    """ipvsadm's words for a tunnel that is not its ordinary one, IP in IP (ipvsadm(8))."""
    if encapsulation is Encapsulation.IPIP:
        return []
    words = ["--tun-type", str(encapsulation)]
    return [*words, "--tun-port", str(port)] if port else words


def unique(ops: Iterable[Op]) -> tuple[Op, ...]:
    """``ops`` in order, each thing asked for once (the first reason given stays)."""
    return tuple(dict.fromkeys(ops))


_EDIT: tuple[tuple[type[Op], str, str], ...] = (
    (AddRoute, " route add ", " route replace "),
    (AddService, " -A ", " -E "),
    (AddRealServer, " -a ", " -e "),
)
"""What another word in the command makes it replace what is there."""


def edit(op: Op) -> tuple[str, ...]:
    """As ``op.describe()``, where there is something on its subject already."""
    for kind, word, other in _EDIT:
        if isinstance(op, kind):
            return tuple(command.replace(word, other, 1) for command in op.describe())
    return op.describe()


def subject(op: Op) -> Hashable:  # noqa: PLR0911 (a row for each kind)
    """What ``op`` is about: of two operations on one subject, the later one replaces the other.

    So a service with another scheduler is changed in place, not removed and added.
    """
    match op:
        case SetSysctl():
            return SetSysctl, op.netns, op.key
        case Impair():
            return Impair, op.netns, op.device
        case AddService():
            return AddService, op.netns, op.service
        case AddRealServer():
            return AddRealServer, op.netns, op.service, op.real_server.rip, op.real_server.port
        case AddRoute():
            return AddRoute, op.netns, op.to, op.via.version
        case Listen():
            return Listen, op.netns, op.protocol, op.port
    return op
