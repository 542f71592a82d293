"""Labs as configured and nodes as the kernel has them, as JSON: see ``jsonable``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lvsctl.model.lab import Lab, Node, Route
from lvsctl.model.service import VirtualService
from lvsctl.model.state import (
    Connection,
    Counters,
    LinkState,
    ListenerState,
    NeighbourState,
    NodeState,
    RealServerState,
    RouteState,
    ServiceState,
)

Json = dict[str, Any]


def text_or_null(value: object) -> str | None:
    """A value as text; null where there is none."""
    return None if value is None else str(value)


# ── a lab as configured ──────────────────────────────────────────────────────────────────────


def lab_json(lab: Lab) -> Json:
    """``{name, description, networks, nodes, services}``."""
    return {
        "name": lab.name,
        "description": lab.description,
        "networks": [
            {
                "name": network.name,
                "subnets": list(map(str, network.subnets)),
                "impairment": asdict(network.impairment),
            }
            for network in lab.networks
        ],
        "nodes": [_node(lab, node) for node in lab.nodes],
        "services": [_service(service) for service in lab.services],
    }


def _node(lab: Lab, node: Node) -> Json:
    return {
        "name": node.name,
        "role": str(node.role),
        "group": node.group,
        "netns": lab.netns(node.name),
        "interfaces": [
            {"network": i.network, "addresses": list(map(str, i.addresses))}
            for i in node.interfaces
        ],
        "routes": [_route(route) for route in node.routes],
        "sysctls": dict(node.sysctls),
        "run": list(node.run),
    }


def _route(route: Route) -> Json:
    return {"to": text_or_null(route.to), "via": str(route.via)}


def _service(service: VirtualService) -> Json:
    return {
        "name": service.name,
        "protocol": str(service.key.protocol),
        "vip": str(service.vip),
        "port": service.key.port,
        "forward": str(service.forward),
        "encapsulation": str(service.encapsulation),
        "scheduler": str(service.scheduler),
        "persistence": service.persistence,
        "real_servers": [
            {
                "node": server.node,
                "rip": str(server.rip),
                "port": server.port,
                "weight": server.weight,
                "upper": server.upper,
                "lower": server.lower,
            }
            for server in service.real_servers
        ],
    }


# ── a node as the kernel has it ──────────────────────────────────────────────────────────────


def state_json(node: Node, state: NodeState) -> Json:
    """A node's state; its keys are described at ``jsonable.inspection``."""
    return {
        "role": str(node.role),
        "netns": state.netns,
        "links": [_link(link) for link in state.links],
        "routes": [_route_state(route) for route in state.routes],
        "neighbours": [_neighbour(neighbour) for neighbour in state.neighbours],
        "sysctls": dict(state.sysctls),
        "listeners": [_listener(listener) for listener in state.listeners],
        "services": [_service_state(service) for service in state.services],
        "connections": [_connection(connection) for connection in state.connections],
        "gue_ports": list(state.gue_ports),
    }


def _link(link: LinkState) -> Json:
    return {
        "name": link.name,
        "index": link.index,
        "kind": link.kind,
        "mac": link.mac,
        "mtu": link.mtu,
        "up": link.up,
        "carrier": link.carrier,
        "master": link.master,
        "addresses": list(map(str, link.addresses)),
        "impairment": asdict(link.impairment),
    }


def _route_state(route: RouteState) -> Json:
    return {
        "to": text_or_null(route.to),
        "via": text_or_null(route.via),
        "device": route.device,
        "kernel": route.kernel,
    }


def _neighbour(neighbour: NeighbourState) -> Json:
    return {
        "address": str(neighbour.address),
        "device": neighbour.device,
        "mac": neighbour.mac,
        "state": neighbour.state,
    }


def _listener(listener: ListenerState) -> Json:
    return {
        "protocol": str(listener.protocol),
        "address": str(listener.address),
        "port": listener.port,
        "process": listener.process,
        "pid": listener.pid,
    }


def _service_state(service: ServiceState) -> Json:
    return {
        "protocol": str(service.key.protocol),
        "vip": str(service.key.vip),
        "port": service.key.port,
        "scheduler": service.scheduler,
        "persistence": service.persistence,
        "counters": _counters(service.counters),
        "real_servers": [_real_server_state(server) for server in service.real_servers],
    }


def _real_server_state(server: RealServerState) -> Json:
    return {
        "rip": str(server.rip),
        "port": server.port,
        "forward": str(server.forward),
        "weight": server.weight,
        "upper": server.upper,
        "lower": server.lower,
        "encapsulation": str(server.encapsulation),
        "tunnel_port": server.tunnel_port,
        "active": server.active,
        "inactive": server.inactive,
        "counters": _counters(server.counters),
    }


def _counters(counters: Counters) -> Json:
    return asdict(counters)


def _connection(connection: Connection) -> Json:
    return {
        "protocol": str(connection.protocol),
        "client": str(connection.client),
        "client_port": connection.client_port,
        "vip": str(connection.vip),
        "vport": connection.vport,
        "rip": str(connection.rip),
        "rport": connection.rport,
        "state": connection.state,
        "expires": connection.expires,
    }
