"""Next hop objects (ip-nexthop(8)): what is there, and how one is deleted.

Source: linux/nexthop.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from lvsctl.errors import KernelError
from lvsctl.model.state import NextHopState
from lvsctl.netlink import sockets
from lvsctl.netlink.messages import attributes, number_of, packed

_DELETE, _GET = 105, 106  # RTM_*NEXTHOP
_HEADER = struct.Struct("=BBBBI")
"""struct nhmsg: address family, scope, protocol, reserved, flags."""
_MEMBER = struct.Struct("=IBBH")
"""struct nexthop_grp: identifier, weight less one."""
_ID, _GROUP, _BLACKHOLE, _OIF, _GATEWAY, _ENCAP, _FDB = 1, 2, 4, 5, 6, 8, 11
"""NHA_*."""


def dump_nexthops(sock: socket.socket, names: Mapping[int, str]) -> tuple[NextHopState, ...]:
    """Return the objects in the socket's namespace; ``names`` are the links by index."""
    try:
        answer = sockets.request(sock, sockets.message(_GET, sockets.DUMP, _HEADER.pack(*[0] * 5)))
    except KernelError:
        return ()  # before Linux 5.3
    return tuple(_nexthop(bytes(one[sockets.HEADER.size :]), names) for one in answer)


def _nexthop(raw: bytes, names: Mapping[int, str]) -> NextHopState:
    found = attributes(raw, _HEADER.size)
    device = names.get(number_of(found.get(_OIF)), "")
    return NextHopState(number_of(found.get(_ID)), " ".join(_words(found, device)), device)


def _words(found: Mapping[int, bytes], device: str) -> Iterator[str]:
    if _GROUP in found:
        content = found[_GROUP]
        usable = content[: len(content) // _MEMBER.size * _MEMBER.size]
        members = ((one, weight + 1) for one, weight, _, _ in _MEMBER.iter_unpack(usable))
        yield "group"
        yield "/".join(f"{one},{weight}" if weight > 1 else str(one) for one, weight in members)
    if _BLACKHOLE in found:
        yield "blackhole"
    if _GATEWAY in found:
        yield from ("via", str(ip_address(found[_GATEWAY])))
    if device:
        yield from ("dev", device)
    if _ENCAP in found:
        yield "encap"
    if _FDB in found:
        yield "fdb"


def delete_nexthop(one: NextHopState) -> bytearray:
    """Return the message that deletes an object; the routes that use it go with it."""
    data = _HEADER.pack(*[0] * 5) + packed(_ID, struct.pack("=I", one.id))
    return sockets.message(_DELETE, 0, data)
