"""Collect evidence: send requests through a running lab and capture frames at every node.

Each step serves a claim. Nothing is configured; neighbour entries and path MTUs are flushed
first, so that the capture shows how they are learnt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface
from pathlib import Path

from lvsctl.capture.capture import Capture
from lvsctl.claims.distribution import requests_needed
from lvsctl.engine.whole import whole_state
from lvsctl.kernel import counters
from lvsctl.kernel.drops import DropReasons, Martians
from lvsctl.kernel.state import flush_neighbours_and_routes
from lvsctl.model.evidence import Evidence, Exchange, Run
from lvsctl.model.lab import Lab, Node, Role
from lvsctl.model.service import Protocol, VipPort, VirtualService
from lvsctl.model.state import NodeState, ServiceState
from lvsctl.traffic import client
from lvsctl.traffic.client import arp_probe

LARGE = 4000
"""Bytes of a request that needs several full-sized segments (of 1460 bytes on Ethernet)."""


def collect_evidence(lab: Lab, sender: Node | None = None) -> Evidence:
    """Send requests from ``sender`` (the default client) through every virtual service of ``lab``.

    Raises LabError if a part of the lab is missing, HostError without root.
    """
    sender = sender or lab.default_client
    nodes = {lab.netns(node.name): node.name for node in lab.nodes}
    with DropReasons() as reasons, Martians() as martians, _capture(lab) as capture:
        flush_neighbours_and_routes(nodes)
        before = counters.counters_by_namespace(nodes)
        _probe_vips(lab)
        runs = tuple(_run(lab, service, sender) for service in lab.services)
        after = counters.counters_by_namespace(nodes)
        kernel_drops = reasons.dropped() if reasons.supported else martians.dropped()
        kernel_log = martians.logged()
    switches = {network.name for network in lab.networks}
    states = {name.removeprefix(lab.netns("")): state for name, state in whole_state(lab).items()}
    return Evidence(
        lab=lab,
        runs=runs,
        frames=capture.frames,
        taps=tuple(sorted(capture.taps)),
        drops={node: count for node, count in capture.drops.items() if count},
        states={name: state for name, state in states.items() if name not in switches},
        switches={name: state for name, state in states.items() if name in switches},
        counters={nodes[name]: counters.growth(before[name], after[name]) for name in nodes},
        kernel_drops=kernel_drops,
        kernel_log=kernel_log,
    )


def collect_request_evidence(lab: Lab, service: VirtualService, sender: Node) -> Evidence:
    """Send one ordinary request from ``sender`` and capture it everywhere, for ``walk``.

    Raises as ``collect_evidence``.
    """
    with _capture(lab) as capture:
        flush_neighbours_and_routes([lab.netns(node.name) for node in lab.nodes])
        exchange = _request(lab, service.endpoint, sender)
    return Evidence(
        lab=lab,
        runs=(Run(service, sender.name, (exchange,), before=None, after=None, connections=()),),
        frames=capture.frames,
        taps=tuple(sorted(capture.taps)),
        drops={node: count for node, count in capture.drops.items() if count},
    )


def _capture(lab: Lab) -> Capture:
    """A capture at every node; it ends once nothing has arrived for two crossings of the lab."""
    namespaces: dict[str | Path, str] = {lab.netns(node.name): node.name for node in lab.nodes}
    return Capture(namespaces, quiet=0.05 + 2 * _one_way(lab))


def _probe_vips(lab: Lab) -> None:
    """Broadcast an ARP request for each VIP from every client and router on its network."""
    for vip in dict.fromkeys(vip for service in lab.services for vip in service.vips):
        network = lab.network_of(vip)
        if network is None or vip.version != 4:
            continue
        for node in (*lab.having(Role.CLIENT), *lab.having(Role.ROUTER)):
            own = next(
                (a.ip for a in node.addresses_on(network.name) if isinstance(a, IPv4Interface)),
                None,
            )
            if own is not None:
                netns = lab.netns(node.name)
                arp_probe(netns, network.name, own, vip, answer_timeout(lab))


def _run(lab: Lab, service: VirtualService, sender: Node) -> Run:
    director = lab.netns(lab.directors[0].name)
    start = counters.wait_for_ipvs_counters(director)
    before = _in_table(start.state, service)
    count = requests_needed(service, before)
    # A request from the port of an earlier connection would not be scheduled.
    used_ports = frozenset(connection.client_port for connection in start.state.connections)
    with _held(lab, service.endpoint, sender, count, used_ports) as exchanges:
        end = counters.wait_for_ipvs_counters(director, unaccounted=start.unaccounted)
    return Run(
        service=service,
        client=sender.name,
        exchanges=exchanges,
        before=before,
        after=_in_table(end.state, service),
        connections=end.state.connections,
        large=_large(lab, service.endpoint, sender) if any(e.answered for e in exchanges) else None,
        began=start.when,
        ended=end.when,
    )


@contextmanager
def _held(
    lab: Lab, endpoint: VipPort, sender: Node, count: int, avoid: frozenset[int]
) -> Iterator[tuple[Exchange, ...]]:
    with client.held(
        lab.netns(sender.name),
        endpoint.vip,
        endpoint.port,
        count=count,
        protocol=endpoint.protocol,
        timeout=answer_timeout(lab),
        avoid=avoid,
    ) as exchanges:
        yield exchanges


def _request(lab: Lab, endpoint: VipPort, sender: Node, path: str = "/") -> Exchange:
    (exchange,) = client.requests(
        lab.netns(sender.name),
        endpoint.vip,
        endpoint.port,
        count=1,
        protocol=endpoint.protocol,
        path=path,
        timeout=answer_timeout(lab),
    )
    return exchange


def _large(lab: Lab, endpoint: VipPort, sender: Node) -> Exchange | None:
    """Send one request larger than a packet, which needs full-sized segments."""
    if endpoint.protocol is not Protocol.TCP:
        return None
    return _request(lab, endpoint, sender, path="/?" + "x" * LARGE)


def _in_table(table: NodeState, service: VirtualService) -> ServiceState | None:
    return next((found for found in table.services if found.match == service.match), None)


def _one_way(lab: Lab) -> float:
    """Seconds that a frame needs to cross every network once."""
    return sum(network.impairment.delay for network in lab.networks) / 1000


def answer_timeout(lab: Lab) -> float:
    """Seconds to wait for a reply.

    A lost SYN is sent again after one and three seconds (RFC 6298, section 2).
    """
    lossy = any(network.impairment.loss for network in lab.networks)
    return 2.0 + 8 * _one_way(lab) + (6.0 if lossy else 0.0)
