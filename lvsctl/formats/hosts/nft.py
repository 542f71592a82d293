"""Rules of nftables, as ``nft -j list ruleset`` prints them (libnftables-json(5)).

What is not known makes a condition or action that is not understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from lvsctl.formats.hosts.values import Object, Unreadable, number_of, objects_of, text_of
from lvsctl.model.ruleset import (
    Action,
    Chain,
    Condition,
    Field,
    Hook,
    Masked,
    PacketRule,
    Span,
    Value,
    Verb,
)

_UNKNOWN = Condition(Field.UNKNOWN)
_VERSIONS = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}

Texts = Mapping[tuple[str, int], str]
"""A rule's text by its table (with the family) and handle."""


def texts(listing: str) -> dict[tuple[str, int], str]:
    """Read ``nft -a list ruleset`` for what it says of each rule."""
    found: dict[tuple[str, int], str] = {}
    table = ""
    for line in listing.split("\n"):
        if begins := re.match(r"table (\w+ \S+) \{", line):
            table = begins[1]
        elif rule := re.fullmatch(r"\t\t(.*?) # handle (\d{1,9})", line):
            text = rule[1] if rule[1].isprintable() else repr(rule[1])[1:-1]
            found[table, int(rule[2])] = text
    return found


def chains(text: str, listed: Texts, without: Collection[str]) -> Iterator[Chain]:
    """Yield the chains of every table but those ``without`` (such as ``ip nat``).

    Raises Unreadable.
    """
    if not text.strip():
        return
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {str(error)[:80]}") from None
    if not isinstance(whole, dict):
        raise Unreadable("not an object")
    every = objects_of(whole, "nftables")
    rules: dict[tuple[str, str], list[PacketRule]] = {}
    sets = {(_table(o), text_of(o, "name")): o.get("elem", []) for o in _each(every, "set")}
    for one in _each(every, "rule"):
        place = _table(one), text_of(one, "chain")
        rules.setdefault(place, []).extend(_rules(one, listed, sets))
    for one in _each(every, "chain"):
        table, name = _table(one), text_of(one, "name")
        if table in without or text_of(one, "family") not in _VERSIONS:
            continue
        yield _chain(one, table, name, rules.get((table, name), []))


def _each(every: list[Object], kind: str) -> Iterator[Object]:
    for one in every:
        if isinstance(found := one.get(kind), dict):
            yield found


def _table(one: Object) -> str:
    return f"{text_of(one, 'family')} {text_of(one, 'table')}"


def _chain(one: Object, table: str, name: str, rules: list[PacketRule]) -> Chain:
    hook = text_of(one, "hook")
    priority = one.get("prio", 0)
    return Chain(
        f"nft {table}",
        name,
        tuple(rules),
        Hook(hook) if hook in list(Hook) else None,
        priority if isinstance(priority, int) else 0,
        text_of(one, "policy", "accept") != "drop",
        _VERSIONS[text_of(one, "family")],
        text_of(one, "type") == "nat",
        ("nft", "chain", *table.split(), name, "{ policy accept; }"),
    )


def _rules(
    one: Object, listed: Texts, sets: Mapping[tuple[str, str], object]
) -> Iterator[PacketRule]:
    """Yield a rule; one that looks up its verdict is as many as there are verdicts."""
    table, chain, handle = _table(one), text_of(one, "chain"), number_of(one, "handle")
    conditions: list[Condition] = []
    actions: list[Action] = []
    verdicts: list[tuple[list[Condition], Action]] = []

    def find_set(word: str) -> object:
        return sets.get((table, word))

    for part in objects_of(one, "expr"):
        name, value = next(iter(part.items()))
        if name == "match":
            conditions += _match(value, find_set)
        elif name == "vmap":
            verdicts += _verdicts(value, find_set)
        elif name in _LIMITS:
            conditions.append(_UNKNOWN)
        else:
            actions.append(_action(name, value))
    said = listed.get((table, handle), f"handle {handle}")
    rule = PacketRule(
        f"nft {table} {chain}: {said}",
        tuple(conditions),
        tuple(actions),
        ("nft", "delete", "rule", *table.split(), chain, "handle", str(handle)),
    )
    if not verdicts:
        yield rule
    for when, verdict in verdicts:
        both = (*conditions, *when)
        yield rule._replace(conditions=both, actions=(*actions, verdict))


def _verdicts(value: Any, find_set: Any) -> Iterator[tuple[list[Condition], Action]]:
    """``ct state vmap { invalid : drop }``: each element with its verdict."""
    data = value.get("data") if isinstance(value, dict) else None
    pairs = data.get("set") if isinstance(data, dict) else None
    if not isinstance(pairs, list):
        yield [_UNKNOWN], Action(Verb.UNKNOWN)
        return
    for pair in pairs:
        known = isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], dict) and pair[1]
        if not known:
            yield [_UNKNOWN], Action(Verb.UNKNOWN)
            continue
        name, content = next(iter(pair[1].items()))
        match = {"op": "==", "left": value.get("key"), "right": pair[0]}
        yield list(_match(match, find_set)), _action(name, content)


_LIMITS = frozenset({"limit", "quota", "xt", "ct count", "meter"})
"""What decides whether the rest of a rule applies, and is not followed."""

_VERDICTS = {
    "accept": Verb.ACCEPT, "drop": Verb.DROP, "reject": Verb.REJECT, "return": Verb.RETURN,
    "masquerade": Verb.MASQUERADE, "snat": Verb.SNAT, "dnat": Verb.DNAT, "redirect": Verb.DNAT,
    "counter": Verb.NOTHING, "log": Verb.NOTHING, "notrack": Verb.NOTHING,
    "continue": Verb.NOTHING,
}  # fmt: skip


def _action(name: str, value: Any) -> Action:
    if name in _VERDICTS:
        return Action(_VERDICTS[name])
    if name in ("jump", "goto") and isinstance(value, dict):
        return Action(Verb(name), text_of(value, "target"))
    if name == "mangle" and isinstance(value, dict):
        return _mangle(value.get("key"), value.get("value"))
    return Action(Verb.UNKNOWN)


def _mangle(key: Any, value: Any) -> Action:
    """A statement that writes: a mark or the segment size; what else it writes is no matter."""
    if key == {"meta": {"key": "mark"}}:
        if _is_number(value):
            return Action(Verb.MARK, number=value & 0xFFFFFFFF)
        return _combined(value)
    if isinstance(key, dict) and key.get("tcp option") == {"name": "maxseg", "field": "size"}:
        if _is_number(value):
            return Action(Verb.MSS, number=value)
        to_path = value == {"rt": {"key": "mtu"}}
        return Action(Verb.MSS) if to_path else Action(Verb.UNKNOWN)
    return Action(Verb.NOTHING)


def _combined(value: Any) -> Action:
    """``mark or 0x8``, ``mark and 0xff``: as bits to clear and to invert."""
    for operator in ("|", "&", "^"):
        operands = value.get(operator) if isinstance(value, dict) else None
        if (
            isinstance(operands, list)
            and len(operands) == 2
            and operands[0] == {"meta": {"key": "mark"}}
            and _is_number(operands[1])
        ):
            number = operands[1]
            if operator == "|":
                return Action(Verb.MARK, number=number, mask=number)
            if operator == "&":
                return Action(Verb.MARK, number=0, mask=~number & 0xFFFFFFFF)
            return Action(Verb.MARK, number=number, mask=0)
    return Action(Verb.UNKNOWN)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# ── conditions ───────────────────────────────────────────────────────────────────────────────

_META = {
    "iifname": Field.ARRIVES, "iif": Field.ARRIVES, "oifname": Field.LEAVES, "oif": Field.LEAVES,
    "l4proto": Field.PROTOCOL, "protocol": Field.VERSION, "nfproto": Field.VERSION,
    "mark": Field.MARK,
}  # fmt: skip
_PAYLOAD = {
    "saddr": Field.SOURCE, "daddr": Field.DESTINATION, "sport": Field.SOURCE_PORT,
    "dport": Field.DESTINATION_PORT, "protocol": Field.PROTOCOL, "nexthdr": Field.PROTOCOL,
}  # fmt: skip
_OF_CONNECTIONS = {"state": Field.STATE, "status": Field.TRANSLATED}
_OF_VERSION = {"ip": "4", "ip6": "6"}
_VERSION_WORDS = {"ip": "4", "ipv4": "4", "ip6": "6", "ipv6": "6"}
_TRANSPORTS = ("tcp", "udp", "sctp", "dccp", "udplite")
_OTHERS = {"icmp": "icmp", "icmpv6": "ipv6-icmp", "esp": "esp", "ah": "ah"}


def _match(match: Any, find_set: Any) -> Iterator[Condition]:
    """A match, and what it implies: of ``tcp dport`` the protocol."""
    if not isinstance(match, dict):
        raise Unreadable("a match is not an object")
    left, right = match.get("left"), match.get("right")
    operator = match.get("op", "==")
    if operator not in ("==", "!=", "in") or not isinstance(left, dict):
        yield _UNKNOWN
        return
    if _is_syn(left, right, operator):
        yield Condition(Field.PROTOCOL, ("tcp",))
        yield Condition(Field.SYN)
        return
    if isinstance(payload := left.get("payload"), dict):
        yield from _implied(text_of(payload, "protocol"))
    field = _field(left)
    values = _values(field, right, find_set) if field is not None else None
    if field is None or values is None:
        yield _UNKNOWN
    else:
        yield Condition(field, values, operator == "!=")


def _implied(protocol: str) -> Iterator[Condition]:
    if protocol in _OF_VERSION:
        yield Condition(Field.VERSION, (_OF_VERSION[protocol],))
    elif protocol in _TRANSPORTS or protocol in _OTHERS:
        yield Condition(Field.PROTOCOL, (_OTHERS.get(protocol, protocol),))


def _field(left: Object) -> Field | None:
    """What the left side of a comparison is; None: nothing that is understood."""
    if isinstance(payload := left.get("payload"), dict):
        known = text_of(payload, "protocol") in (*_OF_VERSION, *_TRANSPORTS, "th")
        return _PAYLOAD.get(text_of(payload, "field")) if known else None
    if isinstance(meta := left.get("meta"), dict):
        return _META.get(text_of(meta, "key"))
    ct = left.get("ct")
    return _OF_CONNECTIONS.get(text_of(ct, "key")) if isinstance(ct, dict) else None


def _is_syn(left: Object, right: Any, operator: str) -> bool:
    """``tcp flags syn / syn,rst`` and its longer form."""
    both = left.get("&")
    if not isinstance(both, list) or len(both) != 2 or operator == "!=":
        return False
    payload, mask = both
    flags = {"payload": {"protocol": "tcp", "field": "flags"}}
    if isinstance(mask, dict):
        mask = mask.get("|")
    names = mask if isinstance(mask, list) else [mask]
    return payload == flags and right == "syn" and set(map(str, names)) == {"syn", "rst"}


def _values(field: Field, right: Any, find_set: Any) -> tuple[Value, ...] | None:
    """What a field is compared with; None if that is not understood."""
    if isinstance(right, str) and right.startswith("@"):
        right = {"set": find_set(right[1:])}
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    every = right if isinstance(right, list) else [right]
    found: list[Value] = []
    for one in every:
        if isinstance(one, dict) and isinstance(one.get("elem"), dict):
            one = one["elem"].get("val")  # noqa: PLW2901 (an element with a timeout or comment)
        value = _value(field, one)
        if value is None:
            return None
        found.append(value)
    return tuple(found)


def _value(field: Field, one: Any) -> Value | None:
    try:
        if field in (Field.SOURCE, Field.DESTINATION):
            return _addresses(one)
        if field in (Field.SOURCE_PORT, Field.DESTINATION_PORT):
            return _ports(one)
        if field is Field.MARK:
            return Masked(one) if _is_number(one) else None
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(one, str):
        return str(one) if field is Field.PROTOCOL and _is_number(one) else None
    return _VERSION_WORDS.get(one) if field is Field.VERSION else one


def _addresses(one: Any) -> Span | None:
    if isinstance(one, str):
        address = ip_address(one)
        return Span(int(address), int(address), address.version)
    if isinstance(one, dict) and "prefix" in one:
        network = ip_network(f"{one['prefix']['addr']}/{one['prefix']['len']}", strict=False)
        ends = network.network_address, network.broadcast_address
        return Span(int(ends[0]), int(ends[1]), network.version)
    if isinstance(one, dict) and "range" in one:
        low, high = map(ip_address, one["range"])
        return Span(int(low), int(high), low.version)
    return None


def _ports(one: Any) -> Span | None:
    if _is_number(one):
        return Span(one, one)
    if isinstance(one, dict) and "range" in one:
        low, high = one["range"]
        return Span(low, high) if _is_number(low) and _is_number(high) else None
    return None
