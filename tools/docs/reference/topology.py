"""The topology's reference, from its schema: every key, its values, its default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lvsctl.topology import drill, schema_network, schema_node, schema_service
from lvsctl.topology.collection_types import Converted, Key, ListOf, MapOf, OneOf, Record
from lvsctl.topology.scalar_types import Boolean, Choice, Integer, OrWord, Text
from lvsctl.topology.schema import TOPOLOGY
from tools.docs.reference.markdown import block, code, table

TITLE = "# Topology files"
SOURCE = "lvsctl/topology/schema.py"

_INTRODUCTION = """\
A topology is a YAML file with networks, nodes and virtual services. lvsctl derives what the
forwarding method needs: VIPs, ARP settings, tunnels, gateways. `lvsctl plan FILE` prints it, with
the reason for each step.

JSON is valid, too, because it is a subset of YAML: a program can write the same keys as one JSON
object, to a file or to the standard input of `lvsctl up -`.

All mistakes of a file are reported at once, each with line and column.
`lvsctl schema > lvsctl.schema.json` writes the same tables as a JSON Schema. With
`# yaml-language-server: $schema=lvsctl.schema.json` as the first line of a topology, editors
complete and check it while you type.

The shortest valid file:"""

_REAL_SERVER = schema_service.REAL_SERVER.mapped
assert isinstance(_REAL_SERVER, Record)  # noqa: S101 (for the types)

_SORRY_SERVER = schema_service.SORRY_SERVER.mapped
assert isinstance(_SORRY_SERVER, Record)  # noqa: S101 (for the types)

_ENCAPSULATION = schema_service.ENCAPSULATION.mapped
assert isinstance(_ENCAPSULATION, Record)  # noqa: S101 (for the types)

_RECORDS: tuple[tuple[str, str, Record[Any]], ...] = (
    ("The file", "", TOPOLOGY),
    ("A network", "networks", schema_network.NETWORK),
    ("A node", "nodes", schema_node.NODE),
    ("A route", "routes", schema_node.ROUTE),
    ("A link's impairment", "links", schema_network.LINK),
    ("A director's timeouts", "timeouts", schema_node.TIMEOUTS),
    ("A director's ha", "ha", schema_node.HA_SETTINGS),
    ("A virtual service", "services", schema_service.SERVICE),
    ("An encapsulation", "encapsulation", _ENCAPSULATION),
    ("A scheduler", "scheduler", schema_service.SCHEDULER),
    ("A persistence", "persistence", schema_service.PERSISTENCE),
    ("A real server", "real_servers", _REAL_SERVER),
    ("A sorry server", "sorry_server", _SORRY_SERVER),
    ("A drill's traffic", "traffic", drill.TRAFFIC),
    ("What a drill may amount to", "expect", drill.EXPECT),
)
"""Heading, key and record of each table."""


def text() -> str:
    """Return a section for each kind of mapping, in the order of a file."""
    return "\n\n".join(
        [
            _INTRODUCTION,
            block(_SHORTEST, "yaml"),
            "Files to start from: [the shipped topologies](topologies.md).",
            *(_section(*row) for row in _RECORDS),
        ]
    )


_SHORTEST = """version: 1
name: small
networks:
  lan: {ipv4: 10.10.0.0/24}
nodes:
  client:   {role: client,      networks: [lan]}
  director: {role: director,    networks: [lan]}
  rs1:      {role: real-server, networks: [lan]}
services:
  - {name: web, vip: 10.10.0.100, port: 80, forward: dr, real_servers: [rs1]}
"""


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _section(heading: str, key: str, record: Record[Any]) -> str:
    parts = [f"## {heading} {{ #{_anchor(heading)} }}"]
    if key:
        parts.append(f"Under {code(key)}. For example: {code(record.example)}.")
    parts.extend(
        f"At least one of {' and '.join(map(code, group))} is required." for group in record.any_of
    )
    parts.append(
        table(
            ("key", "meaning", "value", "default"),
            ([code(name), *_row(field)] for name, field in record.fields.items()),
        )
    )
    choices = [
        f"{code(name)}: {', '.join(code(word.value) for word in choice.kind)}."
        for name, field in record.fields.items()
        if (choice := _choice(field.value_type)) is not None
    ]
    return "\n\n".join([*parts, *choices])


def _choice(value_type: object) -> Choice[Any] | None:
    """Return the words of which a value, or each item of a list, is one."""
    one = value_type.item if isinstance(value_type, ListOf) else value_type
    return one if isinstance(one, Choice) else None


def _row(field: Key) -> Iterator[str]:
    yield field.about
    yield _value(field.value_type)
    if field.required:
        yield "**required**"
    elif isinstance(field.default, bool):
        yield code(str(field.default).lower())
    elif field.default in (None, "", [], {}):
        yield ""
    else:
        yield code(str(field.default))


def _value(value_type: object) -> str:  # noqa: PLR0911 (one for each kind of value_type)
    """Return what a value may be, with a link if it is a mapping with its own table."""
    for heading, key, record in _RECORDS:
        if value_type is record and key:
            return f"[{heading.lower()}](#{_anchor(heading)})"
    if isinstance(value_type, Converted):
        return _value(value_type.value_type)
    if isinstance(value_type, Choice):
        return f"{value_type.expected}, below"
    if isinstance(value_type, MapOf):
        return f"a mapping from {_plural(value_type.key.expected)} to: {_value(value_type.value)}"
    if isinstance(value_type, ListOf):
        return f"a list of: {_value(value_type.item)}"
    if isinstance(value_type, OneOf):
        ways = [
            way
            for way in (value_type.single, value_type.listed, value_type.mapped)
            if way is not None
        ]
        return "; or ".join(map(_value, ways))
    return _scalar(value_type)


def _scalar(value_type: object) -> str:
    if isinstance(value_type, (Text, Integer)):
        return f"{value_type.expected}, as {code(value_type.example)}"
    if isinstance(value_type, OrWord):
        return f"{_scalar(value_type.number)}; or {code(value_type.word)}"
    if isinstance(value_type, Boolean):
        return value_type.expected
    raise TypeError(f"no words for {value_type!r}")


def _plural(expected: str) -> str:
    return {
        "a name": "names",
        "a network's name": "networks",
        "a sysctl's name": "sysctls",
        "a time": "times",
    }[expected]
