"""Read the counters of namespaces, and wait until those of IPVS are up to date.

Those of nstat(8) are in /proc/net/snmp, netstat and snmp6 of the calling thread's namespace
(net/ipv4/proc.c, net/ipv6/proc.c).

IPVS counts per CPU and adds that up for each service and real server every two seconds only
(net/netfilter/ipvs/ip_vs_est.c); ipvsadm shows the same stale sums. The exact counts are in
/proc/net/ip_vs_stats_percpu, for the namespace as a whole.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from lvsctl.kernel import netns
from lvsctl.kernel.state import node_state
from lvsctl.model.nstat import parse_paired, parse_single
from lvsctl.model.state import Counters, NodeState, ServiceState
from lvsctl.netlink import ipvs, sockets

_DIRECTORY = "/proc/thread-self/net/"
_PAIRED = ("snmp", "netstat")
_READ = 65536


def read_counters() -> dict[str, int]:
    """Read the counters that are not 0, by nstat's name (``TcpExtIPReversePathFilter``)."""
    found: dict[str, int] = {}
    for name in _PAIRED:
        found.update(parse_paired(_text(name)))
    found.update(parse_single(_text("snmp6")))
    return found


def _text(name: str) -> str:
    """Return a file's text; empty if the kernel lacks it (snmp6 without IPv6)."""
    try:
        fd = os.open(_DIRECTORY + name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        parts = [os.read(fd, _READ)]
        while len(parts[-1]) == _READ:  # the kernel writes each file as one record (single_open)
            parts.append(os.read(fd, _READ))
        return b"".join(parts).decode("ascii", errors="replace")
    finally:
        os.close(fd)


PERIOD = 2.0
"""Seconds between two additions of the kernel (IPVS_EST_TICK × IPVS_EST_NTICKS)."""

PATIENCE = 2 * PERIOD + 1
"""Seconds after which the sums are up to date, whatever they look like, if no traffic came.

Two additions: a kernel that is short of processor time is late with its timers.
"""

_AGAIN = 0.05

QUIET_ROUNDS = 20
"""Looks without a new packet that it takes besides ``PATIENCE``: where this process was kept
from running, so was the kernel's timer that adds up (in the throwaway kernel always)."""

Counts = tuple[int, int, int]
"""Connections, packets in and packets out."""


class Unaccounted(NamedTuple):
    """Exact counts of the namespace that are missing in sums: its own (after ``ipvsadm -Z``), the
    services', and the real servers'."""

    of_namespace: Counts = (0, 0, 0)
    of_services: Counts = (0, 0, 0)
    of_real_servers: Counts = (0, 0, 0)


NOTHING = Unaccounted()


@dataclass(frozen=True, slots=True)
class IpvsCounters:
    """A director's state and the moment that its counters are of.

    ``when`` is in nanoseconds since the epoch, as captured frames' times are.
    ``unaccounted`` is what the namespace counted for services and real servers that are gone.
    """

    state: NodeState
    when: int
    unaccounted: Unaccounted = NOTHING


def wait_for_ipvs_counters(
    director: str, patience: float = PATIENCE, unaccounted: Unaccounted = NOTHING
) -> IpvsCounters:
    """Read the state of the namespace ``director`` once its IPVS counters are up to date.

    Waits until the sums agree with the exact counts, but for what is ``unaccounted``, and
    nothing is counted meanwhile. A service or real server that was removed takes its counts
    along, so they may never agree: then it waits until nothing was counted for ``patience``
    seconds, after which the sums are up to date; three times that long at most.
    Raises what ``node_state`` raises.
    """
    deadline = time.monotonic() + 3 * patience
    pause = threading.Event()  # never set: the kernel has no event for this
    latest, since, rounds = netns.run_inside(director, _exact), time.monotonic(), 0
    while True:
        exact, summed = netns.run_inside(director, _totals)
        now = time.monotonic()
        rounds += 1
        if exact != latest:
            latest, since, rounds = exact, now, 0
        waited = now > since + patience and rounds >= QUIET_ROUNDS
        late = now > deadline
        # The namespace's own sum is added up with the others, and quick to read.
        if _less(exact, summed) == unaccounted.of_namespace or waited or late:
            look = netns.run_inside(director, _look)
            quiet = exact == look.exact
            missing = _missing(look.services, exact, summed)
            if (quiet and (missing == unaccounted or waited)) or late:
                # What else a director's state shows is not summed up, so it is read once.
                state = node_state(director, sysctls=(), director=True)
                return IpvsCounters(replace(state, services=look.services), look.when, missing)
        pause.wait(_AGAIN)


class _Look(NamedTuple):
    """The services at one moment, and the exact counts after they were read."""

    when: int
    services: tuple[ServiceState, ...]
    exact: Counts


def _look() -> _Look:
    when = time.clock_gettime_ns(time.CLOCK_REALTIME)
    with sockets.open_socket(sockets.GENERIC) as sock:
        services = ipvs.services(sock)
    return _Look(when, services, _exact())


def _missing(services: Iterable[ServiceState], exact: Counts, summed: Counts) -> Unaccounted:
    found = tuple(services)
    by_service = _sums([service.counters for service in found])
    by_real_server = _sums([r.counters for service in found for r in service.real_servers])
    return Unaccounted(*(_less(exact, counts) for counts in (summed, by_service, by_real_server)))


def _less(counts: Counts, other: Counts) -> Counts:
    return counts[0] - other[0], counts[1] - other[1], counts[2] - other[2]


def _sums(counters: list[Counters]) -> Counts:
    return (
        sum(c.connections for c in counters),
        sum(c.packets_in for c in counters),
        sum(c.packets_out for c in counters),
    )


def _totals() -> tuple[Counts, Counts]:
    """Return the namespace's exact counts and their sum as it was last added up."""
    lines = Path(f"{_DIRECTORY}ip_vs_stats").read_text(encoding="ascii").splitlines()
    connections, packets_in, packets_out, *_ = (int(word, 16) for word in lines[2].split())
    return _exact(), (connections, packets_in, packets_out)


def _exact() -> Counts:
    """Connections, packets in and packets out: the CPUs' rows, hexadecimal, added up."""
    totals = [0, 0, 0]
    text = Path(f"{_DIRECTORY}ip_vs_stats_percpu").read_text(encoding="ascii")
    for line in text.splitlines()[2:]:
        words = line.split()
        if len(words) != 6 or words[0] == "~":
            break
        for position in range(3):
            totals[position] += int(words[1 + position], 16)
    return totals[0], totals[1], totals[2]
