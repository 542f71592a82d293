"""What the virtual servers of keepalived.conf mean for IPVS.

As keepalived 2.2.7 reads them: the handlers in keepalived/check/check_parser.c, and the defaults
and corrections in validate_check_config (check_data.c). What keepalived corrects is carried over
as corrected, with a remark; what it refuses or cannot do is a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from lvsctl.errors import choice_hint, nearest, quoted
from lvsctl.formats.configuration import (
    MAX_DESTINATIONS,
    MAX_SERVICES,
    Destination,
    Mark,
    Notes,
    Place,
    Service,
    in_order,
    port_mapping,
    unknown_scheduler,
)
from lvsctl.formats.keepalived import keywords as k
from lvsctl.formats.keepalived.keywords import CHECKSUMS
from lvsctl.formats.keepalived.numbers import address, address_range, netmask_bits, number
from lvsctl.formats.keepalived.tree import Block
from lvsctl.model.addresses import IPAddress
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    Protocol,
    Scheduler,
    TunnelChecksum,
    VipPort,
)

_METHODS = {"NAT": ForwardingMethod.NAT, "DR": ForwardingMethod.DR, "TUN": ForwardingMethod.TUN}
_WORD_OF = {method: word for word, method in _METHODS.items()}
DEFAULT_PERSISTENCE = 360
"""Seconds (IPVS_SVC_PERSISTENT_TIMEOUT, keepalived/include/libipvs.h)."""
MAX_PERSISTENCE = 31 * 86400
MAX_U32 = (1 << 32) - 1

Match = VipPort | Mark


@dataclass(frozen=True, slots=True)
class _Forwarding:
    """The argument of lb_kind; ``method`` None: not given."""

    method: ForwardingMethod | None = None
    encapsulation: Encapsulation = Encapsulation.IPIP
    tunnel_port: int = 0
    checksum: TunnelChecksum = TunnelChecksum.NONE


@dataclass(slots=True)
class _Server:
    """A real or sorry server as far as its own block says."""

    rip: IPAddress
    port: int
    place: Place
    forwarding: _Forwarding
    weight: int | None = None
    upper: int = 0
    lower: int = 0
    checks: tuple[str, ...] = ()


class VirtualServer:
    """Reads one virtual_server block."""

    def __init__(self, block: Block, notes: Notes) -> None:
        self._block, self._notes = block, notes
        self.scheduler: Scheduler | None = None
        self.flags: dict[str, None] = {}
        self.forwarding = _Forwarding()
        self.protocol: Protocol | None = None
        self.family = 0
        self.persistence = self.netmask = 0
        self.engine = ""
        self.weight = 1
        self.servers: list[_Server] = []
        self.sorry: _Server | None = None
        self.sorry_inhibited = False
        self.is_group = block.arguments[:1] == ("group",)

    def _wrong(self, block: Block, message: str, hint: str = "") -> None:
        self._notes.wrong(block.place, message, hint)

    def _remark(self, block: Block, text: str) -> None:
        self._notes.remark(block.place, text)

    # ── reading the lines ────────────────────────────────────────────────────────────────────

    def read(self) -> None:
        """Read every line of the block, in order: some depend on what came before."""
        handlers: dict[str, Callable[[Block], None]] = {
            **dict.fromkeys(("lb_algo", "lvs_sched"), self._read_scheduler),
            **dict.fromkeys(("lb_kind", "lvs_method"), self._read_method),
            **dict.fromkeys((*k.SERVER_FLAGS, *k.SCHEDULER_FLAGS), self._read_flag),
            "protocol": self._read_protocol,
            "ip_family": self._read_family,
            "persistence_timeout": self._read_timeout,
            "persistence_granularity": self._read_granularity,
            "persistence_engine": self._read_engine,
            "weight": self._read_weight,
            "sorry_server": self._read_sorry,
            "sorry_server_inhibit": self._read_sorry_inhibit,
            "sorry_server_lvs_method": self._read_sorry_method,
            "real_server": self._read_real_server,
        }
        for child in self._block.children or ():
            if not self._is_known(child, k.VIRTUAL_SERVER, "virtual_server"):
                continue
            if child.keyword in handlers:
                handlers[child.keyword](child)
            else:
                self._remark(child, f"{child.keyword}: {k.ABOUT_HEALTH[child.keyword]}")

    def _is_known(self, block: Block, known: frozenset[str], where: str) -> bool:
        """Return whether the line is to be read; note what is wrong with it."""
        word = block.keyword
        if word in k.REMOVED:
            self._remark(block, f"{word}: {k.REMOVED[word]}")
            return False
        if word not in known:
            near = nearest(word, known)
            every = choice_hint(word, sorted(known), f"keywords in {where}")
            hint = f"did you mean {quoted(near[0])}?" if near else every
            self._wrong(block, f"{quoted(word)} is not a keyword in {where}", hint)
            return False
        if word in k.NEEDS_BLOCK and block.children is None:
            self._wrong(block, f"{word} has no block", f"{' '.join(block.words)} {{ … }}")
            return False
        if word not in k.NEEDS_BLOCK and block.children is not None:
            self._wrong(block, f"{word} takes no block", "remove the braces")
            return False
        lost = [one for one in block.arguments if one in k.LINES_OF_BLOCKS]
        if lost and word not in k.NEEDS_BLOCK:
            self._wrong(
                block,
                f"{quoted(lost[0])} is on the line of {word}: keepalived ignores it there",
                "write each keyword on a line of its own, also in a block on one line",
            )
            return False
        return True

    def _argument(self, block: Block) -> str:
        return block.arguments[0] if block.arguments else ""

    def _read_scheduler(self, block: Block) -> None:
        word = self._argument(block)
        try:
            self.scheduler = Scheduler(word)
        except ValueError:
            self._wrong(block, *unknown_scheduler(word))

    def _read_method(self, block: Block) -> None:
        if (found := self._forwarding(block)) is not None:
            self.forwarding = found

    def _forwarding(self, block: Block) -> _Forwarding | None:
        word, options = self._argument(block), list(block.arguments[1:])
        method = _METHODS.get(word)
        if method is None:
            near = choice_hint(word.upper(), _METHODS, "methods")
            self._wrong(block, f"{quoted(word)} is not a forwarding method", near)
            return None
        encapsulation, port, checksum = Encapsulation.IPIP, 0, TunnelChecksum.NONE
        while options:
            option = options.pop(0)
            value = options.pop(0) if option in ("type", "port") and options else ""
            if option == "type" and value in list(Encapsulation):
                encapsulation = Encapsulation(value)
            elif option == "port" and (given := number(value, 1, 65535)) is not None:
                port = given
            elif option in CHECKSUMS:
                checksum = CHECKSUMS[option]
            else:
                shown = f"{option} {value}".strip()
                hint = "options: type ipip|gre|gue, port PORT, csum, nocsum, remcsum"
                self._wrong(block, f"{quoted(shown)} is not an option of a tunnel", hint)
                return None
        if (encapsulation is Encapsulation.GUE) != bool(port):
            hint = "write: TUN type gue port 6080"
            self._wrong(block, "a gue tunnel needs a port, and only that has one", hint)
            return None
        if encapsulation is Encapsulation.IPIP:
            checksum = TunnelChecksum.NONE
        return _Forwarding(method, encapsulation, port, checksum)

    def _read_flag(self, block: Block) -> None:
        word = block.keyword
        name = word.partition("-")[0]
        if word in k.SCHEDULER_FLAGS and self.scheduler != name:
            hint = f"write lb_algo {name} in a line above it"
            self._wrong(block, f"{word} is for the scheduler {name} only", hint)
        else:
            self.flags[word] = None

    def _read_protocol(self, block: Block) -> None:
        word = self._argument(block)
        try:
            self.protocol = Protocol(word.lower())
        except ValueError:
            self._wrong(block, f"{quoted(word)} is not a protocol", "protocols: TCP, UDP, SCTP")

    def _read_family(self, block: Block) -> None:
        word = self._argument(block)
        family = {"inet": 4, "inet6": 6}.get(word)
        if family is None:
            self._wrong(block, f"{quoted(word)} is not a family", "ip_family inet or inet6")
        else:
            self.family = family

    def _read_timeout(self, block: Block) -> None:
        if not block.arguments:
            self.persistence = DEFAULT_PERSISTENCE
        elif (seconds := number(self._argument(block), 1, MAX_PERSISTENCE)) is not None:
            self.persistence = seconds
        else:
            hint = f"seconds, 1 to {MAX_PERSISTENCE}"
            self._wrong(block, f"{quoted(self._argument(block))} is not a timeout", hint)

    def _read_granularity(self, block: Block) -> None:
        word = self._argument(block)
        bits = netmask_bits(word) if "." in word else number(word, 1, 128)
        if bits is None:
            hint = "a netmask such as 255.255.255.0, or for IPv6 the number of bits"
            self._wrong(block, f"{quoted(word)} is not a granularity", hint)
            return
        self.netmask = bits
        self.persistence = self.persistence or DEFAULT_PERSISTENCE

    def _read_engine(self, block: Block) -> None:
        self.engine = self._argument(block)

    def _read_weight(self, block: Block) -> None:
        weight = self._weight(block, 1)
        self.weight = self.weight if weight is None else weight

    def _weight(self, block: Block, low: int) -> int | None:
        weight = number(self._argument(block), low, 65535)
        if weight is None:
            message = f"{quoted(self._argument(block))} is not a weight"
            self._wrong(block, message, f"a number from {low} to 65535")
        return weight

    # ── servers ──────────────────────────────────────────────────────────────────────────────

    def _server(self, block: Block) -> _Server | None:
        """Return the server that the line names, with the method so far."""
        words = (*block.arguments, "", "")
        rip = address(words[0])
        if rip is None:
            hint = f"such as {block.keyword} 10.0.0.11 80"
            self._wrong(block, f"{quoted(words[0])} is not an IP address", hint)
            return None
        port = number(words[1] or "0", 0, 65535)
        if port is None:
            self._wrong(block, f"{quoted(words[1])} is not a port", "a number up to 65535")
            return None
        return _Server(rip, port, block.place, self.forwarding)

    def _read_sorry(self, block: Block) -> None:
        self.sorry = self._server(block)

    def _read_sorry_inhibit(self, block: Block) -> None:
        if self.sorry is None:
            self._wrong(block, "there is no sorry_server above it", "write sorry_server first")
        self.sorry_inhibited = True

    def _read_sorry_method(self, block: Block) -> None:
        found = self._forwarding(block)
        if self.sorry is None:
            self._wrong(block, "there is no sorry_server above it", "write sorry_server first")
        elif found is not None:
            self.sorry.forwarding = found

    def _read_real_server(self, block: Block) -> None:
        server = self._server(block)
        if server is None:
            return
        for child in block.children or ():
            if not self._is_known(child, k.REAL_SERVER, "real_server"):
                continue
            match child.keyword:
                case "weight":
                    server.weight = self._weight(child, 0)
                case "lvs_method":
                    server.forwarding = self._forwarding(child) or server.forwarding
                case "uthreshold":
                    server.upper = self._threshold(child)
                case "lthreshold":
                    server.lower = self._threshold(child)
                case check if check in k.CHECKS:
                    server.checks += (check,)
                    self._remark(child, f"{check}: lvsctl does not check real servers")
                case word:
                    self._remark(child, f"{word}: {k.ABOUT_HEALTH[word]}")
        self.servers.append(server)

    def _threshold(self, block: Block) -> int:
        found = number(self._argument(block), 0, MAX_U32)
        if found is None:
            message = f"{quoted(self._argument(block))} is not a number of connections"
            self._wrong(block, message, f"a number up to {MAX_U32}")
        return found or 0

    # ── the whole ────────────────────────────────────────────────────────────────────────────

    def services(self, matches: list[Match]) -> Iterator[Service]:
        """Yield the service of each match, with keepalived's defaults and corrections."""
        block = self._block
        if not self.servers:
            self._remark(block, "it has no real servers: keepalived ignores it")
            return
        if self.scheduler is None:
            self._remark(block, "it has no lb_algo: keepalived takes wlc")
        if self.forwarding.method is None and any(
            server.forwarding.method is None for server in self.servers
        ):
            self._remark(block, "it has no lb_kind: keepalived takes NAT")
        marks = [match for match in matches if isinstance(match, Mark)]
        if marks and len(marks) == len(matches) and self.protocol is not None:
            self._remark(block, "protocol: keepalived ignores it with fwmark")
        for match in matches:
            yield self._service(match, self._distinct(match))

    def _service(self, match: Match, destinations: tuple[Destination, ...]) -> Service:
        persistence = self.persistence
        flags = dict(self.flags)
        if isinstance(match, VipPort):
            if not match.port and not persistence:
                self._remark(self._block, "port 0 needs persistence: keepalived takes 360 s")
                persistence = DEFAULT_PERSISTENCE
            if "ops" in flags and match.protocol is not Protocol.UDP:
                self._remark(self._block, "ops is for UDP only: keepalived ignores it")
                del flags["ops"]
        return Service(
            match,
            self._block.place,
            self.scheduler or Scheduler.WLC,
            in_order(flags),
            persistence,
            self.netmask if persistence and self.netmask != _all_bits(match) else 0,
            self.engine if persistence else "",
            self.forwarding.method or ForwardingMethod.NAT,
            destinations,
            None if self.sorry is None else self._destination(self.sorry, match, sorry=True),
        )

    def _distinct(self, match: Match) -> tuple[Destination, ...]:
        found: dict[tuple[IPAddress, int], Destination] = {}
        for server in self.servers:
            destination = self._destination(server, match)
            version = match.version
            if server.rip.version != version and destination.forward is not ForwardingMethod.TUN:
                self._notes.wrong(
                    server.place,
                    f"{server.rip} is IPv{server.rip.version}, and the VIP is IPv{version}: "
                    f"{_WORD_OF[destination.forward]} cannot translate",
                    f"an IPv{version} address, or TUN",
                )
                continue
            key = destination.rip, destination.port
            if key in found:
                first = found[key].place
                self._notes.remark(
                    server.place, f"{server.rip} is in {first} already: keepalived ignores this one"
                )
                continue
            found[key] = destination
        if self.sorry is not None and self.sorry_inhibited:
            sorry = self._destination(self.sorry, match, sorry=True)
            found.setdefault((sorry.rip, sorry.port), replace(sorry, weight=0))
        return tuple(found.values())

    def _destination(self, server: _Server, match: Match, *, sorry: bool = False) -> Destination:
        """Return the server as IPVS has it for one match."""
        forwarding = server.forwarding
        if forwarding.method is None:
            forwarding = self.forwarding
        method = forwarding.method or ForwardingMethod.NAT
        is_tun = method is ForwardingMethod.TUN
        return Destination(
            server.rip,
            self._port(server, match, method, sorry=sorry),
            server.place,
            self.weight if server.weight is None else server.weight,
            server.upper,
            server.lower,
            method,
            forwarding.encapsulation if is_tun else Encapsulation.IPIP,
            forwarding.tunnel_port if is_tun else 0,
            forwarding.checksum if is_tun else TunnelChecksum.NONE,
            server.checks,
        )

    def _port(self, server: _Server, match: Match, method: ForwardingMethod, *, sorry: bool) -> int:
        nat = method is ForwardingMethod.NAT
        if isinstance(match, Mark):
            if server.port and not nat:
                self._notes.remark(
                    server.place, "a port with fwmark: keepalived ignores it, except with NAT"
                )
            return server.port if nat else 0
        if not server.port and nat and self.is_group:
            return 0  # only of servers without a group is it set (validate_check_config)
        if not server.port or server.port == match.port:
            return match.port
        if nat:
            return server.port
        if sorry:
            text = f"sorry_server's port is not the VIP's: keepalived takes {match.port}"
            self._notes.remark(server.place, text)
        else:
            word = _WORD_OF[method]
            wrong = port_mapping(word, match.port, server.port, f"lb_kind {word}")
            self._notes.wrong(server.place, *wrong)
        return match.port


def _all_bits(match: Match) -> int:
    return 128 if match.version == 6 else 32


# ── what a virtual server is named by ────────────────────────────────────────────────────────


def read_virtual_servers(root: Block, notes: Notes) -> Iterator[Service]:
    """Yield every virtual service of the file, in its order."""
    groups: dict[str, Block] = {}
    total = services = 0
    for block in root.each("virtual_server_group"):
        name = block.arguments[0] if block.arguments else ""
        groups[name] = block
    for block in root.each("virtual_server"):
        if block.children is None:
            notes.wrong(block.place, "virtual_server has no block", "virtual_server … { … }")
            continue
        server = VirtualServer(block, notes)
        server.read()
        matches = list(islice(_matches(block, server, groups, notes), MAX_SERVICES + 1))
        total += len(server.servers) * len(matches)
        services += len(matches)
        if total > MAX_DESTINATIONS or services > MAX_SERVICES:
            limits = f"{MAX_SERVICES} virtual services and {MAX_DESTINATIONS} real servers"
            notes.wrong(block.place, "the configuration is too large", f"at most {limits}")
            return
        yield from server.services(matches)


def _matches(
    block: Block, server: VirtualServer, groups: dict[str, Block], notes: Notes
) -> Iterator[Match]:
    """Yield what names the services of a block: VIP and port, marks, or those of a group."""
    words = (*block.arguments, "", "")
    if words[0] == "group":
        group = groups.get(words[1])
        if group is None:
            hint = choice_hint(words[1], groups, "groups")
            notes.wrong(block.place, f"there is no virtual_server_group {quoted(words[1])}", hint)
            return
        for line in group.children or ():
            yield from _group_entry(line, block, server, notes)
    elif words[0] == "fwmark":
        yield from _mark(words[1], "", block, server, notes)
    else:
        vip, port = address(words[0]), number(words[1] or "0", 0, 65535)
        if vip is None or port is None:
            wrong = words[0] if vip is None else words[1]
            what = "an IP address" if vip is None else "a port"
            hint = "virtual_server ADDRESS PORT, virtual_server fwmark MARK, or … group NAME"
            notes.wrong(block.place, f"{quoted(wrong)} is not {what}", hint)
            return
        yield VipPort(_protocol(block, server, notes), vip, port)


def _protocol(block: Block, server: VirtualServer, notes: Notes) -> Protocol:
    if server.protocol is None:
        notes.remark(block.place, "it has no protocol: keepalived takes UDP")
    return server.protocol or Protocol.UDP


def _mark(
    word: str, family: str, block: Block, server: VirtualServer, notes: Notes
) -> Iterator[Mark]:
    mark = number(word, 1, MAX_U32)
    if mark is None:
        notes.wrong(block.place, f"{quoted(word)} is not a firewall mark", "a number above 0")
        return
    version = {"inet": 4, "inet6": 6}.get(family) or server.family
    if not version:
        versions = {s.rip.version for s in server.servers}
        version = versions.pop() if len(versions) == 1 else 4
    yield Mark(mark, version)


def _group_entry(line: Block, block: Block, server: VirtualServer, notes: Notes) -> Iterator[Match]:
    words = (*line.words, "", "")
    if words[0] == "fwmark":
        yield from _mark(words[1], words[2], line, server, notes)
        return
    found, port = address_range(words[0]), number(words[1] or "0", 0, 65535)
    if isinstance(found, str):
        hint = "an address, 10.0.0.1-20, 10.0.0.1-10.0.0.20, or 10.0.0.0/28"
        notes.wrong(line.place, found, hint)
    elif port is None:
        notes.wrong(line.place, f"{quoted(words[1])} is not a port", "a number up to 65535")
    else:
        protocol = _protocol(block, server, notes)
        yield from (VipPort(protocol, vip, port) for vip in found)
