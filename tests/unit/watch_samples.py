"""Samples of a lab as `watch` takes them, made by hand from the lab's own plan.

   client            director             rs1         rs2
     |          VIP 10.10.0.100          (VIP)       (VIP)
=====+==================+==================+===========+=====  lan
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

from lvsctl.model.lab import Lab
from lvsctl.model.state import (
    Counters,
    Gauge,
    HalfOpen,
    LinkState,
    NeighbourState,
    NodeState,
    RealServerState,
    Sample,
    ServiceState,
)
from lvsctl.plan.planner import load_lab
from lvsctl.topology import shipped
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology

VIP = ip_address("10.10.0.100")
EPOCH = 1_700_000_000.0


def lab_of(name: str = "dr", servers: int | None = None) -> Lab:
    topology = Topology(name, shipped.text_of(name).encode())
    return load_lab(topology, Overrides(servers=servers))


def mac_of(lab: Lab, node: str) -> str:
    return f"02:00:00:00:00:{[n.name for n in lab.nodes].index(node):02x}"


def state_of(lab: Lab, node: str, at_vip: str = "") -> NodeState:
    """A node with its devices up, and perhaps the VIP's owner in its neighbour table."""
    found = lab.node(node)
    links = tuple(
        LinkState(i.network, 2, "veth", mac_of(lab, node), 1500, True, True, "", i.addresses)
        for i in found.interfaces
    )
    network = found.networks[0]
    entries = (NeighbourState(VIP, network, mac_of(lab, at_vip), "reachable"),) if at_vip else ()
    return NodeState(lab.netns(node), links, neighbours=entries, sysctls={"net.ipv4.x": "1"})


def table_of(lab: Lab, connections: int = 0) -> tuple[ServiceState, ...]:
    """IPVS's table, every real server with as many connections so far, of 100 bytes each."""
    return tuple(
        ServiceState(
            service.match,
            str(service.scheduler),
            0,
            tuple(
                RealServerState(
                    s.rip, s.port, service.forward, s.weight, 0, 0, 0, 0,
                    Counters(connections, connections, 0, 100 * connections, 0),
                )
                for s in service.real_servers
            ),
        )
        for service in lab.services
    )  # fmt: skip


def sample(
    lab: Lab,
    second: float,
    *,
    connections: int = 0,
    owner: str = "director",
    half_open: HalfOpen | None = frozenset(),
    counters: Mapping[str, Mapping[str, int]] | None = None,
) -> Sample:
    """The lab so many seconds after the beginning."""
    client = lab.nodes[0].name
    return Sample(
        when=EPOCH + second,
        clock=second,
        states={
            node.name: state_of(lab, node.name, owner if node.name == client else "")
            for node in lab.nodes
        },
        gauges={
            node.name: Gauge(counters=dict((counters or {}).get(node.name, {})))
            for node in lab.nodes
        },
        table=table_of(lab, connections),
        half_open=half_open,
    )


def with_state(taken: Sample, node: str, **changes: object) -> Sample:
    """The same sample with something else about one node."""
    state = replace(taken.states[node], **changes)  # type: ignore[arg-type]
    return replace(taken, states={**taken.states, node: state})
