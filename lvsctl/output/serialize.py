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
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.preconf.json import JsonConverter, make_converter

from lvsctl.capture.decode import decode
from lvsctl.faults import FAULTS
from lvsctl.faults.base import Fault
from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.exchange import Endpoint
from lvsctl.model.frame import Direction, Frame, LinkType, RawFrame, Tap
from lvsctl.model.lab import Lab
from lvsctl.model.service import ForwardingMethod
from lvsctl.resources.base import Resource

VERSION = 2
Json = dict[str, Any]
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
    token = _lab.set(lab)
    try:
        return _converter(strict=False).structure(value, kind)
    finally:
        _lab.reset(token)


def unstructure(value: object) -> Any:
    """Convert a value to JSON, without a version."""
    return _converter(strict=True).unstructure(value)


def structure_strictly(value: object, kind: type[T]) -> T:
    """Convert JSON to a value; unknown keys and wrong types raise cattrs' errors."""
    return _converter(strict=True).structure(value, kind)


_lab: ContextVar[Lab | None] = ContextVar("lab", default=None)
"""The lab of the result that is being read: results name it."""


# What differs between a type and its JSON object.


@dataclass(frozen=True, slots=True)
class Conversion:
    """How a field is written as ``type``, and read from it."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    type: Any


@dataclass(frozen=True, slots=True)
class Format:
    """How the JSON object of a type differs from its fields.

    ``rename`` maps fields to keys. ``omit`` are fields without a key. The keys of ``flatten``
    fields stand in the object itself. ``derive`` are further keys, computed by an attribute,
    a method or a function, and ignored on reading. ``convert`` are fields of another type.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    omit: tuple[str, ...] = ()
    flatten: tuple[str, ...] = ()
    derive: Mapping[str, str | Callable[[Any], Any]] = field(default_factory=dict)
    convert: Mapping[str, Conversion] = field(default_factory=dict)

    def key(self, name: str) -> str:
        """The key of a field."""
        return self.rename.get(name, _RENAMED.get(name, name))

    def derived(self, key: str, value: object) -> Any:
        """The value of one of ``derive``."""
        source = self.derive[key]
        if callable(source):
            return source(value)
        found = getattr(value, source)
        return found() if callable(found) else found


_RENAMED = {"says": "text"}
"""Fields of any type."""


def _known_lab(_: object) -> Lab:
    lab = _lab.get()
    if lab is None:
        raise ValueError("the lab is not known")
    return lab


def _named_service(name: object) -> Any:
    for service in _known_lab(name).services:
        if service.name == name:
            return service
    raise ValueError(f"the lab has no service {name!r:.40}")


def _pair(value: tuple[str, str]) -> dict[str, str]:
    return {"fault": value[0], "node": value[1]}


def _time(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _listed_since(listed: Any) -> float | None:
    return listed.entry.started or None


def _able(kind: Any) -> bool:
    return not kind.obstacle


def _added(up: Any) -> tuple[PlannedResource, ...]:
    return tuple(_planned_resource(op, up.commands(op)) for op in up.added)


def _namespaces(lab: Lab) -> dict[str, str]:
    return {node.name: lab.netns(node.name) for node in lab.nodes}


_LAB = Conversion(lambda lab: lab.name, _known_lab, str)
_SERVICE = Conversion(lambda service: service.name, _named_service, str)
_FAULT = Conversion(lambda fault: fault.id, lambda name: FAULTS[name], str)
_TIME = Conversion(_time, _seconds, str)
_TENTHS = Conversion(lambda number: round(number, 1), float, float)
_MAPPING = Conversion(dict, lambda value: tuple(value.items()), dict[str, str])
_CAUSES = Conversion(
    lambda causes: [_pair(cause) for cause in causes],
    lambda causes: tuple((one["fault"], one["node"]) for one in causes),
    list[dict[str, str]],
)
_SERVICE_KEY = Format(flatten=("key",))

FORMATS: Mapping[str, Format] = {
    "Cell": Format(
        rename={"topology": "name"},
        flatten=("trial",),
        derive={"named_first": "named_first", "holds": "holds", "wrong": "wrong"},
        convert={"named": _CAUSES},
    ),
    "Claim": Format(rename={"unbroken": "unbreakable_because"}),
    "Column": Format(rename={"topology": "name"}, derive={"holds": "holds"}),
    "Diagnosis": Format(convert={"lab": _LAB}),
    "Dropped": Format(derive={"text": "text"}),
    "Entry": Format(
        rename={"lab": "name"}, omit=("topology", "overrides", "namespaces", "started")
    ),
    "Fault": Format(rename={"at": "roles"}, omit=("changes", "breaks_where")),
    "FaultListed": Format(flatten=("fault",)),
    "Features": Format(derive={"able": "able"}),
    "Finding": Format(rename={"frames": "evidence"}, flatten=("claim",)),
    "KindStatus": Format(derive={"able": _able}),
    "ChangeEvent": Format(rename={"when": "time"}, convert={"when": _TIME}),
    "Health": Format(derive={"healthy": "healthy", "text": "text"}, convert={"causes": _CAUSES}),
    "Hop": Format(
        rename={"sender": "from", "receivers": "to", "again": "repeats"},
        derive={"headers": "headers"},
    ),
    "Inspection": Format(convert={"lab": _LAB}),
    "Listed": Format(flatten=("entry",), derive={"started": _listed_since}),
    "Node": Format(convert={"sysctls": _MAPPING}),
    "Lab": Format(derive={"namespaces": _namespaces}),
    "NodeInspection": Format(flatten=("state",)),
    "Plan": Format(derive={"namespaces": "namespaces"}),
    "Proof": Format(derive={"proved": "holds", "unbroken": "unbroken"}, convert={"lab": _LAB}),
    "Rates": Format(
        rename={
            "connections": "connections_per_second",
            "bytes_in": "bytes_in_per_second",
            "bytes_out": "bytes_out_per_second",
            "received": "received_per_second",
            "sent": "sent_per_second",
        },
        convert=dict.fromkeys(
            ("connections", "bytes_in", "bytes_out", "received", "sent"), _TENTHS
        ),
    ),
    "ServerView": Format(rename={"entry": "ipvs"}, flatten=("rates",)),
    "ServiceState": _SERVICE_KEY,
    "ServiceView": Format(rename={"servers": "real_servers"}, flatten=("key", "rates")),
    "Trial": Format(derive={"as_predicted": "as_predicted"}, convert={"fault": _FAULT}),
    "Up": Format(omit=("added", "edited"), derive={"changed": "changed", "added": _added}),
    "Verification": Format(
        rename={"findings": "claims"},
        omit=("evidence",),
        derive={"verdict": "verdict"},
        convert={"lab": _LAB},
    ),
    "View": Format(
        rename={"when": "time", "changes": "events"},
        derive={"troubles": "troubles"},
        convert={"lab": _LAB, "when": _TIME},
    ),
    "VirtualService": _SERVICE_KEY,
    "Walk": Format(
        derive={"answered": "answered", "server": "server", "seconds": "seconds"},
        convert={"lab": _LAB, "service": _SERVICE},
    ),
}
"""By the type's name, so that nothing is imported for types that are not written."""


def format_of(kind: type) -> Format:
    """The format of a dataclass or NamedTuple."""
    return FORMATS.get(kind.__name__, Format())


def keys_of(kind: type) -> tuple[str, ...]:
    """The keys of a type's JSON object."""
    form, hints = format_of(kind), get_type_hints(kind)
    keys: list[str] = []
    for name in fields_of(kind):
        keys += keys_of(hints[name]) if name in form.flatten else [form.key(name)]
    return (*keys, *form.derive)


def fields_of(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass or NamedTuple that are written."""
    if _is_named_tuple(kind):
        names: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]  # of every NamedTuple
    else:
        names = tuple(one.name for one in fields(kind) if one.init)
    return tuple(name for name in names if name not in format_of(kind).omit)


# Types that are not objects with their own fields.


def _frame(frame: Frame) -> Json:
    """A captured frame: its number, time in nanoseconds since the epoch, bytes in hexadecimal."""
    raw = frame.raw
    return {
        "tap": str(raw.tap),
        "frame": frame.number,
        "direction": raw.direction.name.lower(),
        "time": raw.time,
        "summary": frame.summary(),
        "link": raw.link.name.lower(),
        "length": raw.length,
        "checksum_pending": raw.checksum_pending,
        "decapsulated": _is_decapsulated(frame),
        "data": raw.data.hex(),
    }


def _read_frame(value: Any, _: object) -> Frame:
    raw = RawFrame(
        time=value["time"],
        tap=Tap.parse(value["tap"]),
        direction=Direction[value["direction"].upper()],
        link=LinkType[value["link"].upper()],
        length=value["length"],
        data=bytes.fromhex(value["data"]),
        checksum_pending=value["checksum_pending"],
    )
    frame = decode(raw, value["frame"])
    if value["decapsulated"]:
        inner = replace(frame.packet, ips=frame.ips[-1:], tunnels=())
        frame = replace(frame, packet=inner)
    return frame


def _is_decapsulated(frame: Frame) -> bool:
    """Whether the outer headers, which a gre device still shows, are not part of the packet."""
    return frame.raw.link is LinkType.RAW and frame.outer is not None and frame.outer.at > 0


@dataclass(frozen=True, slots=True)
class PlannedResource:
    """A resource of a plan: its kind, its namespace, why it is needed, equivalent commands."""

    kind: str
    netns: str
    why: str
    commands: tuple[str, ...]


def _planned_resource(op: Resource, commands: tuple[str, ...] | None = None) -> PlannedResource:
    described = op.describe() if commands is None else commands
    return PlannedResource(type(op).__name__, op.netns, op.why, described)


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
    # A NamedTuple is a tuple to cattrs, which leaves its items as they are.
    for union in (Endpoint, Endpoint | None):
        converter.register_structure_hook(union, _or_none(_endpoint))
        converter.register_unstructure_hook(union, _text_or_none)
    for plain in (int, str, bool):
        converter.register_structure_hook(plain, _strictly(plain))
    converter.register_structure_hook(float, _strictly(float, int))
    # IPVS has methods that are none of ours (local, bypass): those stay text.
    ours = frozenset(map(str, ForwardingMethod))
    converter.register_structure_hook(
        ForwardingMethod | str,
        lambda value, _: ForwardingMethod(value) if value in ours else str(value),
    )
    converter.register_unstructure_hook(ForwardingMethod | str, str)
    converter.register_unstructure_hook(Path, str)
    converter.register_unstructure_hook_factory(_has_format, _unstructure_fn(converter))
    converter.register_structure_hook_factory(_has_format, _structure_fn(converter, strict=strict))
    converter.register_unstructure_hook_func(_is_named_tuple, _write_named_tuple(converter))
    converter.register_unstructure_hook(Frame, _frame)
    converter.register_structure_hook(Frame, _read_frame)
    converter.register_structure_hook(Fault, lambda value, _: FAULTS[value["id"]])
    converter.register_unstructure_hook_func(
        _is_resource, lambda op: converter.unstructure(_planned_resource(op))
    )
    return converter


def _has_format(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) and isinstance(kind, type)


def _is_named_tuple(kind: Any) -> bool:
    is_tuple = isinstance(kind, type) and issubclass(kind, tuple)
    return is_tuple and hasattr(kind, "_fields") and kind is not Endpoint


def _write_named_tuple(converter: JsonConverter) -> Callable[[Any], Json]:
    def unstructure(value: Any) -> Json:
        form = format_of(type(value))
        found = {
            form.key(name): converter.unstructure(getattr(value, name))
            for name in fields_of(type(value))
        }
        for key in form.derive:
            found[key] = converter.unstructure(form.derived(key, value))
        return found

    return unstructure


def _is_resource(kind: Any) -> bool:
    return kind is Resource or (isinstance(kind, type) and issubclass(kind, Resource))


def _reading(conversion: Conversion, converter: JsonConverter) -> Callable[[Any, Any], Any]:
    return lambda value, _: conversion.read(converter.structure(value, conversion.type))


def _overrides(kind: type, converter: JsonConverter) -> dict[str, Any]:
    form = format_of(kind)
    found: dict[str, Any] = {}
    for one in fields(kind):
        if one.name in form.omit:
            found[one.name] = override(omit=True)
        elif one.name in form.convert:
            conversion = form.convert[one.name]
            found[one.name] = override(
                rename=form.key(one.name),
                unstruct_hook=conversion.write,
                struct_hook=_reading(conversion, converter),
            )
        elif form.key(one.name) != one.name:
            found[one.name] = override(rename=form.key(one.name))
    return found


def _unstructure_fn(converter: JsonConverter) -> Callable[[type], Callable[[Any], Json]]:
    def factory(kind: type) -> Callable[[Any], Json]:
        form = format_of(kind)
        plain: Callable[[Any], Json] = make_dict_unstructure_fn(
            kind, converter, **_overrides(kind, converter)
        )

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
        form, hints = format_of(kind), get_type_hints(kind)
        plain: Callable[[Any, Any], Any] = make_dict_structure_fn(
            kind, converter, _cattrs_forbid_extra_keys=strict, **_overrides(kind, converter)
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
