"""Prometheus metrics of a watched lab, under the names of node_exporter's collector ipvs.

Names, labels and help are those of collector/ipvs_linux.go in prometheus/node_exporter, so that
its dashboards and alerts show a lab. prometheus_client writes them; the extra ``lvsctl[metrics]``
installs it, since only ``watch --metrics`` needs it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import Metric

_TOTALS = {
    "connections": ("connections", "The total number of connections made."),
    "packets_in": ("incoming_packets", "The total number of incoming packets."),
    "packets_out": ("outgoing_packets", "The total number of outgoing packets."),
    "bytes_in": ("incoming_bytes", "The total amount of incoming data."),
    "bytes_out": ("outgoing_bytes", "The total amount of outgoing data."),
}
"""By counter of IPVS: the name between ``node_ipvs_`` and ``_total``, and its help."""

_BACKENDS = {
    "active": (
        "connections_active",
        "The current active connections by local and remote address.",
    ),
    "inactive": (
        "connections_inactive",
        "The current inactive connections by local and remote address.",
    ),
    "weight": ("weight", "The current backend weight by local and remote address."),
}
"""By value of a real server: the name after ``node_ipvs_backend_``, and its help."""

LABELS = ("local_address", "local_mark", "local_port", "proto", "remote_address", "remote_port")

_Key = tuple[str, ...]


class LabMetrics:
    """A collector for prometheus_client: what the latest sample of ``watch`` says.

    The totals are those of the real servers since each was added, and do not fall where one is
    removed. Called by several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: dict[_Key, Mapping[str, Any]] = {}
        self._gone = dict.fromkeys(_TOTALS, 0)
        self._sampled = False

    def update(self, view: Mapping[str, Any]) -> None:
        """Take over a sample: a line of `lvsctl watch --format json`."""
        found = dict(_servers(view))
        with self._lock:
            for key, before in self._servers.items():
                now = found.get(key)
                # Removed, removed and added again meanwhile, or zeroed.
                if now is None or _connections(now) < _connections(before):
                    for name in _TOTALS:
                        self._gone[name] += before["counters"][name]
            self._servers, self._sampled = found, True

    def collect(self) -> Iterator[Metric]:
        """Yield each metric; none before the first sample, since totals of 0 would be wrong."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        with self._lock:
            servers, gone, sampled = dict(self._servers), dict(self._gone), self._sampled
        if not sampled:
            return
        for counter, (name, text) in _TOTALS.items():
            total = gone[counter] + sum(one["counters"][counter] for one in servers.values())
            yield CounterMetricFamily(f"node_ipvs_{name}", text, value=total)
        for value, (name, text) in _BACKENDS.items():
            family = GaugeMetricFamily(f"node_ipvs_backend_{name}", text, labels=LABELS)
            for key, one in servers.items():
                family.add_metric(key, one[value])
            yield family


def _connections(server: Mapping[str, Any]) -> int:
    found: int = server["counters"]["connections"]
    return found


def _servers(view: Mapping[str, Any]) -> Iterator[tuple[_Key, Mapping[str, Any]]]:
    """Yield the entries of IPVS's table, each with the values of LABELS."""
    for service in view["services"]:
        mark = service["mark"]
        if mark:  # as in /proc/net/ip_vs, which node_exporter reads
            local = "", f"{mark:08X}", "0", "FWM"
        else:
            local = service["vip"], "", str(service["port"]), service["protocol"].upper()
        for server in service["real_servers"]:
            entry = server["ipvs"]
            if entry is not None:
                yield (*local, server["address"], str(server["port"])), entry
