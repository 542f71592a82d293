"""Count what nodes' interfaces, IPVS and the processors did: exact, at one moment.

Sources: net/core/net-procfs.c (/proc/net/dev; a veth counts whole Ethernet frames, veth_xmit in
drivers/net/veth.c), net/netfilter/ipvs/ip_vs_ctl.c (ip_vs_stats_percpu), proc_stat(5).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from lvsctl.kernel import netns


class InterfaceCounts(NamedTuple):
    """Bytes and packets that an interface received and sent."""

    received: int
    received_packets: int
    sent: int
    sent_packets: int


class NodeCounts(NamedTuple):
    """A node's interfaces by name, and the bytes that its IPVS took in and sent back."""

    interfaces: Mapping[str, InterfaceCounts]
    ipvs_in: int
    ipvs_out: int


class Processors(NamedTuple):
    """Time of all processors, in ticks: in all, and of that idle."""

    total: int
    idle: int

    def busy_since(self, before: Processors) -> float:
        """Return the share of the time since ``before`` that they were not idle."""
        total = self.total - before.total
        return 1 - (self.idle - before.idle) / total if total else 0.0


class Moment(NamedTuple):
    """The counts of several nodes, by namespace. ``when`` in seconds of CLOCK_MONOTONIC."""

    when: float
    nodes: Mapping[str, NodeCounts]
    processors: Processors


def read_moment(namespaces: Iterable[str]) -> Moment:
    """Read the counts of ``namespaces``. Raises LabError if one does not exist."""

    def visits() -> Moment:
        found = {}
        when = time.monotonic()
        for name in namespaces:
            with netns.enter(name):
                found[name] = _node_counts()
        return Moment(when, found, _processors())

    return netns.in_thread(visits)


def _node_counts() -> NodeCounts:
    interfaces = {}
    text = Path("/proc/thread-self/net/dev").read_text(encoding="ascii", errors="replace")
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        words = list(map(int, rest.split()))
        if name.strip() != "lo":
            interfaces[name.strip()] = InterfaceCounts(words[0], words[1], words[8], words[9])
    return NodeCounts(interfaces, *_ipvs_bytes())


def _ipvs_bytes() -> tuple[int, int]:
    """Return the bytes in and out: the processors' rows, hexadecimal, added up."""
    try:
        text = Path("/proc/thread-self/net/ip_vs_stats_percpu").read_text(encoding="ascii")
    except FileNotFoundError:
        return 0, 0
    found = [0, 0]
    for line in text.splitlines()[2:]:
        words = line.split()
        if len(words) != 6 or words[0] == "~":
            break
        found[0] += int(words[4], 16)
        found[1] += int(words[5], 16)
    return found[0], found[1]


def _processors() -> Processors:
    with Path("/proc/stat").open(encoding="ascii") as file:
        words = list(map(int, file.readline().split()[1:9]))  # guest time is in user time
    return Processors(sum(words), words[3] + words[4])
