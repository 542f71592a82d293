"""Rule about packets whose TTL (IPv6: hop limit) is used up before they arrive."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.claims.trace import identity
from lvsctl.diagnosis.base import Case, Found, Rule, shown
from lvsctl.model.claim import Cause
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Role


def _keys(case: Case, sender: str, version: int) -> list[str]:
    """The settings of what a node sends with: in IPv6 an interface's own (ip6_dst_hoplimit)."""
    if version == 4:
        return ["net.ipv4.ip_default_ttl"]
    return [f"net.ipv6.conf.{name}.hop_limit" for name in case.lab.node(sender).networks]


def expiring(case: Case) -> Iterator[Found]:
    """Packets that came to a node that forwards with nothing left to take away."""
    named = set()
    for conversation in case.conversations:
        if conversation.exchange.answered:
            continue
        for frames in (conversation.requests, conversation.replies):
            for sender, last in _expired(case, frames):
                if (sender, last.tap.node) not in named:
                    named.add((sender, last.tap.node))
                    yield cause(case, sender, last)


def _expired(case: Case, frames: tuple[Frame, ...]) -> Iterator[tuple[str, Frame]]:
    """Senders of packets that ended at a forwarding node with a TTL of 1, with those packets."""
    first: dict[object, Frame] = {}
    last: dict[object, Frame] = {}
    came: dict[object, set[int]] = {}
    for frame in frames:
        if frame.direction is not Direction.OTHER:
            first.setdefault(identity(frame), frame)
            last[identity(frame)] = frame
        if frame.direction.inward and frame.outer is not None:
            came.setdefault((identity(frame), frame.tap), set()).add(frame.outer.ttl)
    for packet, frame in last.items():
        if len(came.get((packet, frame.tap), ())) > 1:
            continue  # it went round and came back: another rule names the loop
        if expires(case, frame):
            yield first[packet].tap.node, frame


def expires(case: Case, frame: Frame) -> bool:
    """Whether a packet ends where it was captured, for the node has to take 1 from its TTL."""
    forwards = case.lab.node(frame.tap.node).role in (Role.ROUTER, Role.DIRECTOR)
    inward = frame.direction is not Direction.OUT
    return forwards and inward and frame.outer is not None and frame.outer.ttl <= 1


def cause(case: Case, sender: str, last: Frame) -> Cause:
    """The cause of packets of ``sender`` that expire, ``last`` among them."""
    ip = last.outer
    version, name = (ip.version, ip.ttl_name) if ip is not None else (4, "TTL")
    keys = _keys(case, sender, version)
    changed = [one for one in (case.network.changed(sender, key) for key in keys) if one]
    facts = [f"{sender}: {one.name}={one.value}" for one in changed]
    usual = [case.sysctl(sender, one.name, one.usual) for one in changed]
    return Cause(
        fault="ttl-expired",
        node=sender,
        text=f"packets of {sender} have a {name} of 1 at {last.tap.node} and expire there",
        evidence=(*facts, *shown([last])),
        consequence=f"{last.tap.node} drops them, for each hop takes 1 from the {name}",
        remedy=" && ".join(usual) or case.restore(sender),
    )


RULES = (
    Rule(find=expiring, by_state=False, harms_others=True, rules_out="no packet's TTL is used up"),
)
