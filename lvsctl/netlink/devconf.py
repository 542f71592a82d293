"""Sysctls of devices, read by netlink: one answer instead of a file for each setting.

Answers about links contain what /proc/sys/net/ipv4/conf/DEVICE and ipv6/conf/DEVICE show, as
arrays; RTM_GETNETCONF has some settings of ``all`` and ``default``, and RTM_GETNEIGHTBL those of
/proc/sys/net/ipv4/neigh and ipv6/neigh. A setting that netlink shows in another unit than the file
(IPv6's intervals) is left out.

Sources: linux/ip.h, ipv6.h, netconf.h, neighbour.h and if_link.h; inet_fill_link_af in
net/ipv4/devinet.c; ipv6_store_devconf in net/ipv6/addrconf.c; neigh_sysctl_template in
net/core/neighbour.c.
"""

from __future__ import annotations

import functools
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from lvsctl.errors import KernelError
from lvsctl.netlink import sockets
from lvsctl.netlink.messages import attributes, number_of, text_of

IPV4, IPV6 = "net.ipv4.conf", "net.ipv6.conf"
NEIGH4, NEIGH6 = "net.ipv4.neigh", "net.ipv6.neigh"
"""How the names of sysctls of a device begin; the device and the setting follow."""

_GETNEIGHTBL, _GETNETCONF = 66, 82  # RTM_*
_LINK_HEADER, _IFNAME, _AF_SPEC = 16, 3, 26  # struct ifinfomsg, IFLA_*
_ARRAYS = ((socket.AF_INET, 1, IPV4), (socket.AF_INET6, 2, IPV6))
"""The family, its attribute with the array (IFLA_INET_CONF, IFLA_INET6_CONF), and its sysctls."""

_NAMES4 = (
    *("forwarding", "mc_forwarding", "proxy_arp", "accept_redirects", "secure_redirects"),
    *("send_redirects", "shared_media", "rp_filter", "accept_source_route", "bootp_relay"),
    *("log_martians", "tag", "arp_filter", "medium_id", "disable_xfrm", "disable_policy"),
    *("force_igmp_version", "arp_announce", "arp_ignore", "promote_secondaries", "arp_accept"),
    *("arp_notify", "accept_local", "src_valid_mark", "proxy_arp_pvlan", "route_localnet"),
    *("igmpv2_unsolicited_report_interval", "igmpv3_unsolicited_report_interval"),
    *("ignore_routes_with_linkdown", "drop_unicast_in_l2_multicast", "drop_gratuitous_arp"),
    *("bc_forwarding", "arp_evict_nocarrier"),
)
"""In the order of IPV4_DEVCONF_*."""
_NAMES6 = (
    *("forwarding", "hop_limit", "mtu", "accept_ra", "accept_redirects", "autoconf"),
    *("dad_transmits", "router_solicitations", "", "", "use_tempaddr", "temp_valid_lft"),
    *("temp_prefered_lft", "regen_max_retry", "max_desync_factor", "max_addresses"),
    *("force_mld_version", "accept_ra_defrtr", "accept_ra_pinfo", "accept_ra_rtr_pref", ""),
    *("accept_ra_rt_info_max_plen", "proxy_ndp", "optimistic_dad", "accept_source_route"),
    *("mc_forwarding", "disable_ipv6", "accept_dad", "force_tllao", "ndisc_notify", "", ""),
    *("suppress_frag_ndisc", "accept_ra_from_local", "use_optimistic", "accept_ra_mtu", ""),
    *("use_oif_addrs_only", "accept_ra_min_hop_limit", "ignore_routes_with_linkdown"),
    *("drop_unicast_in_l2_multicast", "drop_unsolicited_na", "keep_addr_on_down", ""),
    *("seg6_enabled", "seg6_require_hmac", "enhanced_dad", "addr_gen_mode", "disable_policy"),
    *("accept_ra_rt_info_min_plen", "ndisc_tclass"),
)
"""In the order of DEVCONF_*; empty: the file has another unit, or no number."""
_POSITIONS = {
    start: {name: position for position, name in enumerate(names) if name}
    for start, names in ((IPV4, _NAMES4), (IPV6, _NAMES6))
}

_FAMILIES = {int(socket.AF_INET): IPV4, int(socket.AF_INET6): IPV6}
_NETCONF_HEADER, _NETCONF_IFINDEX = 4, 1  # struct netconfmsg, padded; NETCONFA_IFINDEX
_NETCONF = {2: "forwarding", 3: "rp_filter", 4: "mc_forwarding", 8: "bc_forwarding"}
_NETCONF_PROXY, _NETCONF_LINKDOWN = 5, 6
"""NETCONFA_*."""
_PROXY = {IPV4: "proxy_arp", IPV6: "proxy_ndp"}
_ORDER = sys.byteorder
_EVERY = {-1: "all", -2: "default"}  # NETCONFA_IFINDEX_*

_TABLE_NAMES = {"arp_cache": NEIGH4, "ndisc_cache": NEIGH6}
_NEIGHBOURS: Mapping[int, tuple[str, int]] = {
    4: ("base_reachable_time_ms", 1),
    5: ("retrans_time_ms", 1),
    6: ("gc_stale_time", 1000),
    7: ("delay_first_probe_time", 1000),
    9: ("app_solicit", 1),
    10: ("ucast_solicit", 1),
    11: ("mcast_solicit", 1),
    12: ("anycast_delay", 10),
    13: ("proxy_delay", 10),
    14: ("proxy_qlen", 1),
    15: ("locktime", 10),
    16: ("unres_qlen_bytes", 1),
    17: ("mcast_resolicit", 1),
    19: ("interval_probe_time_ms", 1),
}
"""NDTPA_*: the file's name, and by what netlink's value (times: milliseconds) is divided.

Files show seconds, or hundredths of them (clock_t(3)'s USER_HZ), where the name has no unit.
"""
_NDTA_NAME, _NDTA_PARMS, _NDTPA_IFINDEX = 1, 6, 1


class Setting(NamedTuple):
    """The name of a sysctl of a device, split: net.ipv4.conf, the device, what of it."""

    start: str
    device: str
    end: str


class DeviceSettings:
    """What netlink says of the sysctls of one namespace's devices."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, str], tuple[int, ...]] = {}
        self._others: dict[tuple[str, str], Mapping[str, int]] = {}

    def get(self, one: Setting) -> str | None:
        """Return the text that the file of a sysctl shows; None where netlink has no answer."""
        start, device, end = one
        array = self._arrays.get((start, device))
        if array is not None:
            position = _POSITIONS[start].get(end, len(array))
            return str(array[position]) if position < len(array) else None
        number = self._others.get((start, device), {}).get(end)
        return None if number is None else str(number)

    def add_links(self, answer: Iterable[bytes]) -> None:
        """Add the settings in answers to RTM_GETLINK: of each device that has IP."""
        for whole in answer:
            parts = attributes(whole, sockets.HEADER.size + _LINK_HEADER)
            families = attributes(parts.get(_AF_SPEC, b""))
            for family, number, start in _ARRAYS:
                data = attributes(families.get(family, b"")).get(number)
                if data is not None:
                    array = struct.unpack(f"={len(data) // 4}i", data)
                    self._arrays[start, text_of(parts.get(_IFNAME))] = array

    def dump_netconf(self, sock: socket.socket) -> None:
        """Ask for those of ``all`` and ``default`` that routing daemons follow."""
        asked = sockets.message(_GETNETCONF, sockets.DUMP, bytes(4))
        for whole in sockets.request(sock, asked):
            found = _netconf(bytes(whole[sockets.HEADER.size :]))
            if found is not None:
                self._others[found.place] = found.values

    def dump_neighbour_tables(self, sock: socket.socket, names: Mapping[int, str]) -> None:
        """Ask for those of the ARP and ND caches; ``names`` are the devices by index."""
        try:
            answer = sockets.request(sock, sockets.message(_GETNEIGHTBL, sockets.DUMP, bytes(4)))
        except KernelError:
            return  # files have it all
        for whole in answer:
            found = attributes(whole, sockets.HEADER.size + 4)
            parameters = attributes(found.get(_NDTA_PARMS, b""))
            start = _TABLE_NAMES.get(text_of(found.get(_NDTA_NAME)))
            device = names.get(number_of(parameters.get(_NDTPA_IFINDEX)))
            if start is not None and device is not None:
                self._others[start, device] = dict(_neighbour_settings(parameters))


class _Netconf(NamedTuple):
    """An answer to RTM_GETNETCONF: how the sysctls' names begin and the device, the values."""

    place: tuple[str, str]
    values: Mapping[str, int]


@functools.lru_cache(maxsize=1024)
def _netconf(answer: bytes) -> _Netconf | None:
    """Decode an answer about ``all`` or ``default``, which namespaces have alike; else None."""
    start = _FAMILIES.get(answer[0])
    parts = attributes(answer, _NETCONF_HEADER)
    (index,) = struct.unpack("=i", parts.get(_NETCONF_IFINDEX, bytes(4)))
    if start is None or index not in _EVERY:
        return None
    names = {
        **_NETCONF,
        _NETCONF_PROXY: _PROXY[start],
        _NETCONF_LINKDOWN: "ignore_routes_with_linkdown",
    }
    values = {
        names[number]: int.from_bytes(content, _ORDER, signed=True)
        for number, content in parts.items()
        if number in names
    }
    return _Netconf((start, _EVERY[index]), values)


def _neighbour_settings(parameters: Mapping[int, bytes]) -> Iterator[tuple[str, int]]:
    for number, (name, unit) in _NEIGHBOURS.items():
        if number in parameters:
            yield name, number_of(parameters[number]) // unit


def split(name: str) -> Setting | None:
    """Split the name of a sysctl of a device; None: it is none.

    In a sysctl's name a dot of a device is written as a slash.
    """
    words = name.split(".")
    if len(words) != 5 or words[2] not in ("conf", "neigh"):
        return None
    return Setting(".".join(words[:3]), words[3].replace("/", "."), words[4])
