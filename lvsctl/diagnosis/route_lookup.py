"""Which route a kernel uses: rules of policy routing, then the tables that they name.

As fib_rules_lookup and fib_table_lookup do (net/core/fib_rules.c, net/ipv4/fib_trie.c). Rules
that select by what is not known here (a mark, a port, a user) are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import NamedTuple

from lvsctl.model.addresses import IPAddress
from lvsctl.model.state import MAIN_TABLE, NodeState, RouteState, RuleState

REFUSING = frozenset({"blackhole", "unreachable", "prohibit"})
"""Types of routes, and actions of rules, that drop what they match."""

_TABLES = {"local": 255, "main": MAIN_TABLE, "default": 253}
_USUAL = frozenset({"from all lookup local", "from all lookup main", "from all lookup default"})


class Lookup(NamedTuple):
    """The route that was found, and the rule that led to it if it is none of the usual three.

    ``refused`` is one of ``REFUSING`` where the packet is dropped; without a route and without
    that, there is no route.
    """

    route: RouteState | None = None
    rule: RuleState | None = None
    refused: str = ""


def lookup(state: NodeState, to: IPAddress, source: IPAddress | None, arrived: str = "") -> Lookup:
    """Return the route of a packet; ``arrived`` is the device it came in by, empty if own."""
    rules = sorted(
        (rule for rule in state.rules if rule.version == to.version),
        key=lambda rule: rule.preference,
    )
    if not rules:
        return _through(_best(state.routes, to), None)
    for rule in rules:
        selected = _Selector.read(rule.text)
        if selected is None or not selected.matches(to, source, arrived):
            continue
        own = None if rule.text in _USUAL else rule
        if selected.action in REFUSING:
            return Lookup(None, own, selected.action)
        if selected.table is None or selected.table == _TABLES["local"]:
            continue
        table = selected.table
        routes = state.routes if table == MAIN_TABLE else state.other_routes
        best = _best((route for route in routes if route.table == table), to)
        if best is not None and best.type != "throw":
            return _through(best, own)
    return Lookup()


def _through(route: RouteState | None, rule: RuleState | None) -> Lookup:
    refused = route.type if route is not None and route.type in REFUSING else ""
    return Lookup(route, rule, refused)


def _best(routes: Iterable[RouteState], to: IPAddress) -> RouteState | None:
    """The route with the longest prefix, of those the lowest metric, of those the first."""
    best, order = None, (-1, 0)
    for route in routes:
        if not _covers(route, to):
            continue
        mine = (route.to.prefixlen if route.to is not None else 0, -route.metric)
        if mine > order:
            best, order = route, mine
    return best


def _covers(route: RouteState, to: IPAddress) -> bool:
    if route.to is not None:
        return to in route.to
    version = route.via.version if route.via is not None else route.version
    return version == to.version


@dataclass(frozen=True, slots=True)
class _Selector:
    """What a rule selects, and what it does with it."""

    source: str = "all"
    to: str = "all"
    device: str = ""
    inverted: bool = False
    action: str = "lookup"
    table: int | None = None

    @classmethod
    def read(cls, text: str) -> _Selector | None:
        """Read a rule in ip-rule(8)'s words; None where it selects by what is not known."""
        fields: dict[str, str] = {}
        inverted, action, table = False, "", None
        words = iter(text.split())
        for word in words:
            if word == "not":
                inverted = True
            elif word in ("from", "to", "iif"):
                fields[word] = next(words)
            elif word == "lookup":
                action, name = word, next(words)
                table = _TABLES.get(name) or (int(name) if name.isdigit() else None)
            elif word in REFUSING:
                action = word
            else:
                return None
        source, to = fields.get("from", "all"), fields.get("to", "all")
        return cls(source, to, fields.get("iif", ""), inverted, action, table)

    def matches(self, to: IPAddress, source: IPAddress | None, arrived: str) -> bool:
        """Whether a packet is selected. One whose source is not chosen yet has none."""
        chosen = all(self._each(to, source, arrived))
        return chosen is not self.inverted

    def _each(self, to: IPAddress, source: IPAddress | None, arrived: str) -> Iterator[bool]:
        if self.source != "all":
            yield source is not None and source in ip_network(self.source)
        if self.to != "all":
            yield to in ip_network(self.to)
        if self.device:
            yield self.device == (arrived or "lo")
