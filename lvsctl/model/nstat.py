"""The kernel's packet counters as /proc/net prints them, by nstat(8)'s names. Pure.

From /proc/net/snmp and netstat (net/ipv4/proc.c), and snmp6 (net/ipv6/proc.c).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_NOT_COUNTED = frozenset(
    {"IpForwarding", "IpDefaultTTL", "TcpRtoAlgorithm", "TcpRtoMin", "TcpRtoMax", "TcpMaxConn",
     "TcpCurrEstab"}
)  # fmt: skip
"""Settings and current values among the counters."""


def growth(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return by how much each counter has grown; those that have not are left out."""
    return {
        name: count - before.get(name, 0)
        for name, count in after.items()
        if count > before.get(name, 0)
    }


def parse_paired(text: str) -> Iterator[tuple[str, int]]:
    """Parse snmp and netstat: a line of names, then a line of numbers."""
    lines = text.splitlines()
    for heading, values in zip(lines[::2], lines[1::2], strict=False):
        prefix, _, names = heading.partition(":")
        for name, value in zip(names.split(), values.partition(":")[2].split(), strict=False):
            if value != "0" and prefix + name not in _NOT_COUNTED:
                yield prefix + name, int(value)


def parse_single(text: str) -> Iterator[tuple[str, int]]:
    """Parse snmp6: a name and a number in each line."""
    for line in text.splitlines():
        name, value = line.split()
        if value != "0":
            yield name, int(value)
