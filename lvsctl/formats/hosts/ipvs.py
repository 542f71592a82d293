"""A host's IPVS table: /proc/net/ip_vs, which anyone may read, and what ``ipvsadm -S`` adds.

Sources: net/netfilter/ipvs/ip_vs_ctl.c (ip_vs_info_seq_show); ipvsadm(8).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

from lvsctl.formats.hosts.values import Unreadable, address, number
from lvsctl.model.addresses import IPAddress
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    FwMark,
    IpvsTimeouts,
    Protocol,
    ServiceMatch,
    VipPort,
)
from lvsctl.model.state import RealServerState, ServiceState

_METHODS: dict[str, ForwardingMethod | str] = {
    "Masq": ForwardingMethod.NAT,
    "Tunnel": ForwardingMethod.TUN,
    "Route": ForwardingMethod.DR,
    "Local": "local",
    "Bypass": "bypass",
}
_PROTOCOLS = {str(protocol).upper(): protocol for protocol in Protocol}
_OPTIONS = {"-t": Protocol.TCP, "-u": Protocol.UDP, "--sctp-service": Protocol.SCTP}


@dataclass(slots=True)
class _Service:
    match: VipPort | int
    """Of a firewall mark its number: the table does not say for which IP version."""
    scheduler: str
    persistence: int
    netmask: int
    flags: list[str]
    servers: list[RealServerState]


def table(text: str) -> tuple[ServiceState, ...]:
    """Read /proc/net/ip_vs: thresholds, tunnels' types and schedulers' flags are not in it."""
    found: list[_Service] = []
    for line in text.split("\n"):
        words = line.split()
        if words[:1] == ["->"]:
            if words[1:2] == ["RemoteAddress:Port"]:
                continue
            if not found:
                raise Unreadable("a real server without a service")
            found[-1].servers.append(_server(words))
        elif words and (words[0] in _PROTOCOLS or words[0] == "FWM"):
            found.append(_service(words))
        elif words and words[0] not in ("IP", "Prot"):
            raise Unreadable(f"not a line of IPVS's table: {line[:60]!r}")
    return tuple(
        ServiceState(
            one.match if isinstance(one.match, VipPort) else FwMark(one.match, _version(one)),
            one.scheduler,
            one.persistence,
            tuple(one.servers),
            flags=tuple(one.flags),
            netmask=one.netmask,
        )
        for one in found
    )


def _version(service: _Service) -> int:
    return next((server.rip.version for server in service.servers), 4)


def _service(words: list[str]) -> _Service:
    if len(words) < 3:
        raise Unreadable("a service without a scheduler")
    match: VipPort | int
    if words[0] == "FWM":
        match = number(words[1], 16)
        bits = 32
    else:
        vip, port = _endpoint(words[1])
        match, bits = VipPort(_PROTOCOLS[words[0]], vip, port), vip.max_prefixlen
    persistence, netmask = 0, 0
    if "persistent" in words[:-2]:
        after = words.index("persistent")
        persistence = number(words[after + 1])
        netmask = _mask(number(words[after + 2], 16), bits)
    flags = ["ops"] if "ops" in words else []
    return _Service(match, words[2], persistence, netmask, flags, [])


def _mask(value: int, bits: int) -> int:
    """The bits of a netmask (0: all of them). Of IPv6 it is a length, printed byte-swapped."""
    if value >= 1 << 32:
        raise Unreadable(f"not a netmask: {value:x}")
    length = value
    if bits == 32:
        length = value.bit_count()
    elif value > bits:
        length = int.from_bytes(value.to_bytes(4), "little")
    return 0 if length == bits else length


def _endpoint(text: str) -> tuple[IPAddress, int]:
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]{2,45})\]|([0-9A-F]{8})):([0-9A-F]{4})", text)
    if found is None:
        raise Unreadable(f"not an address of IPVS's table: {text[:60]!r}")
    if found[2]:
        return IPv4Address(int(found[2], 16)), int(found[3], 16)
    return address(found[1]), int(found[3], 16)


def _server(words: list[str]) -> RealServerState:
    if len(words) != 6 or words[2] not in _METHODS:
        raise Unreadable(f"not a real server of IPVS's table: {' '.join(words)[:60]!r}")
    rip, port = _endpoint(words[1])
    weight, active, inactive = map(number, words[3:])
    return RealServerState(rip, port, _METHODS[words[2]], weight, 0, 0, active, inactive)


class _Rule(NamedTuple):
    options: dict[str, str]

    def match(self) -> ServiceMatch | None:
        """The service that a rule is about."""
        for option, protocol in _OPTIONS.items():
            if option in self.options:
                return VipPort(protocol, *typed_endpoint(self.options[option]))
        if "-f" in self.options:
            return FwMark(number(self.options["-f"]), 6 if "-6" in self.options else 4)
        return None


def typed_endpoint(text: str) -> tuple[IPAddress, int]:
    """Return the address and port that ipvsadm prints. Raises Unreadable."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})", text)
    if found is None:
        raise Unreadable(f"not an address of a rule: {text[:60]!r}")
    return address(found[1] or found[2]), int(found[3])


def with_rules(services: tuple[ServiceState, ...], text: str) -> tuple[ServiceState, ...]:
    """Add to ``services`` what ``ipvsadm -S -n`` says beyond the table."""
    rules = [rule for line in text.split("\n") if (rule := _rule(line)) is not None]
    adding = {rule.match(): rule for rule in rules if "-A" in rule.options}
    servers = {
        (rule.match(), *typed_endpoint(rule.options.get("-r", ""))): rule
        for rule in rules
        if "-a" in rule.options
    }
    found = []
    for service in services:
        match = service.match
        if isinstance(match, FwMark) and not service.real_servers and match not in adding:
            match = FwMark(match.mark, 6)
        own = adding.get(match, _Rule({})).options
        flags = [flag for flag in own.get("-b", "").split(",") if flag]
        if "-o" in own:
            flags.append("ops")
        found.append(
            service._replace(
                match=match,
                flags=tuple(_plain(flag) for flag in flags) if own else service.flags,
                real_servers=tuple(
                    _completed(one, servers.get((match, one.rip, one.port)))
                    for one in service.real_servers
                ),
            )
        )
    return tuple(found)


_NAMES = {"fallback": "flag-1", "port": "flag-2"}


def _plain(flag: str) -> str:
    """A flag as the kernel numbers it: ``flag-1`` for ``sh-fallback``."""
    scheduler, _, name = flag.partition("-")
    return _NAMES.get(name, flag) if scheduler in ("sh", "mh") else flag


def _completed(server: RealServerState, rule: _Rule | None) -> RealServerState:
    if rule is None:
        return server
    kind = rule.options.get("--tun-type", "ipip")
    if kind not in list(Encapsulation):
        raise Unreadable(f"not a type of tunnel: {kind[:60]!r}")
    return server._replace(
        upper=number(rule.options.get("-x", "0")),
        lower=number(rule.options.get("-y", "0")),
        encapsulation=Encapsulation(kind),
        tunnel_port=number(rule.options.get("--tun-port", "0")),
    )


def _rule(line: str) -> _Rule | None:
    """The options of a line; what has no value is empty."""
    try:
        words = shlex.split(line)
    except ValueError:
        raise Unreadable(f"not a rule: {line[:60]!r}") from None
    options: dict[str, str] = {}
    for position, word in enumerate(words):
        if word.startswith("-"):
            following = words[position + 1 : position + 2]
            value = following[0] if following and not following[0].startswith("-") else ""
            options[word] = value
    return _Rule(options) if options else None


def timeouts(text: str) -> IpvsTimeouts | None:
    """Read ``ipvsadm -L --timeout``; None where it says nothing."""
    found = re.search(r"Timeout \(tcp tcpfin udp\): ([0-9]{1,9}) ([0-9]{1,9}) ([0-9]{1,9})", text)
    return IpvsTimeouts(int(found[1]), int(found[2]), int(found[3])) if found else None
