"""IPVS's connection table, which only /proc shows, not netlink."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from lvsctl.model.service import Protocol
from lvsctl.model.state import Connection

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lvsctl.model.addresses import IPAddress

TABLE = Path("/proc/thread-self/net/ip_vs_conn")
"""The table of the calling thread's namespace. (/proc/net is the thread-group leader's.)"""

_PROTOCOLS = {str(protocol).upper(): protocol for protocol in Protocol}


def connections(in_state: str = "") -> tuple[Connection, ...]:
    """Read the connection table of the calling thread's namespace; empty without IPVS.

    With ``in_state`` only entries in that state: the others are not even parsed.
    """
    try:
        with TABLE.open() as table:
            return parsed(line for line in table if in_state in line)
    except FileNotFoundError:
        return ()


def parsed(lines: Iterable[str]) -> tuple[Connection, ...]:
    """Parse a table as /proc prints it (ip_vs_conn.c, ip_vs_conn_seq_show).

    Persistence templates are entries too: client port 0, state NONE. Those of
    firewall marks (protocol ``IP``) have no place in ``Connection`` and are left
    out, like the heading.
    """
    found = []
    for line in lines:
        words = line.split()
        if len(words) < 9 or words[0] not in _PROTOCOLS:
            continue
        found.append(
            Connection(
                protocol=_PROTOCOLS[words[0]],
                client=_address(words[1]),
                client_port=int(words[2], 16),
                vip=_address(words[3]),
                vport=int(words[4], 16),
                rip=_address(words[5]),
                rport=int(words[6], 16),
                state=words[7],
                expires=int(words[8]),
            )
        )
    return tuple(found)


def _address(word: str) -> IPAddress:
    """Eight hexadecimal digits, or an IPv6 address in full."""
    return IPv6Address(word) if ":" in word else IPv4Address(int(word, 16))
