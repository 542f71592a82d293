"""The claims of direct routing (dr): each with the faults that break it and how it is decided."""

from __future__ import annotations

from typing import NamedTuple

from lvsctl.claims.base import CheckResult, ClaimTable, inconclusive, join_names, passed_if
from lvsctl.claims.direct_reply import reply_is_direct
from lvsctl.claims.trace import Passage, Trace
from lvsctl.model.frame import Direction, Frame

CLAIMS = ClaimTable()


def _is_asked_for(trace: Trace) -> bool:
    """Whether neighbours ask for the VIP: it belongs to a network that the director is on.

    A VIP on a network without the director is reached by routes, and no node asks for it.
    """
    lab = trace.evidence.lab
    network = lab.network_of(trace.run.endpoint.vip)
    return network is not None and any(network.name in node.networks for node in lab.directors)


def _words(trace: Trace) -> _Words:
    return _WORDS[trace.run.endpoint.vip.version]


class _Words(NamedTuple):
    """What is asked and answered in ARP (RFC 826) and in neighbour discovery (RFC 4861)."""

    question: str
    asked: str
    verb: str


_WORDS = {
    4: _Words("ARP request", "who-has {}", "answers ARP requests"),
    6: _Words("neighbour solicitation", "a solicitation of {}", "answers neighbour solicitations"),
}


@CLAIMS.add(
    "dr.same-vip",
    "the director and every real server hold the same VIP",
    broken_by=("vip-missing", "vip-missing-on-director"),
    needs_requests=False,
    needs_frames=False,
)
def same_vip(trace: Trace) -> CheckResult:
    """The VIP is an address of the director and of every real server."""
    vip = trace.run.endpoint.vip
    directors = trace.directors if not trace.evidence.lab.floating else (trace.master,)
    wanted = [*directors, *(server.node for server in trace.real_servers)]
    holders = trace.vip_holders(wanted)
    missing = [node for node in wanted if not holders[node]]
    seen = ", ".join(f"{node} on {'+'.join(d)}" for node, d in holders.items() if d)
    return passed_if(
        not missing,
        f"{vip} on {join_names(wanted)}",
        (seen or "nowhere") + (f"; not on {join_names(missing)}" if missing else ""),
    )


@CLAIMS.add(
    "dr.only-director-answers-arp",
    "only the director answers ARP requests for the VIP, although every real server receives them",
    broken_by=(
        "arp-ignore-unset",
        "arp-ignore-on-lo-only",
        "vip-on-lan",
        "proxy-ndp",
        "vip-tentative",
        "vip-missing-on-director",
    ),
    applies=_is_asked_for,
    needs_requests=False,
    wording=lambda trace: (
        f"only the director {_words(trace).verb} for the VIP, although every real server "
        "receives them"
    ),
)
def only_director_answers_arp(trace: Trace) -> CheckResult:
    """Positive control: every real server received a request, and the director answered it.

    IPv6 asks by a neighbour solicitation to the VIP's solicited-node multicast address, which
    the switch floods as it does a broadcast (RFC 4861, section 7.2.2).
    """
    vip = trace.run.endpoint.vip
    words = _words(trace)
    directors = join_names(trace.directors)
    expected = (
        f"{words.asked.format(vip)} is answered by {directors} only, and received by every real "
        "server"
    )
    lab = trace.evidence.lab
    network = lab.network_of(vip)
    beside = [
        s.node
        for s in trace.real_servers
        if network is not None and network.name in lab.node(s.node).networks
    ]
    unasked = [node for node in beside if not any(_asks(f, vip) for f in trace.at(node))]
    answers = [
        frame
        for frame in trace.evidence.frames
        if frame.direction is Direction.OUT and frame.answers_for == vip
    ]
    by = {frame.tap.node: frame for frame in answers}
    others = sorted(set(by) - set(trace.directors))
    observed = f"answered by {join_names(sorted(by))}" if by else "not answered"
    if others:
        return passed_if(False, expected, observed, (by[node] for node in others))
    wrong_entry = _wrong_neighbour_entry(trace)
    if wrong_entry:
        return passed_if(False, expected, f"{observed}; but {wrong_entry}", by.values())
    if not beside:
        observed += "; no real server is on the VIP's network"
    if unasked:
        none = f"{join_names(unasked)} received no {words.question}"
        return inconclusive(expected, f"{observed}; {none}")
    return passed_if(not by.keys().isdisjoint(trace.directors), expected, observed, by.values())


def _wrong_neighbour_entry(trace: Trace) -> str:
    """Find a neighbour entry that maps the VIP to a MAC address of no director; else empty."""
    macs = frozenset[str]().union(*map(trace.macs, trace.directors))
    for node, state in trace.evidence.states.items():
        networks = trace.evidence.lab.node(node).networks
        for entry in state.neighbours:
            if entry.device not in networks:
                continue  # of a dummy or tunnel device: the kernel gives it the device's own
            if entry.address == trace.run.endpoint.vip and entry.mac and entry.mac not in macs:
                directors = join_names(trace.directors)
                return f"{node} has it at {entry.mac}, which is not a MAC address of {directors}"
    return ""


def _asks(frame: Frame, vip: object) -> bool:
    return frame.asks_for == vip and frame.direction in (
        Direction.IN,
        Direction.BROADCAST,
        Direction.MULTICAST,
    )


@CLAIMS.add(
    "dr.real-servers-announce-rip",
    "real servers send their own ARP requests from their RIP, never from the VIP",
    broken_by=("arp-announce-unset", "vip-on-lan"),
    wording=lambda trace: (
        "real servers send their own ARP requests from their RIP, never from the VIP"
        if trace.run.endpoint.vip.version == 4
        else "real servers solicit neighbours from an address of their own, never from the VIP"
    ),
)
def real_servers_announce_rip(trace: Trace) -> CheckResult:
    """Positive control: every real server that replied sent an ARP request."""
    vip = trace.run.endpoint.vip
    question = _words(trace).question
    own = "their RIP" if vip.version == 4 else "an address of their own"
    expected = f"{question}s of real servers come from {own}"
    asked = [
        frame
        for server in trace.real_servers
        for frame in trace.at(server.node)
        if frame.direction is Direction.OUT
        and frame.asks_for is not None
        and frame.asks_for.version == vip.version
    ]
    wrong = [frame for frame in asked if frame.asked_from == vip]
    if wrong:
        who = sorted({frame.tap.node for frame in wrong})
        article = "an" if question.startswith("A") else "a"
        return passed_if(
            False, expected, f"{join_names(who)} sent {article} {question} from {vip}", wrong
        )
    replied = {exchange.node for exchange in trace.run.answered}
    silent = sorted(replied - {frame.tap.node for frame in asked})
    count = f"{len(asked)} {question}{'s' * (len(asked) != 1)}"
    observed = f"{count}, none sent from {vip}"
    if not asked:
        return inconclusive(expected, f"no {question} of a real server was captured")
    if silent:
        return inconclusive(expected, f"{observed}; none from {join_names(silent)}", asked[:2])
    return passed_if(True, expected, observed, asked[:2])


@CLAIMS.add(
    "dr.request-only-macs-change",
    "the director changes nothing of a request but the MAC addresses and the TTL",
    broken_by=("wrong-forwarding-method", "stale-neighbour"),
)
def request_only_macs_change(trace: Trace) -> CheckResult:
    """Compare each request packet as it came into the director and as it left."""
    expected = "same IP packet but TTL − 1, sent from the director's MAC to the real server's"
    passages = trace.request_passages()
    if not passages:
        return inconclusive(expected, "no request crossed the director")
    for passage in passages:
        changed = _changed(trace, passage)
        if changed:
            return passed_if(False, expected, changed, passage)
    first = passages[0]
    macs = f"{first.came.ethernet} became {first.went.ethernet}"
    return passed_if(True, expected, f"{len(passages)} packets; the first: {macs}", first)


def _changed(trace: Trace, passage: Passage) -> str:
    """Describe what changed in a request besides MAC addresses and TTL; empty if nothing did."""
    came, went = passage
    before, after = came.outer, went.outer
    if before is None or after is None or len(went.ips) != 1:
        return f"it left encapsulated: {went.summary()}"
    if not before.same_but_ttl(after) or came.flow != went.flow:
        return f"it left as {went.flow}"
    if after.ttl != before.ttl - 1:
        return f"{before.ttl_name} {before.ttl} became {after.ttl}"
    if went.ethernet is None or went.ethernet.src not in trace.macs(passage.node):
        return "it left with a source MAC that is not the director's"
    if went.ethernet.dst not in trace.real_servers_macs:
        return f"it was sent to {went.ethernet.dst}, the MAC address of no real server"
    return ""


@CLAIMS.add(
    "dr.one-segment",
    "a real server receives the very frame that the director sent: they share one L2 segment",
    broken_by=("behind-router", "stale-neighbour"),
)
def one_segment(trace: Trace) -> CheckResult:
    """Find each frame that left the director at a real server, byte for byte."""
    expected = "a real server receives the very frame that the director sent"
    sent = [passage.went for passage in trace.request_passages()]
    if not sent:
        return inconclusive(expected, "no request crossed the director")
    nodes = [server.node for server in trace.real_servers]
    received = {
        frame.raw.data: frame
        for node in nodes
        for frame in trace.at(node)
        if frame.direction is Direction.IN
    }
    lost = [frame for frame in sent if frame.raw.data not in received]
    if lost and len(lost) < len(sent) and trace.planned_loss:
        # The topology asks for loss: then a later copy of the segment must have arrived.
        segments = {_segment(frame) for frame in received.values()}
        lost = [frame for frame in lost if _segment(frame) not in segments]
    if lost:
        observed = f"{len(lost)} of {len(sent)} frames reached no real server as they were sent"
        return passed_if(False, expected, observed, lost[:1])
    first = sent[0]
    return passed_if(
        True,
        expected,
        f"{len(sent)} frames, the same at both ends",
        (first, received[first.raw.data]),
    )


def _segment(frame: Frame) -> object:
    tcp = frame.tcp
    return frame.flow, (tcp.seq, tcp.ack, int(tcp.flags)) if tcp is not None else (), frame.payload


CLAIMS.add(
    "dr.reply-direct",
    "replies go from the real server, with the VIP as their source, and bypass the director",
    broken_by=("gateway-is-director", "vip-as-subnet", "wrong-forwarding-method"),
)(reply_is_direct)
