"""What becomes of a packet in a host's packet filters. Pure.

Where a condition is not understood, or is about something of the packet that is not known, both
are followed: that it holds, and that it does not. The question is decided if all ways agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from lvsctl.model.addresses import IPAddress
from lvsctl.model.ruleset import (
    Action,
    Chain,
    Condition,
    Field,
    Hook,
    Masked,
    PacketRule,
    PacketSeen,
    Ruleset,
    Span,
    Value,
    Verb,
)

MOST_WAYS = 512
"""More ways of a packet than these are not followed: nothing is decided then."""

_DEEPEST = 16
"""Netfilter's own limit of jumps (NFT_JUMP_STACK_SIZE)."""

_NUMBERS = {
    "1": "icmp", "4": "ipencap", "ipip": "ipencap", "6": "tcp", "17": "udp", "41": "ipv6",
    "47": "gre", "58": "ipv6-icmp", "icmpv6": "ipv6-icmp", "112": "vrrp", "132": "sctp",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Way:
    """What became of the packet in one way through the rules, and the rules that did it.

    ``unsure`` are rules of which it is not known whether they apply, or what they do.
    """

    packet: PacketSeen
    dropped: bool = False
    by: str = ""
    """What dropped it: a rule, or a chain's policy."""
    delete: tuple[str, ...] = ()
    """The words that delete that."""
    at: Chain | None = None
    """The chain of a hook in which it was dropped."""
    marked_by: PacketRule | None = None
    source_by: PacketRule | None = None
    """What replaces its source."""
    size: int | None = None
    """The segment size that a rule writes; 0: that of the path."""
    unsure: tuple[str, ...] = ()


class TooMany(Exception):
    """More than ``MOST_WAYS``."""


def ways(
    ruleset: Ruleset, hooks: Iterable[Hook], packet: PacketSeen, below: int | None = None
) -> tuple[Way, ...]:
    """Return every way of a packet through the chains at ``hooks``, in their order.

    ``below``: of the last hook, only chains of a lower priority. Raises TooMany.
    """
    every = tuple(hooks)
    found = [Way(packet)]
    for number, hook in enumerate(every):
        for chain in ruleset.at(hook, packet.version):
            if below is not None and number + 1 == len(every) and chain.priority >= below:
                continue
            found = _merged(after for way in found for after in _through(ruleset, chain, way))
    return tuple(found)


def _merged(some: Iterable[Way]) -> list[Way]:
    """One of all ways with the same end, whatever led to it. Raises TooMany."""
    found: dict[object, Way] = {}
    for one in some:
        found.setdefault((one.packet, one.dropped, one.marked_by, one.source_by, one.size), one)
    if len(found) > MOST_WAYS:
        raise TooMany
    return list(found.values())


def _through(ruleset: Ruleset, chain: Chain, way: Way) -> Iterator[Way]:
    if way.dropped:
        yield way
        return
    for after, ended in _rules(ruleset, chain, way, 0):
        if after.dropped:
            yield replace(after, at=chain)
        elif ended or chain.accepts:
            yield after
        else:
            policy = f"{chain.table} {chain.name}: its policy drops"
            yield replace(after, dropped=True, by=policy, delete=chain.policy_command, at=chain)


class _Reached(NamedTuple):
    """A way, and whether a verdict ended it in the base chain."""

    way: Way
    ended: bool


def _rules(ruleset: Ruleset, chain: Chain, way: Way, depth: int) -> Iterator[_Reached]:
    """Follow a chain's rules; what comes back to the caller is not ended."""
    current = [way]
    returned: list[Way] = []
    for rule in chain.rules:
        following: list[Way] = []
        for one in current:
            matches = [matched(condition, one.packet) for condition in rule.conditions]
            if False in matches:
                following.append(one)
                continue
            applied = one
            if None in matches:
                following.append(one)
                applied = _unsure(one, rule)
            for after, end in _applied(ruleset, chain, rule, applied, depth):
                if end is None:
                    following.append(after)
                elif end:
                    yield _Reached(after, True)
                else:
                    returned.append(after)
        current = _merged(following)
    for one in _merged((*current, *returned)):
        yield _Reached(one, False)


def _unsure(way: Way, rule: PacketRule) -> Way:
    return replace(way, unsure=tuple(dict.fromkeys((*way.unsure, rule.text))))


def _applied(
    ruleset: Ruleset, chain: Chain, rule: PacketRule, way: Way, depth: int
) -> Iterator[tuple[Way, bool | None]]:
    """What a rule does: True ends the base chain, False returns, None goes on."""
    for action in rule.actions:
        if action.verb in (Verb.JUMP, Verb.GOTO):
            called = ruleset.chain(chain.table, action.target)
            if called is not None and depth < _DEEPEST:
                yield from _called(ruleset, called, action, way, depth)
                return
            way = _unsure(way, rule)
        elif (end := _ended(action, rule, way)) is not None:
            yield end
            return
        else:
            way = _written(action, rule, way)
    yield way, None


def _called(
    ruleset: Ruleset, called: Chain, action: Action, way: Way, depth: int
) -> Iterator[tuple[Way, bool | None]]:
    """Follow a chain to which a rule jumps; after a ``goto`` it returns further."""
    for after, ended in tuple(_rules(ruleset, called, way, depth + 1)):
        if ended:
            yield after, True
        else:
            yield after, None if action.verb is Verb.JUMP else False


def _ended(action: Action, rule: PacketRule, way: Way) -> tuple[Way, bool] | None:
    """What an action that ends the rule does; None: it does not end it."""
    match action.verb:
        case Verb.ACCEPT:
            return way, True
        case Verb.DROP | Verb.REJECT:
            return replace(way, dropped=True, by=rule.text, delete=rule.delete), True
        case Verb.RETURN:
            return way, False
        case Verb.MASQUERADE | Verb.SNAT:
            return replace(way, source_by=rule), True
        case Verb.DNAT:
            return _unsure(way, rule), True
        case _:
            return None


def _written(action: Action, rule: PacketRule, way: Way) -> Way:
    if action.verb is Verb.MARK:
        mark = (way.packet.mark & ~action.mask & 0xFFFFFFFF) ^ action.number
        return replace(way, packet=way.packet._replace(mark=mark), marked_by=rule)
    if action.verb is Verb.MSS:
        return replace(way, size=action.number)
    return _unsure(way, rule) if action.verb is Verb.UNKNOWN else way


# ── conditions ───────────────────────────────────────────────────────────────────────────────


def matched(condition: Condition, packet: PacketSeen) -> bool | None:
    """Return whether a condition holds; None: that is not known."""
    found = _holds(condition, packet)
    return found if found is None or not condition.negated else not found


def _holds(condition: Condition, packet: PacketSeen) -> bool | None:
    values = condition.values
    match condition.field:
        case Field.VERSION:
            return str(packet.version) in values
        case Field.PROTOCOL:
            names = {_NUMBERS.get(str(value), str(value)) for value in values}
            return bool({packet.protocol, "all", "0"} & names)
        case Field.MARK:
            return any(isinstance(v, Masked) and packet.mark & v.mask == v.value for v in values)
        case Field.SYN:
            return packet.syn and not (packet.answers and "first" in values)
        case Field.TRANSLATED:
            return False
        case _:
            reader = _OF_ENDS.get(condition.field)
            return reader(packet, values) if reader is not None else None


def _address(address: IPAddress | None, values: tuple[Value, ...]) -> bool | None:
    if address is None:
        return None
    spans = [one for one in values if isinstance(one, Span) and one.version == address.version]
    return any(low <= int(address) <= high for low, high, _ in spans)


def _port(port: int | None, values: tuple[Value, ...]) -> bool | None:
    if port is None:
        return None
    return any(isinstance(one, Span) and one.low <= port <= one.high for one in values)


def _device(device: str, values: tuple[Value, ...]) -> bool | None:
    return _is_named(device, map(str, values)) if device else None


_OF_ENDS: dict[Field, Callable[[PacketSeen, tuple[Value, ...]], bool | None]] = {
    Field.SOURCE: lambda packet, values: _address(packet.source, values),
    Field.DESTINATION: lambda packet, values: _address(packet.destination, values),
    Field.SOURCE_PORT: lambda packet, values: _port(packet.source_port, values),
    Field.DESTINATION_PORT: lambda packet, values: _port(packet.port, values),
    Field.ARRIVES: lambda packet, values: _device(packet.arrives, values),
    Field.LEAVES: lambda packet, values: _device(packet.leaves, values),
    Field.STATE: lambda packet, values: packet.state in values if packet.state else None,
    Field.TARGET: lambda packet, values: packet.target in values if packet.target else None,
}


def _is_named(device: str, patterns: Iterable[str]) -> bool:
    return any(
        device.startswith(pattern[:-1]) if pattern.endswith("*") else device == pattern
        for pattern in patterns
    )
