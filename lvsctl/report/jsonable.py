"""What programs read: the JSON of every ``--format json``, a stable interface.

Every value has ``"version": 1``. Within a version keys are only added, never renamed,
removed or given another meaning; a program ignores the keys that it does not know.
Addresses, networks and enumerations are strings; absent things are null, never left out.
tests/unit/test_report_json.py holds each against a JSON Schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

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
from lvsctl.ops import Op, Plan

if TYPE_CHECKING:
    from lvsctl.kernel.probe import Feature
    from lvsctl.machine.client import MachineStatus
    from lvsctl.results import Inspection, Listed, Up, Verification

VERSION = 1

Json = dict[str, Any]


def up(result: Up) -> Json:
    """``{version, lab, created, changed, added: [op], removed: [op]}``.

    ``lab`` as in ``lab_json``; ``created`` false and ``changed`` false: it ran already
    and was as the topology says. An op is ``{op, netns, why, commands}`` as in ``plan``.
    """
    return {
        "version": VERSION,
        "lab": _lab(result.lab),
        "created": result.created,
        "changed": bool(result.created or result.added or result.removed),
        "added": [_op(op) for op in result.added],
        "removed": [_op(op) for op in result.removed],
    }


def listing(listed: Sequence[Listed]) -> Json:
    """``{version, labs: [{name, state, answering, problem, started, source, lab}]}``.

    ``state`` is ``up``, ``coming-up``, ``going-down`` or ``broken``, with what is wrong in
    ``problem``; ``started`` in seconds since the epoch, null where it is not known;
    ``lab`` null where the entry cannot be read.
    """
    return {
        "version": VERSION,
        "labs": [
            {
                "name": one.entry.lab,
                "state": str(one.entry.state),
                "answering": one.answering,
                "problem": one.entry.problem,
                "started": one.entry.started or None,
                "source": one.entry.source,
                "lab": _lab(one.lab) if one.lab else None,
            }
            for one in listed
        ],
    }


def inspection(inspection: Inspection) -> Json:
    """``{version, lab, nodes: {name: state}}``."""
    return {
        "version": VERSION,
        "lab": inspection.lab.name,
        "nodes": {
            name: _state(inspection.lab.node(name), s) for name, s in inspection.states.items()
        },
    }


def verification(verification: Verification) -> Json:
    """``{version, lab, verdict, claims: [claim], capture}``.

    A claim is ``{id, service, says, verdict, expected, observed, evidence, broken_by}``.
    Verdicts are ``pass``, ``fail`` and ``inconclusive``. ``evidence`` (frames) and
    ``capture`` (the file that they are in) are empty and null until packets are captured;
    ``broken_by`` are the faults that must break the claim.
    """
    return {
        "version": VERSION,
        "lab": verification.lab.name,
        "verdict": str(verification.verdict),
        "claims": [
            {
                "id": finding.claim.id,
                "service": finding.service,
                "says": finding.claim.says,
                "verdict": str(finding.verdict),
                "expected": finding.expected,
                "observed": finding.observed,
                "evidence": [],
                "broken_by": list(finding.claim.broken_by),
            }
            for finding in verification.findings
        ],
        "capture": None,
    }


def plan(plan: Plan) -> Json:
    """``{version, lab, namespaces: [name], stages: [{title, ops: [op]}]}``.

    An op is ``{op, netns, why, commands}``: its kind, the namespace that it works in, the
    reason for it, and the equivalent shell commands (``respond`` and ``run`` are functions
    of the script of ``plan --format sh``).
    """
    return {
        "version": VERSION,
        "lab": plan.lab,
        "namespaces": list(plan.namespaces),
        "stages": [
            {"title": stage.title, "ops": [_op(op) for op in stage.ops]} for stage in plan.stages
        ],
    }


def features(features: Iterable[Feature], where: str) -> Json:
    """``{version, where, able, features: [feature]}``.

    A feature is ``{id, says, present, needed_for, remedy, optional}``; ``able``: nothing
    is missing but, perhaps, what is optional.
    """
    found = tuple(features)
    return {
        "version": VERSION,
        "where": where,
        "able": all(feature.present or feature.optional for feature in found),
        "features": [asdict(feature) for feature in found],
    }


def topologies(summaries: Mapping[str, str]) -> Json:
    """``{version, topologies: [{name, description}]}``."""
    return {
        "version": VERSION,
        "topologies": [
            {"name": name, "description": summary} for name, summary in summaries.items()
        ],
    }


def machine(status: MachineStatus | None) -> Json:
    """``{version, running, machine}``; ``machine`` is null where none runs.

    Else ``{name, pid, release, uptime, memory, memory_available, commands, socket, writable,
    complaints, failed_modules}``: ``uptime`` in seconds, memory in MiB.
    """
    if status is None:
        return {"version": VERSION, "running": False, "machine": None}
    return {
        "version": VERSION,
        "running": True,
        "machine": {
            "name": status.name,
            "pid": status.pid,
            "release": status.release,
            "uptime": status.uptime,
            "memory": status.memory,
            "memory_available": status.memory_available,
            "commands": status.commands,
            "socket": str(status.socket),
            "writable": list(status.writable),
            "complaints": list(status.complaints),
            "failed_modules": dict(status.failed_modules),
        },
    }


def _op(op: Op) -> Json:
    return {
        "op": type(op).__name__,
        "netns": op.netns,
        "why": op.why,
        "commands": list(op.describe()),
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


# ── a lab as configured ──────────────────────────────────────────────────────────────────────


def _lab(lab: Lab) -> Json:
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
    return {"to": _text(route.to), "via": str(route.via)}


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


def _state(node: Node, state: NodeState) -> Json:
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
        "to": _text(route.to),
        "via": _text(route.via),
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
