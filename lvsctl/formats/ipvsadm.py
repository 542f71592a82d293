"""ipvsadm rules: the text of ``ipvsadm-save``, which ``ipvsadm -R`` takes, in and out.

Options as in ipvsadm(8), short or long. Lines may also be whole commands, as in scripts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from lvsctl.errors import choice_hint, quoted
from lvsctl.formats.configuration import (
    Configuration,
    Destination,
    Mark,
    Notes,
    Place,
    Service,
    in_order,
    is_flag,
    service_port,
    unknown_scheduler,
    unmapped,
)
from lvsctl.formats.keepalived.numbers import address, netmask_bits, number
from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Lab
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    IpvsTimeouts,
    Protocol,
    Scheduler,
    TunnelChecksum,
    VipPort,
)
from lvsctl.resources.base import Resource
from lvsctl.resources.ipvs_real_server import CHECKSUM_WORD, IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService

_LONG = {
    "--add-service": "-A",
    "--edit-service": "-E",
    "--add-server": "-a",
    "--edit-server": "-e",
    "--clear": "-C",
    "--tcp-service": "-t",
    "--udp-service": "-u",
    "--fwmark-service": "-f",
    "--scheduler": "-s",
    "--persistent": "-p",
    "--netmask": "-M",
    "--real-server": "-r",
    "--gatewaying": "-g",
    "--ipip": "-i",
    "--masquerading": "-m",
    "--weight": "-w",
    "--u-threshold": "-x",
    "--l-threshold": "-y",
    "--ops": "-o",
    "--sched-flags": "-b",
    "--ipv6": "-6",
    "--numeric": "-n",
    "--restore": "-R",
    "--zero": "-Z",
}
_WITH_VALUE = frozenset(
    (*("-t", "-u", "--sctp-service", "-f", "-s", "-M", "-r", "-w", "-x", "-y", "-b", "--pe"),)
) | {"--tun-type", "--tun-port"}
_ALONE = frozenset(("-A", "-E", "-a", "-e", "-C", "-g", "-i", "-m", "-o", "-6", "-n", "-R", "-Z"))
_CHECKSUMS = frozenset(("--tun-nocsum", "--tun-csum", "--tun-remcsum"))
_KNOWN = frozenset((*_LONG, *_WITH_VALUE, *_ALONE, *_CHECKSUMS, "-p", "--set", "--start-daemon"))
_METHODS = {"-g": ForwardingMethod.DR, "-i": ForwardingMethod.TUN, "-m": ForwardingMethod.NAT}
_PROTOCOLS = {"-t": Protocol.TCP, "-u": Protocol.UDP, "--sctp-service": Protocol.SCTP}
DEFAULT_PERSISTENCE = 360
"""Seconds, of -p without a timeout: what ipvsadm 1.31 sets, though ipvsadm(8) says 300."""

_NUMERIC = "numbers in place of names: ipvsadm-save -n"


class _Refused(Exception):
    """A line that cannot be read: a message and a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class _Entry(NamedTuple):
    """A service and its real servers, by address and port."""

    service: Service
    servers: dict[tuple[IPAddress, int], Destination]


class _Rule(NamedTuple):
    """The options of one line: short names where there is one; without a value, empty."""

    options: dict[str, str]
    place: Place


def read(text: str, source: str) -> Configuration:
    """Return what the rules say. Raises TopologyError with all their mistakes."""
    notes = Notes(source)
    services: dict[VipPort | Mark, _Entry] = {}
    timeouts = None
    for number_, line in enumerate(text.split("\n"), 1):
        place = Place(source, number_)
        try:
            words = _words(line)
            if words[:1] == ["--set"]:
                timeouts = _timeouts(words[1:])
            elif words[:1] in (["--start-daemon"], ["--stop-daemon"]):
                notes.remark(
                    place,
                    f"{words[0]}: it needs a second director (ha: {{sync: true}} of the directors)",
                )
            elif words:
                _take(_Rule(_options(words), place), services, notes)
        except _Refused as error:
            notes.wrong(place, str(error), error.hint)
    if not services:
        notes.wrong(Place(source, 1), "the file has no virtual service", "-A -t 10.0.0.1:80 -s rr")
    notes.raise_any()
    found = tuple(
        replace(one.service, destinations=tuple(one.servers.values())) for one in services.values()
    )
    return Configuration(source, "ipvsadm", found, timeouts=timeouts, remarks=notes.remarks)


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise _Refused(f"the line cannot be read: {error}", "close the quotation mark") from None
    while words and re.fullmatch(r"(.*/)?(ipvsadm|sudo)", words[0]):
        words = words[1:]
    return words


def _options(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    waiting = list(words)
    while waiting:
        word, equals, value = waiting.pop(0).partition("=")
        name = _LONG.get(word, word)
        if name in _WITH_VALUE:
            if not equals and not waiting:
                raise _Refused(f"{word} needs a value")
            found[name] = value if equals else waiting.pop(0)
        elif name == "-p":
            if not equals and waiting and not waiting[0].startswith("-"):
                value = waiting.pop(0)
            found[name] = value
        elif name in _ALONE or name in _CHECKSUMS:
            found[name] = ""
        elif re.fullmatch(r"-[a-zA-Z]{2,}", word) and not equals:  # letters together, as in -Sn
            waiting = [f"-{letter}" for letter in word[1:]] + waiting
        else:
            hint = choice_hint(word, sorted(_KNOWN), "options")
            raise _Refused(f"{quoted(word)} is not an option of a rule", hint)
    return found


def _timeouts(words: list[str]) -> IpvsTimeouts:
    values = [number(word, 0, 31 * 86400) for word in words]
    if len(values) != 3 or None in values:
        raise _Refused("--set needs three timeouts in seconds", "--set 900 120 300")
    usual = IpvsTimeouts()
    tcp, tcp_fin, udp = values
    return IpvsTimeouts(tcp or usual.tcp, tcp_fin or usual.tcp_fin, udp or usual.udp)


def _take(rule: _Rule, services: dict[VipPort | Mark, _Entry], notes: Notes) -> None:
    """Add what one line says to ``services``."""
    options = rule.options
    if "-C" in options:
        services.clear()
    elif options.keys() & {"-A", "-E"}:
        service = _service(rule)
        if service.match in services and "-A" in options:
            first = services[service.match].service.place
            raise _Refused(f"the service is in {first} already", "remove one of the two")
        before = services.get(service.match)
        services[service.match] = _Entry(service, {} if before is None else before.servers)
    elif options.keys() & {"-a", "-e"}:
        match = _match(options)
        if match not in services:
            raise _Refused("the service of this real server is not above it", "-A comes before -a")
        destination = _destination(rule, match, notes)
        servers = services[match].servers
        key = destination.rip, destination.port
        if key in servers and "-a" in options:
            message = f"{destination.rip} is a real server of this service already"
            raise _Refused(message, "remove one of the two")
        servers[key] = destination
    elif not options.keys() <= {"-n", "-R", "-Z"}:
        raise _Refused("the line is not a rule", "-A adds a service, -a a real server")


def _match(options: dict[str, str]) -> VipPort | Mark:
    for option, protocol in _PROTOCOLS.items():
        if option in options:
            vip, port = _endpoint(options[option])
            return VipPort(protocol, vip, port)
    if "-f" in options:
        mark = number(options["-f"], 1, (1 << 32) - 1)
        if mark is None:
            raise _Refused(f"{quoted(options['-f'])} is not a firewall mark", "a number above 0")
        return Mark(mark, 6 if "-6" in options else 4)
    raise _Refused("the line names no service", "-t, -u, --sctp-service or -f")


def _endpoint(text: str) -> tuple[IPAddress, int]:
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*))(?::([^:]*))?", text)
    host = text if found is None else found[1] or found[2] or ""
    port = None if found is None else found[3]
    vip = address(host)
    numeric = 0 if port is None else service_port(port)
    if vip is None or numeric is None:
        wrong = host if vip is None else str(port)
        what = "an IP address" if vip is None else "a port"
        raise _Refused(f"{quoted(wrong)} is not {what}", _NUMERIC)
    return vip, numeric


def _service(rule: _Rule) -> Service:
    options = rule.options
    match = _match(options)
    word = options.get("-s", "wlc")
    try:
        scheduler = Scheduler(word)
    except ValueError:
        raise _Refused(*unknown_scheduler(word)) from None
    persistence = 0
    if "-p" in options:
        given = number(options["-p"], 1, 31 * 86400) if options["-p"] else DEFAULT_PERSISTENCE
        if given is None:
            raise _Refused(f"{quoted(options['-p'])} is not a timeout", "seconds, at most 31 days")
        persistence = given
    flags = [flag for flag in options.get("-b", "").split(",") if flag]
    if unknown := next((flag for flag in flags if not is_flag(flag)), ""):
        hint = "flags: sh-port, sh-fallback, mh-port, mh-fallback, flag-1, flag-2, flag-3"
        raise _Refused(f"{quoted(unknown)} is not a flag of a scheduler", hint)
    if "-o" in options:
        flags.append("ops")
    if isinstance(match, VipPort) and not match.port and not persistence:
        raise _Refused("port 0 is for persistent services only", "add -p, or name a port")
    return Service(
        match,
        rule.place,
        scheduler,
        in_order(flags),
        persistence,
        _netmask(options["-M"], match) if "-M" in options and persistence else 0,
        options.get("--pe", "") if persistence else "",
    )


def _netmask(text: str, match: VipPort | Mark) -> int:
    bits = number(text, 1, 128) if match.version == 6 else netmask_bits(text)
    if bits is None:
        right = "a number of bits" if match.version == 6 else "such as 255.255.255.0"
        raise _Refused(f"{quoted(text)} is not a netmask", right)
    return 0 if bits == (128 if match.version == 6 else 32) else bits


def _destination(rule: _Rule, match: VipPort | Mark, notes: Notes) -> Destination:
    options = rule.options
    rip, port = _endpoint(options.get("-r", ""))
    method = next((m for o, m in _METHODS.items() if o in options), ForwardingMethod.DR)
    weight = number(options.get("-w", "1"), 0, 65535)
    limits = [number(options.get(option, "0"), 0, (1 << 32) - 1) for option in ("-x", "-y")]
    if weight is None or None in limits:
        raise _Refused("a weight or threshold is not a number", "-w 0 to 65535, -x and -y likewise")
    own_port = match.port if isinstance(match, VipPort) else 0
    if method is not ForwardingMethod.NAT:
        if port and own_port and port != own_port:
            option = next(o for o, m in _METHODS.items() if m is method)
            notes.remark(rule.place, unmapped(option, own_port, port))
        port = own_port
    encapsulation, tunnel_port, checksum = Encapsulation.IPIP, 0, TunnelChecksum.NONE
    if method is ForwardingMethod.TUN:
        word = options.get("--tun-type", "ipip")
        if word not in list(Encapsulation):
            hint = choice_hint(word, Encapsulation, "types")
            raise _Refused(f"{quoted(word)} is not a type of tunnel", hint)
        encapsulation = Encapsulation(word)
        tunnel_port = number(options.get("--tun-port", "0"), 0, 65535) or 0
        if encapsulation is not Encapsulation.IPIP:
            asked = (one for one, option in CHECKSUM_WORD.items() if option in options)
            checksum = next(asked, TunnelChecksum.NONE)
    return Destination(
        rip,
        port or own_port,
        rule.place,
        weight,
        limits[0] or 0,
        limits[1] or 0,
        method,
        encapsulation,
        tunnel_port,
        checksum,
    )


def is_rule(line: str) -> bool:
    """Return whether a line adds a virtual service."""
    return bool(re.match(r"\s*(\S*ipvsadm\s+)?(-A|--add-service|-Sn?|-a)\s+-", line))


def write(lab: Lab, resources: Iterable[Resource]) -> dict[str, str]:
    """Return the directors' rules, as ``ipvsadm -R`` takes them, by the file's name.

    One file where all directors have the same, as they must to take over from each other.
    """
    every = tuple(resources)
    found = {}
    for director in lab.directors:
        netns = lab.netns(director.name)
        lines = [
            " ".join(command.argv[1:])  # -R splits at blanks, without quotes (config_stream.c)
            for one in every
            if isinstance(one, IpvsService | IpvsRealServer) and one.netns == netns
            for command in one.commands()
        ]
        found[f"ipvsadm-{director.name}.rules"] = "\n".join(lines) + "\n"
    if len(set(found.values())) == 1:
        return {"ipvsadm.rules": next(iter(found.values()))}
    return found
