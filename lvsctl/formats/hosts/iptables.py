"""Rules of iptables and ip6tables, as iptables-save(8) prints them.

What a match or target is not known by name makes a condition or action that is not understood.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from ipaddress import ip_network

from lvsctl.formats.hosts.values import Unreadable
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

_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
"""Of tables' chains (linux/netfilter_ipv4.h); nat's depends on the hook."""

_NAT = {Hook.PREROUTING: -100, Hook.OUTPUT: -100, Hook.INPUT: 100, Hook.POSTROUTING: 100}

_UNKNOWN = Condition(Field.UNKNOWN)


def chains(text: str, version: int) -> Iterator[Chain]:
    """Yield the chains of every table. Raises Unreadable."""
    program = "iptables" if version == 4 else "ip6tables"
    table, policies, rules = "", dict[str, str](), dict[str, list[PacketRule]]()
    for line in text.split("\n"):
        if line.startswith("*"):
            table, policies, rules = line[1:], {}, {}
        elif found := re.fullmatch(r":(\S{1,64}) (\S+)(?: \[\d+:\d+\])?", line):
            policies[found[1]] = found[2]
            rules[found[1]] = []
        elif line == "COMMIT":
            for name, policy in policies.items():
                yield _chain(program, table, name, policy, rules[name])
        elif found := re.fullmatch(r"(?:\[\d+:\d+\] )?-A (\S+)(.*)", line):
            if found[1] not in rules:
                raise Unreadable(f"a rule of a chain that was not listed: {line[:60]!r}")
            rules[found[1]].append(_rule(program, table, found[1], found[2].strip()))
        elif line.strip() and not line.startswith("#"):
            raise Unreadable(f"not a line of {program}-save: {line[:60]!r}")


def _chain(program: str, table: str, name: str, policy: str, rules: list[PacketRule]) -> Chain:
    builtin = policy != "-" and name.lower() in list(Hook)
    hook = Hook(name.lower()) if builtin else None
    priority = _PRIORITIES.get(table, 0)
    if table == "nat" and hook is not None:
        priority = _NAT.get(hook, 0)
    return Chain(
        f"{program} -t {table}",
        name,
        tuple(rules),
        hook,
        priority,
        policy != "DROP",
        (4,) if program == "iptables" else (6,),
        table == "nat",
        (program, "-t", table, "-P", name, "ACCEPT"),
    )


def _rule(program: str, table: str, chain: str, text: str) -> PacketRule:
    try:
        words = shlex.split(text)
    except ValueError:
        raise Unreadable(f"not a rule: {text[:60]!r}") from None
    reading = _Reading(words)
    shown = f"{program} -t {table} -A {chain} {text}"
    return PacketRule(
        shown if shown.isprintable() else repr(shown)[1:-1],
        tuple(reading.conditions),
        tuple(reading.actions()),
        (program, "-t", table, "-D", chain, *words),
    )


class _Reading:
    """Reads the words of a rule from left to right."""

    def __init__(self, words: list[str]) -> None:
        self._words, self._at = words, 0
        self.conditions: list[Condition] = []
        self._target, self._options, self._goto = "", dict[str, str](), False
        negated = False
        while self._at < len(words):
            word = self._next()
            if word == "!":
                negated = True
                continue
            if word in ("-j", "-g"):
                self._target, self._goto = self._next(), word == "-g"
                self._options = _options(words[self._at :])
                break
            self._match(word, negated)
            negated = False

    def _next(self) -> str:
        word = self._words[self._at] if self._at < len(self._words) else ""
        self._at += 1
        return word

    def _match(self, word: str, negated: bool) -> None:
        if word == "-m":
            if self._next() not in _MODULES:
                self._leave_out()
        elif word == "--comment":
            self._next()
        elif word in _MATCHES:
            field, read = _MATCHES[word]
            self.conditions.append(Condition(field, tuple(read(self._next())), negated))
        elif word == "--tcp-flags":
            of, flags = self._next(), self._next()
            first = () if of == "SYN,RST" else ("first",) if of == "FIN,SYN,RST,ACK" else None
            known = flags == "SYN" and first is not None
            self.conditions.append(
                Condition(Field.SYN, first or (), negated) if known else _UNKNOWN
            )
        else:
            self.conditions.append(_UNKNOWN)
            while self._at < len(self._words) and not self._words[self._at].startswith(("-", "!")):
                self._next()

    def _leave_out(self) -> None:
        """Leave out all options of a match that is not understood: others have such names, too."""
        self.conditions.append(_UNKNOWN)
        while self._at < len(self._words) and self._words[self._at] not in ("-m", "-j", "-g"):
            self._next()

    def actions(self) -> Iterator[Action]:
        """What the rule's target does."""
        target, options = self._target, self._options
        if target in _VERDICTS:
            yield Action(_VERDICTS[target])
        elif target == "MARK":
            yield _mark(options)
        elif target == "TCPMSS":
            yield Action(Verb.MSS, number=_number(options.get("--set-mss", "0")))
        elif target.isupper() and target in _UNDERSTOOD_IN_PART:
            yield Action(Verb.UNKNOWN)
        elif target:
            yield Action(Verb.GOTO if self._goto else Verb.JUMP, target)


_VERDICTS = {
    "ACCEPT": Verb.ACCEPT, "DROP": Verb.DROP, "REJECT": Verb.REJECT, "RETURN": Verb.RETURN,
    "MASQUERADE": Verb.MASQUERADE, "SNAT": Verb.SNAT, "DNAT": Verb.DNAT, "REDIRECT": Verb.DNAT,
    "LOG": Verb.NOTHING, "NFLOG": Verb.NOTHING, "TRACE": Verb.NOTHING, "CHECKSUM": Verb.NOTHING,
    "CLASSIFY": Verb.NOTHING, "DSCP": Verb.NOTHING, "TTL": Verb.NOTHING, "HL": Verb.NOTHING,
    "AUDIT": Verb.NOTHING,
}  # fmt: skip
_UNDERSTOOD_IN_PART = frozenset(
    {
        "CONNMARK", "CONNSECMARK", "CT", "HMARK", "IDLETIMER", "NETMAP", "NFQUEUE", "NOTRACK",
        "QUEUE", "RATEEST", "SECMARK", "SET", "SYNPROXY", "TARPIT", "TEE", "TOS", "TPROXY",
    }
)  # fmt: skip
"""Targets that are no chains of the user's, and whose effect is not followed."""


_MODULES = frozenset(
    {"tcp", "udp", "sctp", "multiport", "comment", "mark", "state", "conntrack", "addrtype"}
)
"""Matches of which every option is understood, or known not to be."""


def _options(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for at, word in enumerate(words):
        if word.startswith("--"):
            following = words[at + 1 : at + 2]
            found[word] = following[0] if following and not following[0].startswith("--") else ""
    return found


def _mark(options: dict[str, str]) -> Action:
    """``--set-xmark VALUE/MASK``: the bits of the mask are cleared, those of the value inverted."""
    text = options.get("--set-xmark", "")
    if not text:
        return Action(Verb.UNKNOWN)
    value, _, mask = text.partition("/")
    return Action(Verb.MARK, number=_number(value), mask=_number(mask or "0xffffffff"))


def _number(text: str) -> int:
    try:
        return int(text, 0) & 0xFFFFFFFF
    except ValueError:
        raise Unreadable(f"not a number: {text[:60]!r}") from None


def _addresses(text: str) -> Iterator[Value]:
    for word in text.split(","):
        try:
            network = ip_network(word, strict=False)
        except ValueError:
            raise Unreadable(f"not an address of a rule: {word[:60]!r}") from None
        low, high = network.network_address, network.broadcast_address
        yield Span(int(low), int(high), network.version)


def _ports(text: str) -> Iterator[Value]:
    for word in text.split(","):
        low, colon, high = word.partition(":")
        yield Span(_number(low or "0"), _number((high or "65535") if colon else low))


def _interface(text: str) -> Iterator[Value]:
    yield text.removesuffix("+") + "*" * text.endswith("+")


def _words(text: str) -> Iterator[Value]:
    yield from text.lower().split(",")


def _masked(text: str) -> Iterator[Value]:
    value, _, mask = text.partition("/")
    yield Masked(_number(value), _number(mask or "0xffffffff"))


_MATCHES: dict[str, tuple[Field, Callable[[str], Iterator[Value]]]] = {
    "-s": (Field.SOURCE, _addresses),
    "-d": (Field.DESTINATION, _addresses),
    "-i": (Field.ARRIVES, _interface),
    "-o": (Field.LEAVES, _interface),
    "-p": (Field.PROTOCOL, _words),
    "--sport": (Field.SOURCE_PORT, _ports),
    "--dport": (Field.DESTINATION_PORT, _ports),
    "--sports": (Field.SOURCE_PORT, _ports),
    "--dports": (Field.DESTINATION_PORT, _ports),
    "--mark": (Field.MARK, _masked),
    "--state": (Field.STATE, _words),
    "--ctstate": (Field.STATE, _words),
    "--dst-type": (Field.TARGET, _words),
}
"""Options that are understood; those with the same name of several matches mean the same."""
