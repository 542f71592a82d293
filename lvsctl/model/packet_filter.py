"""Rules of packet filters: what iptables, ip6tables, arptables, ebtables and nft list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

from lvsctl.model.addresses import IPAddress
from lvsctl.model.service import PortRange, Protocol, VipPort


class FilterProgram(StrEnum):
    """The kind of a packet filter, by the program that lists it.

    The first four are the legacy tables (ip_tables.ko and the like); what iptables-nft and its
    siblings make are nftables' rules.
    """

    IPTABLES = "iptables"
    IP6TABLES = "ip6tables"
    ARPTABLES = "arptables"
    EBTABLES = "ebtables"
    NFT = "nft"


NFT_FAMILIES = {FilterProgram.IPTABLES: "ip", FilterProgram.IP6TABLES: "ip6"}
"""The family of nftables in which the nftables variant of a program has its tables."""

DROPPING = frozenset({"DROP", "REJECT", "TARPIT", "STEAL"})
"""Actions after which a packet goes no further."""

REWRITING = frozenset({"DNAT", "SNAT", "REDIRECT", "MASQUERADE", "NETMAP", "TPROXY"})
"""Actions that change a packet's address or port."""


OWN = "lvsctl"
"""The name of lvsctl's own table of nftables, and the comment of its rules in legacy tables."""


class MasqueradeTarget(NamedTuple):
    """Where packets are sent whose source a director replaces by its own address."""

    protocol: Protocol
    address: IPAddress
    port: int


OWN_CLAMP = "lvsctl_mss"
"""The name of lvsctl's own table of nftables that limits the segment size of TCP."""

TO_PATH_MTU = 0
"""A limit of the segment size that is not a number: what the path carries."""


class Clamp(NamedTuple):
    """A limit of the segment size in the SYNs that leave a node; ``size`` may be TO_PATH_MTU."""

    version: int
    size: int

    @property
    def text(self) -> str:
        """The limit, with the IP version."""
        size = "what the path carries" if self.size == TO_PATH_MTU else f"{self.size} bytes"
        return f"{size} in IPv{self.version}"


MARK_TABLE, MARK_CHAIN = "inet lvsctl_mark", "prerouting"
"""lvsctl's own table of nftables that marks packets, with its family, and its only chain."""


class Marking(NamedTuple):
    """Packets that get a mark: of one protocol, to one address, and to some or all ports of it."""

    mark: int
    vip: IPAddress
    protocol: Protocol
    ports: PortRange | None = None

    @property
    def text(self) -> str:
        """Which packets, as a phrase."""
        several = self.ports is not None and self.ports.last > self.ports.first
        ports = f" port{'s' * several} {self.ports}" if self.ports is not None else ""
        return f"{self.protocol} to {self.vip}{ports}"

    def covers(self, endpoint: VipPort) -> bool:
        """Return whether requests to an endpoint get the mark."""
        if (self.vip, self.protocol) != (endpoint.vip, endpoint.protocol):
            return False
        return self.ports is None or self.ports.first <= endpoint.port <= self.ports.last

    def match(self) -> tuple[str, ...]:
        """Return what it matches, in tc-flower(8)'s words."""
        words = (f"ip_proto {self.protocol}", f"dst_ip {self.vip}")
        return (*words, f"dst_port {self.ports}") if self.ports is not None else words

    def conditions(self) -> tuple[str, ...]:
        """Return what it matches, in nft(8)'s words."""
        family = "ip6" if self.vip.version == 6 else "ip"
        some = (str(self.protocol), "dport", str(self.ports))
        which = some if self.ports is not None else ("meta", "l4proto", str(self.protocol))
        return (family, "daddr", str(self.vip), *which)

    def rule(self) -> tuple[str, ...]:
        """Return the rule that marks them, in nft(8)'s words."""
        return (*self.conditions(), "counter", "meta", "mark", "set", str(self.mark))


@lru_cache(maxsize=4096)
def _own_marking(text: str) -> Marking | None:
    found = _MARK_NFT.fullmatch(text)
    if found is None:
        return None
    vip, protocol, ports, mark = found[1], found[2] or found[4], found[3], int(found[5])
    return Marking(
        mark, ip_address(vip), Protocol(protocol), PortRange.parse(ports) if ports else None
    )


_MARK_NFT = re.compile(
    r"ip6? daddr ([0-9a-f.:]+) (?:(tcp|udp|sctp) dport ([0-9]+(?:-[0-9]+)?)"
    r"|meta l4proto (tcp|udp|sctp)) meta mark set ([0-9]+)"
)


@lru_cache(maxsize=4096)
def _own_clamp(program: FilterProgram, table: str, text: str) -> Clamp | None:
    if program is FilterProgram.NFT:
        found = _CLAMP_NFT.fullmatch(text) if table.partition(" ")[2] == OWN_CLAMP else None
        version = 6 if table.startswith("ip6") else 4
    else:
        found = _CLAMP_LEGACY.fullmatch(text)
        version = 6 if program is FilterProgram.IP6TABLES else 4
    return None if found is None else Clamp(version, int(found[1] or TO_PATH_MTU))


@lru_cache(maxsize=4096)
def _own_target(table: str, text: str) -> MasqueradeTarget | None:
    found = _OWN_LEGACY.fullmatch(text)
    if found is None and table in _OWN_TABLES:
        found = _OWN_NFT.fullmatch(text)
    if found is None:
        return None
    return MasqueradeTarget(Protocol(found[2]), ip_address(found[1]), int(found[3]))


_OWN_TABLES = frozenset({f"ip {OWN}", f"ip6 {OWN}"})
_OWN_LEGACY = re.compile(
    r"-A POSTROUTING -d ([0-9a-f.:]+)/(?:32|128) -p (tcp|udp|sctp) -m multiport --dports ([0-9]+) "
    rf'-m comment --comment "{OWN}" -j MASQUERADE'
)
_OWN_NFT = re.compile(r"ip6? daddr ([0-9a-f.:]+) (tcp|udp|sctp) dport ([0-9]+) masquerade")


_CLAMP_LEGACY = re.compile(
    r"-A POSTROUTING -p tcp -m tcp --tcp-flags SYN,RST SYN "
    rf'-m comment --comment "{OWN}" -j TCPMSS (?:--set-mss ([0-9]+)|--clamp-mss-to-pmtu)'
)
_CLAMP_NFT = re.compile(r"tcp flags syn / syn,rst tcp option maxseg size set (?:([0-9]+)|rt mtu)")


@dataclass(frozen=True, slots=True)
class FilterRule:
    """A rule, or (``number`` 0) the policy of a chain, of one namespace.

    ``table`` is nft's with its family (``inet filter``). ``number`` counts from 1 in the chain;
    nft's ``handle`` is 0 elsewhere. ``text`` is the rule as its program lists it, ``complete``
    whether that is all of it: matches of other modules are given by name only. ``action`` is the
    target in iptables' words (DROP, REJECT, DNAT …), or the chain to jump to. ``packets`` are
    those that it matched; None where the kernel does not count (nft without ``counter``).
    """

    program: FilterProgram
    table: str
    chain: str
    number: int
    text: str
    action: str
    packets: int | None = 0
    complete: bool = True
    handle: int = 0
    tool: str = ""
    """The installed program that deletes it (``iptables-legacy``); empty: none was found."""
    hook: str = ""
    """Of nft: where packets meet the chain (``input``, ``ingress`` …); empty: nowhere by itself."""

    @property
    def is_policy(self) -> bool:
        """Whether it is what happens to packets that no rule of the chain decides."""
        return self.number == 0

    @property
    def drops(self) -> bool:
        """Whether what it matches goes no further."""
        return self.action in DROPPING

    @property
    def rewrites(self) -> bool:
        """Whether it changes addresses or ports of what it matches."""
        return self.action in REWRITING

    @property
    def foreign(self) -> bool:
        """Whether an empty table would not have it: any rule, and a policy that is not ACCEPT.

        What lvsctl itself adds for ``snat``, ``mss_clamp`` and firewall marks is not foreign.
        """
        if self.masquerades is not None or self.clamps is not None or self.marks is not None:
            return False
        return not self.is_policy or self.action != "ACCEPT"

    @property
    def masquerades(self) -> MasqueradeTarget | None:
        """What lvsctl's own rule masquerades; None: it is another rule."""
        return _own_target(self.table, self.text) if self.action == "MASQUERADE" else None

    @property
    def clamps(self) -> Clamp | None:
        """What lvsctl's own rule limits the segment size to; None: it is another rule."""
        return _own_clamp(self.program, self.table, self.text) if self.action == "TCPMSS" else None

    @property
    def marks(self) -> Marking | None:
        """What lvsctl's own rule of nftables marks; None: it is another rule."""
        own = self.program is FilterProgram.NFT and self.table == MARK_TABLE
        return _own_marking(self.text) if own and self.hook == MARK_CHAIN else None

    def __str__(self) -> str:
        if self.program is FilterProgram.NFT:
            return f"nft {self.table} {self.chain}: {self.text}"
        return f"{self.program} -t {self.table} {self.text}"

    def delete_command(self) -> tuple[str, ...]:
        """Return the words that delete the rule, or set the policy to ACCEPT."""
        if self.program is FilterProgram.NFT:
            if self.is_policy:
                return ("nft", "chain", *self.table.split(), self.chain, "{ policy accept; }")
            where = (*self.table.split(), self.chain, "handle", str(self.handle))
            return ("nft", "delete", "rule", *where)
        start = (self.tool or str(self.program), "-t", self.table)
        if self.is_policy:
            return (*start, "-P", self.chain, "ACCEPT")
        return (*start, "-D", self.chain, str(self.number))


def growth(before: Iterable[FilterRule], after: Iterable[FilterRule]) -> tuple[FilterRule, ...]:
    """Return the rules of ``after``, ``packets`` being how many each matched since ``before``.

    Rules that are new have no earlier count: all that they matched counts.
    """
    earlier: Mapping[object, int] = {_identity(rule): rule.packets or 0 for rule in before}
    return tuple(
        rule
        if rule.packets is None
        else replace(rule, packets=max(0, rule.packets - earlier.get(_identity(rule), 0)))
        for rule in after
    )


def _identity(rule: FilterRule) -> object:
    return rule.program, rule.table, rule.chain, rule.number, rule.text, rule.handle
