"""What programs read: the JSON of every ``--format json``, a stable interface.

Every value has ``"version": 1``. Within a version keys are only added, never renamed,
removed or given another meaning; a program ignores the keys that it does not know.
Addresses, networks and enumerations are strings; absent things are null, never left out.
tests/unit/test_report_json.py holds each against a JSON Schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from lvsctl.output.json_values import Json, lab_json, state_json
from lvsctl.plan.stages import Plan
from lvsctl.resources.base import Resource

if TYPE_CHECKING:
    from lvsctl.engine.results import Diagnosis, Inspection, Listed, Up, Verification
    from lvsctl.kernel.probe import Feature
    from lvsctl.output.machine_status import MachineKind, MachineStatus

VERSION = 1


def up(result: Up) -> Json:
    """``{version, lab, created, changed, added: [op], removed: [op], restored: [fault]}``.

    ``lab`` as in ``json_values.lab_json``; ``created`` false and ``changed`` false: it ran
    already and was as the topology says. An op is ``{op, netns, why, commands}`` as in ``plan``,
    but that the commands change what was there where there was something.
    ``restored`` are the faults that were taken back before anything else.
    """
    return {
        "version": VERSION,
        "lab": lab_json(result.lab),
        "created": result.created,
        "changed": bool(result.created or result.added or result.removed or result.restored),
        "added": [{**_op(op), "commands": list(result.commands(op))} for op in result.added],
        "removed": [_op(op) for op in result.removed],
        "restored": list(result.restored),
    }


def listing(listed: Sequence[Listed]) -> Json:
    """``{version, labs: [{name, state, answering, problem, started, source, lab, faults}]}``.

    ``state`` is ``up``, ``coming-up``, ``changing``, ``going-down`` or ``broken``, with what is
    wrong in ``problem``; ``started`` in seconds since the epoch, null where it is not known;
    ``lab`` null where the entry cannot be read; ``faults`` how it is broken on purpose.
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
                "lab": lab_json(one.lab) if one.lab else None,
                "faults": list(one.faults),
            }
            for one in listed
        ],
    }


def inspection(inspection: Inspection) -> Json:
    """``{version, lab, nodes: {name: node}, faults}``; ``faults``: broken on purpose.

    A node is ``{role, netns, links, routes, neighbours, sysctls, listeners, services,
    connections, gue_ports, deviations}``. ``deviations`` are ``{says, why}``: what is not as the
    topology says. Only a director has ``services`` (IPVS's table) and ``connections``.
    A route's ``to`` null is the default route, ``via`` null is on-link; ``pid`` 0 is not known.
    """
    from lvsctl.output.deviations import deviations

    wrong = deviations(inspection)
    return {
        "version": VERSION,
        "lab": inspection.lab.name,
        "nodes": {
            name: {
                **state_json(inspection.lab.node(name), state),
                "deviations": [{"says": one.text, "why": one.why} for one in wrong[name]],
            }
            for name, state in inspection.states.items()
        },
        "faults": list(inspection.faults),
    }


def verification(verification: Verification, *, capture: str | None = None) -> Json:
    """``{version, lab, verdict, claims: [claim], capture}``.

    A claim is ``{id, service, says, verdict, expected, observed, evidence, kernel, broken_by}``.
    Verdicts are ``pass``, ``fail`` and ``inconclusive``. ``kernel`` is what the nodes' kernels
    counted of lost packets, where requests were lost. ``evidence``
    are the frames that show it, each ``{tap, frame, summary}``: where it was seen, its number
    in the capture, and the frame in a line. ``broken_by`` are the faults that must break the
    claim. ``capture`` is the file that the frames are in, null where none was written.
    """
    return {
        "version": VERSION,
        "lab": verification.lab.name,
        "verdict": str(verification.verdict),
        "claims": [
            {
                "id": finding.claim.id,
                "service": finding.service,
                "says": finding.claim.text,
                "verdict": str(finding.verdict),
                "expected": finding.expected,
                "observed": finding.observed,
                "evidence": [
                    {"tap": str(frame.tap), "frame": frame.number, "summary": frame.summary()}
                    for frame in finding.frames
                ],
                "kernel": list(finding.kernel),
                "broken_by": list(finding.claim.broken_by),
            }
            for finding in verification.findings
        ],
        "capture": capture,
    }


def diagnosis(result: Diagnosis) -> Json:
    """``{version, lab, works, causes: [cause], remarks, ruled_out, look_at}``.

    A cause is ``{fault, node, says, evidence: [str], consequence, remedy}``, the most likely
    first. ``look_at`` says where to go on; it is empty where it works or a cause was found.
    """
    return {
        "version": VERSION,
        "lab": result.lab.name,
        "works": result.works,
        "causes": [asdict(cause) for cause in result.causes],
        "remarks": list(result.remarks),
        "ruled_out": list(result.ruled_out),
        "look_at": list(result.look_at),
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
            {"title": stage.title, "ops": [_op(op) for op in stage.resources]}
            for stage in plan.stages
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


def machine(status: MachineStatus | None, features: Mapping[str, bool]) -> Json:
    """``{version, running, machine}``; ``machine`` is null where none runs.

    Else ``{name, kind, kernel, accelerator, cpus, pid, release, uptime, memory,
    memory_available, commands, socket, writable, complaints, failed_modules, features}``:
    ``kind`` is ``uml`` or ``qemu``, ``kernel`` the file that was started, ``accelerator``
    ``kvm``, ``tcg`` or empty, ``uptime`` in seconds, memory in MiB, ``features`` whether the
    kernel has what doctor calls so.
    """
    if status is None:
        return {"version": VERSION, "running": False, "machine": None}
    return {
        "version": VERSION,
        "running": True,
        "machine": {
            "name": status.name,
            "kind": status.kind,
            "kernel": str(status.kernel),
            "accelerator": status.accelerator,
            "cpus": status.cpus,
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
            "features": dict(features),
        },
    }


def machine_kinds(kinds: Sequence[MachineKind]) -> Json:
    """``{version, kinds}``, each ``{name, title, can, obstacle, how, kernels}``.

    ``obstacle`` is empty where ``can`` is true; ``kernels`` are those ready to start, by what
    ``--kernel`` calls them.
    """
    return {
        "version": VERSION,
        "kinds": [
            {
                "name": kind.name,
                "title": kind.title,
                "can": not kind.obstacle,
                "obstacle": kind.obstacle,
                "how": kind.how,
                "kernels": dict(kind.kernels),
            }
            for kind in kinds
        ],
    }


def _op(op: Resource) -> Json:
    return {
        "op": type(op).__name__,
        "netns": op.netns,
        "why": op.why,
        "commands": list(op.describe()),
    }
