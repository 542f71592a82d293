"""The way of a request out of recorded frames, and how it is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lvsctl.model.evidence import Evidence
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.service import Protocol
from lvsctl.model.walk import Hop, Step, Walk
from lvsctl.output.text.style import Style
from lvsctl.output.text.walk import format_walk, mermaid
from lvsctl.walk.phrases import outcome_of
from lvsctl.walk.walk import packets, walks
from tests.unit.recorded import mutations as m
from tests.unit.recorded.mutations import nothing_answered
from tests.unit.recorded.reports import NAMES, evidence_of

PLAIN = Style(color=False, width=80)


def walk_in(evidence: Evidence) -> Walk:
    return next(walks(evidence))


def way(hops: tuple[Hop, ...]) -> list[tuple[str, ...]]:
    return [(hop.sender, *hop.receivers) for hop in hops]


def first_packet(walk: Walk, step: Step) -> tuple[Hop, ...]:
    steps = (step, Step.DECAPSULATED) if step is Step.REQUEST else (step,)
    return packets(hop for hop in walk.hops if hop.step in steps)[0]


WAYS = {
    "dr": ([("client", "director"), ("director", "RS")], [("RS", "client")]),
    "dr-routed": (
        [("client", "router"), ("router", "director"), ("director", "RS")],
        [("RS", "router"), ("router", "client")],
    ),
    "nat": (
        [("client", "director"), ("director", "RS")],
        [("RS", "director"), ("director", "client")],
    ),
    "tun": (
        [
            ("client", "router"),
            ("router", "director"),
            ("director", "router"),
            ("router", "RS"),
            ("RS", "RS"),
        ],
        [("RS", "router"), ("router", "client")],
    ),
}
"""Of a request's first packet and of its first answer; RS is the real server that answered."""


@pytest.mark.parametrize("name", WAYS)
def test_the_way_is_that_of_the_forwarding_method(name: str) -> None:
    walk = walk_in(evidence_of(name))
    named = [
        [tuple(walk.exchange.node if node == "RS" else node for node in hop) for hop in hops]
        for hops in WAYS[name]
    ]
    assert way(first_packet(walk, Step.REQUEST)) == named[0]
    assert way(first_packet(walk, Step.REPLY)) == named[1]


SAID = {
    "dr": ["changed only the destination MAC to", "direct routing", "did not reply",
           "replies from the VIP directly to the client, bypassing the director"],
    "nat": ["the director rewrote the destination 10.20.0.100:80 to", "NAT",
            "so that the client sees the VIP only"],
    "tun": ["encapsulated the packet (10.30.1.2 →", "tunnelling", "tunl0 delivers"],
    "tun-gre": ["encapsulated the packet (10.40.1.2 →", "gre)", "gre0 delivers"],
    "tun-gue": ["encapsulated the packet (10.50.1.2 →", "gue)", "tunl0 delivers"],
    "dr-routed": ["router forwarded it to director: TTL 64 → 63"],
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_each_method_is_told_in_its_own_words(name: str) -> None:
    said = " ".join(hop.why for hop in walk_in(evidence_of(name)).hops)
    for words in SAID[name]:
        assert words in said


def test_changes_are_those_of_the_hop() -> None:
    _, direct = first_packet(walk_in(evidence_of("dr")), Step.REQUEST)
    assert [change.what for change in direct.changes] == ["source MAC", "destination MAC", "TTL"]
    _, rewritten = first_packet(walk_in(evidence_of("nat")), Step.REQUEST)
    assert [c.what for c in rewritten.changes][2:] == ["destination", "TTL"]


@pytest.mark.parametrize("name", NAMES)
def test_every_hop_is_seen_at_both_ends_in_time_order(name: str) -> None:
    hops = walk_in(evidence_of(name)).hops
    assert [hop.frame.time for hop in hops] == sorted(hop.frame.time for hop in hops)
    for hop in hops:
        assert hop.receivers, hop.label
        assert hop.sender, hop.label
        assert hop.why


def unseen_by_real_servers(frame: Frame) -> bool:
    answered = m.from_port(80)(frame)
    return answered or (frame.tap.node.startswith("rs") and frame.direction is not Direction.OUT)


def test_a_request_that_got_lost_says_where() -> None:
    lost = m.without(unseen_by_real_servers)(evidence_of("dr"))
    walk = walk_in(m.with_run(nothing_answered)(lost))
    assert walk.outcome == (
        "no answer: timed out; director sent the last request packet on lan, no node received it"
    )
    assert any(hop.lost for hop in walk.hops)
    assert "no node received it" in format_walk(walk, style=PLAIN)


@pytest.mark.parametrize("name", NAMES)
def test_text_tells_each_way_once(name: str) -> None:
    walk = walk_in(evidence_of(name))
    brief, full = format_walk(walk, style=PLAIN), format_walk(walk, style=PLAIN, verbose=True)
    one_packet_each_way = walk.service.endpoint.protocol is Protocol.UDP
    assert ("and along the same path:" in brief) is not one_packet_each_way
    assert "and along the same path:" not in full
    assert (len(brief) < len(full)) is not one_packet_each_way
    assert f"answered by {walk.exchange.node}" in brief


def test_mermaid_draws_every_hop_and_lets_nothing_out_of_its_line() -> None:
    walk = walk_in(evidence_of("dr"))
    lines = mermaid(walk).splitlines()
    assert lines[0] == "sequenceDiagram"
    assert sum("->>" in line or "--)" in line for line in lines) >= len(walk.hops)
    assert not any(";" in line.replace("#59;", "").replace("#35;", "") for line in lines)


def test_brief_is_a_line_a_hop() -> None:
    walk = walk_in(evidence_of("dr"))
    said = format_walk(walk, style=PLAIN, brief=True)
    told = [line for line in said.splitlines() if " on lan  " in line]
    assert len(told) == len([hop for hop in walk.hops if not hop.again])
    assert "frames #" not in said
    assert any(" is at 02:00:" in line for line in told)


def test_a_sender_that_holds_the_vip_is_told() -> None:
    walk = walk_in(evidence_of("dr"))
    assert "holds the VIP itself" in outcome_of(walk.exchange, ())
    anonymous = replace(walk.exchange, node="")
    assert outcome_of(anonymous, walk.hops) == f"answered by {walk.exchange.node}"
