"""The kernel's IPVS over generic netlink: messages for a plan, and what the table holds.

pyroute2 has the message classes of the family. Three things in them are wrong (0.9.7), and
``Message`` overrides those attributes only:

* IPVS_DEST_ATTR_TUN_PORT is encoded in host byte order; the kernel reads network order.
* IPVS_SVC_ATTR_NETMASK is always an IPv4 mask; for IPv6 it is a prefix length in host order.
* Timeouts and synchronization daemons are raw hexadecimal.

Its command "update" sends IPVS_CMD_DEL_*; commands are numbers here. Addresses are sent as the
16 bytes that ipvsadm(8) sends for both families. pyroute2 keeps the compiled map of attributes
on the class that compiled it first, so each subclass here says that its own is not compiled.

Every function takes a generic netlink socket opened in the director's namespace.
Sources: linux/ip_vs.h, net/netfilter/ipvs/ip_vs_ctl.c.
"""

from __future__ import annotations

import errno
import functools
import socket
import struct
from collections.abc import Iterable
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from lvsctl.errors import HostError, KernelError
from lvsctl.model.addresses import IPAddress
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    FwMark,
    Protocol,
    ServiceMatch,
    VipPort,
)
from lvsctl.model.state import Counters, RealServerState, ServiceState
from lvsctl.netlink import lazy_pyroute2, messages, sockets
from lvsctl.netlink.messages import FAMILIES, attribute, attributes, body, decode, nested, number_of
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService

from pyroute2.netlink import NLA_F_NESTED, nla  # isort: skip (after the shim)

_ipvs = lazy_pyroute2.ipvs_classes()
_MessageBase: Any = _ipvs.ipvsmsg
_ServiceBase: Any = _ipvs.ipvsmsg.service
_DestBase: Any = _ipvs.ipvsmsg.dest

FAMILY = "IPVS"
LOAD_HINT = "sudo modprobe ip_vs"

FORWARD_NUMBERS = {ForwardingMethod.NAT: 0, ForwardingMethod.TUN: 2, ForwardingMethod.DR: 3}
"""IP_VS_CONN_F_MASQ, _TUNNEL, _DROUTE."""
_FORWARD_METHODS: dict[int, ForwardingMethod | str] = {
    **{number: method for method, number in FORWARD_NUMBERS.items()},
    1: "local",
    4: "bypass",
}
_TUNNEL_TYPES = {Encapsulation.IPIP: 0, Encapsulation.GUE: 1, Encapsulation.GRE: 2}
_ENCAPSULATIONS = {number: kind for kind, number in _TUNNEL_TYPES.items()}
"""IP_VS_CONN_F_TUNNEL_TYPE_*."""
_PROTOCOLS = {protocol.number: protocol for protocol in Protocol}
_ALL_FLAGS = 0xFFFFFFFF


class Command(IntEnum):
    """Commands of the family that lvsctl sends, IPVS_CMD_*."""

    NEW_SERVICE = 1
    SET_SERVICE = 2
    DEL_SERVICE = 3
    GET_SERVICE = 4
    NEW_DEST = 5
    SET_DEST = 6
    DEL_DEST = 7
    GET_DEST = 8
    NEW_DAEMON = 9
    DEL_DAEMON = 10
    GET_DAEMON = 11
    SET_CONFIG = 12
    GET_CONFIG = 13
    ZERO = 16


class ServiceFlag(IntFlag):
    """IP_VS_SVC_F_*. HASHED is the kernel's own and appears in dumps only."""

    PERSISTENT = 1
    HASHED = 2
    ONEPACKET = 4
    SCHED1 = 8
    SCHED2 = 16
    SCHED3 = 32


FLAG_WORDS = {
    ServiceFlag.ONEPACKET: "ops",
    ServiceFlag.SCHED1: "flag-1",
    ServiceFlag.SCHED2: "flag-2",
    ServiceFlag.SCHED3: "flag-3",
}
"""ipvsadm(8)'s words (-o is ``ops`` in its list)."""
_FLAG_BITS = {word: bit for bit, word in FLAG_WORDS.items()}


def _with(attributes: Iterable[tuple[str, str]], **kinds: str) -> tuple[tuple[str, str], ...]:
    """Return a map of attributes with other kinds for those that end in a word of ``kinds``."""
    changed = dict(attributes)
    for name in changed:
        for word, kind in kinds.items():
            if name.partition("_ATTR_")[2] == word:
                changed[name] = kind
    return tuple(changed.items())


class Service(_ServiceBase):  # type: ignore[misc]  # pyroute2 has no types
    """IPVS_SVC_ATTR_*."""

    _nlmsg_base__compiled_nla = False
    nla_flags = NLA_F_NESTED
    nla_map = _with(_ServiceBase.nla_map, ADDR="cdata", NETMASK="cdata")


class Dest(_DestBase):  # type: ignore[misc]
    """IPVS_DEST_ATTR_*: a real server."""

    _nlmsg_base__compiled_nla = False
    nla_flags = NLA_F_NESTED
    nla_map = _with(_DestBase.nla_map, ADDR="cdata", TUN_PORT="be16")


class Daemon(nla):  # type: ignore[misc]
    """IPVS_DAEMON_ATTR_*: a connection synchronization daemon."""

    prefix = "IPVS_DAEMON_ATTR_"
    nla_flags = NLA_F_NESTED
    nla_map = (
        ("IPVS_DAEMON_ATTR_UNSPEC", "none"),
        ("IPVS_DAEMON_ATTR_STATE", "uint32"),
        ("IPVS_DAEMON_ATTR_MCAST_IFN", "asciiz"),
        ("IPVS_DAEMON_ATTR_SYNC_ID", "uint32"),
        ("IPVS_DAEMON_ATTR_SYNC_MAXLEN", "uint16"),
        ("IPVS_DAEMON_ATTR_MCAST_GROUP", "ip4addr"),
        ("IPVS_DAEMON_ATTR_MCAST_GROUP6", "ip6addr"),
        ("IPVS_DAEMON_ATTR_MCAST_PORT", "uint16"),
        ("IPVS_DAEMON_ATTR_MCAST_TTL", "uint8"),
    )


class Message(_MessageBase):  # type: ignore[misc]
    """A message of the family. Timeouts are in seconds."""

    _nlmsg_base__compiled_nla = False
    service = Service
    dest = Dest
    daemon = Daemon
    nla_map = _with(
        _MessageBase.nla_map,
        DAEMON="daemon",
        TIMEOUT_TCP="uint32",
        TIMEOUT_TCP_FIN="uint32",
        TIMEOUT_UDP="uint32",
    )


def family_id(sock: socket.socket) -> int:
    """Return the number under which this kernel registered IPVS: the type of its messages.

    It is the same in every namespace until the module is loaded again. Raises HostError
    where the kernel has no IPVS (yet).
    """
    number = messages.generic_family(sock, FAMILY)
    if number is None:
        raise HostError("this kernel has no IPVS loaded", hint=LOAD_HINT)
    return number


# ── messages ─────────────────────────────────────────────────────────────────────────────────


def add_message(
    resource: IpvsService | IpvsRealServer, family: int, *, replace: bool = False
) -> bytearray:
    """Return the message that creates ``resource`` or, with ``replace``, changes it."""
    if isinstance(resource, IpvsService):
        command = Command.SET_SERVICE if replace else Command.NEW_SERVICE
        return message(family, command, _service(resource))
    command = Command.SET_DEST if replace else Command.NEW_DEST
    return message(family, command, _service_key(resource.service) + _dest(resource))


def delete_message(resource: IpvsService | IpvsRealServer, family: int) -> bytearray:
    """Return the message that deletes ``resource``; a service goes with its real servers."""
    key = _service_key(resource.service)
    if isinstance(resource, IpvsService):
        return message(family, Command.DEL_SERVICE, key)
    dest = nested(Message, "IPVS_CMD_ATTR_DEST", _dest_key(resource))
    return message(family, Command.DEL_DEST, key + dest)


def message(family: int, command: Command, attributes: bytes = b"", flags: int = 0) -> bytearray:
    """Return a message of the family with encoded ``attributes``."""
    return sockets.message(family, flags, _command(command) + attributes)


@functools.cache
def _command(command: Command) -> bytes:
    return body(Message, cmd=int(command), version=_ipvs.GENL_VERSION)


@functools.lru_cache(maxsize=256)
def _service_key(key: ServiceMatch) -> bytes:
    """Encode the attribute that names a virtual service."""
    return nested(Message, "IPVS_CMD_ATTR_SERVICE", body(Service, _key(key)))


@functools.lru_cache(maxsize=256)
def _service(resource: IpvsService) -> bytes:
    flags = ServiceFlag.PERSISTENT if resource.persistence else ServiceFlag(0)
    for word in resource.flags:
        flags |= _FLAG_BITS[word]
    netmask = encode_netmask(resource.service.version, resource.netmask or None)
    attributes = [
        *_key(resource.service),
        ("IPVS_SVC_ATTR_SCHED_NAME", str(resource.scheduler)),
        ("IPVS_SVC_ATTR_FLAGS", {"flags": int(flags), "mask": _ALL_FLAGS}),
        ("IPVS_SVC_ATTR_TIMEOUT", resource.persistence),
        ("IPVS_SVC_ATTR_NETMASK", netmask),
    ]
    if resource.engine:
        attributes.append(("IPVS_SVC_ATTR_PE_NAME", resource.engine))
    return nested(Message, "IPVS_CMD_ATTR_SERVICE", body(Service, attributes))


def _key(key: ServiceMatch) -> list[tuple[str, Any]]:
    if isinstance(key, FwMark):
        return [
            ("IPVS_SVC_ATTR_AF", FAMILIES[key.version]),
            ("IPVS_SVC_ATTR_FWMARK", key.mark),
        ]
    return [
        ("IPVS_SVC_ATTR_AF", FAMILIES[key.vip.version]),
        ("IPVS_SVC_ATTR_PROTOCOL", key.protocol.number),
        ("IPVS_SVC_ATTR_ADDR", _encode_address(key.vip)),
        ("IPVS_SVC_ATTR_PORT", key.port),
    ]


def _dest(resource: IpvsRealServer) -> bytes:
    server = resource.real_server
    content = _dest_key(resource)
    content += attribute(Dest, "IPVS_DEST_ATTR_FWD_METHOD", FORWARD_NUMBERS[server.forward])
    content += attribute(Dest, "IPVS_DEST_ATTR_WEIGHT", server.weight)
    content += attribute(Dest, "IPVS_DEST_ATTR_U_THRESH", server.upper)
    content += attribute(Dest, "IPVS_DEST_ATTR_L_THRESH", server.lower)
    tunnel = server.forward is ForwardingMethod.TUN
    if tunnel and server.encapsulation is not Encapsulation.IPIP:
        kind = _TUNNEL_TYPES[server.encapsulation]
        content += attribute(Dest, "IPVS_DEST_ATTR_TUN_TYPE", kind)
        if server.tunnel_port:
            content += attribute(Dest, "IPVS_DEST_ATTR_TUN_PORT", server.tunnel_port)
        if server.checksum.flags:
            content += attribute(Dest, "IPVS_DEST_ATTR_TUN_FLAGS", server.checksum.flags)
    return nested(Message, "IPVS_CMD_ATTR_DEST", content)


def _dest_key(resource: IpvsRealServer) -> bytes:
    rip = resource.real_server.rip
    return (
        attribute(Dest, "IPVS_DEST_ATTR_ADDR", _encode_address(rip))
        + attribute(Dest, "IPVS_DEST_ATTR_PORT", resource.real_server.port)
        + attribute(Dest, "IPVS_DEST_ATTR_ADDR_FAMILY", FAMILIES[rip.version])
    )


def _encode_address(address: IPAddress) -> bytes:
    """Encode union nf_inet_addr: 16 bytes, an IPv4 address in the first four."""
    return address.packed.ljust(16, b"\0")


def _decode_address(family: int, data: bytes) -> IPAddress:
    if family == socket.AF_INET6:
        return IPv6Address(bytes(data[:16]))
    return IPv4Address(bytes(data[:4]))


def encode_netmask(version: int, prefix: int | None = None) -> bytes:
    """Encode what groups clients for persistence: ``prefix`` bits of their address, or all.

    IPv4 takes a mask in network order, IPv6 a prefix length in host order.
    """
    if version == 6:
        return struct.pack("=I", 128 if prefix is None else prefix)
    bits = 32 if prefix is None else prefix
    return ((0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF).to_bytes(4, "big")


# ── requests ─────────────────────────────────────────────────────────────────────────────────


def services(sock: socket.socket) -> tuple[ServiceState, ...]:
    """Return every virtual service with its real servers and counters.

    The kernel keeps services in a hash table: they come sorted by VIP, port and protocol.
    Real servers come in the order in which they were added (the kernel dumps the last one
    first).

    Counters lag behind: the kernel adds up its processors' counts every two seconds, and
    never with net.ipv4.vs.run_estimation=0 (ip_vs_est.c); ipvsadm shows the same.
    Active and inactive connections are current.

    Raises HostError where the kernel has no IPVS, KernelError where it rejects the request.
    """
    family = family_id(sock)
    found = []
    for answer in dump(sock, family, Command.GET_SERVICE):
        raw = answer.get_attr("IPVS_CMD_ATTR_SERVICE")
        key = _decode_key(raw)
        flags = raw.get_attr("IPVS_SVC_ATTR_FLAGS")["flags"]
        persistent = flags & ServiceFlag.PERSISTENT
        state = ServiceState(
            match=key,
            scheduler=raw.get_attr("IPVS_SVC_ATTR_SCHED_NAME") or "",
            persistence=raw.get_attr("IPVS_SVC_ATTR_TIMEOUT") if persistent else 0,
            real_servers=_real_servers(sock, family, key),
            counters=_counters(raw.get_attr("IPVS_SVC_ATTR_STATS64")),
            flags=tuple(word for bit, word in FLAG_WORDS.items() if flags & bit),
            netmask=_decode_netmask(key.version, raw.get_attr("IPVS_SVC_ATTR_NETMASK")),
            engine=raw.get_attr("IPVS_SVC_ATTR_PE_NAME") or "",
        )
        found.append(state)
    return tuple(sorted(found, key=_by_key))


def _decode_key(raw: Any) -> ServiceMatch:
    family = raw.get_attr("IPVS_SVC_ATTR_AF")
    if mark := raw.get_attr("IPVS_SVC_ATTR_FWMARK"):
        return FwMark(mark, 6 if family == socket.AF_INET6 else 4)
    address = _decode_address(family, raw.get_attr("IPVS_SVC_ATTR_ADDR"))
    protocol = _PROTOCOLS[raw.get_attr("IPVS_SVC_ATTR_PROTOCOL")]
    return VipPort(protocol, address, raw.get_attr("IPVS_SVC_ATTR_PORT"))


def _decode_netmask(version: int, data: bytes | None) -> int:
    """Return the bits of a client's address that count; 0: all of them."""
    if data is None:
        return 0
    if version == 6:
        bits = int(struct.unpack("=I", bytes(data[:4]))[0])
        return 0 if bits == 128 else bits
    bits = int.from_bytes(bytes(data[:4]), "big").bit_count()
    return 0 if bits == 32 else bits


def _real_servers(
    sock: socket.socket, family: int, key: ServiceMatch
) -> tuple[RealServerState, ...]:
    asked = message(family, Command.GET_DEST, _service_key(key), sockets.DUMP)
    try:
        answers = sockets.request(sock, asked)
    except KernelError as error:
        if error.errno in (errno.ESRCH, errno.ENOENT):
            return ()  # the service was removed between the two dumps
        raise
    return tuple(reversed([_real_server(answer, key) for answer in answers]))


_GENERIC_HEADER = 4  # struct genlmsghdr
_DEST_NUMBERS = {
    name.partition("_ATTR_")[2]: number for number, (name, *_) in enumerate(Dest.nla_map)
}
_DEST = next(
    number for number, (name, *_) in enumerate(Message.nla_map) if name == "IPVS_CMD_ATTR_DEST"
)


def _real_server(answer: bytes, key: ServiceMatch) -> RealServerState:
    """Decode a real server. Not by pyroute2, which makes an object of each attribute: a service
    has hundreds of them.
    """  # fmt: skip
    dest = attributes(attributes(answer, sockets.HEADER.size + _GENERIC_HEADER)[_DEST])

    def get(name: str) -> bytes | None:
        return dest.get(_DEST_NUMBERS[name])

    def port(name: str) -> int:
        return int.from_bytes(get(name) or b"", "big")

    method = number_of(get("FWD_METHOD"))
    family = number_of(get("ADDR_FAMILY")) or FAMILIES[key.version]
    stats = attributes(dest[_DEST_NUMBERS["STATS64"]])
    return RealServerState(
        rip=_decode_address(family, dest[_DEST_NUMBERS["ADDR"]]),
        port=port("PORT"),
        forward=_FORWARD_METHODS.get(method, str(method)),
        weight=number_of(get("WEIGHT")),
        upper=number_of(get("U_THRESH")),
        lower=number_of(get("L_THRESH")),
        active=number_of(get("ACTIVE_CONNS")),
        inactive=number_of(get("INACT_CONNS")),
        encapsulation=_ENCAPSULATIONS.get(number_of(get("TUN_TYPE")), Encapsulation.IPIP),
        tunnel_port=port("TUN_PORT"),
        persistent=number_of(get("PERSIST_CONNS")),
        tunnel_flags=number_of(get("TUN_FLAGS")),
        counters=Counters(*(number_of(stats.get(number)) for number in _STATISTICS)),
    )


_STATISTICS = (1, 2, 3, 4, 5)
"""IPVS_STATS_ATTR_*: connections, packets in and out, bytes in and out."""


def zero(sock: socket.socket, key: ServiceMatch | None = None) -> None:
    """Set the counters of one virtual service and its real servers, or of all, to zero."""
    attributes = b"" if key is None else _service_key(key)
    sockets.request(sock, message(family_id(sock), Command.ZERO, attributes))


def dump(sock: socket.socket, family: int, command: Command, attributes: bytes = b"") -> list[Any]:
    """Return the decoded answers to a command that lists things."""
    asked = message(family, command, attributes, sockets.DUMP)
    return [decode(Message, answer) for answer in sockets.request(sock, asked)]


def _counters(stats: Any) -> Counters:
    def get(name: str) -> int:
        return int(stats.get_attr(f"IPVS_STATS_ATTR_{name}"))

    return Counters(
        connections=get("CONNS"),
        packets_in=get("INPKTS"),
        packets_out=get("OUTPKTS"),
        bytes_in=get("INBYTES"),
        bytes_out=get("OUTBYTES"),
    )


def _by_key(state: ServiceState) -> tuple[int, bytes, int, str]:
    if isinstance(state.match, FwMark):
        return 0, b"", state.match.mark, ""
    vip = state.match.vip
    return vip.version, vip.packed, state.match.port, str(state.match.protocol)
