"""Rules of last resort: where a packet was seen last, when every setting is in order.

A firewall does not show in the state that is looked at. It shows in the frames: they
come to a node that should carry them on or answer, and nothing leaves it.
"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.diagnosis.base import Case, Cause, Found, Rule, shown
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Role
from lvsctl.verify.trace import Conversation


def swallowed(case: Case) -> Iterator[Found]:
    """Packets that came to a node and did not get any further."""
    found: dict[tuple[str, bool], Cause] = {}
    for conversation in case.conversations:
        if conversation.exchange.answered:
            continue
        cause = _last_seen(case, conversation)
        if cause is not None:
            found.setdefault((cause.node, cause.fault == "tunnel-filtered"), cause)
    yield from found.values()


def _last_seen(case: Case, conversation: Conversation) -> Cause | None:
    frames = [f for f in conversation.replies if f.direction is not Direction.OTHER]
    reply = bool(frames)
    frames = frames or [f for f in conversation.requests if f.direction is not Direction.OTHER]
    if not frames:
        return None
    last = max(frames, key=lambda f: f.time)
    node = last.tap.node
    if last.direction is Direction.OUT or (reply and node == case.client):
        return None  # lost between nodes, or refused: no firewall of a node's
    role = case.lab.node(node).role
    if role is Role.CLIENT:
        return None
    return _swallowing(case, node, last, reply)


def _swallowing(case: Case, node: str, last: Frame, reply: bool) -> Cause:
    wrapped = len(last.ips) > 1
    what = "replies" if reply else "requests"
    outer = last.outer.protocol if last.outer is not None else 0
    protocol = f" in IP packets (protocol {outer})" if wrapped else ""
    role = case.lab.node(node).role
    return Cause(
        fault="tunnel-filtered" if wrapped and role is Role.ROUTER else "packets-filtered",
        node=node,
        says=(
            "a firewall between director and real servers drops the tunnel"
            if wrapped and role is Role.ROUTER
            else f"{what} come to {node} and go no further: perhaps a firewall drops them"
        ),
        evidence=(
            (
                f"{node}: {what}{protocol} come in, its routes and settings are in order, "
                "and nothing leaves it"
            ),
            *shown([last]),
        ),
        consequence=f"{what} end at {node}",
        remedy=case.type(node, "tc", "qdisc", "del", "dev", last.tap.device, "clsact")
        + "  # or, where a packet filter does it: nft list ruleset",
    )


RULES = (Rule(find=swallowed, rules_out="no node swallows packets whose way is in order"),)
