"""How the JSON object of a type differs from its fields, and types without fields of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, get_type_hints

from lvsctl.capture.decode import decode
from lvsctl.faults import FAULTS
from lvsctl.model.addresses import Endpoint, IPAddress
from lvsctl.model.frame import Direction, Frame, LinkType, RawFrame, Tap
from lvsctl.model.lab import Lab
from lvsctl.model.packet import Gue
from lvsctl.model.service import GUE_PORT, FwMark, PortRange, Protocol, ServiceMatch, VipPort
from lvsctl.resources.base import Resource

Json = dict[str, Any]

_lab: ContextVar[Lab | None] = ContextVar("lab", default=None)


@contextmanager
def reading_about(lab: Lab | None) -> Iterator[None]:
    """Read results about ``lab``: their JSON contains its name and its services' names."""
    token = _lab.set(lab)
    try:
        yield
    finally:
        _lab.reset(token)


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
        return self.rename.get(name, name)

    def derived(self, key: str, value: object) -> Any:
        """The value of one of ``derive``."""
        source = self.derive[key]
        if callable(source):
            return source(value)
        found = getattr(value, source)
        return found() if callable(found) else found


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
    return tuple(planned_resource(op, up.commands(op)) for op in up.added)


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
_SERVICE_MATCH = Format(flatten=("match",))

FORMATS: Mapping[str, Format] = {
    "Cell": Format(
        flatten=("trial",),
        derive={"named_first": "named_first", "holds": "holds", "wrong": "wrong"},
        convert={"named": _CAUSES},
    ),
    "Check": Format(convert={"lab": _LAB}, derive={"healthy": "healthy"}),
    "CheckedHost": Format(derive={"judged": "judged"}),
    "Claim": Format(rename={"unbroken": "unbreakable_because"}),
    "Comparison": Format(derive={"holds": "holds"}),
    "Column": Format(rename={"topology": "name"}, derive={"holds": "holds"}),
    "Diagnosis": Format(convert={"lab": _LAB}),
    "Dropped": Format(derive={"text": "text"}),
    "Entry": Format(
        rename={"lab": "name"}, omit=("topology", "overrides", "namespaces", "started")
    ),
    "Fault": Format(rename={"at": "roles"}, omit=("changes", "breaks_where", "spares_where")),
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
    "Played": Format(derive={"verdict": "verdict"}),
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
    "Scale": Format(derive={"verdict": "verdict"}),
    "ScalePoint": Format(derive={"whole": "whole", "median": "middle"}),
    "ServerView": Format(rename={"entry": "ipvs"}, flatten=("rates",)),
    "ServiceState": _SERVICE_MATCH,
    "ServiceView": Format(rename={"servers": "real_servers"}, flatten=("match", "rates")),
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
    "VirtualService": _SERVICE_MATCH,
    "Walk": Format(
        derive={"answered": "answered", "server": "server", "seconds": "seconds"},
        convert={"lab": _LAB, "service": _SERVICE},
    ),
}
"""By the type's name, so that nothing is imported for types that are not written."""


def format_of(kind: type) -> Format:
    """The format of a dataclass or NamedTuple."""
    return FORMATS.get(kind.__name__, Format())


def types_of(kind: type) -> dict[str, Any]:
    """The types of a class's fields.

    A service's match is written as ``WrittenMatch``.
    """
    hints = get_type_hints(kind)
    return {name: WrittenMatch if hint == ServiceMatch else hint for name, hint in hints.items()}


def keys_of(kind: type) -> tuple[str, ...]:
    """The keys of a type's JSON object."""
    form, hints = format_of(kind), types_of(kind)
    keys: list[str] = []
    for name in fields_of(kind):
        keys += keys_of(hints[name]) if name in form.flatten else [form.key(name)]
    return (*keys, *form.derive)


def fields_of(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass or NamedTuple that are written."""
    if is_named_tuple(kind):
        names: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]  # of every NamedTuple
    else:
        names = tuple(one.name for one in fields(kind) if one.init)
    return tuple(name for name in names if name not in format_of(kind).omit)


# Types that are not objects with their own fields.


@dataclass(frozen=True, slots=True)
class WrittenMatch:
    """What names a virtual service: protocol, VIP and port, or a firewall mark (0: none).

    With a mark, ``protocol`` and ``vip`` are null, and ``ip_version`` is 4 or 6. ``endpoints`` are
    where lvsctl's requests are sent, ``ports`` those that are marked: with a mark, both are empty
    in states, because the kernel's table lacks them.
    """

    protocol: Protocol | None
    vip: IPAddress | None
    port: int
    mark: int = 0
    ip_version: int = 4
    endpoints: tuple[VipPort, ...] = ()
    ports: tuple[PortRange, ...] = ()


def written_match(match: ServiceMatch) -> WrittenMatch:
    """Return a service's match as it is written."""
    if isinstance(match, FwMark):
        return WrittenMatch(None, None, 0, match.mark, match.version, match.endpoints, match.ports)
    return WrittenMatch(match.protocol, match.vip, match.port, 0, match.version, match.endpoints)


def read_match(written: WrittenMatch) -> ServiceMatch:
    """Return a service's match as it was before it was written. Raises ValueError."""
    if written.mark:
        return FwMark(written.mark, written.ip_version, written.endpoints, written.ports)
    if written.protocol is None or written.vip is None:
        raise ValueError("neither a firewall mark nor a protocol, VIP and port")
    return VipPort(written.protocol, written.vip, written.port)


def write_frame(frame: Frame) -> Json:
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
        **_gue_port(frame),
    }


def _gue_port(frame: Frame) -> Json:
    """The UDP port by which a frame was decoded as GUE, unless it is the usual one."""
    ports = (one.dport for one in frame.packet.tunnels if isinstance(one, Gue))
    return next(({"gue_port": port} for port in ports if port != GUE_PORT), {})


def read_frame(value: Any, _: object) -> Frame:
    raw = RawFrame(
        time=value["time"],
        tap=Tap.parse(value["tap"]),
        direction=Direction[value["direction"].upper()],
        link=LinkType[value["link"].upper()],
        length=value["length"],
        data=bytes.fromhex(value["data"]),
        checksum_pending=value["checksum_pending"],
    )
    frame = decode(raw, value["frame"], gue_ports={value.get("gue_port", GUE_PORT)})
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


def planned_resource(
    resource: Resource, commands: tuple[str, ...] | None = None
) -> PlannedResource:
    described = resource.describe() if commands is None else commands
    return PlannedResource(type(resource).__name__, resource.netns, resource.why, described)


def is_named_tuple(kind: Any) -> bool:
    is_tuple = isinstance(kind, type) and issubclass(kind, tuple)
    return is_tuple and hasattr(kind, "_fields") and kind is not Endpoint
