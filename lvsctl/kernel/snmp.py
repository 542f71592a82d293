"""What a namespace's kernel has counted: /proc/net/snmp, netstat and snmp6, as nstat(8) reads them.

Source: net/ipv4/proc.c and net/ipv6/proc.c. The files are those of the calling thread's
namespace.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from lvsctl.kernel import netns

_DIRECTORY = "/proc/thread-self/net/"
_PAIRED = ("snmp", "netstat")
_NOT_COUNTED = frozenset(
    {"IpForwarding", "IpDefaultTTL", "TcpRtoAlgorithm", "TcpRtoMin", "TcpRtoMax", "TcpMaxConn",
     "TcpCurrEstab"}
)  # fmt: skip
"""Settings and levels, which stand among the counters."""


def counters() -> dict[str, int]:
    """Every counter that is not 0, by nstat's name (``TcpExtIPReversePathFilter``)."""
    found: dict[str, int] = {}
    for name in _PAIRED:
        found.update(paired(_text(name)))
    found.update(single(_text("snmp6")))
    return found


def counters_of(namespaces: Iterable[str]) -> dict[str, dict[str, int]]:
    """The counters of several namespaces, by name. Raises LabError where one is gone."""

    def visits() -> dict[str, dict[str, int]]:
        found = {}
        for name in namespaces:
            with netns.enter(name):
                found[name] = counters()
        return found

    return netns.in_thread(visits)


def growth(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """By how much each counter has grown; those that have not are left out."""
    return {
        name: count - before.get(name, 0)
        for name, count in after.items()
        if count > before.get(name, 0)
    }


def paired(text: str) -> Iterator[tuple[str, int]]:
    """The counters of snmp and netstat: a line of names, then a line of numbers."""
    lines = text.splitlines()
    for heading, values in zip(lines[::2], lines[1::2], strict=False):
        prefix, _, names = heading.partition(":")
        for name, value in zip(names.split(), values.partition(":")[2].split(), strict=False):
            if value != "0" and prefix + name not in _NOT_COUNTED:
                yield prefix + name, int(value)


def single(text: str) -> Iterator[tuple[str, int]]:
    """The counters of snmp6: a name and a number in each line."""
    for line in text.splitlines():
        name, value = line.split()
        if value != "0":
            yield name, int(value)


def _text(name: str) -> str:
    """A file's text; empty where the kernel lacks it (without IPv6: snmp6)."""
    try:
        fd = os.open(_DIRECTORY + name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts).decode("ascii", errors="replace")
    finally:
        os.close(fd)
