"""JSON: the domain's types as values that programs read, and back again.

The rules of every ``--format json``: each value has ``"version": 2``. Within a version keys
are only added, never renamed, removed or given another meaning; a program ignores the keys
that it does not know. Addresses, networks and enumerations are strings, the lab of a result
is its name; no key is ever left out. ``lvsctl schema --of COMMAND`` prints the JSON Schema.

An object has the fields of its type, changed by ``FORMATS``. Evidence (``saved_report``) is
read strictly: a key that is unknown is a mistake. Elsewhere unknown keys are ignored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, TypeVar, get_args

from cattrs.cols import (
    namedtuple_dict_structure_factory,
    namedtuple_dict_unstructure_factory,
)
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.preconf.json import JsonConverter, make_converter

from lvsctl.faults import FAULTS
from lvsctl.faults.base import Fault
from lvsctl.model.addresses import Endpoint, IPAddress, IPInterface, IPNetwork
from lvsctl.model.frame import Frame
from lvsctl.model.lab import Lab
from lvsctl.model.service import ForwardingMethod, ServiceMatch
from lvsctl.output.json_formats import (
    Conversion,
    Json,
    WrittenMatch,
    fields_of,
    format_of,
    is_named_tuple,
    keys_of,
    planned_resource,
    read_frame,
    read_match,
    reading_about,
    types_of,
    write_frame,
    written_match,
)
from lvsctl.resources.base import Resource

VERSION = 2
T = TypeVar("T")

_LARGEST = 1 << 64
"""The kernel's counters are smaller, and so are seconds. To JSON, 1e999 and NaN are numbers too."""


def to_json(result: object = None, /, **more: object) -> Json:
    """Convert a result to a JSON document; ``more`` are further keys."""
    converter = _converter(strict=False)
    document: Json = {"version": VERSION}
    if result is not None:
        document |= converter.unstructure(result)
    return document | {key: converter.unstructure(value) for key, value in more.items()}


def from_json(value: Mapping[str, Any], kind: type[T], *, lab: Lab | None = None) -> T:
    """Convert JSON to a result of type ``kind``. ``lab`` is the lab that it is about.

    Raises cattrs' errors if the JSON is not of that type.
    """
    with reading_about(lab):
        return _converter(strict=False).structure(value, kind)


def unstructure(value: object) -> Any:
    """Convert a value to JSON, without a version."""
    return _converter(strict=True).unstructure(value)


def structure_strictly(value: object, kind: type[T]) -> T:
    """Convert JSON to a value; unknown keys and wrong types raise cattrs' errors."""
    return _converter(strict=True).structure(value, kind)


def _endpoint(value: Any, _: object) -> Endpoint:
    if isinstance(value, str):
        address, colon, port = value.rpartition(":")
        if colon and port.isascii() and port.isdecimal() and len(port) <= len("65535"):
            return Endpoint(ip_address(address.removeprefix("[").removesuffix("]")), int(port))
    raise ValueError(f"address:port expected, found {value!r:.40}")


def _strictly(kind: type, *also: type) -> Callable[[Any, Any], Any]:
    """cattrs would make a number of the text "1", and True of any text: read as written.

    The hook for str is also that of every StrEnum, so the type that is wanted makes the value.
    """

    def structure(value: Any, wanted: Any) -> Any:
        if (isinstance(value, bool) and kind is not bool) or not isinstance(value, (kind, *also)):
            raise ValueError(f"{kind.__name__} expected, found {value!r:.40}")
        if isinstance(value, (int, float)) and not abs(value) < _LARGEST:
            raise ValueError(f"{value!r:.40} cannot be: it is too large, or no number")
        return wanted(value)

    return structure


def _address(make: Callable[[str], Any], *, or_none: bool) -> Callable[[Any, Any], Any]:
    """Addresses are text only: of a number, ipaddress makes an address too."""

    def structure(value: Any, _: Any) -> Any:
        if or_none and value is None:
            return None
        if not isinstance(value, str):
            raise ValueError(f"an address expected, found {value!r:.40}")
        return make(value)

    return structure


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)


def _or_none(read: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda value, kind: None if value is None else read(value, kind)


_ADDRESSES: tuple[tuple[Any, Callable[[str], Any]], ...] = (
    (IPAddress, ip_address),
    (IPInterface, ip_interface),
    (IPNetwork, ip_network),
)


@cache
def _converter(*, strict: bool) -> JsonConverter:
    converter = make_converter(forbid_extra_keys=strict)
    for kind, make in _ADDRESSES:
        # To cattrs `IPAddress | None` is a union of three, and has nothing to do with IPAddress.
        for union, or_none in ((kind, False), (kind | None, True)):
            converter.register_structure_hook(union, _address(make, or_none=or_none))
            converter.register_unstructure_hook(union, _text_or_none)
        for one in get_args(kind):
            converter.register_unstructure_hook(one, str)
    for union in (Endpoint, Endpoint | None):
        converter.register_structure_hook(union, _or_none(_endpoint))
        converter.register_unstructure_hook(union, _text_or_none)
    for plain in (int, str, bool):
        converter.register_structure_hook(plain, _strictly(plain))
    converter.register_structure_hook(float, _strictly(float, int))
    # IPVS has methods that are none of ours (local, bypass): those stay text.
    ours = frozenset(map(str, ForwardingMethod))
    # By a function: a hook of the union itself comes after what JSON's converter has for unions.
    converter.register_structure_hook_func(
        lambda kind: kind == ForwardingMethod | str,
        lambda value, _: ForwardingMethod(value) if value in ours else str(value),
    )
    converter.register_unstructure_hook(ForwardingMethod | str, str)
    converter.register_unstructure_hook(Path, str)
    converter.register_unstructure_hook_factory(_has_format, _unstructure_fn(converter))
    converter.register_structure_hook_factory(_has_format, _structure_fn(converter, strict=strict))
    converter.register_unstructure_hook(Frame, write_frame)
    converter.register_structure_hook(
        ServiceMatch, lambda value, _: read_match(converter.structure(value, WrittenMatch))
    )
    converter.register_unstructure_hook(
        ServiceMatch, lambda match: converter.unstructure(written_match(match))
    )
    converter.register_structure_hook(Frame, read_frame)
    converter.register_structure_hook(Fault, lambda value, _: FAULTS[value["id"]])
    converter.register_unstructure_hook_func(
        _is_resource, lambda one: converter.unstructure(planned_resource(one))
    )
    return converter


def _has_format(kind: Any) -> bool:
    return is_named_tuple(kind) or (dataclasses.is_dataclass(kind) and isinstance(kind, type))


def _is_resource(kind: Any) -> bool:
    return kind is Resource or (isinstance(kind, type) and issubclass(kind, Resource))


def _reading(conversion: Conversion, converter: JsonConverter) -> Callable[[Any, Any], Any]:
    return lambda value, _: conversion.read(converter.structure(value, conversion.type))


def _overrides(kind: type, converter: JsonConverter) -> dict[str, Any]:
    form = format_of(kind)
    found: dict[str, Any] = {}
    for name in form.omit:
        found[name] = override(omit=True)
    for name in fields_of(kind):
        if name in form.convert:
            conversion = form.convert[name]
            found[name] = override(
                rename=form.key(name),
                unstruct_hook=conversion.write,
                struct_hook=_reading(conversion, converter),
            )
        elif form.key(name) != name:
            found[name] = override(rename=form.key(name))
    return found


def _unstructure_fn(converter: JsonConverter) -> Callable[[type], Callable[[Any], Json]]:
    def factory(kind: type) -> Callable[[Any], Json]:
        form = format_of(kind)
        # To cattrs' own hooks a NamedTuple is a tuple, and an array in JSON.
        make = (
            namedtuple_dict_unstructure_factory
            if is_named_tuple(kind)
            else make_dict_unstructure_fn
        )
        plain: Callable[[Any], Json] = make(kind, converter, **_overrides(kind, converter))

        def unstructure(value: Any) -> Json:
            found: Json = {}
            for key, part in plain(value).items():
                found |= part if key in form.flatten else {key: part}
            for key in form.derive:
                found[key] = converter.unstructure(form.derived(key, value))
            return found

        return unstructure

    return factory


def _structure_fn(
    converter: JsonConverter, *, strict: bool
) -> Callable[[type], Callable[[Any, Any], Any]]:
    def factory(kind: type) -> Callable[[Any, Any], Any]:
        form, hints = format_of(kind), types_of(kind)
        changed = _overrides(kind, converter)
        plain: Callable[[Any, Any], Any] = (
            namedtuple_dict_structure_factory(kind, converter, "from_converter", strict, **changed)
            if is_named_tuple(kind)
            else make_dict_structure_fn(
                kind, converter, _cattrs_forbid_extra_keys=strict, **changed
            )
        )
        inner = {name: keys_of(hints[name]) for name in form.flatten}

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise ValueError(f"an object expected, found {value!r:.40}")
            if inner or form.derive:
                value = {key: part for key, part in value.items() if key not in form.derive}
                for name, keys in inner.items():
                    value[name] = {key: value.pop(key) for key in keys if key in value}
            return plain(value, kind)

        return structure

    return factory
