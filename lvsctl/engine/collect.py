"""What is done to a running lab so that its claims can be decided: evidence comes of it.

Each step is there for a claim. Nothing is configured; a lab's neighbours and path MTUs
are forgotten first, so that the capture shows how they are found out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface
from pathlib import Path

from lvsctl.capture.capture import Capture
from lvsctl.claims.distribution import requests_needed
from lvsctl.kernel import ipvs_counters, processes, snmp, state
from lvsctl.kernel.drop_reasons import DropReasons
from lvsctl.kernel.flush import flush_neighbours_and_routes
from lvsctl.kernel.martians import Martians
from lvsctl.model.evidence import Evidence, Run
from lvsctl.model.exchange import Exchange
from lvsctl.model.lab import Lab, Node, Role
from lvsctl.model.service import Protocol, VirtualService
from lvsctl.model.state import NodeState, ServiceState
from lvsctl.traffic import client
from lvsctl.traffic.arp import arp_probe

LARGE = 4000
"""Bytes of a request that takes several full-sized segments (of 1460 bytes on Ethernet)."""


def evidence_of(lab: Lab) -> Evidence:
    """Send requests through every virtual service of the running ``lab``, watched everywhere.

    Raises LabError where a part of the lab is gone, HostError without root.
    """
    nodes = {lab.netns(node.name): node.name for node in lab.nodes}
    namespaces: dict[str | Path, str] = dict(nodes.items())
    capturing = Capture(namespaces, quiet=0.05 + 2 * _one_way(lab))
    with DropReasons() as reasons, Martians() as martians, capturing as capture:
        flush_neighbours_and_routes(nodes)
        before = snmp.counters_of(nodes)
        _ask_for_vips(lab)
        runs = tuple(_run(lab, service) for service in lab.services)
        after = snmp.counters_of(nodes)
        kernel_drops = reasons.dropped() if reasons.told else martians.dropped()
        kernel_log = martians.logged()
    return Evidence(
        lab=lab,
        runs=runs,
        frames=capture.frames,
        taps=tuple(sorted(capture.taps)),
        drops={node: count for node, count in capture.drops.items() if count},
        states=_states(lab, nodes),
        counters={nodes[name]: snmp.growth(before[name], after[name]) for name in nodes},
        kernel_drops=kernel_drops,
        kernel_log=kernel_log,
    )


def evidence_of_request(lab: Lab, service: VirtualService, asking: Node) -> Evidence:
    """One ordinary request from ``asking``, watched everywhere: what a walk is made of.

    Raises as ``evidence_of``.
    """
    nodes = {lab.netns(node.name): node.name for node in lab.nodes}
    namespaces: dict[str | Path, str] = dict(nodes.items())
    with Capture(namespaces, quiet=0.05 + 2 * _one_way(lab)) as capture:
        flush_neighbours_and_routes(nodes)
        exchanges = client.requests(
            lab.netns(asking.name),
            service.vip,
            service.key.port,
            count=1,
            protocol=service.key.protocol,
            timeout=patience(lab),
        )
    return Evidence(
        lab=lab,
        runs=(Run(service, asking.name, exchanges, before=None, after=None, connections=()),),
        frames=capture.frames,
        taps=tuple(sorted(capture.taps)),
        drops={node: count for node, count in capture.drops.items() if count},
    )


def _ask_for_vips(lab: Lab) -> None:
    """From each client and router next to a VIP: a question that every neighbour hears."""
    for service in lab.services:
        network = lab.network_of(service.vip)
        if network is None or service.vip.version != 4:
            continue
        for node in (*lab.having(Role.CLIENT), *lab.having(Role.ROUTER)):
            own = next(
                (a.ip for a in node.addresses_on(network.name) if isinstance(a, IPv4Interface)),
                None,
            )
            if own is not None:
                arp_probe(lab.netns(node.name), network.name, own, service.vip, patience(lab))


def _run(lab: Lab, service: VirtualService) -> Run:
    asking = lab.having(Role.CLIENT)[0]
    director = lab.netns(lab.directors[0].name)
    start = ipvs_counters.wait_for_ipvs_counters(director)
    before = _in_table(start.state, service)
    count = requests_needed(service, before)
    # A request from the port of an earlier connection would not be scheduled at all.
    known = frozenset(connection.client_port for connection in start.state.connections)
    with _held(lab, asking, service, count, known) as exchanges:
        end = ipvs_counters.wait_for_ipvs_counters(director, unaccounted=start.unaccounted)
    return Run(
        service=service,
        client=asking.name,
        exchanges=exchanges,
        before=before,
        after=_in_table(end.state, service),
        connections=end.state.connections,
        large=_large(lab, asking, service) if any(e.answered for e in exchanges) else None,
        began=start.when,
        ended=end.when,
    )


@contextmanager
def _held(
    lab: Lab, asking: Node, service: VirtualService, count: int, avoid: frozenset[int]
) -> Iterator[tuple[Exchange, ...]]:
    with client.held(
        lab.netns(asking.name),
        service.vip,
        service.key.port,
        count=count,
        protocol=service.key.protocol,
        timeout=patience(lab),
        avoid=avoid,
    ) as exchanges:
        yield exchanges


def _large(lab: Lab, asking: Node, service: VirtualService) -> Exchange | None:
    """One request that is larger than a packet: its segments are as large as they may be."""
    if service.key.protocol is not Protocol.TCP:
        return None
    (exchange,) = client.requests(
        lab.netns(asking.name),
        service.vip,
        service.key.port,
        count=1,
        path="/?" + "x" * LARGE,
        timeout=patience(lab),
    )
    return exchange


def _states(lab: Lab, nodes: dict[str, str]) -> dict[str, NodeState]:
    found = state.lab_state(
        nodes,
        directors=[lab.netns(node.name) for node in lab.directors],
        pids=processes.daemons(lab.name).values(),
    )
    return {nodes[netns]: seen for netns, seen in found.items()}


def _in_table(table: NodeState, service: VirtualService) -> ServiceState | None:
    return next((found for found in table.services if found.key == service.key), None)


def _one_way(lab: Lab) -> float:
    """Seconds that a frame may be on its way, across every network once."""
    return sum(network.impairment.delay for network in lab.networks) / 1000


def patience(lab: Lab) -> float:
    """How long an answer may take, in seconds, before it is given up.

    A lost SYN is sent again after one and three seconds (RFC 6298, section 2).
    """
    lossy = any(network.impairment.loss for network in lab.networks)
    return 2.0 + 8 * _one_way(lab) + (6.0 if lossy else 0.0)
