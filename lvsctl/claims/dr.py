"""How the claims of direct routing are decided."""

from __future__ import annotations

from collections.abc import Mapping

from lvsctl.claims.every import Judge
from lvsctl.claims.paths import names, reply_direct, vip_holders
from lvsctl.claims.trace import Passage, Trace
from lvsctl.model.claim import Claim
from lvsctl.model.finding import Judgement, judged, undecided
from lvsctl.model.frame import Direction, Frame
from lvsctl.modes import dr


def same_vip(trace: Trace) -> Judgement:
    """The VIP is an address of the director and of every real server."""
    vip = trace.run.service.vip
    wanted = [trace.director, *(server.node for server in trace.real_servers)]
    holders = vip_holders(trace, wanted)
    missing = [node for node in wanted if not holders[node]]
    seen = ", ".join(f"{node} on {'+'.join(d)}" for node, d in holders.items() if d)
    return judged(
        not missing,
        f"{vip} on {names(wanted)}",
        (seen or "nowhere") + (f"; not on {names(missing)}" if missing else ""),
    )


def only_director_answers_arp(trace: Trace) -> Judgement:
    """Control: every real server heard the question, and the director answered it."""
    vip = trace.run.service.vip
    if vip.version != 4:
        return undecided("ARP", "the VIP is IPv6: neighbours are found by ND")
    expected = f"who has {vip}? answered by {trace.director} alone, heard by every real server"
    deaf = [s.node for s in trace.real_servers if not any(_asks(f, vip) for f in trace.at(s.node))]
    answers = [
        frame
        for frame in trace.evidence.frames
        if frame.arp is not None
        and frame.arp.is_reply
        and frame.arp.sender_ip == vip
        and frame.direction is Direction.OUT
    ]
    by = {frame.tap.node: frame for frame in answers}
    others = sorted(set(by) - {trace.director})
    observed = f"answered by {names(sorted(by)) or 'nobody'}"
    if others:
        return judged(False, expected, observed, (by[node] for node in others))
    misled = _misled(trace)
    if misled:
        return judged(False, expected, f"{observed}; but {misled}", by.values())
    if deaf:
        return undecided(expected, f"{observed}; {names(deaf)} never heard the question")
    return judged(trace.director in by, expected, observed, by.values())


def _misled(trace: Trace) -> str:
    """Who has learnt another MAC address for the VIP than the director's; empty: nobody."""
    macs = trace.macs(trace.director)
    for node, state in trace.evidence.states.items():
        for entry in state.neighbours:
            if entry.address == trace.run.service.vip and entry.mac and entry.mac not in macs:
                return f"{node} has it at {entry.mac}, which is not {trace.director}'s"
    return ""


def _asks(frame: Frame, vip: object) -> bool:
    arp = frame.arp
    return (
        arp is not None
        and arp.is_request
        and arp.target_ip == vip
        and frame.direction in (Direction.IN, Direction.BROADCAST)
    )


def real_servers_announce_rip(trace: Trace) -> Judgement:
    """Control: every real server that replied asked an ARP question at all."""
    vip = trace.run.service.vip
    expected = "ARP questions of real servers come from their RIP"
    asked = [
        frame
        for server in trace.real_servers
        for frame in trace.at(server.node)
        if frame.arp is not None and frame.arp.is_request and frame.direction is Direction.OUT
    ]
    wrong = [frame for frame in asked if frame.arp is not None and frame.arp.sender_ip == vip]
    if wrong:
        who = sorted({frame.tap.node for frame in wrong})
        return judged(False, expected, f"{names(who)} asked as {vip}", wrong)
    replied = {exchange.node for exchange in trace.run.answered}
    silent = sorted(replied - {frame.tap.node for frame in asked})
    observed = f"{len(asked)} questions, none as {vip}"
    if not asked:
        return undecided(expected, "no real server asked anything")
    if silent:
        return undecided(expected, f"{observed}; {names(silent)} asked nothing", asked[:2])
    return judged(True, expected, observed, asked[:2])


def request_only_macs_change(trace: Trace) -> Judgement:
    """Each request packet, as it came into the director and as it went out."""
    expected = "same IP packet but TTL − 1, sent from the director's MAC to the real server's"
    passages = trace.request_passages()
    if not passages:
        return undecided(expected, "no request crossed the director")
    for passage in passages:
        changed = _changed(trace, passage)
        if changed:
            return judged(False, expected, changed, passage)
    first = passages[0]
    macs = f"{first.came.ethernet} became {first.went.ethernet}"
    return judged(True, expected, f"{len(passages)} packets: {macs}", first)


def _changed(trace: Trace, passage: Passage) -> str:
    """What else of a request changed than MACs and TTL; empty: nothing."""
    came, went = passage
    before, after = came.outer, went.outer
    if before is None or after is None or len(went.ips) != 1:
        return f"it left encapsulated: {went.summary()}"
    if not before.same_but_ttl(after) or came.flow != went.flow:
        return f"it left as {went.flow}"
    if after.ttl != before.ttl - 1:
        return f"TTL {before.ttl} became {after.ttl}"
    if went.ethernet is None or went.ethernet.src not in trace.macs(trace.director):
        return "it did not leave from the director's own MAC"
    if not any(went.ethernet.dst in trace.macs(s.node) for s in trace.real_servers):
        return f"it was sent to {went.ethernet.dst}, which is no real server's"
    return ""


def one_segment(trace: Trace) -> Judgement:
    """The frame that left the director came in at a real server, to the byte."""
    expected = "a real server receives the very frame that the director sent"
    sent = [passage.went for passage in trace.request_passages()]
    if not sent:
        return undecided(expected, "no request crossed the director")
    nodes = [server.node for server in trace.real_servers]
    received = {
        frame.raw.data: frame
        for node in nodes
        for frame in trace.at(node)
        if frame.direction is Direction.IN
    }
    lost = [frame for frame in sent if frame.raw.data not in received]
    if lost:
        observed = f"{len(lost)} of {len(sent)} frames reached no real server as they were sent"
        return judged(False, expected, observed, lost[:1])
    first = sent[0]
    return judged(
        True,
        expected,
        f"{len(sent)} frames, the same at both ends",
        (first, received[first.raw.data]),
    )


JUDGES: Mapping[Claim, Judge] = {
    dr.HOLD_VIP: same_vip,
    dr.ARP_ANSWERS: only_director_answers_arp,
    dr.ARP_QUESTIONS: real_servers_announce_rip,
    dr.REQUEST: request_only_macs_change,
    dr.ONE_SEGMENT: one_segment,
    dr.REPLY: reply_direct,
}
