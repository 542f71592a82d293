"""rtnetlink: links, addresses, routes and neighbours of a namespace; ids of other namespaces.

Functions without a socket return a message for ``sockets.send_all``; those that begin with
``dump_`` ask the kernel and return values of ``model.state``.

Sources: rtnetlink(7), linux/if_link.h, linux/if_addr.h, linux/rtnetlink.h, linux/neighbour.h.
"""

from __future__ import annotations

import functools
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.lab import Impairment
from lvsctl.model.state import (
    MAIN_TABLE,
    AddressState,
    LinkState,
    NeighbourState,
    RouteState,
)
from lvsctl.netlink import devices, sockets
from lvsctl.netlink.messages import (
    attribute,
    attributes,
    body,
    decode,
    nested,
    number_of,
    packed,
    select,
)

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # isort: skip (after the shim)
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg, ifinfveth  # isort: skip
from pyroute2.netlink.rtnl.ndmsg import ndmsg, states  # isort: skip
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg  # isort: skip
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # isort: skip

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NEWNSID, DELNSID = 88, 89
"""Types of messages, RTM_*."""

GROUP_LINK, GROUP_NSID = 1, 28
GROUPS_ADDRESS = (5, 9)
"""RTNLGRP_IPV4_IFADDR and RTNLGRP_IPV6_IFADDR."""
"""Multicast groups, RTNLGRP_*."""

ADD = sockets.CREATE | sockets.EXCL
SET = sockets.CREATE | sockets.REPLACE

_IFF_UP, _IFF_NOARP = 0x1, 0x80
_WITH_MAC = {1, 772}  # ARPHRD_ETHER, ARPHRD_LOOPBACK; pyroute2 decodes any address as a MAC
_IFA_F_NODAD = 0x02
_TABLE_MAIN, TABLE_LOCAL = MAIN_TABLE, 255
_PROTOCOL_KERNEL, _PROTOCOL_BOOT = 2, 3  # RTPROT_*; routes of ip-route(8) have BOOT
_SCOPE_LINK, _SCOPE_HOST, _SCOPE_NOWHERE = 253, 254, 255
_TABLES_IN_HEADER = 256
_CLONED = 0x200  # RTM_F_CLONED
_FAMILIES = {4: int(socket.AF_INET), 6: int(socket.AF_INET6)}
_NEIGHBOUR_STATES = {number: name for name, number in states.items() if name != "none"}
"""ip-neighbour(8)'s words. NONE is no entry to show, NOARP only where a user made it."""
_NTF_PROXY = 0x08

_NUD = {name: number for number, name in _NEIGHBOUR_STATES.items()}

_LINK_ATTRIBUTES = tuple(
    f"IFLA_{name}"
    for name in ("ADDRESS", "IFNAME", "MTU", "QDISC", "MASTER", "LINKINFO", "CARRIER")
)
_ROUTE_ATTRIBUTES = tuple(
    f"RTA_{name}"
    for name in (
        *("TABLE", "DST", "OIF", "GATEWAY", "VIA", "MULTIPATH"),
        *("PRIORITY", "PREFSRC", "METRICS", "ENCAP_TYPE"),
    )
)
_info = ifinfmsg.ifinfo
_ONE_QUEUE = attribute(ifinfmsg, "IFLA_NUM_TX_QUEUES", 1) + attribute(
    ifinfmsg, "IFLA_NUM_RX_QUEUES", 1
)
_WITHOUT_STATISTICS = attribute(ifinfmsg, "IFLA_EXT_MASK", 1 << 3)  # RTEXT_FILTER_SKIP_STATS


# ── links ────────────────────────────────────────────────────────────────────────────────────


@functools.lru_cache(maxsize=4096)
def _link_up(index: int) -> bytes:
    return body(ifinfmsg, index=index, flags=_IFF_UP, change=_IFF_UP)


def set_link_up(index: int) -> bytearray:
    """Set a link up: `ip link set dev … up`."""
    return sockets.message(NEWLINK, 0, _link_up(index))


def set_link_state(device: str, *, up: bool) -> bytearray:
    """Set a link, known by its name, up or down."""
    fields = body(ifinfmsg, flags=_IFF_UP if up else 0, change=_IFF_UP)
    return sockets.message(NEWLINK, 0, fields + _name(device))


def add_bridge(device: str, index: int) -> bytearray:
    """Create a bridge, up, without multicast snooping and VLANs, which a lab does not use."""
    data = attribute(_info.bridge_data, "IFLA_BR_MCAST_SNOOPING", 0)
    data += attribute(_info.bridge_data, "IFLA_BR_VLAN_DEFAULT_PVID", 0)
    fields = body(ifinfmsg, index=index, flags=_IFF_UP, change=_IFF_UP)
    return sockets.message(NEWLINK, ADD, fields + _name(device) + _kind("bridge", data))


def add_veth(
    port: str, port_index: int, master: int,
    device: str, device_index: int, mac: str, device_netns: int,
) -> bytearray:  # fmt: skip
    """Create a veth pair: ``port`` here, up, in the bridge ``master``; its peer ``device``,
    down, in the namespace of the descriptor ``device_netns``.

    The peer cannot be created up (ENOTCONN: the pair is not complete yet). One queue per end
    instead of one per CPU saves a third of the time.
    """
    peer = body(ifinfveth, index=device_index)
    peer += attribute(ifinfveth, "IFLA_IFNAME", device)
    peer += attribute(ifinfveth, "IFLA_ADDRESS", mac)
    peer += attribute(ifinfveth, "IFLA_NET_NS_FD", device_netns) + _ONE_QUEUE
    pair = body(ifinfmsg, index=port_index, flags=_IFF_UP, change=_IFF_UP) + _name(port)
    pair += attribute(ifinfmsg, "IFLA_MASTER", master) + _ONE_QUEUE
    pair += _kind("veth", nested(_info.veth_data, "VETH_INFO_PEER", peer))
    return sockets.message(NEWLINK, ADD, pair)


def add_link(device: str, kind: str, index: int = 0, data: bytes = b"") -> bytearray:
    """Create a link of ``kind`` with the kernel's defaults: `ip link add … type …`.

    ``data`` are the attributes of the kind that are not default.
    """
    fields = body(ifinfmsg, index=index)
    return sockets.message(NEWLINK, ADD, fields + _name(device) + _kind(kind, data))


def delete_link(device: str) -> bytearray:
    """Delete a link: `ip link del`."""
    return sockets.message(DELLINK, 0, body(ifinfmsg) + _name(device))


def _name(device: str) -> bytes:
    return attribute(ifinfmsg, "IFLA_IFNAME", device)


def _kind(kind: str, data: bytes = b"") -> bytes:
    content = attribute(_info, "IFLA_INFO_KIND", kind)
    if data:
        content += nested(_info, "IFLA_INFO_DATA", data)
    return nested(ifinfmsg, "IFLA_LINKINFO", content)


def dump_links(sock: socket.socket) -> tuple[LinkState, ...]:
    """Return the links of the socket's namespace by index, with addresses and impairment.

    ``mac`` is empty for links that have none (a tunnel's hardware address is an IP address).
    """
    asked = sockets.message(GETLINK, sockets.DUMP, body(ifinfmsg) + _WITHOUT_STATISTICS)
    found = []
    for whole in sockets.request(sock, asked):
        link, master, qdisc = _link(select(ifinfmsg, whole, *_LINK_ATTRIBUTES))
        device = devices.device(whole)
        link = replace(
            link,
            settings=device.settings,
            peer=device.peer,
            peer_elsewhere=device.elsewhere,
        )
        found.append((link, master, qdisc))
    names = {link.index: link.name for link, _, _ in found}
    down = {link.index for link, _, _ in found if not link.up}
    addresses = _dump_addresses(sock)
    netem = any(qdisc == "netem" for _, _, qdisc in found)
    impairments = _dump_impairments(sock) if netem else {}
    return tuple(
        replace(
            link,
            # The ports of a bridge that is down are disabled.
            settings=tuple(
                one for one in link.settings if one.name != "state" or master not in down
            ),
            master=names.get(master, ""),
            addresses=tuple(one.address for one in addresses.get(link.index, ())),
            unusual_addresses=tuple(one for one in addresses.get(link.index, ()) if _unusual(one)),
            impairment=impairments.get(link.index, Impairment()),
        )
        for link, master, _ in sorted(found, key=lambda one: one[0].index)
    )


def _unusual(address: AddressState) -> bool:
    return bool(address.flags or address.peer or address.scope)


@functools.lru_cache(maxsize=4096)
def _link(whole: bytes) -> tuple[LinkState, int, str]:
    """Decode a link: its state, the index of its bridge (0: none), its queueing discipline."""
    link = decode(ifinfmsg, whole)
    info = link.get_attr("IFLA_LINKINFO")
    state = LinkState(
        name=link.get_attr("IFLA_IFNAME"),
        index=link["index"],
        kind=str(info.get_attr("IFLA_INFO_KIND") or "") if info is not None else "",
        mac=link.get_attr("IFLA_ADDRESS") if link["ifi_type"] in _WITH_MAC else "",
        mtu=link.get_attr("IFLA_MTU"),
        up=bool(link["flags"] & _IFF_UP),
        carrier=bool(link.get_attr("IFLA_CARRIER")),
        noarp=bool(link["flags"] & _IFF_NOARP),
    )
    return state, link.get_attr("IFLA_MASTER") or 0, link.get_attr("IFLA_QDISC") or ""


def _dump_impairments(sock: socket.socket) -> dict[int, Impairment]:
    from lvsctl.netlink import tc  # heavy, and few labs have netem

    return tc.dump_impairments(sock)


def wait_until_operational(indexes: set[int], seconds: float) -> set[int]:
    """Wait until links of the calling thread's namespace are operational, and return the rest.

    The kernel gets there a few milliseconds after both ends are up, or a second where its
    linkwatch worker was busy.
    """
    waiting = set(indexes)
    deadline = time.monotonic() + seconds
    with sockets.open_socket() as subscribed, sockets.open_socket() as sock:
        sockets.subscribe(subscribed, GROUP_LINK)
        asked = sockets.message(GETLINK, sockets.DUMP, body(ifinfmsg) + _WITHOUT_STATISTICS)
        waiting -= {_operational(whole) for whole in sockets.request(sock, asked)}
        for whole in sockets.events(subscribed, deadline) if waiting else ():
            waiting.discard(_operational(whole))
            if not waiting:
                break
    return waiting


def _operational(whole: bytes) -> int:
    """Return the index of the link that an answer or event shows as operational; else 0."""
    if sockets.message_type(whole) != NEWLINK:
        return 0
    link = decode(ifinfmsg, whole, "IFLA_OPERSTATE")
    return int(link["index"]) if link.get_attr("IFLA_OPERSTATE") == "UP" else 0


def _mac(value: str | None) -> str:
    return value if value is not None and len(value) == len("00:00:00:00:00:00") else ""


# ── addresses ────────────────────────────────────────────────────────────────────────────────


def add_address(
    interface: IPInterface,
    index: int,
    *,
    deprecated: bool = False,
    dad: bool = False,
    replace: bool = False,
) -> bytearray:
    """Add an address to the link ``index``. IPv6 is usable at once, unless ``dad`` (RFC 4862).

    ``deprecated``: its preferred lifetime is over, so that the kernel does not choose it as a
    source (RFC 6724, rule 3).
    """
    data = _address(interface, index, dad=dad)
    if deprecated:
        data += _DEPRECATED
    return sockets.message(NEWADDR, SET if replace else ADD, data)


def delete_address(interface: IPInterface, index: int) -> bytearray:
    """Delete that address."""
    return sockets.message(DELADDR, 0, _address(interface, index))


_IFA_CACHEINFO = 6
_DEPRECATED = packed(_IFA_CACHEINFO, struct.pack("=IIII", 0, 0xFFFFFFFF, 0, 0))
"""Lifetimes in seconds (struct ifa_cacheinfo): none as a source, endless as an address."""


@functools.lru_cache(maxsize=1024)
def _address(interface: IPInterface, index: int, *, dad: bool = False) -> bytes:
    text = str(interface.ip)
    return body(
        ifaddrmsg,
        [("IFA_LOCAL", text), ("IFA_ADDRESS", text)],
        family=_FAMILIES[interface.version],
        prefixlen=interface.network.prefixlen,
        flags=_IFA_F_NODAD if interface.version == 6 and not dad else 0,
        scope=_SCOPE_HOST if interface.is_loopback else 0,
        index=index,
    )


def _dump_addresses(sock: socket.socket) -> dict[int, list[AddressState]]:
    asked = sockets.message(GETADDR, sockets.DUMP, body(ifaddrmsg))
    found: dict[int, list[AddressState]] = {}
    for whole in sockets.request(sock, asked):
        index, address = _decode_address(
            select(ifaddrmsg, whole, "IFA_LOCAL", "IFA_ADDRESS", "IFA_FLAGS")
        )
        if address is not None:
            found.setdefault(index, []).append(address)
    return found


_ADDRESS_FLAGS = {
    0x01: "secondary",
    0x04: "optimistic",
    0x08: "dadfailed",
    0x10: "home",
    0x20: "deprecated",
    0x40: "tentative",
    0x200: "noprefixroute",
    0x400: "autojoin",
}
"""IFA_F_*, in ip-address(8)'s words. One without PERMANENT has a lifetime: dynamic."""
_IFA_F_PERMANENT = 0x80
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}


@functools.lru_cache(maxsize=4096)
def _decode_address(whole: bytes) -> tuple[int, AddressState | None]:
    """Decode an address: the index of its link, and the address; None of other families."""
    one = decode(ifaddrmsg, whole)
    # On a point-to-point link ADDRESS is the other end; IPv6 has LOCAL only there.
    other = one.get_attr("IFA_ADDRESS")
    own = one.get_attr("IFA_LOCAL") or other
    if own is None or one["family"] not in _FAMILIES.values():
        return one["index"], None
    bits = one.get_attr("IFA_FLAGS") or one["flags"]
    words = [word for bit, word in _ADDRESS_FLAGS.items() if bits & bit]
    if not bits & _IFA_F_PERMANENT:
        words.append("dynamic")
    address = ip_interface(f"{own}/{one['prefixlen']}")
    scope = ""
    if address.version == 4:
        usual = 254 if address.ip.is_loopback else 0
        scope = "" if one["scope"] == usual else _SCOPES.get(one["scope"], str(one["scope"]))
    peer = other if other is not None and ip_address(other) != address.ip else ""
    return one["index"], AddressState(address, tuple(words), peer, scope)


# ── routes ───────────────────────────────────────────────────────────────────────────────────


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
    table: int = _TABLE_MAIN,
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
    return sockets.message(NEWROUTE, SET if replace else ADD, data)


def delete_route(
    to: IPNetwork | None,
    via: IPAddress | None,
    *,
    table: int = _TABLE_MAIN,
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
    if table != _TABLE_MAIN:
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
        family=_FAMILIES[version],
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
    table = 0 if every else _TABLE_MAIN
    asked = sockets.message(GETROUTE, sockets.DUMP, body(rtmsg, table=table))
    found: list[RouteState] = []
    for whole in sockets.request(sock, asked):
        hops = _decode_route(select(rtmsg, whole, *_ROUTE_ATTRIBUTES))
        by_object = _nexthop(whole) if _NEXTHOP in whole else ()
        found += [
            route._replace(device=names.get(index, ""), details=(*route.details, *by_object))
            for index, route in hops
            if every or route.table == _TABLE_MAIN
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
    if route["family"] not in _FAMILIES.values() or route["flags"] & _CLONED:
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


# ── neighbours ───────────────────────────────────────────────────────────────────────────────


def set_neighbour(
    address: IPAddress, mac: str, index: int, *, state: str = "permanent"
) -> bytearray:
    """Set an entry of the ARP or ND cache, by default a permanent one (ip-neighbour(8))."""
    attributes = [("NDA_DST", str(address)), ("NDA_LLADDR", mac)]
    family = _FAMILIES[address.version]
    entry = body(ndmsg, attributes, family=family, ifindex=index, state=_NUD[state])
    return sockets.message(NEWNEIGH, SET, entry)


def delete_neighbour(address: IPAddress, index: int) -> bytearray:
    """Delete an entry of the ARP or ND cache."""
    attributes = [("NDA_DST", str(address))]
    entry = body(ndmsg, attributes, family=_FAMILIES[address.version], ifindex=index)
    return sockets.message(DELNEIGH, 0, entry)


def dump_neighbours(sock: socket.socket, names: dict[int, str]) -> tuple[NeighbourState, ...]:
    """Return the entries of the ARP and ND caches. ``names`` are the links by index."""
    found = []
    for whole in sockets.request(sock, sockets.message(GETNEIGH, sockets.DUMP, body(ndmsg))):
        entry = decode(ndmsg, whole, "NDA_DST", "NDA_LLADDR")
        if entry["family"] not in _FAMILIES.values() or entry["state"] not in _NEIGHBOUR_STATES:
            continue
        one = NeighbourState(
            address=ip_address(entry.get_attr("NDA_DST")),
            device=names.get(entry["ifindex"], ""),
            mac=_mac(entry.get_attr("NDA_LLADDR")),
            state=_NEIGHBOUR_STATES[entry["state"]],
        )
        if one.state != "noarp" or _made_by_hand(one):
            found.append(one)
    return tuple(found)


def _made_by_hand(one: NeighbourState) -> bool:
    """Return whether an entry without ARP is a user's.

    The kernel makes such for loopback, multicast and broadcast, and on links without ARP.
    """
    unicast = bool(one.mac) and int(one.mac[:2], 16) % 2 == 0 and one.mac != "00:00:00:00:00:00"
    return unicast and not one.address.is_multicast and one.device != "lo"


def dump_proxies(sock: socket.socket, names: dict[int, str]) -> tuple[NeighbourState, ...]:
    """Return the addresses that are answered for in place of others (ip neigh show proxy)."""
    asked = sockets.message(GETNEIGH, sockets.DUMP, body(ndmsg, flags=_NTF_PROXY))
    found = []
    for whole in sockets.request(sock, asked):
        entry = decode(ndmsg, whole, "NDA_DST")
        if entry["family"] in _FAMILIES.values() and entry["flags"] & _NTF_PROXY:
            address = ip_address(entry.get_attr("NDA_DST"))
            found.append(NeighbourState(address, names.get(entry["ifindex"], ""), "", "proxy"))
    return tuple(found)


def proxy(address: IPAddress, index: int, *, delete: bool = False) -> bytearray:
    """Answer ARP or ND for an address in place of others, or no longer."""
    entry = body(
        ndmsg,
        [("NDA_DST", str(address))],
        family=_FAMILIES[address.version],
        ifindex=index,
        flags=_NTF_PROXY,
    )
    return sockets.message(DELNEIGH if delete else NEWNEIGH, 0 if delete else SET, entry)


# ── ids of namespaces ────────────────────────────────────────────────────────────────────────


def set_namespace_id(fd: int, number: int) -> bytearray:
    """Give the namespace of the descriptor ``fd`` an id in the socket's own (ip-netns(8))."""
    attributes = [("NETNSA_NSID", number), ("NETNSA_FD", fd)]
    return sockets.message(NEWNSID, 0, body(nsidmsg, attributes))


def deleted_namespace_id(whole: bytes) -> int | None:
    """Return the id of the namespace that an event says is going away; None for other events."""
    if sockets.message_type(whole) != DELNSID:
        return None
    number = decode(nsidmsg, whole).get_attr("NETNSA_NSID")
    return None if number is None else int(number)
