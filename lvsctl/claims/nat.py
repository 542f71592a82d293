"""How the claims of NAT are decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from lvsctl.claims.every import Judge
from lvsctl.claims.paths import names, vip_holders
from lvsctl.claims.trace import Passage, Trace
from lvsctl.model.claim import Claim
from lvsctl.model.exchange import Endpoint
from lvsctl.model.finding import Judgement, judged, undecided
from lvsctl.model.frame import Direction, Frame
from lvsctl.modes import nat

SUPPRESSION = ("net.ipv4.conf.all.arp_ignore", "net.ipv4.conf.all.arp_announce")


def request_rewritten(trace: Trace) -> Judgement:
    """Each request packet, as it came into the director and as it went out."""
    vip = _vip(trace)
    expected = f"{vip} becomes a real server's address; client and payload stay, TTL − 1"
    passages = trace.request_passages()
    if not passages:
        return undecided(expected, "no request crossed the director")
    servers = _servers(trace)
    for passage in passages:
        came, went = passage.came.flow, passage.went.flow
        if came is None or went is None or len(passage.went.ips) != 1:
            return judged(False, expected, f"it left as {passage.went.summary()}", passage)
        if came.dst != vip or went.dst not in servers or went.src != came.src:
            return judged(False, expected, f"{came} left as {went}", passage)
        if not _one_hop(passage):
            return judged(False, expected, _ttls(passage), passage)
    first = passages[0]
    return judged(
        True,
        expected,
        f"{len(passages)} packets: {first.came.flow} became {first.went.flow}",
        first,
    )


def reply_crosses_director(trace: Trace) -> Judgement:
    """What the client received is what the director sent, with the source rewritten."""
    vip = _vip(trace)
    expected = f"replies enter the director from a RIP and leave it from {vip}"
    passages = trace.reply_passages()
    servers = _servers(trace)
    for passage in passages:
        came, went = passage.came.flow, passage.went.flow
        if came is None or went is None or came.src not in servers or went.src != vip:
            return judged(False, expected, f"{came} left as {went}", passage)
    for observed, frame in _past_the_director(trace):
        return judged(False, expected, observed, (frame,))
    if not passages:
        return undecided(expected, "no reply was seen")
    first = passages[0]
    return judged(
        True,
        expected,
        f"{len(passages)} packets: {first.came.flow} became {first.went.flow}",
        first,
    )


def client_never_sees_rip(trace: Trace) -> Judgement:
    """Control: the client's taps were live, because they saw replies."""
    rips = {server.rip for server in trace.real_servers}
    expected = f"no frame at a client carries {names(sorted(map(str, rips)))}"
    seen = [frame for client in trace.clients for frame in trace.at(client)]
    shown = [f for f in seen if any(ip.src in rips or ip.dst in rips for ip in f.ips)]
    if shown:
        return judged(False, expected, f"{len(shown)} frames do", shown[:1])
    received = _received(trace)
    if not received:
        return undecided(expected, "the client received nothing at all")
    return judged(
        True,
        expected,
        f"{len(seen)} frames, {len(received)} of them replies, none does",
        received[:1],
    )


def real_servers_need_nothing(trace: Trace) -> Judgement:
    """The real servers' state, while their service works."""
    expected = "no VIP, no tunnel device, no ARP setting on any real server; and it works"
    nodes = [server.node for server in trace.real_servers]
    found = [f"{node} holds the VIP" for node, d in vip_holders(trace, nodes).items() if d]
    for node in nodes:
        state = trace.evidence.states.get(node)
        if state is None:
            return undecided(expected, f"{node} was not looked at")
        # Where the module is loaded, the kernel puts a fallback device into every namespace.
        # Down, as it then is, it takes nothing off (ip_tunnel_lookup in net/ipv4/ip_tunnel.c).
        tunnels = (one for one in state.links if one.kind in ("ipip", "gre") and one.up)
        found += [f"{node} has {link.name}" for link in tunnels]
        found += [f"{node} takes GUE off at port {port}" for port in state.gue_ports]
        found += [f"{node} has {key}" for key in SUPPRESSION if state.sysctls.get(key) != "0"]
    if found:
        return judged(False, expected, "; ".join(found[:3]))
    if not trace.run.answered:
        return undecided(expected, "there is none, but nothing was answered either")
    return judged(True, expected, f"{len(trace.run.answered)} requests answered without any")


def port_mapping(trace: Trace) -> Judgement:
    """The ports on both sides of the director."""
    port = trace.run.service.key.port
    mapped = sorted({server.port for server in trace.real_servers})
    expected = f"port {port} becomes {' or '.join(map(str, mapped))} and comes back as {port}"
    there, back = trace.request_passages(), trace.reply_passages()
    if not there or not back:
        return undecided(expected, "not both directions were seen at the director")
    answered = [(p, flow) for p in there if (flow := p.went.flow) is not None]
    wrong = [p for p, flow in answered if flow.dst not in _servers(trace)]
    wrong += [p for p in back if p.went.flow is None or p.went.flow.src.port != port]
    if wrong:
        return judged(
            False, expected, f"{wrong[0].came.flow} left as {wrong[0].went.flow}", wrong[0]
        )
    return judged(
        True, expected, f"{there[0].came.flow} became {there[0].went.flow}", (*there[0], *back[0])
    )


def both_directions_load_director(trace: Trace) -> Judgement:
    """Bytes that the client sent and received, against bytes that passed the director."""
    expected = "the director forwards every byte that the client sends and receives"
    sent = _bytes(f for c in trace.conversations for f in c.requests if _out_at_client(trace, f))
    received = _bytes(_received(trace))
    requests = _bytes(passage.came for passage in trace.request_passages())
    replies = _bytes(passage.went for passage in trace.reply_passages())
    observed = (
        f"requests: {sent} bytes sent, {requests} through the director; "
        f"replies: {received} bytes received, {replies} through it"
    )
    if not sent or not (requests or received):
        return undecided(expected, observed)
    return judged((sent, received) == (requests, replies) and received > 0, expected, observed)


JUDGES: Mapping[Claim, Judge] = {
    nat.REQUEST: request_rewritten,
    nat.REPLY: reply_crosses_director,
    nat.HIDDEN: client_never_sees_rip,
    nat.PLAIN: real_servers_need_nothing,
    nat.PORTS: port_mapping,
    nat.LOAD: both_directions_load_director,
}


def _vip(trace: Trace) -> Endpoint:
    key = trace.run.service.key
    return Endpoint(key.vip, key.port)


def _servers(trace: Trace) -> frozenset[Endpoint]:
    return frozenset(Endpoint(server.rip, server.port) for server in trace.real_servers)


def _received(trace: Trace) -> list[Frame]:
    """What came in at clients for these connections."""
    return [
        frame
        for conversation in trace.conversations
        for frame in conversation.replies
        if frame.tap.node in trace.clients and frame.direction is Direction.IN
    ]


def _out_at_client(trace: Trace, frame: Frame) -> bool:
    return frame.tap.node in trace.clients and frame.direction is Direction.OUT


def _past_the_director(trace: Trace) -> Iterator[tuple[str, Frame]]:
    """Replies that do not cross the director, or will not, the most telling ones first."""
    for frame in _received(trace):
        if frame.flow is not None and frame.flow.src != _vip(trace):
            yield f"the client got {frame.flow}", frame
    for frame in trace.at(trace.director):
        if frame.icmp and frame.icmp.gateway and frame.direction is Direction.OUT:
            yield f"the director tells of a way past it, {frame.icmp.gateway}", frame
    servers = {server.node for server in trace.real_servers}
    for conversation in trace.conversations:
        left = [f for f in conversation.replies if f.tap.node in servers]
        came = [f for f in conversation.replies if f.tap.node == trace.director]
        if left and not any(frame.direction is Direction.IN for frame in came):
            yield f"{left[0].tap.node} replies, and not to the director", left[0]
        elif came and not any(frame.direction is Direction.OUT for frame in came):
            yield "replies enter the director and do not leave it", came[0]


def _one_hop(passage: Passage) -> bool:
    came, went = passage.came.outer, passage.went.outer
    return came is not None and went is not None and went.ttl == came.ttl - 1


def _ttls(passage: Passage) -> str:
    came, went = passage.came.outer, passage.went.outer
    return f"TTL {came.ttl if came else '?'} became {went.ttl if went else '?'}"


def _bytes(frames: Iterable[Frame]) -> int:
    """Bytes of IP: links may differ in what they add."""
    return sum(frame.outer.total_length for frame in frames if frame.outer is not None)
