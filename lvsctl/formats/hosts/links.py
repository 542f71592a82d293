"""Links, addresses, routes, rules and neighbours, as ip(8) prints them (``-j``: JSON)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from lvsctl.formats.hosts.values import (
    Object,
    Unreadable,
    address,
    interface,
    network,
    number,
    number_of,
    object_of,
    objects,
    objects_of,
    text_of,
    words_of,
)
from lvsctl.model.addresses import IPAddress
from lvsctl.model.service import TunnelKind
from lvsctl.model.state import (
    MAIN_TABLE,
    AddressState,
    LinkState,
    NeighbourState,
    RouteState,
    RuleState,
    Setting,
)

_FLAGS = ("deprecated", "tentative", "dadfailed", "optimistic", "temporary", "secondary")
"""Of an address, in ip-address(8)'s words."""

_TABLES = {"local": 255, "main": MAIN_TABLE, "default": 253}
_FIRST_NAMED = 1 << 32
"""Numbers from here on stand for tables that have names (rt_tables), which no kernel has."""

_ENDS = ("remote", "local", "ikey", "okey")


def links(text: str) -> tuple[LinkState, ...]:
    """Read ``ip -d -j address show``."""
    return tuple(_link(one) for one in objects(text))


def _link(one: Object) -> LinkState:
    flags, info = words_of(one, "flags"), object_of(one, "linkinfo")
    kind = text_of(info, "info_kind")
    ethernet = text_of(one, "link_type") in ("ether", "loopback")
    addresses = [_address(held) for held in objects_of(one, "addr_info") if "local" in held]
    return LinkState(
        name=text_of(one, "ifname"),
        index=number_of(one, "ifindex"),
        kind=kind,
        mac=text_of(one, "address") if ethernet else "",
        mtu=number_of(one, "mtu"),
        up="UP" in flags,
        carrier="LOWER_UP" in flags and "NO-CARRIER" not in flags,
        master=text_of(one, "master"),
        addresses=tuple(held.address for held in addresses),
        noarp="NOARP" in flags,
        settings=_settings(object_of(info, "info_data")) if kind in list(TunnelKind) else (),
        unusual_addresses=tuple(held for held in addresses if held.flags),
    )


def _address(held: Object) -> AddressState:
    return AddressState(
        interface(text_of(held, "local"), number_of(held, "prefixlen")),
        tuple(flag for flag in _FLAGS if held.get(flag) is True),
    )


def _settings(data: Object) -> tuple[Setting, ...]:
    """The ends and keys of a tunnel, where it has any."""
    found = {name: text_of(data, name) for name in _ENDS}
    return tuple(
        Setting(name, value, "any", "tunnel")
        for name, value in found.items()
        if value not in ("", "any", "0.0.0.0", "::")
    )


class Tables:
    """Routing tables by name: their numbers, or others where a host has given them names."""

    def __init__(self) -> None:
        self._named: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the number of a table."""
        if name.isascii() and name.isdecimal() and len(name) <= 10:
            return int(name)
        if name in _TABLES:
            return _TABLES[name]
        return self._named.setdefault(name, _FIRST_NAMED + len(self._named))


def routes(text: str, version: int, tables: Tables) -> Iterator[RouteState]:
    """Read ``ip -j -VERSION route show table all``, without table local."""
    for one in objects(text):
        table = tables.number(text_of(one, "table", "main"))
        if table == _TABLES["local"]:
            continue
        destination = text_of(one, "dst")
        hops = objects_of(one, "nexthops") or [one]
        for hop in hops:
            yield RouteState(
                to=None if destination == "default" else network(destination),
                via=_next_hop(hop),
                device=text_of(hop, "dev"),
                kernel=text_of(one, "protocol") == "kernel",
                table=table,
                type=text_of(one, "type", "unicast"),
                metric=number_of(one, "metric"),
                version=version,
                details=tuple(_limits(one)),
                hops=len(hops),
                weight=number_of(hop, "weight") or 1,
            )


def _limits(one: Object) -> Iterator[str]:
    """What a route limits, in ip-route(8)'s words: packets (mtu), TCP's segments (advmss)."""
    for metrics in objects_of(one, "metrics"):
        for name in ("mtu", "advmss"):
            if found := number_of(metrics, name):
                yield f"{name} {found}"


def _next_hop(hop: Object) -> IPAddress | None:
    """The gateway; of another IP version it is in an object of its own."""
    if "gateway" in hop:
        return address(text_of(hop, "gateway"))
    other = text_of(object_of(hop, "via"), "host")
    return address(other) if other else None


def rules(text: str, version: int, tables: Tables) -> Iterator[RuleState]:
    """Read ``ip -VERSION rule show``, with the numbers of tables in place of other names."""
    for line in filter(str.strip, text.split("\n")):
        preference, colon, words = line.partition(":")
        if not colon:
            raise Unreadable(f"not a rule: {line[:40]!r}")
        yield RuleState(version, number(preference), _numbered(words.split(), tables), "")


def _numbered(words: list[str], tables: Tables) -> str:
    found = list(words)
    for at, word in enumerate(words):
        after = words[at + 1] if at + 1 < len(words) else ""
        if word in ("from", "to", "iif", "lookup") and not after:
            raise Unreadable(f"a rule ends with {word}")
        if word in ("from", "to") and after != "all":
            network(after)
        elif word == "lookup" and after not in _TABLES and re.fullmatch(r"[\w.-]+", after):
            found[at + 1] = str(tables.number(after))
    return " ".join(found)


def neighbours(text: str) -> Iterator[NeighbourState]:
    """Read ``ip -j neighbour show``."""
    for one in objects(text):
        states: Iterable[str] = sorted(words_of(one, "state"))
        yield NeighbourState(
            address(text_of(one, "dst")),
            text_of(one, "dev"),
            text_of(one, "lladdr"),
            next(iter(states), "none").lower(),
        )
