"""What a host's packet filters do to a packet: chains of rules of iptables, nft and tc.

``FilterRule`` is a rule as text with its counters; here its conditions and actions are read, so
that it can be said what becomes of a packet that was not sent. What is not understood is kept as
such: a question that depends on it has no answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import NamedTuple

from lvsctl.model.addresses import IPAddress


class Hook(StrEnum):
    """Where chains are called: those of traffic control first and last, netfilter's between."""

    INGRESS = auto()
    PREROUTING = auto()
    INPUT = auto()
    FORWARD = auto()
    OUTPUT = auto()
    POSTROUTING = auto()
    EGRESS = auto()


IPVS_PRIORITY = 98
"""From here on a chain at ``Hook.INPUT`` comes after IPVS has taken the packet.

NF_IP_PRI_NAT_SRC - 2; net/netfilter/ipvs/ip_vs_core.c, ip_vs_ops4."""


class Span(NamedTuple):
    """Numbers from ``low`` to ``high``: ports, or addresses of an IP ``version``."""

    low: int
    high: int
    version: int = 0


class Masked(NamedTuple):
    """A mark, as far as ``mask`` covers it."""

    value: int
    mask: int = 0xFFFFFFFF


Value = str | Span | Masked


class Field(StrEnum):
    """What a condition is about. ``UNKNOWN``: nothing that is understood."""

    VERSION = auto()
    PROTOCOL = auto()
    SOURCE = auto()
    DESTINATION = auto()
    SOURCE_PORT = auto()
    DESTINATION_PORT = auto()
    ARRIVES = auto()
    """The interface by which it comes in; a name that ends with a star is a beginning."""
    LEAVES = auto()
    MARK = auto()
    STATE = auto()
    """Of the connection, in conntrack's words: new, established …"""
    SYN = auto()
    """Whether it is the first segment of a direction (SYN without RST); ``first``: of both."""
    TARGET = auto()
    """What its destination is, in ip-route(8)'s words: local, broadcast, multicast, unicast."""
    TRANSLATED = auto()
    """Whether DNAT has changed its destination: what IPVS takes is left as it came."""
    UNKNOWN = auto()


class Condition(NamedTuple):
    """Holds if the packet's field has one of ``values``; ``negated``: none of them."""

    field: Field
    values: tuple[Value, ...] = ()
    negated: bool = False


class Verb(StrEnum):
    """What a rule does with a packet that it matches."""

    ACCEPT = auto()
    DROP = auto()
    REJECT = auto()
    RETURN = auto()
    JUMP = auto()
    GOTO = auto()
    MARK = auto()
    MASQUERADE = auto()
    SNAT = auto()
    DNAT = auto()
    MSS = auto()
    NOTHING = auto()
    """It counts, logs or comments."""
    UNKNOWN = auto()


class Action(NamedTuple):
    """``target`` is a chain to jump to; ``number`` and ``mask`` are a mark's: the bits of ``mask``
    are cleared, those of ``number`` inverted; ``number`` alone is a segment size (0: the path's).
    """

    verb: Verb
    target: str = ""
    number: int = 0
    mask: int = 0xFFFFFFFF


class PacketRule(NamedTuple):
    """A rule with its ``text``, as the program lists it, and the words that delete it."""

    text: str
    conditions: tuple[Condition, ...]
    actions: tuple[Action, ...]
    delete: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain. One that netfilter calls has a ``hook``, a priority and a policy.

    ``table`` names it with its program (``iptables -t nat``, ``nft inet filter``). ``versions`` are
    the IP versions whose packets it sees. ``nat``: it is called for a connection's first packet.
    """

    table: str
    name: str
    rules: tuple[PacketRule, ...] = ()
    hook: Hook | None = None
    priority: int = 0
    accepts: bool = True
    versions: tuple[int, ...] = (4, 6)
    nat: bool = False
    policy_command: tuple[str, ...] = ()
    """The words that make its policy accept."""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All chains of a host; ``programs`` are those of nft, iptables and ip6tables that it has."""

    chains: tuple[Chain, ...] = ()
    programs: frozenset[str] = frozenset()

    def at(self, hook: Hook, version: int) -> tuple[Chain, ...]:
        """The chains that netfilter calls at a hook, in its order."""
        found = [one for one in self.chains if one.hook is hook and version in one.versions]
        return tuple(sorted(found, key=lambda one: one.priority))

    def chain(self, table: str, name: str) -> Chain | None:
        """A chain of a table; None if it does not exist."""
        found = (one for one in self.chains if (one.table, one.name) == (table, name))
        return next(found, None)


class PacketSeen(NamedTuple):
    """A packet before a filter. Empty or None: not known, and any condition on it undecided.

    ``protocol`` is a name of ``getprotobyname`` (tcp, ipencap …), ``state`` conntrack's word.
    """

    version: int
    protocol: str
    source: IPAddress | None
    destination: IPAddress | None
    source_port: int | None = None
    port: int | None = None
    arrives: str = ""
    leaves: str = ""
    state: str = ""
    syn: bool = False
    answers: bool = False
    """Whether it is a reply: its SYN has an ACK."""
    target: str = ""
    mark: int = 0
