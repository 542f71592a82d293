"""Routes of a namespace, as ip-route(8) shows them: their messages and their state.

Sources: rtnetlink(7), linux/rtnetlink.h.
"""

from __future__ import annotations

import functools
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

from lvsctl.model.addresses import IPAddress, IPNetwork
from lvsctl.model.state import MAIN_TABLE, RouteState
from lvsctl.netlink import sockets
from lvsctl.netlink.messages import (
    FAMILIES,
    attributes,
    body,
    decode,
    number_of,
    packed,
    select,
)

from pyroute2.netlink.rtnl.rtmsg import rtmsg  # isort: skip (after the shim)

NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26  # RTM_*

TABLE_LOCAL = 255
_PROTOCOL_KERNEL, _PROTOCOL_BOOT = 2, 3  # RTPROT_*; routes of ip-route(8) have BOOT
_SCOPE_LINK, _SCOPE_NOWHERE = 253, 255
_TABLES_IN_HEADER = 256
_CLONED = 0x200  # RTM_F_CLONED
_ATTRIBUTES = tuple(
    f"RTA_{name}"
    for name in (
        *("TABLE", "DST", "OIF", "GATEWAY", "VIA", "MULTIPATH"),
        *("PRIORITY", "PREFSRC", "METRICS", "ENCAP_TYPE"),
    )
)


Hop = tuple[IPAddress | None, int, int]
"""One of several next hops of a route: its gateway, the index of its link (0: that which leads to
the gateway), and its weight."""

_RTA_GATEWAY, _RTA_MULTIPATH = 5, 9
_NEXT_HOP = struct.Struct("=HBBi")
"""struct rtnexthop of <linux/rtnetlink.h>: length, flags, weight less one, index."""


def _multipath(hops: tuple[Hop, ...]) -> bytes:
    """Encode RTA_MULTIPATH: for each next hop its header, then its attributes."""
    content = b""
    for via, index, weight in hops:
        own = packed(_RTA_GATEWAY, via.packed) if via is not None else b""
        content += _NEXT_HOP.pack(_NEXT_HOP.size + len(own), 0, weight - 1, index) + own
    return packed(_RTA_MULTIPATH, content)


def add_route(
    to: IPNetwork | None,
    via: IPAddress | None,
    *,
    replace: bool = False,
    table: int = MAIN_TABLE,
    kind: str = "unicast",
    metric: int = 0,
    version: int = 0,
    index: int = 0,
    metrics: tuple[tuple[str, int], ...] = (),
    next_hops: tuple[Hop, ...] = (),
) -> bytearray:
    """Add a route; ``to`` None: the default route of the IP ``version``.

    ``kind`` and the names of ``metrics`` are ip-route(8)'s words. ``index`` is that of the link
    of a route without gateway. ``next_hops`` are several, in place of ``via`` and ``index``.
    """
    fields = {
        "proto": _PROTOCOL_BOOT,
        "type": _TYPE_NUMBERS[kind],
        "scope": _SCOPE_LINK if index and via is None else 0,
    }
    known = version or _version(to, via)
    data = _route(to, via, known, table, metric, index, metrics, next_hops, **fields)
    return sockets.message(NEWROUTE, sockets.SET if replace else sockets.ADD, data)


def delete_route(
    to: IPNetwork | None,
    via: IPAddress | None,
    *,
    table: int = MAIN_TABLE,
    kind: str = "unicast",
    metric: int = 0,
    version: int = 0,
    index: int = 0,
) -> bytearray:
    """Delete that route, whatever its scope."""
    fields = {"scope": _SCOPE_NOWHERE, "type": _TYPE_NUMBERS[kind]}
    data = _route(to, via, version or _version(to, via), table, metric, index, **fields)
    return sockets.message(DELROUTE, 0, data)


def _version(to: IPNetwork | None, via: IPAddress | None) -> int:
    if via is not None:
        return via.version
    return 4 if to is None else to.version


@functools.lru_cache(maxsize=1024)
def _route(
    to: IPNetwork | None,
    via: IPAddress | None,
    version: int,
    table: int,
    metric: int,
    index: int,
    metrics: tuple[tuple[str, int], ...] = (),
    next_hops: tuple[Hop, ...] = (),
    **fields: int,
) -> bytes:
    attributes: list[tuple[str, Any]] = []
    if via is not None:
        attributes.append(("RTA_GATEWAY", str(via)))
    if to is not None:
        attributes.append(("RTA_DST", str(to.network_address)))
    if table != MAIN_TABLE:
        attributes.append(("RTA_TABLE", table))
    if metric:
        attributes.append(("RTA_PRIORITY", metric))
    if index:
        attributes.append(("RTA_OIF", index))
    if metrics:
        limits = [(f"RTAX_{name.upper()}", value) for name, value in metrics]
        attributes.append(("RTA_METRICS", {"attrs": limits}))
    whole = body(
        rtmsg,
        attributes,
        family=FAMILIES[version],
        dst_len=0 if to is None else to.prefixlen,
        table=table if table < _TABLES_IN_HEADER else 0,
        **fields,
    )
    return whole + (_multipath(next_hops) if next_hops else b"")


def dump_routes(
    sock: socket.socket, names: dict[int, str], *, every: bool = False
) -> tuple[RouteState, ...]:
    """Return the routes of the main table; ``every``: of all. ``names`` are the links by index.

    A route over several next hops gives one entry for each. A route without a link
    (blackhole, unreachable, prohibit) has an empty ``device``.
    """
    table = 0 if every else MAIN_TABLE
    asked = sockets.message(GETROUTE, sockets.DUMP, body(rtmsg, table=table))
    found: list[RouteState] = []
    for whole in sockets.request(sock, asked):
        hops = _decode_route(select(rtmsg, whole, *_ATTRIBUTES))
        by_object = _nexthop(whole) if _NEXTHOP in whole else ()
        found += [
            route._replace(device=names.get(index, ""), details=(*route.details, *by_object))
            for index, route in hops
            if every or route.table == MAIN_TABLE
        ]
    return tuple(found)


_NEXTHOP = struct.pack("=HH", 8, 30)  # RTA_NH_ID, which pyroute2's class does not have


def _nexthop(whole: bytes) -> tuple[str, ...]:
    """The next hop object that a route uses, in ip-route(8)'s words."""
    number = attributes(whole, sockets.HEADER.size + 12).get(30)
    return (f"nhid {number_of(number)}",) if number is not None else ()


_ROUTE_TYPES = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
    10: "nat",
}
"""RTN_*, in ip-route(8)'s words."""
_TYPE_NUMBERS = {name: number for number, name in _ROUTE_TYPES.items()}
IPV6_METRIC = 1024
"""The metric of an IPv6 route that was given none (IP6_RT_PRIO_USER)."""
_ONLINK = 4  # RTNH_F_ONLINK


@functools.lru_cache(maxsize=4096)
def _decode_route(whole: bytes) -> tuple[tuple[int, RouteState], ...]:
    """Decode a route: the index of each next hop's link, and its state."""
    route = decode(rtmsg, whole)
    if route["family"] not in FAMILIES.values() or route["flags"] & _CLONED:
        return ()
    to = route.get_attr("RTA_DST")
    hops = tuple(_next_hops(route))
    kernel = route["proto"] == _PROTOCOL_KERNEL
    state = RouteState(
        to=ip_network(f"{to}/{route['dst_len']}") if to is not None else None,
        via=None,
        device="",
        kernel=kernel,
        table=route.get_attr("RTA_TABLE") or route["table"],
        type=_ROUTE_TYPES.get(route["type"], str(route["type"])),
        metric=route.get_attr("RTA_PRIORITY") or 0,
        version=6 if route["family"] == socket.AF_INET6 else 4,
        details=() if kernel else tuple(_details(route)),
        hops=len(hops),
    )
    return tuple((index, state._replace(via=via, weight=weight)) for via, index, weight in hops)


def _details(route: Any) -> Iterator[str]:
    """Yield what was given to a route besides its destination, gateway and metric."""
    if route["src_len"]:
        yield "from a prefix"
    if route["tos"]:
        yield f"tos {route['tos']:#x}"
    if route["flags"] & _ONLINK:
        yield "onlink"
    if (source := route.get_attr("RTA_PREFSRC")) is not None:
        yield f"src {source}"
    metrics = route.get_attr("RTA_METRICS")
    for name, value in metrics["attrs"] if metrics is not None else ():
        yield f"{name.removeprefix('RTAX_').lower()} {value}"
    if route.get_attr("RTA_ENCAP_TYPE"):
        yield "encap"


def _next_hops(route: Any) -> Iterator[Hop]:
    """Yield each next hop (the index of its link is 0 where it has none)."""
    several = route.get_attr("RTA_MULTIPATH")
    if several is None:
        yield _gateway(route), route.get_attr("RTA_OIF") or 0, 1
        return
    for hop in several:
        yield _gateway(hop), hop["oif"], hop["hops"] + 1


def _gateway(hop: Any) -> IPAddress | None:
    gateway = hop.get_attr("RTA_GATEWAY")
    if gateway is None:
        other = hop.get_attr("RTA_VIA")  # a gateway of the other address family
        gateway = other["addr"] if other is not None else None
    return ip_address(gateway) if gateway is not None else None
