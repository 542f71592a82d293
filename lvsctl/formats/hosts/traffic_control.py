"""Queueing disciplines and filters of traffic control, as tc(8) prints them (``-j``: JSON)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from lvsctl.formats.hosts.values import (
    Object,
    Unreadable,
    number_of,
    object_of,
    objects,
    objects_of,
    text_of,
)
from lvsctl.model.lab import Impairment
from lvsctl.model.ruleset import (
    Action,
    Chain,
    Condition,
    Field,
    Hook,
    PacketRule,
    Span,
    Value,
    Verb,
)
from lvsctl.model.state import QdiscState

_SHAPES = ("netem", "tbf")
"""Disciplines that lose, delay or limit; others only order what waits."""


def qdiscs(text: str) -> Iterator[QdiscState]:
    """Read ``tc -s -j qdisc show`` for what impairs frames at a device's root."""
    for one in objects(text):
        kind = text_of(one, "kind")
        if kind not in _SHAPES or one.get("root") is not True:
            continue
        yield QdiscState(
            text_of(one, "dev"),
            kind,
            text_of(one, "handle"),
            "root",
            tuple(_options(kind, object_of(one, "options"))),
            number_of(one, "drops"),
        )


def _options(kind: str, options: Object) -> Iterator[str]:
    """What a rule looks for that an ``Impairment`` does not hold."""
    if kind == "tbf" and (rate := number_of(options, "rate")):
        yield f"rate {rate * 8}bit"
    if any(name in options for name in ("loss-state", "loss-gemodel")):
        yield "loss by a model"


def impairments(text: str) -> Mapping[str, Impairment]:
    """Return what netem does at each device's root, by device."""
    found = {}
    for one in objects(text):
        if text_of(one, "kind") == "netem" and one.get("root") is True:
            found[text_of(one, "dev")] = _impairment(object_of(one, "options"))
    return found


def _impairment(options: Object) -> Impairment:
    def value(outer: str, inner: str, scale: float) -> float:
        number = object_of(options, outer).get(inner, 0)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise Unreadable(f"{inner} is not a number")
        return round(number * scale, 6)

    return Impairment(
        delay=value("delay", "delay", 1000),
        jitter=value("delay", "jitter", 1000),
        loss=value("loss-random", "loss", 100),
        duplicate=value("duplicate", "duplicate", 100),
        reorder=value("reorder", "reorder", 100),
        corrupt=value("corrupt", "corrupt", 100),
        rate=int(value("rate", "rate", 8)),
    )


# ── filters ──────────────────────────────────────────────────────────────────────────────────

_SIDES = {"ingress": Hook.INGRESS, "egress": Hook.EGRESS}
_VERSIONS = {"ip": "4", "ipv6": "6"}


def chains(text: str) -> Iterator[Chain]:
    """Read lines ``DEVICE SIDE`` and what ``tc -j filter show`` says there. Raises Unreadable."""
    for device, side, filters in _listed(text):
        rules = [
            rule
            for one in _filters(filters)
            if "options" in one and (rule := _rule(one, device, side)) is not None
        ]
        if rules:
            yield Chain(f"tc {device}", side, tuple(rules), _SIDES[side])


def _listed(text: str) -> Iterator[tuple[str, str, str]]:
    """A device, a side of it, and the JSON of its filters, which may go over several lines."""
    device, side, lines = "", "", list[str]()
    for line in filter(None, text.split("\n")):
        if found := re.fullmatch(r"(\S{1,15}) (ingress|egress) (\[.*)", line):
            if device:
                yield device, side, "\n".join(lines)
            device, side, lines = found[1], found[2], [found[3]]
        elif device:
            lines.append(line)
        else:
            raise Unreadable(f"not filters of a device: {line[:60]!r}")
    if device:
        yield device, side, "\n".join(lines)


def _filters(text: str) -> list[Object]:
    """Filters; ``matches`` are all keys of u32, each of which JSON calls ``match``."""

    def together(pairs: list[tuple[str, Any]]) -> Object:
        every = [value for key, value in pairs if key == "match"]
        return dict(pairs) | ({"matches": every} if every else {})

    try:
        found = json.loads(text, object_pairs_hook=together)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {str(error)[:80]}") from None
    return objects_of({"": found}, "")


def _rule(one: Object, device: str, side: str) -> PacketRule | None:
    """A filter: one that matches ends the search, unless an action of it says ``continue``."""
    options, kind = object_of(one, "options"), text_of(one, "kind")
    if kind == "u32" and "matches" not in options and "actions" not in options:
        return None  # a table of hashes
    protocol = text_of(one, "protocol")
    place = Field.ARRIVES if side == "ingress" else Field.LEAVES
    conditions = [Condition(place, (device,))]
    if protocol in _VERSIONS:
        conditions.append(Condition(Field.VERSION, (_VERSIONS[protocol],)))
    elif protocol != "all":
        return None  # of ARP, a VLAN …
    words: list[str] = []
    if kind == "flower":
        for name, value in object_of(options, "keys").items():
            conditions += _flower(name, value)
            words.append(f"{name} {value}")
    elif kind == "u32":
        for key in objects_of(options, "matches"):
            conditions += _u32(key, protocol)
            words.append(f"match {text_of(key, 'value')}/{text_of(key, 'mask')} "
                         f"at {number_of(key, 'off')}")  # fmt: skip
    elif kind != "matchall":
        conditions.append(Condition(Field.UNKNOWN))
    actions = [action for each in objects_of(options, "actions") for action in _actions(each)]
    does = " ".join(_said(each) for each in objects_of(options, "actions"))
    preference = number_of(one, "pref")
    text = " ".join((f"tc filter dev {device} {side} pref {preference} {kind}", *words, does))
    return PacketRule(
        text if text.isprintable() else repr(text)[1:-1],
        tuple(conditions),
        (*actions, Action(Verb.ACCEPT)),
        ("tc", "filter", "del", "dev", device, side, "pref", str(preference)),
    )


def _actions(each: Object) -> Iterator[Action]:
    kind = text_of(each, "kind")
    control = text_of(object_of(each, "control_action"), "type")
    if kind == "skbedit" and "mark" in each:
        yield Action(Verb.MARK, number=number_of(each, "mark"))
    elif kind not in ("gact", "skbedit", "pedit", "csum", "connmark", "ctinfo"):
        yield Action(Verb.UNKNOWN)
    if object_of(each, "prob").get("random_type", "none") != "none":
        yield Action(Verb.UNKNOWN)
    elif control in ("drop", "shot"):
        yield Action(Verb.DROP)
    elif control in ("continue", "reclassify", "jump", "goto", "trap", "stolen"):
        yield Action(Verb.UNKNOWN)


def _said(each: Object) -> str:
    kind = text_of(each, "kind")
    control = text_of(object_of(each, "control_action"), "type")
    mark = f" mark {number_of(each, 'mark')}" if "mark" in each else ""
    return f"action {control}" if kind == "gact" else f"action {kind}{mark}"


def _flower(name: str, value: Any) -> Iterator[Condition]:
    if name == "eth_type":
        return
    if name == "ip_proto":
        yield Condition(Field.PROTOCOL, (str(value),))
    elif name in ("src_ip", "dst_ip"):
        field = Field.SOURCE if name == "src_ip" else Field.DESTINATION
        yield Condition(field, (_span(str(value)),))
    elif name in ("src_port", "dst_port") and (ports := _ports(value)) is not None:
        field = Field.SOURCE_PORT if name == "src_port" else Field.DESTINATION_PORT
        yield Condition(field, (ports,))
    else:
        yield Condition(Field.UNKNOWN)


def _span(text: str) -> Span:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise Unreadable(f"not an address of a filter: {text[:60]!r}") from None
    ends = network.network_address, network.broadcast_address
    return Span(int(ends[0]), int(ends[1]), network.version)


def _ports(value: Any) -> Span | None:
    if isinstance(value, dict):
        value = f"{value.get('start')}-{value.get('end')}"
    found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", str(value))
    return Span(int(found[1]), int(found[2] or found[1])) if found else None


_NEXT = {"ip": (8, 0xFF0000, 16), "ipv6": (4, 0xFF00, 8)}
"""Where u32 finds the number of the protocol: offset, mask, and bits to the right of it."""


def _u32(key: Object, protocol: str) -> Iterator[Condition]:
    """A word of the packet, as far as it is the header that it usually is (no options)."""
    try:
        value, mask = int(text_of(key, "value"), 16), int(text_of(key, "mask"), 16)
    except ValueError:
        raise Unreadable("a key of u32 is not a number") from None
    offset = number_of(key, "off")
    if not mask:
        return
    if text_of(key, "offmask") or protocol not in _NEXT:
        yield Condition(Field.UNKNOWN)
        return
    place, covers, shift = _NEXT[protocol]
    fields = {12: Field.SOURCE, 16: Field.DESTINATION}
    if (offset, mask) == (place, covers):
        yield Condition(Field.PROTOCOL, (str(value >> shift),))
    elif protocol == "ip" and offset in fields and (span := _masked(value, mask)) is not None:
        yield Condition(fields[offset], (span,))
    elif protocol == "ip" and offset == 20 and mask in (0xFFFF, 0xFFFF0000):
        field = Field.DESTINATION_PORT if mask == 0xFFFF else Field.SOURCE_PORT
        port = value & 0xFFFF if mask == 0xFFFF else value >> 16
        yield Condition(field, (Span(port, port),))
    else:
        yield Condition(Field.UNKNOWN)


def _masked(value: int, mask: int) -> Value | None:
    """The addresses that a contiguous mask leaves."""
    rest = ~mask & 0xFFFFFFFF
    return Span(value, value | rest, 4) if not rest & (rest + 1) else None
