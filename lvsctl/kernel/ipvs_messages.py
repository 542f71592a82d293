"""IPVS's generic netlink family as message classes, and our values packed into them.

pyroute2 has such classes, but wrong or incomplete ones (0.9.7: netmask and tunnel
port in the wrong byte order, 64-bit counters read under shifted names, no timeouts
and no sync daemons, "update" sends DEL). It also caches compiled attribute maps on
the parent class, so these are written from linux/ip_vs.h and inherit nothing but
``nla`` and ``genlmsg``.

Everything here is pure. pyroute2 has no types; this file is the edge where that ends.
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from lvsctl.kernel import lazy_pyroute2
from lvsctl.kernel.ipvs_shapes import FORWARD_NUMBERS, TUNNEL_TYPES
from lvsctl.model.service import Encapsulation, ForwardingMethod, ServiceKey

# First: whoever imports this wants these few classes, and not all of pyroute2 for them.
lazy_pyroute2.install()
from pyroute2.netlink import NLA_F_NESTED, NLM_F_REQUEST, genlmsg, nla  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lvsctl.model.addresses import IPAddress
    from lvsctl.resources.ops import AddRealServer, AddService

GENL_VERSION = 1
FAMILIES = {4: int(socket.AF_INET), 6: int(socket.AF_INET6)}


class Command(IntEnum):
    """IPVS_CMD_*."""

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
    SET_INFO = 14
    GET_INFO = 15
    ZERO = 16
    FLUSH = 17


class ServiceFlag(IntFlag):
    """IP_VS_SVC_F_*. HASHED is the kernel's own and appears in dumps only."""

    PERSISTENT = 1
    HASHED = 2
    ONEPACKET = 4
    SCHED1 = 8
    SCHED2 = 16
    SCHED3 = 32


FORWARD_METHODS: dict[int, ForwardingMethod | str] = {
    0: ForwardingMethod.NAT,
    1: "local",
    2: ForwardingMethod.TUN,
    3: ForwardingMethod.DR,
    4: "bypass",
}
"""IP_VS_CONN_F_MASQ and the others, by number."""


class _Counters(nla):  # type: ignore[misc]
    """IPVS_STATS_ATTR_* of STATS64: every counter has 64 bits.

    The rates (connections, packets, bytes per second) are the kernel's estimates.
    """

    prefix = "IPVS_STATS_ATTR_"
    nla_map = (
        ("IPVS_STATS_ATTR_UNSPEC", "none"),
        ("IPVS_STATS_ATTR_CONNS", "uint64"),
        ("IPVS_STATS_ATTR_INPKTS", "uint64"),
        ("IPVS_STATS_ATTR_OUTPKTS", "uint64"),
        ("IPVS_STATS_ATTR_INBYTES", "uint64"),
        ("IPVS_STATS_ATTR_OUTBYTES", "uint64"),
        ("IPVS_STATS_ATTR_CPS", "uint64"),
        ("IPVS_STATS_ATTR_INPPS", "uint64"),
        ("IPVS_STATS_ATTR_OUTPPS", "uint64"),
        ("IPVS_STATS_ATTR_INBPS", "uint64"),
        ("IPVS_STATS_ATTR_OUTBPS", "uint64"),
        ("IPVS_STATS_ATTR_PAD", "none"),
    )


class _Service(nla):  # type: ignore[misc]
    """IPVS_SVC_ATTR_*.

    ADDR is union nf_inet_addr, 16 bytes for either family. NETMASK is an address
    for IPv4 and, for IPv6, a prefix length in host order: both are bytes here, see
    ``packed_netmask``.
    """

    prefix = "IPVS_SVC_ATTR_"
    nla_flags = NLA_F_NESTED
    counters = _Counters
    nla_map = (
        ("IPVS_SVC_ATTR_UNSPEC", "none"),
        ("IPVS_SVC_ATTR_AF", "uint16"),
        ("IPVS_SVC_ATTR_PROTOCOL", "uint16"),
        ("IPVS_SVC_ATTR_ADDR", "cdata"),
        ("IPVS_SVC_ATTR_PORT", "be16"),
        ("IPVS_SVC_ATTR_FWMARK", "uint32"),
        ("IPVS_SVC_ATTR_SCHED_NAME", "asciiz"),
        ("IPVS_SVC_ATTR_FLAGS", "flags"),
        ("IPVS_SVC_ATTR_TIMEOUT", "uint32"),
        ("IPVS_SVC_ATTR_NETMASK", "cdata"),
        ("IPVS_SVC_ATTR_STATS", "none"),
        ("IPVS_SVC_ATTR_PE_NAME", "asciiz"),
        ("IPVS_SVC_ATTR_STATS64", "counters"),
    )

    class flags(nla):  # type: ignore[misc]  # noqa: N801
        """struct ip_vs_flags: the flags, and which are meant. Found by its name in nla_map."""

        fields = (("flags", "I"), ("mask", "I"))


class _Dest(nla):  # type: ignore[misc]
    """IPVS_DEST_ATTR_*. TUN_PORT is in network order on the wire."""

    prefix = "IPVS_DEST_ATTR_"
    nla_flags = NLA_F_NESTED
    counters = _Counters
    nla_map = (
        ("IPVS_DEST_ATTR_UNSPEC", "none"),
        ("IPVS_DEST_ATTR_ADDR", "cdata"),
        ("IPVS_DEST_ATTR_PORT", "be16"),
        ("IPVS_DEST_ATTR_FWD_METHOD", "uint32"),
        ("IPVS_DEST_ATTR_WEIGHT", "int32"),
        ("IPVS_DEST_ATTR_U_THRESH", "uint32"),
        ("IPVS_DEST_ATTR_L_THRESH", "uint32"),
        ("IPVS_DEST_ATTR_ACTIVE_CONNS", "uint32"),
        ("IPVS_DEST_ATTR_INACT_CONNS", "uint32"),
        ("IPVS_DEST_ATTR_PERSIST_CONNS", "uint32"),
        ("IPVS_DEST_ATTR_STATS", "none"),
        ("IPVS_DEST_ATTR_ADDR_FAMILY", "uint16"),
        ("IPVS_DEST_ATTR_STATS64", "counters"),
        ("IPVS_DEST_ATTR_TUN_TYPE", "uint8"),
        ("IPVS_DEST_ATTR_TUN_PORT", "be16"),
        ("IPVS_DEST_ATTR_TUN_FLAGS", "uint16"),
    )


class _Daemon(nla):  # type: ignore[misc]
    """IPVS_DAEMON_ATTR_*: a connection synchronisation daemon."""

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


class Message(genlmsg):  # type: ignore[misc]
    """Any message of the family, to the kernel or from it. Timeouts are in seconds."""

    prefix = "IPVS_CMD_ATTR_"
    service = _Service
    dest = _Dest
    daemon = _Daemon
    nla_map = (
        ("IPVS_CMD_ATTR_UNSPEC", "none"),
        ("IPVS_CMD_ATTR_SERVICE", "service"),
        ("IPVS_CMD_ATTR_DEST", "dest"),
        ("IPVS_CMD_ATTR_DAEMON", "daemon"),
        ("IPVS_CMD_ATTR_TIMEOUT_TCP", "uint32"),
        ("IPVS_CMD_ATTR_TIMEOUT_TCP_FIN", "uint32"),
        ("IPVS_CMD_ATTR_TIMEOUT_UDP", "uint32"),
    )


Attributes = list[tuple[str, Any]]
"""Attributes in wire order: name without its class's prefix, value."""


def packed_message(
    command: Command, family_id: int, attrs: Iterable[tuple[str, Any]] = (), *, flags: int = 0
) -> bytearray:
    """A complete netlink message; ``flags`` besides NLM_F_REQUEST, sequence number 0."""
    message = Message()
    message["header"]["type"] = family_id
    message["header"]["flags"] = NLM_F_REQUEST | flags
    message["cmd"] = int(command)
    message["version"] = GENL_VERSION
    message["attrs"] = [("IPVS_CMD_ATTR_" + name, value) for name, value in attrs]
    message.encode()
    return bytearray(message.data)


def unpacked(data: bytes) -> dict[str, Any]:
    """A message's attributes by name without prefix, nested ones as dictionaries."""
    message = Message(data)
    message.decode()
    return _plain(message)


def _plain(node: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for slot in node["attrs"]:
        value = slot.value
        if isinstance(value, nla):
            value = _plain(value) if value.nla_map else {k: value[k] for k, _ in value.fields}
        found[slot.name.removeprefix(node.prefix)] = value
    return found


def service_key(key: ServiceKey) -> tuple[str, Any]:
    """The attribute that names a virtual service."""
    return "SERVICE", _nested(_Service, _key_attributes(key))


def service(op: AddService) -> tuple[str, Any]:
    """The attribute that says everything about a virtual service."""
    flags = ServiceFlag.PERSISTENT if op.persistence else ServiceFlag(0)
    attrs = [
        *_key_attributes(op.service),
        ("SCHED_NAME", str(op.scheduler)),
        ("FLAGS", {"flags": int(flags), "mask": 0xFFFFFFFF}),
        ("TIMEOUT", op.persistence),
        ("NETMASK", packed_netmask(op.service.vip.version)),
    ]
    return "SERVICE", _nested(_Service, attrs)


def dest_key(op: AddRealServer) -> tuple[str, Any]:
    """The attribute that names a real server within its service."""
    return "DEST", _nested(_Dest, _dest_key_attributes(op))


def dest(op: AddRealServer) -> tuple[str, Any]:
    """The attribute that says everything about a real server."""
    server = op.real_server
    attrs = [
        *_dest_key_attributes(op),
        ("FWD_METHOD", FORWARD_NUMBERS[op.forward]),
        ("WEIGHT", server.weight),
        ("U_THRESH", server.upper),
        ("L_THRESH", server.lower),
    ]
    if op.forward is ForwardingMethod.TUN and op.encapsulation is not Encapsulation.IPIP:
        attrs.append(("TUN_TYPE", TUNNEL_TYPES[op.encapsulation]))
        if op.tunnel_port:
            attrs.append(("TUN_PORT", op.tunnel_port))
    return "DEST", _nested(_Dest, attrs)


def timeouts(tcp: int, tcp_fin: int, udp: int) -> Attributes:
    """The attributes of SET_CONFIG, in seconds; the kernel leaves alone what is 0."""
    return [("TIMEOUT_TCP", tcp), ("TIMEOUT_TCP_FIN", tcp_fin), ("TIMEOUT_UDP", udp)]


def packed_address(address: IPAddress) -> bytes:
    """union nf_inet_addr: 16 bytes, an IPv4 address in the first four."""
    return address.packed.ljust(16, b"\0")


def unpacked_address(family: int, data: bytes) -> IPAddress:
    """The address in a union nf_inet_addr of the address family ``family``."""
    if family == socket.AF_INET6:
        return IPv6Address(bytes(data[:16]))
    return IPv4Address(bytes(data[:4]))


def packed_netmask(version: int, prefix: int | None = None) -> bytes:
    """What groups clients for persistence: all bits of their address, or ``prefix`` of them.

    IPv4 wants a mask in network order, IPv6 a prefix length in host order
    (ip_vs_ctl.c: ``svc->netmask``, ``__be32`` though it is).
    """
    if version == 6:
        length = 128 if prefix is None else prefix
        return struct.pack("=I", length)
    bits = 32 if prefix is None else prefix
    return ((0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF).to_bytes(4, "big")


def _key_attributes(key: ServiceKey) -> Attributes:
    return [
        ("AF", FAMILIES[key.vip.version]),
        ("PROTOCOL", key.protocol.number),
        ("ADDR", packed_address(key.vip)),
        ("PORT", key.port),
    ]


def _dest_key_attributes(op: AddRealServer) -> Attributes:
    return [
        ("ADDR", packed_address(op.real_server.rip)),
        ("PORT", op.real_server.port),
        ("ADDR_FAMILY", FAMILIES[op.real_server.rip.version]),
    ]


def _nested(kind: type[Any], attrs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {"attrs": [(kind.prefix + name, value) for name, value in attrs]}
