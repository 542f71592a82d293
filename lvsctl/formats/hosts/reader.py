"""A host's state, from the document that ``lvsctl collect``'s script printed on it.

The document is another host's: it may say anything, and nothing in it is ever run. What cannot be
read is named, and its absence proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from lvsctl.formats.hosts import iptables, ipvs, links, nft, traffic_control
from lvsctl.formats.hosts.document import Damaged, Section, sections
from lvsctl.formats.hosts.values import Unreadable, address, number
from lvsctl.model import nstat
from lvsctl.model.ruleset import Chain, Ruleset
from lvsctl.model.service import Protocol
from lvsctl.model.state import (
    MAIN_TABLE,
    ListenerState,
    NodeState,
    ProcessState,
    RouteState,
    RuleState,
    ServiceState,
    Setting,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HostState:
    """What was collected on one host.

    ``source`` is where it came from, ``name`` the host's own name. ``counters`` is by how much the
    kernel's packet counters grew within two seconds. ``unread`` are the sections that could not be
    read; ``ipvs-rules`` among them: of IPVS's table only what /proc shows was read.
    """

    source: str
    name: str
    kernel: str
    state: NodeState
    counters: Mapping[str, int]
    unread: tuple[str, ...] = ()
    ruleset: Ruleset | None = None
    """Its packet filters, and those of traffic control; None: not all of them were read."""

    @property
    def unread_texts(self) -> tuple[str, ...]:
        """What ``unread`` means."""
        return tuple(dict.fromkeys(_OPTIONAL[name] for name in self.unread))


_NEEDED = ("links", "routes-ipv4", "routes-ipv6", "sysctls")
"""Without these sections there is nothing to judge."""

_OPTIONAL = {
    "rules-ipv4": "rules of policy routing (ip rule)",
    "rules-ipv6": "rules of policy routing (ip -6 rule)",
    "neighbours": "neighbours (ip neighbour)",
    "fou": "ports of GUE (ip fou)",
    "listeners": "listening sockets (ss)",
    "listeners-sctp": "listening SCTP sockets (ss -S)",
    "ipvs-rules": ("thresholds, types of tunnels and flags of the IPVS table (ipvsadm, as root)"),
    "nft": "rules of packet filters (nft, as root)",
    "iptables": "rules of packet filters (iptables-save, as root)",
    "ip6tables": "rules of packet filters (ip6tables-save, as root)",
    "tc-qdiscs": "what delays or drops frames (tc)",
    "tc-filters": "filters of traffic control (tc)",
    "stopped": "which processes are stopped",
}
_FILTERS = ("nft", "iptables", "ip6tables", "tc-filters")


def read_host(data: bytes, source: str) -> HostState:
    """Read a document. Raises Damaged if it is none, or lacks what no judgement can do without."""
    found = sections(data, source)
    for name in _NEEDED:
        if name not in found or not found[name].was_read:
            # A kernel without IPv6 has no routes of it, and ip(8) fails.
            if name == "routes-ipv6":
                continue
            raise Damaged(
                f"{source}: the section {name} is empty: its command failed on that host",
                hint="the script needs iproute2 from 4.19 on (ip -j), and a readable /proc/sys",
            )
    return _Reader(source, found).host()


class _Reader:
    """Reads one document section by section."""

    def __init__(self, source: str, found: Mapping[str, Section]) -> None:
        self._source, self._found = source, found
        self._unread = [name for name in _OPTIONAL if name not in found or not found[name].was_read]

    def _text(self, name: str) -> str:
        section = self._found.get(name)
        return section.text if section is not None else ""

    def _read(self, name: str, read: Callable[[str], T]) -> T:
        """Read a section. Raises Damaged with its name."""
        try:
            return read(self._text(name))
        except Unreadable as error:
            raise Damaged(
                f"{self._source}: section {name}: {error}",
                hint="collect it again; if it stays so, that host's program prints it otherwise",
            ) from None

    def host(self) -> HostState:
        tables = links.Tables()
        every = self._routes(tables)
        found = self._read("links", links.links)
        if not found:
            raise Damaged(f"{self._source}: section links: no interface, not even lo")
        impairments = self._read("tc-qdiscs", traffic_control.impairments)
        found = tuple(
            replace(one, impairment=impairments[one.name]) if one.name in impairments else one
            for one in found
        )
        settings = self._read("sysctls", lambda text: dict(_settings(text)))
        services = self._services()
        stopped = dict(_stopped(self._text("stopped")))
        state = NodeState(
            netns=self._source,
            links=found,
            routes=tuple(one for one in every if one.table == MAIN_TABLE),
            other_routes=tuple(one for one in every if one.table != MAIN_TABLE),
            rules=self._rules(tables),
            neighbours=tuple(self._read("neighbours", lambda text: [*links.neighbours(text)])),
            sysctls=settings,
            changed_sysctls=tuple(_changed(settings)),
            services=services,
            ipvs_timeouts=ipvs.timeouts(self._text("ipvs-timeouts")),
            listeners=self._listeners(stopped),
            gue_ports=self._read("fou", lambda text: tuple(_gue_ports(text))),
            processes=tuple(_daemons(self._text("keepalived"), stopped)),
            qdiscs=self._read("tc-qdiscs", lambda text: tuple(traffic_control.qdiscs(text))),
        )
        return HostState(
            self._source,
            _word(self._text("name")),
            _word(self._text("kernel")),
            state,
            nstat.growth(self._counters(""), self._counters("-later")),
            tuple(self._unread),
            self._ruleset(),
        )

    def _routes(self, tables: links.Tables) -> list[RouteState]:
        found = []
        for version in (4, 6):

            def routes(text: str, version: int = version) -> list[RouteState]:
                return list(links.routes(text, version, tables))

            found += self._read(f"routes-ipv{version}", routes)
        return found

    def _rules(self, tables: links.Tables) -> tuple[RuleState, ...]:
        found: list[RuleState] = []
        for version in (4, 6):

            def rules(text: str, version: int = version) -> list[RuleState]:
                return list(links.rules(text, version, tables))

            found += self._read(f"rules-ipv{version}", rules)
        return tuple(found)

    def _services(self) -> tuple[ServiceState, ...]:
        services = self._read("ipvs-table", ipvs.table)
        if not services and "ipvs-rules" in self._unread:
            self._unread.remove("ipvs-rules")  # there are none
        if "ipvs-rules" in self._unread:
            return services
        return self._read("ipvs-rules", lambda text: ipvs.with_rules(services, text))

    def _listeners(self, stopped: Mapping[int, str]) -> tuple[ListenerState, ...]:
        found = self._read("listeners", lambda text: list(_sockets(text, stopped)))

        def sctp(text: str) -> list[ListenerState]:
            return list(_sockets(text, stopped, Protocol.SCTP))

        return (*found, *self._read("listeners-sctp", sctp))

    def _ruleset(self) -> Ruleset | None:
        if any(name in self._unread for name in _FILTERS):
            return None
        found: list[Chain] = []
        names: set[str] = set()
        for program, version in (("iptables", 4), ("ip6tables", 6)):

            def saved(text: str, version: int = version) -> list[Chain]:
                return list(iptables.chains(text, version))

            own = self._read(program, saved)
            found += own
            family = "ip" if version == 4 else "ip6"
            if "(nf_tables)" in self._text(program):
                names.update(f"{family} {one.table.rpartition(' ')[2]}" for one in own)
        listed = nft.texts(self._text("nft-text"))
        of_nft = self._read("nft", lambda text: list(nft.chains(text, listed, names)))
        found += [*of_nft, *self._read("tc-filters", lambda text: [*traffic_control.chains(text)])]
        return Ruleset(tuple(found), frozenset(self._text("programs").split()))

    def _counters(self, when: str) -> dict[str, int]:
        """The counters, as far as they can be read: they only corroborate."""
        try:
            return {
                **dict(nstat.parse_paired(self._text(f"counters{when}"))),
                **dict(nstat.parse_single(self._text(f"counters-ipv6{when}"))),
            }
        except ValueError:
            return {}


def _word(text: str) -> str:
    return re.sub(r"[^\w.+:-]", "?", text.strip()[:253], flags=re.ASCII)


def _settings(text: str) -> Iterator[tuple[str, str]]:
    """``/proc/sys/net/ipv4/ip_forward:1`` and so on, by the names of sysctl(8)."""
    for line in filter(None, text.split("\n")):
        path, colon, value = line.partition(":")
        if "/conf/" in path and colon:  # a device's name may contain a colon
            path, _, value = line.rpartition(":")
        if not path.startswith("/proc/sys/") or len(line) > 512:
            raise Unreadable(f"not a sysctl: {line[:60]!r}")
        words = path.removeprefix("/proc/sys/").split("/")
        yield ".".join(word.replace(".", "/") for word in words), value.strip()


_USUAL = {
    "net.ipv4.vs.drop_packet": "0",
    "net.ipv4.vs.drop_entry": "0",
    "net.ipv4.vs.run_estimation": "1",
    "net.ipv4.vs.backup_only": "0",
}


def _changed(settings: Mapping[str, str]) -> Iterator[Setting]:
    """What rules look for among the settings that differ from a new namespace's."""
    for name, value in settings.items():
        usual = _USUAL.get(name)
        if name.endswith(".disable_ipv6"):
            usual = "0"
        elif name.endswith(".forwarding") and ".conf.all." not in name:
            version = name.split(".")[1]
            general = "net.ipv4.ip_forward" if version == "ipv4" else f"net.{version}.conf.all"
            usual = settings.get(general) or settings.get(f"{general}.forwarding")
        if usual is not None and value != usual:
            yield Setting(name, value, usual)


def _sockets(
    text: str, stopped: Mapping[int, str], only: Protocol | None = None
) -> Iterator[ListenerState]:
    """Read ``ss -Hlntup``, or ``ss -HlnpS``, whose lines name no protocol."""
    for line in filter(str.strip, text.split("\n")):
        words = line.split()
        protocol = only
        if protocol is None:
            word = words.pop(0)
            if word not in list(Protocol):
                continue
            protocol = Protocol(word)
        elif words[0] == str(only):
            words.pop(0)
        # Of an SCTP socket with several addresses, each further one stands on a line of its own.
        if words and words[0].startswith("`-"):
            words.insert(0, "")
        if len(words) < 4:
            raise Unreadable(f"not a listening socket: {line[:60]!r}")
        host, _, port = words[3].rpartition(":")
        if port == "*":
            continue
        name, pid = _program(line)
        yield ListenerState(
            protocol,
            address(_host(host)),
            number(port),
            name,
            pid,
            queued=number(words[1]) if words[1].isdecimal() else 0,
            backlog=number(words[2]) if words[2].isdecimal() else 0,
            state=_state_of(line, stopped),
        )


def _host(text: str) -> str:
    """An address as ss(8) prints it: in brackets, with a device, or as a star for any."""
    plain = text.partition("%")[0].removeprefix("[").removesuffix("]")
    return "::" if plain == "*" else plain


def _program(line: str) -> tuple[str, int]:
    found = re.search(r'users:\(\("([^"]{1,64})",pid=([0-9]{1,9}),', line)
    return (_word(found[1]), int(found[2])) if found else ("", 0)


def _state_of(line: str, stopped: Mapping[int, str]) -> str:
    """The state of the processes that hold a socket; empty if any of them is not stopped."""
    pids = [int(pid) for pid in re.findall(r"pid=([0-9]{1,9}),", line)]
    return stopped[pids[0]] if pids and all(pid in stopped for pid in pids) else ""


def _stopped(text: str) -> Iterator[tuple[int, str]]:
    """Read ``/proc/812/status:State:\tT (stopped)``: the number and proc_pid_stat(5)'s letter."""
    for line in text.split("\n"):
        if found := re.fullmatch(r"/proc/([0-9]{1,9})/status:State:\s*([TZ])\b.*", line):
            yield int(found[1]), found[2]


def _gue_ports(text: str) -> Iterator[int]:
    """Read ``ip fou show``: ``port 6080 gue``, perhaps with ``-6`` and more."""
    for line in text.split("\n"):
        found = re.match(r"port ([0-9]{1,5})\b.*\bgue\b", line)
        if found:
            yield int(found[1])


def _daemons(text: str, stopped: Mapping[int, str]) -> Iterator[ProcessState]:
    """One for each process of keepalived and ldirectord: ``/proc/812/comm:keepalived``."""
    for line in text.split("\n"):
        found = re.fullmatch(r"/proc/([0-9]{1,9})/comm:(keepalived|ldirectord).*", line)
        if found:
            pid = int(found[1])
            yield ProcessState(pid, found[2], stopped.get(pid, ""))
