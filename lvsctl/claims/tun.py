"""How the claims of IP tunnelling are decided."""

from __future__ import annotations

from collections.abc import Mapping

from lvsctl.claims.every import Judge
from lvsctl.claims.paths import names, reply_direct
from lvsctl.claims.trace import Conversation, Passage, Trace
from lvsctl.model.claim import Claim
from lvsctl.model.exchange import Failure
from lvsctl.model.finding import Judgement, judged, undecided
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Role
from lvsctl.model.packet import GRE, IPIP, UDP, Gue, Tcp, TcpFlag
from lvsctl.model.service import GUE_PORT, Encapsulation
from lvsctl.modes import tun

CARRIED = {
    Encapsulation.IPIP: (IPIP, "protocol 4"),
    Encapsulation.GRE: (GRE, "protocol 47, GRE"),
    Encapsulation.GUE: (UDP, f"UDP port {GUE_PORT}, GUE"),
}
"""What the outer IP header carries: the protocol's number, and what to expect in words."""


def request_encapsulated(trace: Trace) -> Judgement:
    """Each request packet, as it came into the director and as it went out."""
    _, carried = CARRIED[trace.run.service.encapsulation]
    expected = f"IP(DIP → RIP, {carried}) around the same packet with TTL − 1"
    passages = trace.request_passages()
    if not passages:
        return undecided(expected, "no request crossed the director")
    for passage in passages:
        wrong = _wrongly_wrapped(trace, passage)
        if wrong:
            return judged(False, expected, wrong, passage)
    first = passages[0]
    around = f"{first.went.outer}, {carried}, around them"
    return judged(True, expected, f"{len(passages)} packets: {around}", first)


def _wrongly_wrapped(trace: Trace, passage: Passage) -> str:
    """What is wrong with the packet that left the director; empty: nothing."""
    came, went = passage
    before, outer, inner = came.outer, went.outer, went.inner
    if before is None or outer is None or inner is None or len(went.ips) != 2:
        return f"it left as {went.summary()}"
    wanted = trace.run.service.encapsulation
    ports = {tunnel.dport for tunnel in went.packet.tunnels if isinstance(tunnel, Gue)}
    if (
        went.packet.encapsulation is not wanted
        or outer.protocol != CARRIED[wanted][0]
        or ports - {GUE_PORT}
    ):
        to = "".join(f" to UDP port {port}" for port in ports)
        return f"it left by {went.packet.encapsulation} (protocol {outer.protocol}){to}"
    if not trace.holds(trace.director, outer.src) or outer.src == trace.run.service.vip:
        return f"the outer source {outer.src} is not a DIP"
    if outer.dst not in {server.rip for server in trace.real_servers}:
        return f"the outer destination {outer.dst} is not a RIP"
    if not before.same_but_ttl(inner) or inner.ttl != before.ttl - 1 or came.flow != went.flow:
        return f"the inner packet changed: {before} became {inner}"
    return ""


def decapsulated(trace: Trace) -> Judgement:
    """The request at the tunnel device of the real server that was to answer it."""
    vip = trace.run.service.vip
    device = trace.run.service.encapsulation.device
    nodes = [server.node for server in trace.real_servers]
    expected = f"requests come out of {device} of {names(nodes)}, which has {vip}"
    without = [node for node in nodes if device not in trace.holds(node, vip)]
    if without:
        return judged(False, expected, f"{names(without)}: no {vip} on {device}")
    came = [f for c in trace.conversations for f in c.requests if f.direction.inward]
    wrapped = {
        node: [f for f in came if (f.tap.node, len(f.ips)) == (node, 2) and f.tap.device != device]
        for node in nodes
    }
    shown: list[Frame] = []
    for node, frames in wrapped.items():
        out = [f for f in came if (f.tap.node, f.tap.device) == (node, device)]
        if frames and len(out) < len(frames):
            lost = f"{node} received {len(frames)} tunnelled packets, {len(out)} came out"
            return judged(False, expected, lost, frames[:1])
        shown += [*frames[:1], *out[:1]]
    if not any(wrapped.values()):
        return undecided(expected, "no tunnelled packet reached a real server")
    count = sum(map(len, wrapped.values()))
    return judged(True, expected, f"{count} packets, all came out", shown[:2])


def routed(trace: Trace) -> Judgement:
    """Control: there are real servers in other networks than the director."""
    lab = trace.evidence.lab
    here = set(lab.node(trace.director).networks)
    far = [s.node for s in trace.real_servers if not here & set(lab.node(s.node).networks)]
    routers = [node.name for node in lab.having(Role.ROUTER)]
    expected = f"routers forward tunnelled requests to {names(far)}"
    passages = [
        (router, passage)
        for c in trace.conversations
        for router in routers
        for passage in c.passages(router, [f for f in c.requests if len(f.ips) == 2])
    ]
    sent = _sent_to(trace)
    missed = [node for node in far if node in sent and not _arrived(trace, node)]
    if missed:
        lost = [sent[node] for node in missed]
        return judged(False, expected, f"nothing reached {names(missed)}", lost[:1])
    if not passages:
        return undecided(expected, "no router saw a tunnelled packet")
    router, first = passages[0]
    return judged(
        True, expected, f"{len(passages)} packets through {router}: {first.went.outer}", first
    )


def _sent_to(trace: Trace) -> dict[str, Frame]:
    """The real servers that the director sent tunnelled requests to, with one of them."""
    by_rip = {server.rip: server.node for server in trace.real_servers}
    return {
        by_rip[passage.went.outer.dst]: passage.went
        for passage in trace.request_passages()
        if passage.went.outer is not None and passage.went.outer.dst in by_rip
    }


def _arrived(trace: Trace, node: str) -> bool:
    return any(
        frame.tap.node == node and len(frame.ips) == 2 and frame.direction is Direction.IN
        for c in trace.conversations
        for frame in c.requests
    )


def costs_its_headers(trace: Trace) -> Judgement:
    """A request of full-sized DF segments: too large with the tunnel's headers before them."""
    headers = tun.HEADERS[trace.run.service.encapsulation]
    expected = (
        f"{headers} bytes more per packet; a full-sized DF packet brings back "
        "fragmentation-needed, and the request is answered all the same"
    )
    large = trace.large
    if large is None:
        return undecided(expected, "no large request was sent")
    passages = large.passages(trace.director, large.requests)
    added = {
        passage.went.outer.total_length - passage.came.outer.total_length
        for passage in passages
        if passage.went.outer is not None and passage.came.outer is not None
    }
    told = [
        frame
        for client in trace.clients
        for frame in trace.at(client)
        if frame.icmp is not None
        and frame.icmp.needs_fragmentation
        and frame.icmp.quoted is not None
        and frame.icmp.quoted.flow is not None
        and frame.icmp.quoted.flow.src == large.client
    ]
    answered = large.exchange.answered
    outcome = "answered" if answered else large.exchange.error
    if not _established(trace, large):
        return undecided(expected, f"its connection did not come about: {outcome}")
    if not added:
        return undecided(expected, f"no packet of the large request passed the director; {outcome}")
    mtu = told[0].icmp.mtu if told and told[0].icmp is not None else 0
    observed = (
        f"{', '.join(map(str, sorted(added)))} bytes more; "
        + (f"fragmentation needed, MTU {mtu}" if told else "no fragmentation-needed")
        + f"; {outcome}"
    )
    right = added == {headers} and bool(told)
    if right and not answered and _went_on(trace, large):
        return undecided(expected, f"{observed}, while it was still getting on: a slow machine")
    return judged(right and answered, expected, observed, told[:1])


def _went_on(trace: Trace, conversation: Conversation) -> bool:
    """Whether a request that timed out was still getting on in the second half of its time.

    One that hangs does so from the start: it sends again what it sent before, to no effect.
    What comes once its time is over answers the client's closing.
    """
    exchange = conversation.exchange
    if exchange.error != Failure.TIMED_OUT:
        return False
    half, end = (int((exchange.sent_at + exchange.seconds * part) * 1e9) for part in (0.5, 1))
    first: dict[tuple[int, int], int] = {}
    for frame in conversation.replies:
        transport = frame.packet.transport
        came = frame.tap.node in trace.clients and frame.direction.inward
        if came and isinstance(transport, Tcp):
            first.setdefault((transport.seq, transport.ack), frame.time)
    return any(half < when <= end for when in first.values())


def _established(trace: Trace, conversation: Conversation) -> bool:
    """Whether the client was told that its connection is there (SYN and ACK)."""
    return any(
        isinstance(frame.packet.transport, Tcp) and frame.packet.transport.flags & TcpFlag.SYN
        for frame in conversation.replies
        if frame.tap.node in trace.clients and frame.direction.inward
    )


JUDGES: Mapping[Claim, Judge] = {
    tun.REQUEST: request_encapsulated,
    tun.ARRIVES: decapsulated,
    tun.REPLY: reply_direct,
    tun.ROUTED: routed,
    **dict.fromkeys(tun.COST.values(), costs_its_headers),
}
