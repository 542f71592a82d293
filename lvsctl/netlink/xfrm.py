"""Policies and states of IPsec (xfrm): what is there, and how it is deleted.

Sources: ip-xfrm(8), linux/xfrm.h.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

from lvsctl.errors import KernelError
from lvsctl.model.state import XfrmState
from lvsctl.netlink import sockets

PROTOCOL = 6
"""NETLINK_XFRM."""

_DELSA, _GETSA, _DELPOLICY, _GETPOLICY = 0x11, 0x12, 0x14, 0x15
_SETDEFAULT, _GETDEFAULT = 0x27, 0x28
_DEFAULT = struct.Struct("=BBB")
"""struct xfrm_userpolicy_default: in, fwd, out."""
_BLOCK, _ACCEPT = 1, 2  # XFRM_USERPOLICY_*
_SELECTOR = struct.Struct("=16s16sHHHHHBBB3xiI")
"""struct xfrm_selector: destination, source, ports with masks, family, prefix lengths …"""
_POLICY_INDEX = _SELECTOR.size + 64 + 32 + 4  # after the limits, the uses, the priority
_DIRECTIONS = ("in", "out", "fwd")
_ACTIONS = ("allow", "block")
_PROTOCOLS = {50: "esp", 51: "ah", 108: "comp"}


def dump_xfrm() -> tuple[XfrmState, ...]:
    """Return the policies and states of the calling thread's namespace; empty without xfrm."""
    try:
        sock = sockets.open_reader(PROTOCOL)
    except OSError:
        return ()  # this kernel was built without it
    with sock:
        try:
            policies = sockets.request(sock, sockets.message(_GETPOLICY, sockets.DUMP, b""))
            states = sockets.request(sock, sockets.message(_GETSA, sockets.DUMP, b""))
        except KernelError:
            return ()
        defaults = _defaults(sock)
    found = [_policy(bytes(one[sockets.HEADER.size :])) for one in policies]
    found += [_state(bytes(one[sockets.HEADER.size :])) for one in states]
    return (*defaults, *(one for one in found if one is not None))


def _defaults(sock: socket.socket) -> tuple[XfrmState, ...]:
    """What happens to packets without a policy, unless all are accepted."""
    try:
        asked = sockets.message(_GETDEFAULT, 0, _DEFAULT.pack(0, 0, 0))
        (answer,) = sockets.request(sock, asked)
    except (KernelError, ValueError):
        return ()  # before Linux 5.15
    came, forwarded, sent = _DEFAULT.unpack_from(answer, sockets.HEADER.size)
    found = {"in": came, "fwd": forwarded, "out": sent}
    if _BLOCK not in found.values():
        return ()
    words = (f"{way} {'block' if one == _BLOCK else 'accept'}" for way, one in found.items())
    return (XfrmState("default", " ".join(words), ""),)


def _policy(body: bytes) -> XfrmState | None:
    index, direction, action = struct.unpack_from("=IBB", body, _POLICY_INDEX)
    if direction >= len(_DIRECTIONS):
        return None  # of a single socket
    words = ["dir", _DIRECTIONS[direction], "action", _ACTIONS[bool(action)]]
    return XfrmState(
        "policy",
        " ".join([_selector(body), *words]),
        (body[: _SELECTOR.size] + struct.pack("=IBxxx", index, direction)).hex(),
    )


def _selector(body: bytes) -> str:
    to, source, _, _, _, _, family, to_bits, from_bits, *_ = _SELECTOR.unpack_from(body)
    return f"src {_address(family, source)}/{from_bits} dst {_address(family, to)}/{to_bits}"


def _state(body: bytes) -> XfrmState:
    to, spi, protocol = struct.unpack_from("=16s4sB", body, _SELECTOR.size)
    (source,) = struct.unpack_from("16s", body, _SELECTOR.size + 24)
    (family,) = struct.unpack_from("=H", body, _SELECTOR.size + 24 + 16 + 64 + 32 + 12 + 8)
    name = _PROTOCOLS.get(protocol, str(protocol))
    text = (
        f"src {_address(family, source)} dst {_address(family, to)} proto {name} spi 0x{spi.hex()}"
    )
    raw = to + spi + struct.pack("=HBx", family, protocol)
    return XfrmState("state", text, raw.hex())


def _address(family: int, data: bytes) -> str:
    if family == socket.AF_INET6:
        return str(IPv6Address(data))
    return str(IPv4Address(data[:4]))


def delete_xfrm(one: XfrmState) -> bytearray:
    """Return the message that deletes a policy or state, or accepts by default."""
    if one.what == "default":
        return sockets.message(_SETDEFAULT, 0, _DEFAULT.pack(*[_ACCEPT] * 3))
    kind = _DELPOLICY if one.what == "policy" else _DELSA
    return sockets.message(kind, 0, bytes.fromhex(one.raw))
