"""Prometheus metrics of a watched lab: those of node_exporter's collector ipvs."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lvsctl.cli.main import main
from lvsctl.output.metrics import LABELS, LabMetrics
from lvsctl.output.serialize import to_json
from lvsctl.watch.view import view
from tests.unit.report_samples import lab_of
from tests.unit.watch_samples import sample

SERVERS = {"local_address", "local_mark", "local_port", "proto", "remote_address", "remote_port"}

NODE_EXPORTER = {
    "connections": ("counter", "The total number of connections made.", set()),
    "incoming_packets": ("counter", "The total number of incoming packets.", set()),
    "outgoing_packets": ("counter", "The total number of outgoing packets.", set()),
    "incoming_bytes": ("counter", "The total amount of incoming data.", set()),
    "outgoing_bytes": ("counter", "The total amount of outgoing data.", set()),
    "backend_connections_active": (
        *("gauge", "The current active connections by local and remote address.", SERVERS),
    ),
    "backend_connections_inactive": (
        *("gauge", "The current inactive connections by local and remote address.", SERVERS),
    ),
    "backend_weight": ("gauge", "The current backend weight by local and remote address.", SERVERS),
}
"""Type, help and labels of each metric that collector/ipvs_linux.go of node_exporter has."""


def as_text(metrics: LabMetrics) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    return generate_latest(registry).decode()


def described(text: str) -> dict[str, tuple[str, str, set[str]]]:
    """Name, type, help and labels of each metric."""
    return {
        one.name.removeprefix("node_ipvs_"): (
            *(one.type, one.documentation, set(one.samples[0].labels)),
        )
        for one in text_string_to_metric_families(text)
    }


def sampled(*servers: tuple[int, int], mark: int = 0) -> dict[str, Any]:
    """A sample of a table with real servers, each with its connections and weight."""
    lab = lab_of("dr")
    found = json.loads(json.dumps(to_json(view(lab, [sample(lab, 0)]))))
    (service,) = found["services"]
    service["mark"] = mark
    first = service["real_servers"][0]
    service["real_servers"] = []
    for number, (connections, weight) in enumerate(servers, 1):
        one = deepcopy(first)
        one["address"] = f"10.10.0.{10 + number}"
        one["ipvs"]["weight"] = weight
        one["ipvs"]["counters"] = dict.fromkeys(one["ipvs"]["counters"], connections)
        service["real_servers"].append(one)
    return dict(found)


def test_names_types_help_and_labels_are_node_exporters() -> None:
    metrics = LabMetrics()
    assert as_text(metrics) == ""
    metrics.update(sampled((1, 1), (2, 3)))
    assert described(as_text(metrics)) == NODE_EXPORTER
    assert set(LABELS) == SERVERS


@pytest.mark.parametrize(
    ("mark", "labels"),
    [
        (0, 'local_address="10.10.0.100",local_mark="",local_port="80",proto="TCP"'),
        (0x10001000, 'local_address="",local_mark="10001000",local_port="0",proto="FWM"'),
    ],
)
def test_a_mark_is_written_as_node_exporter_does(mark: int, labels: str) -> None:
    metrics = LabMetrics()
    metrics.update(sampled((7, 5), mark=mark))
    rest = 'remote_address="10.10.0.11",remote_port="80"'
    assert f"node_ipvs_backend_weight{{{labels},{rest}}} 5.0\n" in as_text(metrics)


def test_totals_do_not_fall_when_a_real_server_is_removed() -> None:
    metrics = LabMetrics()
    for servers, total in (
        (((10, 1), (5, 1)), 15),
        (((11, 1),), 16),  # the second one was removed
        (((2, 1), (1, 1)), 19),  # the first was removed and added again meanwhile
        (((0, 1), (1, 1)), 19),  # ipvsadm -Z
    ):
        metrics.update(sampled(*servers))
        assert f"node_ipvs_connections_total {total}.0\n" in as_text(metrics)


@pytest.mark.parametrize("address", ["x", "::1:80", "127.0.0.1:70000", "127.0.0.1:"])
def test_a_wrong_address_is_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "dr", "--metrics", address]) == 2
    assert "9100" in capsys.readouterr().err
