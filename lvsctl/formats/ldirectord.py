"""ldirectord.cf: the configuration of ldirectord (ldirectord(8)).

Lines with ``virtual=`` begin a service; the indented lines after it belong to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lvsctl.errors import choice_hint, quoted
from lvsctl.formats.configuration import (
    MAX_DESTINATIONS,
    Configuration,
    Destination,
    Mark,
    Notes,
    Place,
    Service,
    port_mapping,
    unknown_scheduler,
)
from lvsctl.formats.keepalived.numbers import address, address_range, netmask_bits, number
from lvsctl.model.addresses import IPAddress
from lvsctl.model.service import ForwardingMethod, Protocol, Scheduler, VipPort

_METHODS = {
    "gate": ForwardingMethod.DR,
    "masq": ForwardingMethod.NAT,
    "ipip": ForwardingMethod.TUN,
}
_GLOBAL = frozenset(
    (
        *("checktimeout", "negotiatetimeout", "checkinterval", "checkcount", "failurecount"),
        *("autoreload", "callback", "fallback", "fallback6", "fallbackcommand", "logfile"),
        *("emailalert", "emailalertfrom", "emailalertfreq", "emailalertstatus", "smtp"),
        *("execute", "supervised", "fork", "quiescent", "readdquiescent", "cleanstop"),
        *("maintenancedir", "checkintervalmin"),
    )
)
_SERVICE = _GLOBAL | {
    *("real", "real6", "scheduler", "persistent", "netmask", "protocol", "checktype", "service"),
    *("checkcommand", "checkport", "request", "receive", "httpmethod", "virtualhost", "login"),
    *("passwd", "database", "secret", "load", "monitorfile", "ops", "checkhostname", "ping"),
}
_FALLBACKS = {"fallback": 4, "fallback6": 6}
"""The keys of the server that is used while no real server is up, by the VIP's IP version."""
_HEALTH = "lvsctl does not check real servers"


@dataclass(slots=True)
class _Entry:
    """A ``virtual=`` line and what follows it."""

    match: VipPort | Mark
    place: Place
    scheduler: Scheduler = Scheduler.WRR
    persistence: int = 0
    netmask: int = 0
    protocol: Protocol | None = None
    one_packet: bool = False
    fallback: tuple[str, Place] | None = None
    reals: list[tuple[str, Place]] = field(default_factory=list)


def read(text: str, source: str) -> Configuration:
    """Return what an ldirectord.cf says. Raises TopologyError with all its mistakes."""
    notes = Notes(source)
    entries: list[_Entry] = []
    inside: _Entry | None = None
    fallbacks: dict[int, tuple[str, Place]] = {}
    for count, raw in enumerate(text.split("\n"), 1):
        place = Place(source, count)
        line = re.sub(r"(^|\s)#.*", "", raw).rstrip()
        if not line.strip():
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            hint = "a line is KEY = VALUE"
            notes.wrong(place, f"{quoted(line.strip())} is not a setting", hint)
        elif key in ("virtual", "virtual6"):
            match = _match(value, key, place, notes)
            inside = None if match is None else _Entry(match, place)
            entries += [inside] if inside is not None else []
        elif line[0] in " \t":
            if inside is not None:
                _read_setting(inside, key, value, place, notes)
        elif key in _FALLBACKS:
            fallbacks[_FALLBACKS[key]] = value, place
        else:
            _note_global(key, place, notes)
    for entry in entries:
        entry.fallback = entry.fallback or fallbacks.get(entry.match.version)
    services = tuple(_service(entry, notes) for entry in entries)
    if not services:
        notes.wrong(Place(source, 1), "the file has no virtual service", "virtual=10.0.0.1:80")
    notes.raise_any()
    return Configuration(source, "ldirectord", services, remarks=notes.remarks)


def _note_global(key: str, place: Place, notes: Notes) -> None:
    if key in _GLOBAL:
        notes.remark(place, f"{key}: {_HEALTH}")
        return
    hint = choice_hint(key, sorted(_GLOBAL | {"virtual"}), "settings")
    notes.wrong(place, f"{quoted(key)} is not a setting of the whole file", hint)


def _match(value: str, key: str, place: Place, notes: Notes) -> VipPort | Mark | None:
    if (mark := number(value, 1, (1 << 32) - 1)) is not None:
        return Mark(mark, 6 if key == "virtual6" else 4)
    host, port = _split(value)
    vip = address(host)
    if vip is None or port is None:
        hint = "virtual=10.0.0.1:80 (numbers), or a firewall mark"
        notes.wrong(place, f"{quoted(value)} is not an address and a port", hint)
        return None
    return VipPort(Protocol.TCP, vip, port)


def _split(text: str) -> tuple[str, int | None]:
    """Return the address and port of ``10.0.0.1:80`` or ``[fd00::1]:80``; no port is 0."""
    found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:]+))(?::([^:]+))?", text)
    if found is None:
        return text, 0 if address(text) is not None else None
    return found[1] or found[2], number(found[3] or "0", 0, 65535)


def _read_setting(entry: _Entry, key: str, value: str, place: Place, notes: Notes) -> None:
    value = value.strip('"')
    match key:
        case "real" | "real6":
            entry.reals.append((value, place))
        case "scheduler":
            try:
                entry.scheduler = Scheduler(value)
            except ValueError:
                notes.wrong(place, *unknown_scheduler(value))
        case "persistent" | "netmask":
            _read_persistence(entry, key, value, place, notes)
        case "protocol":
            _read_protocol(entry, value, place, notes)
        case "ops":
            entry.one_packet = value == "yes"
        case one if one in _FALLBACKS:
            if _FALLBACKS[one] == entry.match.version:
                entry.fallback = value, place
        case known if known in _SERVICE:
            notes.remark(place, f"{key}: {_HEALTH}")
        case _:
            hint = choice_hint(key, sorted(_SERVICE), "settings")
            notes.wrong(place, f"{quoted(key)} is not a setting of a virtual service", hint)


def _read_persistence(entry: _Entry, key: str, value: str, place: Place, notes: Notes) -> None:
    if key == "persistent":
        seconds = number(value, 1, 31 * 86400)
        if seconds is None:
            notes.wrong(place, f"{quoted(value)} is not a timeout", "seconds")
        entry.persistence = seconds or 0
        return
    bits = netmask_bits(value) if "." in value else number(value, 1, 128)
    if bits is None:
        notes.wrong(place, f"{quoted(value)} is not a netmask", "such as 255.255.255.0")
    entry.netmask = bits or 0


def _read_protocol(entry: _Entry, value: str, place: Place, notes: Notes) -> None:
    if value == "fwm" or isinstance(entry.match, Mark):
        if (value == "fwm") is not isinstance(entry.match, Mark):
            notes.wrong(place, "fwm is for firewall marks, and only that", "tcp, udp or fwm")
    elif value in list(Protocol):
        entry.protocol = Protocol(value)
        entry.match = VipPort(entry.protocol, entry.match.vip, entry.match.port)
    else:
        notes.wrong(place, f"{quoted(value)} is not a protocol", "tcp, udp or fwm")


def _service(entry: _Entry, notes: Notes) -> Service:
    found: dict[tuple[IPAddress, int], Destination] = {}
    for text, place in entry.reals:
        for one in _destinations(text, entry, place, notes):
            found.setdefault((one.rip, one.port), one)
        if len(found) > MAX_DESTINATIONS:
            notes.wrong(place, f"these are more than {MAX_DESTINATIONS} real servers")
            break
    sorry = None if entry.fallback is None else _fallback(*entry.fallback, entry, notes)
    longest = 128 if entry.match.version == 6 else 32
    return Service(
        entry.match,
        entry.place,
        entry.scheduler,
        ("ops",) if entry.one_packet else (),
        entry.persistence,
        entry.netmask if entry.persistence and entry.netmask != longest else 0,
        destinations=tuple(found.values()),
        sorry=sorry,
    )


def _fallback(text: str, place: Place, entry: _Entry, notes: Notes) -> Destination | None:
    """Return the server of ``ADDRESS[:PORT] [gate|masq|ipip]``; ipvsadm's method is gate."""
    where, _, method = text.partition(" ")
    method = method.strip() or "gate"
    if method != "masq":  # which alone maps ports
        where = re.sub(r"^(\[[^\]]*\]|[^:]*):\d+$", r"\1", where)
    return next(iter(_destinations(f"{where} {method}", entry, place, notes)), None)


def _destinations(text: str, entry: _Entry, place: Place, notes: Notes) -> list[Destination]:
    """Return the real servers of ``ADDRESS[->ADDRESS][:PORT] gate|masq|ipip [WEIGHT] …``."""
    words = text.split()
    place_words = re.fullmatch(r"(.+?)(?:->(.+?))?(?::(\d+))?", words[0]) if words else None
    method = _METHODS.get(words[1]) if len(words) > 1 else None
    if place_words is None or method is None:
        hint = "real=10.0.0.11:80 gate 1 (gate, masq or ipip)"
        notes.wrong(place, f"{quoted(text)} is not a real server", hint)
        return []
    host, port = _split(words[0] if place_words[2] is None else place_words[1])
    if place_words[2] is not None:
        host, port = f"{host}-{place_words[2]}", int(place_words[3] or 0)
    rips = address_range(host)
    weight = number(words[2], 0, 65535) if len(words) > 2 and words[2].isdecimal() else 1
    if isinstance(rips, str) or port is None or weight is None:
        message = rips if isinstance(rips, str) else f"{quoted(text)} is not a real server"
        notes.wrong(place, message, "real=10.0.0.11:80 gate 1")
        return []
    service_port = entry.match.port if isinstance(entry.match, VipPort) else 0
    if method is not ForwardingMethod.NAT and port and service_port and port != service_port:
        notes.wrong(place, *port_mapping(method, service_port, port, words[1]))
        return []
    return [Destination(rip, port or service_port, place, weight, forward=method) for rip in rips]
