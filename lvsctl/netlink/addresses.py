"""Addresses of a namespace's links, as ip-address(8) shows them: their messages and their state.

Sources: rtnetlink(7), linux/if_addr.h.
"""

from __future__ import annotations

import functools
import socket
import struct
from ipaddress import ip_address, ip_interface

from lvsctl.model.addresses import IPInterface
from lvsctl.model.state import AddressState
from lvsctl.netlink import sockets
from lvsctl.netlink.messages import FAMILIES, body, decode, packed, select

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # isort: skip (after the shim)

NEWADDR, DELADDR, GETADDR = 20, 21, 22  # RTM_*
GROUPS_ADDRESS = (5, 9)
"""The multicast groups RTNLGRP_IPV4_IFADDR and RTNLGRP_IPV6_IFADDR."""

_IFA_F_NODAD = 0x02
_SCOPE_HOST = 254


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
    return sockets.message(NEWADDR, sockets.SET if replace else sockets.ADD, data)


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
        family=FAMILIES[interface.version],
        prefixlen=interface.network.prefixlen,
        flags=_IFA_F_NODAD if interface.version == 6 and not dad else 0,
        scope=_SCOPE_HOST if interface.is_loopback else 0,
        index=index,
    )


def dump_addresses(sock: socket.socket) -> dict[int, list[AddressState]]:
    """Return the addresses of the socket's namespace, by the index of their link."""
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
    if own is None or one["family"] not in FAMILIES.values():
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
