"""ldirectord.cf: the configuration of ldirectord (ldirectord(8)).

A line with ``virtual=`` begins a service; the lines after it that are indented by four blanks or a
tab belong to it. What ldirectord refuses (read_config in ldirectord) is a mistake here, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from lvsctl.errors import choice_hint, quoted
from lvsctl.formats.configuration import (
    MAX_DESTINATIONS,
    Configuration,
    Destination,
    Mark,
    Notes,
    Place,
    Service,
    service_port,
    unknown_scheduler,
    unmapped,
)
from lvsctl.formats.keepalived.numbers import address, address_range, netmask_bits, number
from lvsctl.model.addresses import IPAddress
from lvsctl.model.service import ForwardingMethod, Protocol, Scheduler, VipPort

_METHODS = {
    "gate": ForwardingMethod.DR,
    "masq": ForwardingMethod.NAT,
    "ipip": ForwardingMethod.TUN,
}
_HEALTH = "lvsctl does not check real servers"
_DAEMON = "it is about the daemon itself"
_ABOUT = {
    **dict.fromkeys(
        ("checktimeout", "negotiatetimeout", "checkinterval", "checkcount", "failurecount"), _HEALTH
    ),
    **dict.fromkeys(("quiescent", "readdquiescent", "checkintervalmin"), _HEALTH),
    **dict.fromkeys(("autoreload", "callback", "fallbackcommand", "logfile", "execute"), _DAEMON),
    **dict.fromkeys(("emailalert", "emailalertfrom", "emailalertfreq"), _DAEMON),
    **dict.fromkeys(("emailalertstatus", "smtp", "supervised", "fork", "cleanstop"), _DAEMON),
    "maintenancedir": _HEALTH,
}
"""Settings of the whole file that change nothing in IPVS while all real servers are up: why."""
_ABOUT_SERVICE = {
    **_ABOUT,
    **dict.fromkeys(("checktype", "service", "checkcommand", "checkport", "request"), _HEALTH),
    **dict.fromkeys(("receive", "httpmethod", "virtualhost", "login", "passwd"), _HEALTH),
    **dict.fromkeys(("database", "secret", "load", "checkhostname", "ping"), _HEALTH),
    "monitorfile": _DAEMON,
}
"""Those of a virtual service."""
_SERVICE = (
    *("real", "real6", "fallback", "fallback6", "scheduler", "persistent", "netmask", "protocol"),
    *("ops", *_ABOUT_SERVICE),
)
_FALLBACKS = {"fallback": 4, "fallback6": 6}
"""The keys of the server that is used while no real server is up, by the VIP's IP version."""
_DNS = 53
"""The port whose protocol is UDP unless the file says another."""


@dataclass(slots=True)
class _Entry:
    """A ``virtual=`` line and what follows it."""

    match: VipPort | Mark
    place: Place
    scheduler: Scheduler = Scheduler.WRR
    persistence: int = 0
    netmask: int = 0
    one_packet: bool = False
    fallback: tuple[str, Place] | None = None
    reals: list[tuple[str, Place]] = field(default_factory=list)


def read(text: str, source: str) -> Configuration:
    """Return what an ldirectord.cf says. Raises TopologyError with all its mistakes."""
    notes = Notes(source)
    lines = _Lines(notes)
    for count, raw in enumerate(text.split("\n"), 1):
        lines.take(raw, Place(source, count))
    for entry in lines.entries:
        common = lines.fallbacks.get(entry.match.version)
        if entry.fallback is not None or common is None:
            continue
        if isinstance(entry.match, Mark):
            notes.remark(entry.place, "the fallback of the whole file is not for firewall marks")
        else:
            entry.fallback = common
    services = tuple(_service(entry, notes) for entry in lines.entries)
    if not services:
        notes.wrong(Place(source, 1), "the file has no virtual service", "virtual=10.0.0.1:80")
    notes.raise_any()
    return Configuration(source, "ldirectord", services, remarks=notes.remarks)


class _Lines:
    """What the lines so far say."""

    def __init__(self, notes: Notes) -> None:
        self.entries: list[_Entry] = []
        self.fallbacks: dict[int, tuple[str, Place]] = {}
        """Those of the whole file, by the VIP's IP version."""
        self._notes = notes
        self._is_inside = False
        self._entry: _Entry | None = None
        """The service that indented lines belong to; None if its ``virtual=`` is wrong."""

    def take(self, raw: str, place: Place) -> None:
        """Read the next line."""
        if raw.lstrip().startswith("#"):
            return
        line = re.sub(r"(^|\s)#.*", "", raw).rstrip()
        if not line:
            self._is_inside = False
            return
        key, equals, value = (part.strip() for part in line.partition("="))
        is_indented = line[0] in " \t"
        if not equals and (is_indented or key != "supervised"):  # which may stand alone
            message = f"{quoted(line.strip())} is not a setting"
            self._notes.wrong(place, message, "a line is KEY = VALUE")
        elif is_indented:
            self._take_indented(line, key, value, place)
        elif key in ("virtual", "virtual6"):
            match = _match(value, key, place, self._notes)
            self._entry = None if match is None else _Entry(match, place)
            self.entries += [self._entry] if self._entry is not None else []
            self._is_inside = True
        elif key in _FALLBACKS:
            self.fallbacks[_FALLBACKS[key]] = value, place
        else:
            _note_global(key, place, self._notes)

    def _take_indented(self, line: str, key: str, value: str, place: Place) -> None:
        if not line.replace("\t", "    ").startswith("    "):
            message = f"{quoted(key)} is indented too little: ldirectord refuses it"
            self._notes.wrong(place, message, "indent it with a tab, or at least four blanks")
        elif not self._is_inside:
            message = f"{quoted(key)} belongs to no virtual service: ldirectord refuses it"
            hint = "remove the blank line above it, or, for the whole file, do not indent it"
            self._notes.wrong(place, message, hint)
        elif self._entry is not None:
            _read_setting(self._entry, key, value, place, self._notes)


def _note_global(key: str, place: Place, notes: Notes) -> None:
    if key in _ABOUT:
        notes.remark(place, f"{key}: {_ABOUT[key]}")
        return
    hint = choice_hint(key, sorted((*_ABOUT, *_FALLBACKS, "virtual", "virtual6")), "settings")
    notes.wrong(place, f"{quoted(key)} is not a setting of the whole file", hint)


def _match(value: str, key: str, place: Place, notes: Notes) -> VipPort | Mark | None:
    if (mark := number(value, 1, (1 << 32) - 1)) is not None:
        return Mark(mark, 6 if key == "virtual6" else 4)
    found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:]+)):([^:]+)", value)
    vip = None if found is None else address(found[1] or found[2])
    port = None if found is None else service_port(found[3])
    if vip is None or port is None:
        hint = "virtual=10.0.0.1:80, an address and a port in numbers, or a firewall mark"
        notes.wrong(place, f"{quoted(value)} is not an address and a port", hint)
        return None
    if not _is_of(vip.version, "virtual", key, place, notes):
        return None
    return VipPort(Protocol.UDP if port == _DNS else Protocol.TCP, vip, port)


def _split(text: str) -> tuple[str, int | None]:
    """Return the address and port of ``10.0.0.1:80`` or ``[fd00::1]:http``; no port is 0."""
    found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:]+))(?::([^:]+))?", text)
    if found is None:
        return text, 0 if address(text) is not None else None
    return found[1] or found[2], service_port(found[3] or "0")


def _read_setting(entry: _Entry, key: str, value: str, place: Place, notes: Notes) -> None:
    value = value.strip('"')
    match key:
        case "real" | "real6":
            if _is_of(entry.match.version, "real", key, place, notes):
                entry.reals.append((value, place))
        case "fallback" | "fallback6":
            if _is_of(entry.match.version, "fallback", key, place, notes):
                entry.fallback = value, place
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
        case _:
            _note_setting(key, value, place, notes)


def _note_setting(key: str, value: str, place: Place, notes: Notes) -> None:
    if (key, value) == ("checktype", "off"):
        text = "ldirectord activates no real server; the lab has all of them"
        notes.remark(place, f"checktype=off: {text}")
    elif key in _ABOUT_SERVICE:
        notes.remark(place, f"{key}: {_ABOUT_SERVICE[key]}")
    else:
        hint = choice_hint(key, sorted(_SERVICE), "settings")
        notes.wrong(place, f"{quoted(key)} is not a setting of a virtual service", hint)


def _is_of(version: int, name: str, key: str, place: Place, notes: Notes) -> bool:
    """Return whether a keyword is for the IP version: IPv6 has its own, with a 6."""
    right = f"{name}6" if version == 6 else name
    if key != right:
        notes.wrong(place, f"{key} is not for IPv{version}: ldirectord refuses it", f"{right} =")
    return key == right


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
    elif value in (Protocol.TCP, Protocol.UDP):
        entry.match = replace(entry.match, protocol=Protocol(value))
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
    return next(iter(_destinations(f"{where} {method}", entry, place, notes)), None)


def _destinations(text: str, entry: _Entry, place: Place, notes: Notes) -> list[Destination]:
    """Return the real servers of ``ADDRESS[->ADDRESS][:PORT] gate|masq|ipip [WEIGHT] …``."""
    words = text.split()
    place_words = re.fullmatch(r"(.+?)(?:->(.+?))?(?::([\w-]+))?", words[0]) if words else None
    method = _METHODS.get(words[1]) if len(words) > 1 else None
    if place_words is None or method is None:
        hint = "real=10.0.0.11:80 gate 1 (gate, masq or ipip)"
        notes.wrong(place, f"{quoted(text)} is not a real server", hint)
        return []
    host, port = _split(words[0] if place_words[2] is None else place_words[1])
    if place_words[2] is not None:
        host, port = f"{host}-{place_words[2]}", service_port(place_words[3] or "0")
    rips = address_range(host)
    weight = number(words[2], 0, 65535) if len(words) > 2 and words[2].isdecimal() else 1
    if isinstance(rips, str) or port is None or weight is None:
        message = rips if isinstance(rips, str) else f"{quoted(text)} is not a real server"
        notes.wrong(place, message, "real=10.0.0.11:80 gate 1")
        return []
    own_port = entry.match.port if isinstance(entry.match, VipPort) else 0
    if method is not ForwardingMethod.NAT and own_port:
        if port not in (0, own_port):
            notes.remark(place, unmapped(words[1], own_port, port))
        port = own_port
    return [Destination(rip, port or own_port, place, weight, forward=method) for rip in rips]
