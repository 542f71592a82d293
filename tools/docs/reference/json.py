"""The JSON interface, from the published schemas."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from lvsctl import errors
from lvsctl.output import serialize
from lvsctl.output.json_schemas import DOCUMENTS, json_schema
from tools.docs.reference.markdown import code, prose, table

TITLE = "# JSON"
SOURCE = "the JSON Schemas (`lvsctl schema --of COMMAND`)"

Schema = Mapping[str, Any]


def text() -> str:
    """The rules, each command's document, and the types in them."""
    rules = inspect.cleandoc(serialize.__doc__ or "").split("\n\n")[1]
    parts = [
        "`--format json` is a stable interface for programs.",
        prose(rules),
        "[Reading JSON](../json.md) has examples.",
    ]
    types: dict[str, Schema] = {}
    for command in DOCUMENTS:
        schema = json_schema(command)
        types |= schema["definitions"]
        parts += [f"## {command}", schema["description"], _keys(schema)]
    parts += ["## Errors", prose(inspect.getdoc(errors.error_json) or "")]
    parts += ["## Types"]
    for name in sorted(types):
        parts += [f"### {name}", prose(types[name]["description"]), _keys(types[name])]
    return "\n\n".join(parts)


def commands() -> frozenset[str]:
    """The commands described here."""
    described = {command.replace("-", " ") for command in DOCUMENTS}
    return frozenset(_BY_OPTION.get(command, command) for command in described)


_BY_OPTION = {"verify prove": "verify", "drain matrix": "drain"}
"""Documents that an option of a command prints."""


def _keys(schema: Schema) -> str:
    rows = ((code(key), _value(value)) for key, value in schema["properties"].items())
    return table(("key", "value"), rows)


def _value(schema: Schema) -> str:  # noqa: PLR0911 (one for each kind of schema)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return code(str(schema["const"]))
    if "enum" in schema:
        return ", ".join(code(str(one)) for one in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(map(_value, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of: {_value(schema['items'])}"
    if "additionalProperties" in schema:
        return f"object of: {_value(schema['additionalProperties'])}"
    if "properties" in schema:
        return f"{schema['description']} Keys: {', '.join(map(code, schema['properties']))}"
    kind = str(schema.get("type", "any value"))
    return {"string": "text", "integer": "whole number"}.get(kind, kind)
