"""Offloads and indexes of links, and the mode of an IPv6 tunnel, through ioctls.

An ioctl acts in the namespace in which its socket, of any kind, was opened
(net/core/dev_ioctl.c), so no thread has to enter the namespace.
"""

from __future__ import annotations

import array
import fcntl
import fnmatch
import functools
import socket
import struct

_SIOCGIFINDEX, _SIOCETHTOOL = 0x8933, 0x8946
_GSTRINGS, _GSSET_INFO, _GFEATURES, _SFEATURES = 0x1B, 0x37, 0x3A, 0x3B
_FEATURES = 4  # ETH_SS_FEATURES
_NAME_BYTES = 32  # ETH_GSTRING_LEN

OFFLOADS = (
    "tx-checksum-*",
    "tx-scatter-gather*",
    "tx-tcp*-segmentation",
    "tx-generic-segmentation",
    "rx-gro",
)
"""The kernel's features behind `ethtool -K … tx off sg off tso off gso off gro off`."""


def index_of(sock: socket.socket, device: str) -> int:
    """Return the ifindex of ``device`` where ``sock`` was opened. Raises OSError (ENODEV)."""
    request = struct.pack("16si20x", device.encode(), 0)
    (index,) = struct.unpack_from("16xi", fcntl.ioctl(sock, _SIOCGIFINDEX, request))
    return int(index)


_SIOCCHGTUNNEL = 0x89F3
_IP6_TNL_PARM = struct.Struct("=16siBBBxII16s16s")
"""struct ip6_tnl_parm (linux/ip6_tunnel.h): its name first, then the link and the protocol."""


def set_any_mode(device: str) -> None:
    """Have an ip6tnl device take IPv4 and IPv6: `ip -6 tunnel change … mode any`.

    A new one does; the kernel's own ``ip6tnl0`` takes IPv6 only, and netlink does not change that
    (ip6_tnl_changelink in net/ipv6/ip6_tunnel.c, before Linux 6.2). In the calling thread's
    namespace. Raises OSError.
    """
    name = device.encode()
    any_protocol = _IP6_TNL_PARM.pack(name, 0, 0, 0, 0, 0, 0, bytes(16), bytes(16))
    value = array.array("B", any_protocol)
    address, _ = value.buffer_info()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        fcntl.ioctl(sock, _SIOCCHGTUNNEL, struct.pack("16sP16x", name, address))


def disable_offloads(sock: socket.socket, device: str) -> None:
    """Do `ethtool -K device tx off sg off tso off gso off gro off`. Raises OSError.

    One call for all features: the older calls, one for each, leave on what newer kernels added.
    """
    names = _cached_names(sock, device)
    _ethtool(sock, device, array.array("I", _request(names)))


def active_offloads(sock: socket.socket, device: str) -> tuple[str, ...]:
    """Return those of ``OFFLOADS`` that are on, by the kernel's names. Raises OSError.

    Those that the device cannot turn off are left out.
    """
    names = _cached_names(sock, device)
    blocks = (len(names) + 31) // 32
    # struct ethtool_gfeatures: command, size, then available, requested, active, never changed
    answer = array.array("I", [_GFEATURES, blocks] + [0] * 4 * blocks)
    _ethtool(sock, device, answer)
    found = []
    for bit, name in enumerate(names):
        available, _, active, _ = answer[2 + 4 * (bit // 32) : 6 + 4 * (bit // 32)]
        if available & active & 1 << bit % 32 and _is_offload(name):
            found.append(name)
    return tuple(found)


@functools.cache
def _is_offload(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in OFFLOADS)


_names: list[tuple[str, ...]] = []


def _cached_names(sock: socket.socket, device: str) -> tuple[str, ...]:
    """Return the names of the kernel's features: the same for every device while it runs."""
    if not _names:
        _names.append(_feature_names(sock, device))
    return _names[0]


@functools.cache
def _request(names: tuple[str, ...]) -> tuple[int, ...]:
    """Return struct ethtool_sfeatures that turns ``OFFLOADS`` off.

    Its words: command, size, then (valid bits, requested bits) for each 32 features.
    """
    blocks = (len(names) + 31) // 32
    request = [_SFEATURES, blocks] + [0, 0] * blocks
    for bit, name in enumerate(names):
        if _is_offload(name):
            request[2 + 2 * (bit // 32)] |= 1 << bit % 32
    return tuple(request)


def _feature_names(sock: socket.socket, device: str) -> tuple[str, ...]:
    """Ask for the names of the kernel's features, in the order of their bits."""
    info = array.array("I", [_GSSET_INFO, 0, 1 << _FEATURES, 0, 0])  # a 64-bit mask, a length
    _ethtool(sock, device, info)
    count = info[4]
    strings = array.array("I", [_GSTRINGS, _FEATURES, count] + [0] * (count * _NAME_BYTES // 4))
    _ethtool(sock, device, strings)
    text = strings.tobytes()[12:]
    fields = (text[i : i + _NAME_BYTES] for i in range(0, count * _NAME_BYTES, _NAME_BYTES))
    return tuple(field.partition(b"\0")[0].decode() for field in fields)


def _ethtool(sock: socket.socket, device: str, value: array.array[int]) -> None:
    address, _ = value.buffer_info()
    fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP16x", device.encode(), address))
