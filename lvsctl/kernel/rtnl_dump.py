"""What rtnetlink tells about one namespace: devices, addresses, routes, neighbours, netem.

Only the attributes that ``model.state`` has a place for are read; everything else
in the messages is skipped without being decoded. Sources: linux/if_link.h,
linux/if_addr.h, linux/rtnetlink.h, linux/neighbour.h, linux/pkt_sched.h, and
iproute2, whose ``ip -j`` and ``tc -j`` the tests hold the results against.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network
from typing import TYPE_CHECKING

from lvsctl.kernel import nldump, wire
from lvsctl.kernel.nldump import attributes, number, text
from lvsctl.model.lab import Impairment
from lvsctl.model.state import LinkState, NeighbourState, RouteState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lvsctl.model.addresses import IPAddress, IPInterface

RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETNEIGH, RTM_GETQDISC = 18, 22, 26, 30, 38

_IFINFOMSG = struct.Struct("=BxHiII")  # family, ARPHRD type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=8BI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_RTNEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, index
_NDMSG = struct.Struct("=B3xiHBB")  # family, index, state, flags, type
_TCMSG = struct.Struct("=B3xiIII")  # family, index, handle, parent, info

_IFF_UP, _IFF_NOARP = 0x1, 0x80
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_QDISC, _IFLA_MASTER = 1, 3, 4, 6, 10
_IFLA_LINKINFO, _IFLA_EXT_MASK, _IFLA_CARRIER = 18, 29, 33
_IFLA_INFO_KIND = 1
_RTEXT_FILTER_SKIP_STATS = 1 << 3

_IFA_ADDRESS, _IFA_LOCAL = 1, 2

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 1, 4, 5, 9, 15, 18
_RT_TABLE_MAIN = 254
_RTPROT_KERNEL = 2
_RTM_F_CLONED = 0x200

_NDA_DST, _NDA_LLADDR = 1, 2
_NEIGHBOUR_STATES = {
    0x01: "incomplete",
    0x02: "reachable",
    0x04: "stale",
    0x08: "delay",
    0x10: "probe",
    0x20: "failed",
    0x80: "permanent",
}
"""ip-neighbour(8)'s words. NOARP (0x40: loopback, multicast) and NONE are not entries to show."""

_TCA_KIND, _TCA_OPTIONS = 1, 2
_TC_H_ROOT = 0xFFFFFFFF
_NETEM_QOPT = struct.Struct("=6I")  # latency, limit, loss, gap, duplicate, jitter
_NETEM_RATE, _NETEM_RATE64, _NETEM_LATENCY64 = 6, 8, 10
_PSCHED_TICK = 64  # nanoseconds (PSCHED_SHIFT)

_AF_INETS = (socket.AF_INET, socket.AF_INET6)


def links(sock: socket.socket) -> tuple[LinkState, ...]:
    """The devices of the socket's namespace by index, with addresses and impairment.

    ``mac`` is empty for devices that have none (a tunnel's hardware address is an
    IP address). Impairments are asked for only where a device has netem.
    """
    mask = nldump.attribute(_IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS))
    request = nldump.packed(RTM_GETLINK, _IFINFOMSG.pack(0, 0, 0, 0, 0) + mask)
    seen = []
    for message in nldump.ask(sock, request):
        _, _, index, flags, _ = _IFINFOMSG.unpack_from(message, wire.HEADER.size)
        seen.append((index, flags, attributes(message, wire.HEADER.size + _IFINFOMSG.size)))
    names = {index: text(found.get(_IFLA_IFNAME)) for index, _, found in seen}
    netem = any(text(found.get(_IFLA_QDISC)) == "netem" for _, _, found in seen)
    addresses = _addresses(sock)
    impairments = _impairments(sock) if netem else {}
    return tuple(
        LinkState(
            name=names[index],
            index=index,
            kind=_kind(found.get(_IFLA_LINKINFO)),
            mac=_mac(found.get(_IFLA_ADDRESS)),
            mtu=number(found.get(_IFLA_MTU)),
            up=bool(flags & _IFF_UP),
            carrier=bool(number(found.get(_IFLA_CARRIER))),
            master=names.get(number(found.get(_IFLA_MASTER)), ""),
            addresses=tuple(addresses.get(index, ())),
            impairment=impairments.get(index, Impairment()),
            noarp=bool(flags & _IFF_NOARP),
        )
        for index, flags, found in sorted(seen, key=lambda entry: entry[0])
    )


def routes(sock: socket.socket, names: dict[int, str]) -> tuple[RouteState, ...]:
    """The main table. ``names`` are the devices by index.

    A route over several next hops gives one entry for each. A route without a
    device (blackhole, unreachable, prohibit) has an empty ``device``.
    """
    found: list[RouteState] = []
    for message in nldump.ask(sock, nldump.packed(RTM_GETROUTE, _RTMSG.pack(*[0] * 9))):
        family, length, _, _, table, protocol, _, _, flags = _RTMSG.unpack_from(
            message, wire.HEADER.size
        )
        attrs = attributes(message, wire.HEADER.size + _RTMSG.size)
        table = number(attrs.get(_RTA_TABLE), table)
        if family not in _AF_INETS or table != _RT_TABLE_MAIN or flags & _RTM_F_CLONED:
            continue
        to = ip_network((bytes(attrs[_RTA_DST]), length)) if _RTA_DST in attrs else None
        found += [
            RouteState(
                to=to, via=via, device=names.get(index, ""), kernel=protocol == _RTPROT_KERNEL
            )
            for index, via in _next_hops(attrs)
        ]
    return tuple(found)


def neighbours(sock: socket.socket, names: dict[int, str]) -> tuple[NeighbourState, ...]:
    """The ARP and ND caches. ``names`` are the devices by index."""
    found = []
    for message in nldump.ask(sock, nldump.packed(RTM_GETNEIGH, _NDMSG.pack(0, 0, 0, 0, 0))):
        family, index, state, _, _ = _NDMSG.unpack_from(message, wire.HEADER.size)
        if family not in _AF_INETS or state not in _NEIGHBOUR_STATES:
            continue
        attrs = attributes(message, wire.HEADER.size + _NDMSG.size)
        found.append(
            NeighbourState(
                address=_address(attrs[_NDA_DST]),
                device=names.get(index, ""),
                mac=_mac(attrs.get(_NDA_LLADDR)),
                state=_NEIGHBOUR_STATES[state],
            )
        )
    return tuple(found)


def _addresses(sock: socket.socket) -> dict[int, list[IPInterface]]:
    found: dict[int, list[IPInterface]] = {}
    for message in nldump.ask(sock, nldump.packed(RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, 0))):
        family, length, _, _, index = _IFADDRMSG.unpack_from(message, wire.HEADER.size)
        if family not in _AF_INETS:
            continue
        attrs = attributes(message, wire.HEADER.size + _IFADDRMSG.size)
        # On a point-to-point device ADDRESS is the far end; IPv6 has LOCAL only there.
        own = attrs.get(_IFA_LOCAL, attrs.get(_IFA_ADDRESS))
        if own is not None:
            found.setdefault(index, []).append(ip_interface((bytes(own), length)))
    return found


def _impairments(sock: socket.socket) -> dict[int, Impairment]:
    found = {}
    for message in nldump.ask(sock, nldump.packed(RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0))):
        _, index, _, parent, _ = _TCMSG.unpack_from(message, wire.HEADER.size)
        attrs = attributes(message, wire.HEADER.size + _TCMSG.size)
        if parent == _TC_H_ROOT and text(attrs.get(_TCA_KIND)) == "netem":
            found[index] = netem(attrs[_TCA_OPTIONS])
    return found


def netem(options: memoryview) -> Impairment:
    """netem's options: delay in nanoseconds, loss in 2³²nds, rate in bytes per second.

    Delays are told to the microsecond: tc(8) rounds them to 64 ns before it sends them.
    """
    ticks, _, loss, *_ = _NETEM_QOPT.unpack_from(options)
    attrs = attributes(options, _NETEM_QOPT.size)
    delay = number(attrs.get(_NETEM_LATENCY64), ticks * _PSCHED_TICK)
    rate = attrs.get(_NETEM_RATE)
    rate32 = number(rate[:4]) if rate is not None else 0
    return Impairment(
        delay=round(delay / 1e6, 3),
        loss=round(loss * 100 / 0xFFFFFFFF, 6),
        rate=number(attrs.get(_NETEM_RATE64), rate32) * 8,
    )


def _next_hops(attrs: dict[int, memoryview]) -> Iterator[tuple[int, IPAddress | None]]:
    """The device's index (0: none) and the gateway, for each way that a route goes."""
    several = attrs.get(_RTA_MULTIPATH)
    if several is None:
        yield number(attrs.get(_RTA_OIF)), _gateway(attrs)
        return
    offset = 0
    while offset + _RTNEXTHOP.size <= len(several):
        length, _, _, index = _RTNEXTHOP.unpack_from(several, offset)
        yield index, _gateway(attributes(several[offset : offset + length], _RTNEXTHOP.size))
        offset += max((length + 3) & ~3, _RTNEXTHOP.size)


def _gateway(attrs: dict[int, memoryview]) -> IPAddress | None:
    if _RTA_GATEWAY in attrs:
        return _address(attrs[_RTA_GATEWAY])
    if _RTA_VIA in attrs:  # a gateway of the other family, after two bytes that say which
        return _address(attrs[_RTA_VIA][2:])
    return None


def _kind(info: memoryview | None) -> str:
    return text(attributes(info).get(_IFLA_INFO_KIND)) if info is not None else ""


def _mac(value: memoryview | None) -> str:
    return value.hex(":") if value is not None and len(value) == 6 else ""


def _address(value: memoryview) -> IPAddress:
    return IPv6Address(bytes(value)) if len(value) == 16 else IPv4Address(bytes(value))
