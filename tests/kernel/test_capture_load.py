"""Capturing at the taps of many real servers while all of them are asked."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from lvsctl import claims
from lvsctl.capture.capture import Capture
from lvsctl.engine import collect
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Verdict, overall
from lvsctl.model.evidence import Evidence
from lvsctl.model.frame import Direction
from lvsctl.model.lab import Role
from lvsctl.traffic import client
from tests.kernel.labs import lab_up

pytestmark = pytest.mark.ipvs

REQUESTS_EACH = 20


@pytest.mark.parametrize("servers", [30, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_nothing_is_dropped_at_the_taps_of_so_many_real_servers(servers: int) -> None:
    with lab_up("dr", servers=servers) as lab:
        nodes: dict[str | Path, str] = {lab.netns(node.name): node.name for node in lab.nodes}
        vip = lab.services[0].endpoint.vip
        with Capture(nodes) as capture:
            exchanges = client.requests(
                lab.netns("client"),
                vip,
                80,
                count=REQUESTS_EACH * servers,
                concurrency=servers,
                timeout=30,
            )
        assert all(exchange.answered for exchange in exchanges)
        assert capture.drops == dict.fromkeys(nodes.values(), 0)  # read at every one of them
        _assert_all_seen(capture, servers, len({exchange.local for exchange in exchanges}))

        evidence = collect.collect_evidence(lab)
        assert evidence.drops == {}
        assert overall(claims.findings(evidence)) is Verdict.PASS
        _assert_questions_concern_the_node(evidence)


def _assert_questions_concern_the_node(evidence: Evidence) -> None:
    """Real servers heard those for the VIP and themselves, and sent their own; none else kept."""
    lab = evidence.lab
    for node in lab.having(Role.REAL_SERVER):
        asked: dict[Direction, set[IPAddress]] = defaultdict(set)
        for frame in evidence.frames:
            if frame.tap.node == node.name and frame.arp is not None and frame.arp.is_request:
                asked[frame.raw.direction].add(frame.arp.target_ip)
        own = {address.ip for address in node.addresses_on("lan")}
        assert asked[Direction.BROADCAST] == {lab.services[0].endpoint.vip, *own}, node.name
        assert asked[Direction.OUT] == {a.ip for a in lab.node("client").addresses_on("lan")}


def _assert_all_seen(capture: Capture, servers: int, connections: int) -> None:
    """Independently of the kernel's count: each connection's SYN was kept at each of its hops."""
    ports: dict[tuple[str, Direction], set[int]] = defaultdict(set)
    for frame in capture.frames:
        if frame.tcp is not None and frame.tcp.is_syn:
            ports[frame.tap.node, frame.raw.direction].add(frame.tcp.sport)
    hops = ("client", Direction.OUT), ("director", Direction.IN), ("director", Direction.OUT)
    assert [len(ports[hop]) for hop in hops] == [connections] * 3
    at_servers = [seen for (node, _), seen in ports.items() if node.startswith("rs")]
    assert len(at_servers) == servers
    assert len(set().union(*at_servers)) == connections
