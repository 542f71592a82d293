"""Devices through other ways than rtnetlink messages: ioctls, and waiting for them.

The ioctls go through a netlink socket: they act in the namespace in which a socket,
of any kind, was opened (net/core/dev_ioctl.c), so no thread has to change its own.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
import time

from lvsctl.kernel import rtnl, wire

_SIOCGIFINDEX, _SIOCETHTOOL = 0x8933, 0x8946
_OPERSTATE = 16  # IFLA_OPERSTATE
_IF_OPER_UP = 6
_IFINFO = struct.Struct("=BxHiII")

_GSTRINGS, _GSSET_INFO, _SFEATURES = 0x1B, 0x37, 0x3B
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


_features: array.array[int] | None = None


def index_of(sock: socket.socket, device: str) -> int:
    """The ifindex of ``device`` where ``sock`` was opened. Raises OSError (ENODEV)."""
    request = struct.pack("16si20x", device.encode(), 0)
    (index,) = struct.unpack_from("16xi", fcntl.ioctl(sock, _SIOCGIFINDEX, request))
    return int(index)


def disable_offloads(sock: socket.socket, device: str) -> None:
    """`ethtool -K device tx off sg off tso off gso off gro off`, in one call. Raises OSError.

    The older calls, one for each, leave on what newer kernels have added.
    """
    global _features  # noqa: PLW0603 (the same for every device while the kernel runs)
    if _features is None:
        _features = _request(_feature_names(sock, device))
    _ethtool(sock, device, array.array("I", _features))


def _request(names: list[str]) -> array.array[int]:
    """struct ethtool_sfeatures that turns ``OFFLOADS`` off: command, size, (valid, requested)…"""
    blocks = (len(names) + 31) // 32
    request = array.array("I", [_SFEATURES, blocks] + [0, 0] * blocks)
    for bit, name in enumerate(names):
        if any(_matches(name, pattern) for pattern in OFFLOADS):
            request[2 + 2 * (bit // 32)] |= 1 << bit % 32
    return request


def _matches(name: str, pattern: str) -> bool:
    """As fnmatch's, which would compile a regular expression for each pattern in every `up`."""
    head, star, tail = pattern.partition("*")
    return name.startswith(head) and name.endswith(tail) if star else name == pattern


def _feature_names(sock: socket.socket, device: str) -> list[str]:
    """The names of the kernel's features, in the order of their bits."""
    info = array.array("I", [_GSSET_INFO, 0, 1 << _FEATURES, 0, 0])  # a 64-bit mask, a length
    _ethtool(sock, device, info)
    count = info[4]
    strings = array.array("I", [_GSTRINGS, _FEATURES, count] + [0] * (count * _NAME_BYTES // 4))
    _ethtool(sock, device, strings)
    text = strings.tobytes()[12:]
    fields = (text[i : i + _NAME_BYTES] for i in range(0, count * _NAME_BYTES, _NAME_BYTES))
    return [field.partition(b"\0")[0].decode() for field in fields]


def _ethtool(sock: socket.socket, device: str, value: array.array[int]) -> None:
    address, _ = value.buffer_info()
    fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP16x", device.encode(), address))


def wait_operational(sock: socket.socket, indexes: set[int], seconds: float) -> set[int]:
    """Wait until the devices are operational; those which are not after ``seconds``.

    ``sock`` is used up: it goes on hearing of changes. The kernel's linkwatch
    worker gets there 4 ms after both ends are up, or a second where it has been busy.
    """
    waiting = set(indexes)
    deadline = time.monotonic() + seconds
    wire.subscribe(sock, rtnl.RTNLGRP_LINK)
    for kind, body in wire.dump(sock, rtnl.get_links()):
        waiting.discard(_operational(kind, body))
    if waiting:
        for kind, body in wire.events(sock, deadline):
            waiting.discard(_operational(kind, body))
            if not waiting:
                break
    return waiting


def _operational(kind: int, body: memoryview) -> int:
    """The index of the device which the message says is operational; else 0."""
    if kind != rtnl.NEWLINK:
        return 0
    state = wire.attribute(body, _IFINFO.size, _OPERSTATE)
    return int(_IFINFO.unpack_from(body)[2]) if state and state[0] == _IF_OPER_UP else 0
