"""What TCP has learnt of its peers (ip-tcp_metrics(8)), and how an entry is deleted.

Sources: linux/tcp_metrics.h; net/ipv4/tcp_metrics.c (tcp_update_metrics).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from ipaddress import ip_address

from lvsctl.errors import KernelError
from lvsctl.model.state import TcpMetricsState
from lvsctl.netlink import sockets
from lvsctl.netlink.messages import attributes, number_of, packed

_CONTROLLER, _GETFAMILY, _FAMILY_NAME, _FAMILY_ID = 0x10, 3, 2, 1  # GENL_ID_CTRL, CTRL_*
_HEADER = b"\x01\x01\x00\x00"  # struct genlmsghdr: TCP_METRICS_CMD_GET, version
_DELETE_HEADER = b"\x02\x01\x00\x00"
_ADDRESSES, _SOURCES = (1, 2), (11, 12)  # TCP_METRICS_ATTR_ADDR_*, _SADDR_*
_VALUES, _FASTOPEN = 6, (7, 8, 10)  # _VALS, _FOPEN_MSS, _SYN_DROPS, _COOKIE
_ROUND_TRIP = 1  # TCP_METRICS_A_METRICS_RTT, in eighths of a millisecond, as srtt in tcp_input.c


def dump_tcp_metrics() -> tuple[TcpMetricsState, ...]:
    """Return the entries of the calling thread's namespace; empty where there are none to read."""
    with sockets.open_reader(sockets.GENERIC) as sock:
        try:
            family = family_id(sock)
            answer = sockets.request(sock, sockets.message(family, sockets.DUMP, _HEADER))
        except KernelError:
            return ()
    return tuple(_entries(answer))


def family_id(sock: socket.socket) -> int:
    """Return the number of the generic netlink family. Raises KernelError without it."""
    if not _family:
        asked = bytes((_GETFAMILY, 1, 0, 0)) + packed(_FAMILY_NAME, b"tcp_metrics\0")
        for whole in sockets.request(sock, sockets.message(_CONTROLLER, 0, asked)):
            _family.append(number_of(attributes(whole, sockets.HEADER.size + 4).get(_FAMILY_ID)))
            break
        else:
            raise KernelError("the kernel does not tell TCP's metrics", errno=errno.ENOENT)
    return _family[0]


_family: list[int] = []
"""The family's number, the same in every namespace while the kernel runs: it is no module."""


def _entries(answer: list[bytes]) -> Iterator[TcpMetricsState]:
    for whole in answer:
        found = attributes(whole, sockets.HEADER.size + len(_HEADER))
        address = next((found[one] for one in _ADDRESSES if one in found), None)
        if address is None:
            continue
        source = next((found[one] for one in _SOURCES if one in found), None)
        values = attributes(found.get(_VALUES, b""))
        yield TcpMetricsState(
            ip_address(address),
            ip_address(source) if source is not None else None,
            rtt=number_of(values.get(_ROUND_TRIP)) // 8,
            fastopen=any(one in found for one in _FASTOPEN),
        )


def delete_tcp_metrics(one: TcpMetricsState, family: int) -> bytearray:
    """Return the message that deletes an entry."""
    data = _DELETE_HEADER + _address(_ADDRESSES, one.address.packed)
    if one.source is not None:
        data += _address(_SOURCES, one.source.packed)
    return sockets.message(family, 0, data)


def _address(numbers: tuple[int, int], content: bytes) -> bytes:
    return packed(numbers[len(content) == 16], content)
