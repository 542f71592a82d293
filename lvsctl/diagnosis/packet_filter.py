"""Rules about packet filters: the rule that dropped, rejected or rewrote what was sent.

A rule is a cause only where it matched packets while requests were sent, and where a request
that was not answered was last captured at its node. Packets pass a capture before the filters of
the node that receives them, and after those of the node that sends them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lvsctl.claims.ha import advertisements
from lvsctl.claims.trace import Conversation
from lvsctl.diagnosis.base import Case, Found, Rule, shown
from lvsctl.diagnosis.lost_at import lost_at
from lvsctl.diagnosis.rule_match import may_match
from lvsctl.model.claim import Cause, Remark
from lvsctl.model.frame import Direction
from lvsctl.model.packet_filter import FilterProgram, FilterRule

_SENDING = frozenset({"output", "postrouting", "egress"})
"""Hooks that packets pass before a capture of the node that sends them sees them."""


def dropped(case: Case) -> Iterator[Found]:
    """Rules that dropped or rejected packets of the requests."""
    losses = lost_at(case)
    for place, rule in _matched(case):
        if not rule.drops:
            continue
        seen = losses.get(place, ())
        if rule.packets is None and seen and not any(may_match(rule, frame) for frame in seen):
            continue  # it is not counted, and none of the packets that were lost can match it
        if case.fine or not (place in losses or _before_capture(case, place, rule)):
            if may_stop_vrrp(case, place, rule):
                continue  # evidence of the rules about directors
            harmless = "which stopped no request" if case.fine else "and no request was lost there"
            yield Remark(place, f"a packet filter has {rule}, {harmless}")
            continue
        verb = "rejects" if rule.action == "REJECT" else "drops"
        yield Cause(
            fault="packet-filter",
            node=place,
            text=f"a packet filter {verb} packets: {rule.program}, {_where(rule)}",
            evidence=(_fact(place, rule), *shown(seen)),
            consequence=_CONSEQUENCES[verb].format(place=place),
            remedy=_remedy(case, place, rule),
        )


def may_stop_vrrp(case: Case, place: str, rule: FilterRule) -> bool:
    """Whether a rule that drops may match another director's advertisement that arrived."""
    return rule.drops and any(
        may_match(rule, one.frame)
        for one in advertisements(case.evidence)
        if one.frame.tap.node == place and one.frame.direction is not Direction.OUT
    )


_CONSEQUENCES = {
    "drops": "what it matches ends at {place}, and whoever sent it is not told",
    "rejects": "what it matches ends at {place}, which tells the sender by an ICMP error or a RST",
}


def rewritten(case: Case) -> Iterator[Found]:
    """Rules that changed the address or port of packets of the requests."""
    for place, rule in _matched(case):
        if not rule.rewrites:
            continue
        if case.works_otherwise or not case.requests(place):
            yield Remark(place, f"a packet filter rewrites packets: {rule}")
            continue
        yield Cause(
            fault="packet-rewriting",
            node=place,
            text=f"a packet filter rewrites packets ({rule.action}): {_where(rule)}",
            evidence=(_fact(place, rule), *shown(case.requests(place))),
            consequence="addresses or ports are not those that the forwarding method relies on",
            remedy=_remedy(case, place, rule),
        )


def _matched(case: Case) -> Iterator[tuple[str, FilterRule]]:
    """Rules, with their nodes or networks, that matched packets while requests were sent.

    Those that the kernel does not count are among them.
    """
    for place, rules in case.evidence.packet_filters.items():
        for rule in rules:
            if rule.foreign and rule.packets != 0:
                yield place, rule


def _where(rule: FilterRule) -> str:
    what = f"policy of chain {rule.chain}" if rule.is_policy else f"chain {rule.chain}"
    hook = f" at hook {rule.hook}" if rule.hook.lower() not in ("", rule.chain.lower()) else ""
    return f"table {rule.table}, {what}{hook}"


def _fact(place: str, rule: FilterRule) -> str:
    if rule.packets is None:
        return f"{place}: {rule}  (not counted by the kernel)"
    packets = "1 packet" if rule.packets == 1 else f"{rule.packets} packets"
    return f"{place}: {rule}  (matched {packets} meanwhile)"


def _remedy(case: Case, place: str, rule: FilterRule) -> str:
    if not rule.tool:
        # Which empties the table, where no program is installed that can.
        return case.restore(place)
    return case.type(place, *rule.delete_command())


def _before_capture(case: Case, place: str, rule: FilterRule) -> bool:
    """Whether the rule is about what its node sends, and nothing of a request left the node."""
    rules = case.evidence.packet_filters.get(place, ())
    if not _SENDING.intersection(hooks_of(rule, rules)):
        return False
    return any(_stayed(conversation, place) for conversation in case.conversations)


def hooks_of(
    rule: FilterRule, rules: Sequence[FilterRule], seen: frozenset[str] = frozenset()
) -> frozenset[str]:
    """Return where packets meet a rule: its chain's hook, or those of chains that lead to it.

    ``rules`` are all of the same node; ``seen`` are the chains that were looked at already.
    """
    if rule.hook or (rule.program is not FilterProgram.NFT and rule.chain in _BUILT_IN):
        return frozenset({rule.hook or rule.chain.lower()})
    callers = (
        one
        for one in rules
        if (one.program, one.table, one.action) == (rule.program, rule.table, rule.chain)
    )
    seen |= {rule.chain}
    found = (hooks_of(one, rules, seen) for one in callers if one.chain not in seen)
    return frozenset[str]().union(*found)


_BUILT_IN = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING", "BROUTING"})


def _stayed(conversation: Conversation, place: str) -> bool:
    frames = (*conversation.requests, *conversation.replies)
    left = any(f.tap.node == place and f.direction is Direction.OUT for f in frames)
    return not conversation.exchange.answered and not left


RULES = (
    Rule(
        find=dropped,
        by_state=False,
        harms_others=True,
        rules_out="no packet filter of a node or switch dropped anything meanwhile",
    ),
    Rule(
        find=rewritten,
        by_state=False,
        harms_others=True,
        rules_out="no packet filter rewrote anything meanwhile",
    ),
)
