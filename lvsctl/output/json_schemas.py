"""JSON Schemas of every ``--format json``, generated from the types that are written."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from enum import Enum, StrEnum
from inspect import cleandoc
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from lvsctl.engine.campaign import Column, Proof
from lvsctl.engine.findings import (
    Check,
    Diagnosis,
    FaultListed,
    FaultShown,
    Inspection,
    Verification,
)
from lvsctl.engine.labs import Listed
from lvsctl.kernel.probe import Features
from lvsctl.machine.client import MachineStatus
from lvsctl.machine.kinds import KindStatus
from lvsctl.model.addresses import Endpoint, IPAddress, IPInterface, IPNetwork
from lvsctl.model.compare import Comparison
from lvsctl.model.failover import Failover
from lvsctl.model.flows import Drain, DrainRow, Idle
from lvsctl.model.frame import Frame
from lvsctl.model.played import Played
from lvsctl.model.scale import Scale
from lvsctl.model.walk import Walk
from lvsctl.output.json_formats import Format, PlannedResource, fields_of, format_of, types_of
from lvsctl.output.serialize import VERSION
from lvsctl.plan.stages import Plan, Up
from lvsctl.resources.base import Resource
from lvsctl.watch.view import View

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_ANYTHING: Schema = {}


@dataclass(frozen=True, slots=True)
class Document:
    """The JSON that a command prints: the keys of ``result``, and ``more``."""

    text: str
    result: type | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


DOCUMENTS: Mapping[str, Document] = {
    "up": Document("A lab that was created or changed.", Up),
    "diff": Document("What `up` would change, or what changes between two files.", Up),
    "ls": Document("The labs that exist.", None, {"labs": tuple[Listed, ...]}),
    "inspect": Document("The nodes' state in the kernel.", Inspection),
    "verify": Document(
        "The verdict on every claim. `capture` is the file with the frames.",
        Verification,
        {"capture": str | None},
    ),
    "verify-prove": Document("Which claims fail under which fault.", Proof),
    "diagnose": Document("The causes, most likely first.", Diagnosis),
    "check": Document(
        "How real hosts differ from a topology: the causes, and what became of each host.", Check
    ),
    "walk": Document("One request, hop by hop.", Walk),
    "failover": Document("What happened while a director took over from another.", Failover),
    "drain": Document("What became of flows when a real server was taken out.", Drain),
    "drain-matrix": Document(
        "What becomes of flows in every way, with every combination of sysctls.",
        None,
        {"rows": tuple[DrainRow, ...]},
    ),
    "idle": Document(
        "What became of flows that were silent for longer than IPVS keeps them.", Idle
    ),
    "play": Document("What happened during a drill.", Played),
    "scale": Document("Throughput over the number of real servers, by forwarding method.", Scale),
    "compare": Document(
        "NAT, TUN and DR side by side: what is quoted, what was measured, and what shows it.",
        Comparison,
    ),
    "watch": Document("One line per sample.", View),
    "fault-list": Document(
        "All faults. `lab` is null without a lab.",
        None,
        {"lab": str | None, "faults": tuple[FaultListed, ...]},
    ),
    "fault-show": Document("A fault at one node.", FaultShown),
    "fault-inject": Document("The fault that was injected.", FaultShown),
    "fault-restore": Document(
        "The faults that were removed.", None, {"lab": str, "restored": tuple[str, ...]}
    ),
    "fault-matrix": Document(
        "Every fault in every topology.",
        None,
        {"holds": bool, "topologies": tuple[Column, ...]},
    ),
    "plan": Document("What `up` does, in order.", Plan),
    "topologies": Document(
        "The shipped topologies.", None, {"topologies": tuple[dict[str, str], ...]}
    ),
    "doctor": Document(
        "What the kernels offer. `host` or `machine` is null if it was not asked.",
        None,
        {"host": Features | None, "machine": Features | None},
    ),
    "machine-status": Document(
        "The running machine; `machine` is null if none runs.",
        None,
        {"running": bool, "machine": MachineStatus | None, "features": dict[str, bool]},
    ),
    "machine-list": Document(
        "The kinds of machine that this host can run.", None, {"kinds": tuple[KindStatus, ...]}
    ),
}
"""By command."""


def json_schema(command: str) -> Schema:
    """Return the JSON Schema (draft 7) of a command's ``--format json``. Raises KeyError."""
    document = DOCUMENTS[command]
    definitions: dict[str, Schema] = {}
    properties: dict[str, Schema] = {"version": {"const": VERSION}}
    if document.result is not None:
        properties |= _properties(document.result, definitions)
    properties |= {key: _schema(kind, definitions) for key, kind in document.more.items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"lvsctl {command} --format json, version {VERSION}",
        "description": document.text,
        **_object(properties),
        "definitions": definitions,
    }


def _object(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _properties(kind: type, definitions: dict[str, Schema]) -> dict[str, Schema]:
    form, hints = format_of(kind), types_of(kind)
    found: dict[str, Schema] = {}
    for name in fields_of(kind):
        if name in form.flatten:
            found |= _properties(hints[name], definitions)
        elif name in form.convert:
            found[form.key(name)] = _schema(form.convert[name].type, definitions)
        else:
            found[form.key(name)] = _schema(hints[name], definitions)
    for key in form.derive:
        found[key] = _schema(_derived_type(kind, form, key), definitions)
    return found


def _derived_type(kind: type, form: Format, key: str) -> Any:
    source = form.derive[key]
    function = source if callable(source) else getattr(kind, source)
    return get_type_hints(getattr(function, "fget", function))["return"]


def _schema(  # noqa: C901, PLR0911 (a row a kind)
    kind: Any, definitions: dict[str, Schema]
) -> Schema:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _LEAVES:
        return _LEAVES[kind]
    if kind is Resource:
        kind = PlannedResource
    if kind in _OBJECTS:
        definitions[kind.__name__] = _OBJECTS[kind]
        return {"$ref": f"#/definitions/{kind.__name__}"}
    if kind in (IPAddress, IPInterface, IPNetwork):
        return _TEXT
    if origin in (Union, types.UnionType):
        if types.NoneType in arguments:
            rest = [one for one in arguments if one is not types.NoneType]
            inner = _schema(Union[tuple(rest)], definitions)  # noqa: UP007 (made at run time)
            return {"anyOf": [inner, {"type": "null"}]}
        return _TEXT if all(_is_text(one) for one in arguments) else _ANYTHING
    if origin in (tuple, list, Sequence):
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if issubclass(kind, StrEnum):
        return {"enum": [one.value for one in kind]}
    if isinstance(kind, type) and (is_dataclass(kind) or hasattr(kind, "_fields")):
        name = kind.__name__
        if name not in definitions:
            definitions[name] = {}  # a type may contain itself
            definitions[name] = {
                "description": cleandoc(kind.__doc__ or ""),
                **_object(_properties(kind, definitions)),
            }
        return {"$ref": f"#/definitions/{name}"}
    raise TypeError(f"no JSON Schema for {kind!r}")


def _is_text(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, (str, Enum)) or kind in get_args(_IPS))


_IPS = IPAddress | IPInterface | IPNetwork

_LEAVES: Mapping[Any, Schema] = {
    str: _TEXT,
    int: _WHOLE,
    float: {"type": "number"},
    bool: {"type": "boolean"},
    Path: _TEXT,
    Endpoint: _TEXT,
}

_OBJECTS: Mapping[Any, Schema] = {
    Frame: {
        "description": "A captured frame: its number, time in nanoseconds since the epoch, "
        "bytes in hexadecimal.",
        **_object(
            {
                "tap": _TEXT,
                "frame": _WHOLE,
                "direction": {"enum": ["in", "broadcast", "multicast", "other", "out", "unknown"]},
                "time": _WHOLE,
                "summary": _TEXT,
                "link": {"enum": ["ethernet", "raw"]},
                "length": _WHOLE,
                "checksum_pending": {"type": "boolean"},
                "decapsulated": {"type": "boolean"},
                "data": {"type": "string", "pattern": "^([0-9a-f]{2})*$"},
            }
        ),
    },
}
"""Types that are not written field by field."""
