"""The claims of NAT: each with the faults that break it and how it is decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lvsctl.claims.base import CheckResult, ClaimTable, inconclusive, join_names, passed_if
from lvsctl.claims.trace import Passage, Trace
from lvsctl.model.addresses import Endpoint
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.service import TunnelKind

CLAIMS = ClaimTable()

ARP_SYSCTLS = ("net.ipv4.conf.all.arp_ignore", "net.ipv4.conf.all.arp_announce")


def _maps_ports(trace: Trace) -> bool:
    """Whether a real server listens on a port other than the VIP's."""
    service = trace.run.service
    endpoint = trace.run.endpoint
    return any(server.answers_at(endpoint) != endpoint.port for server in service.real_servers)


def _keeps_source(trace: Trace) -> bool:
    return not trace.run.service.snat


def _replaces_source(trace: Trace) -> bool:
    return trace.run.service.snat


@CLAIMS.add(
    "snat.source-is-director",
    "the director rewrites a request's destination to the RIP and its source to its own address",
    broken_by=("wrong-forwarding-method", "wrong-port", "masquerade-missing", "conntrack-off"),
    applies=_replaces_source,
)
def source_is_director(trace: Trace) -> CheckResult:
    """Compare each request packet as it came into the director and as it left."""
    servers = _servers(trace)
    expected = f"{trace.vip} becomes a real server's address, and the client's the director's own"
    passages = trace.request_passages()
    if not passages:
        return inconclusive(expected, "no request crossed the director")
    for passage in passages:
        came, went = passage.came.flow, passage.went.flow
        if came is None or went is None or len(passage.went.ips) != 1:
            return passed_if(False, expected, f"it left as {passage.went.summary()}", passage)
        own = trace.holds(passage.node, went.src.address)
        vip = went.src.address == trace.vip.address
        if came.dst != trace.vip or went.dst not in servers or not own or vip:
            return passed_if(False, expected, f"{came} left as {went}", passage)
        if not _one_hop(passage):
            return passed_if(False, expected, _ttls(passage), passage)
    first = passages[0]
    observed = f"{len(passages)} packets; the first: {first.came.flow} became {first.went.flow}"
    return passed_if(True, expected, observed, first)


@CLAIMS.add(
    "snat.client-address-lost",
    "what it costs: real servers see the director's address as their client, never the client's",
    broken_by=("wrong-forwarding-method", "wrong-port", "masquerade-missing", "conntrack-off"),
    applies=_replaces_source,
)
def client_address_lost(trace: Trace) -> CheckResult:
    """Look at what comes into the real servers, and at whom they name as their client."""
    cips = {conversation.client.address for conversation in trace.conversations}
    nodes = [server.node for server in trace.real_servers]
    expected = f"no packet at {join_names(nodes)} carries {join_names(sorted(map(str, cips)))}"
    came = [
        frame
        for conversation in trace.conversations
        for frame in conversation.requests
        if frame.tap.node in nodes and frame.direction is Direction.IN
    ]
    shown = [f for f in came if any(ip.src in cips for ip in f.ips)]
    if shown:
        observed = f"{len(shown)} of {len(came)} packets do: {shown[0].flow}"
        return passed_if(False, expected, observed, shown[:1])
    named = {e.peer_seen.address for e in trace.run.answered if e.peer_seen is not None}
    if not came:
        return inconclusive(expected, "no request reached a real server")
    says = f"; the real servers name {join_names(sorted(map(str, named)))} as their client"
    return passed_if(
        not named & cips,
        expected,
        f"none of {len(came)} packets does" + (says if named else ""),
        came[:1],
    )


@CLAIMS.add(
    "snat.any-gateway",
    "real servers need no route back through the director: replies go to its own address",
    unbroken="a route through the director does no harm",
    applies=_replaces_source,
    needs_frames=False,
)
def any_gateway(trace: Trace) -> CheckResult:
    """Look at the real servers' routes while requests are answered."""
    expected = "requests answered by real servers whose default gateway is not the director"
    directors = {a for name in trace.directors for a in trace.evidence.lab.node(name).addresses}
    through = [
        server.node
        for server in trace.real_servers
        if (state := trace.evidence.states.get(server.node)) is not None
        and any(route.via in directors for route in state.routes)
    ]
    if not trace.run.answered:
        return inconclusive(expected, "no request was answered")
    if through:
        return inconclusive(expected, f"{join_names(through)} has a route through the director")
    count = len(trace.run.answered)
    return passed_if(True, expected, f"{count} requests answered, no route through the director")


@CLAIMS.add(
    "nat.request-rewritten",
    "the director rewrites a request's destination from VIP to RIP; its source stays the client's",
    broken_by=("wrong-forwarding-method", "wrong-port"),
    applies=_keeps_source,
)
def request_rewritten(trace: Trace) -> CheckResult:
    """Compare each request packet as it came into the director and as it left."""
    vip = trace.vip
    expected = f"{vip} becomes a real server's address; client and payload stay, TTL − 1"
    passages = trace.request_passages()
    if not passages:
        return inconclusive(expected, "no request crossed the director")
    servers = _servers(trace)
    for passage in passages:
        came, went = passage.came.flow, passage.went.flow
        if came is None or went is None or len(passage.went.ips) != 1:
            return passed_if(False, expected, f"it left as {passage.went.summary()}", passage)
        if came.dst == vip and went.dst in servers and went.src != came.src:
            replaced = f"{came} left as {went}: its source is replaced (SNAT)"
            return passed_if(False, expected, replaced, passage)
        if came.dst != vip or went.dst not in servers:
            return passed_if(False, expected, f"{came} left as {went}", passage)
        if not _one_hop(passage):
            return passed_if(False, expected, _ttls(passage), passage)
    first = passages[0]
    return passed_if(
        True,
        expected,
        f"{len(passages)} packets; the first: {first.came.flow} became {first.went.flow}",
        first,
    )


@CLAIMS.add(
    "nat.reply-crosses-director",
    "replies return through the director, which rewrites their source from RIP to VIP",
    broken_by=(
        "wrong-gateway",
        "ip-forward-off",
        "client-on-real-server-network",
        "redirects-sent",
    ),
)
def reply_crosses_director(trace: Trace) -> CheckResult:
    """Compare each reply packet as it came into the director and as it left."""
    vip = trace.vip
    expected = f"replies enter the director from a RIP and leave it from {vip}"
    passages = trace.reply_passages()
    servers = _servers(trace)
    for passage in passages:
        came, went = passage.came.flow, passage.went.flow
        if came is None or went is None or came.src not in servers or went.src != vip:
            return passed_if(False, expected, f"{came} left as {went}", passage)
    for observed, frame in _bypassing_replies(trace):
        return passed_if(False, expected, observed, (frame,))
    if not passages:
        return inconclusive(expected, "no reply was captured")
    first = passages[0]
    return passed_if(
        True,
        expected,
        f"{len(passages)} packets; the first: {first.came.flow} became {first.went.flow}",
        first,
    )


@CLAIMS.add(
    "nat.client-never-sees-rip",
    "the client never sees a RIP",
    broken_by=("client-on-real-server-network", "wrong-gateway"),
    unbroken="with SNAT replies go to the director's own address, wherever the client is",
)
def client_never_sees_rip(trace: Trace) -> CheckResult:
    """Positive control: the client's taps were live, because they captured replies."""
    rips = {server.rip for server in trace.real_servers}
    expected = f"no frame at a client carries {join_names(sorted(map(str, rips)))}"
    earlier = _earlier(trace)
    seen = [
        frame
        for client in trace.clients
        for frame in trace.at(client)
        if frame.flow is None or not earlier.intersection((frame.flow.src, frame.flow.dst))
    ]
    shown = [f for f in seen if any(ip.src in rips or ip.dst in rips for ip in f.ips)]
    if shown:
        return passed_if(False, expected, f"{len(shown)} frames do", shown[:1])
    received = _received(trace)
    if not received:
        return inconclusive(expected, "the client received nothing")
    return passed_if(
        True,
        expected,
        f"none of {len(seen)} frames does; {len(received)} of them are replies",
        received[:1],
    )


@CLAIMS.add(
    "nat.real-servers-need-nothing",
    "real servers need nothing for LVS: no VIP, no tunnel device, no ARP setting",
    unbroken="a VIP, tunnel or ARP setting does no harm in NAT, so no fault can break this claim",
    needs_requests=False,
    needs_frames=False,
)
def real_servers_need_nothing(trace: Trace) -> CheckResult:
    """Read the real servers' state while requests are answered."""
    expected = "requests answered without VIP, tunnel device or ARP setting on any real server"
    nodes = [server.node for server in trace.real_servers]
    found = [f"{node} holds the VIP" for node, d in trace.vip_holders(nodes).items() if d]
    for node in nodes:
        state = trace.evidence.states.get(node)
        if state is None:
            return inconclusive(expected, f"the state of {node} was not read")
        # Where the module is loaded, the kernel puts a fallback device into every namespace.
        # It is down, so it decapsulates nothing (ip_tunnel_lookup in net/ipv4/ip_tunnel.c).
        tunnels = (one for one in state.links if one.kind in set(TunnelKind) and one.up)
        found += [f"{node} has {link.name}" for link in tunnels]
        ports = (*state.gue_ports, *state.gue_ports6)
        found += [f"{node} decapsulates GUE on port {port}" for port in ports]
        found += [f"{node} has {key}" for key in ARP_SYSCTLS if state.sysctls.get(key) != "0"]
    if found:
        return passed_if(False, expected, "; ".join(found[:3]))
    if not trace.run.answered:
        return inconclusive(expected, "none of these, but no request was answered either")
    return passed_if(True, expected, f"{len(trace.run.answered)} requests answered without these")


@CLAIMS.add(
    "nat.port-mapping",
    "the director maps the VIP's port to the real server's, and back",
    broken_by=("wrong-port", "wrong-forwarding-method"),
    applies=_maps_ports,
)
def port_mapping(trace: Trace) -> CheckResult:
    """Compare the ports on both sides of the director."""
    port = trace.run.endpoint.port
    mapped = sorted({server.answers_at(trace.run.endpoint) for server in trace.real_servers})
    expected = f"port {port} becomes {' or '.join(map(str, mapped))} and comes back as {port}"
    there, back = trace.request_passages(), trace.reply_passages()
    if not there or not back:
        return inconclusive(expected, "the director did not forward both requests and replies")
    answered = [(p, flow) for p in there if (flow := p.went.flow) is not None]
    wrong = [p for p, flow in answered if flow.dst not in _servers(trace)]
    wrong += [p for p in back if p.went.flow is None or p.went.flow.src.port != port]
    if wrong:
        return passed_if(
            False, expected, f"{wrong[0].came.flow} left as {wrong[0].went.flow}", wrong[0]
        )
    return passed_if(
        True, expected, f"{there[0].came.flow} became {there[0].went.flow}", (*there[0], *back[0])
    )


@CLAIMS.add(
    "nat.both-directions-load-director",
    "every byte of requests and replies passes through the director",
    broken_by=("ip-forward-off", "client-on-real-server-network"),
)
def both_directions_load_director(trace: Trace) -> CheckResult:
    """Compare the bytes that the client sent and received with those through the director."""
    expected = "the director forwards every byte that the client sends and receives"
    if trace.planned_loss:
        return _every_segment_crosses(trace)
    sent = _bytes(f for c in trace.conversations for f in c.requests if _out_at_client(trace, f))
    received = _bytes(_received(trace))
    requests = _bytes(passage.came for passage in trace.request_passages())
    replies = _bytes(passage.went for passage in trace.reply_passages())
    observed = (
        f"requests: {sent} bytes sent, {requests} through the director; "
        f"replies: {received} bytes received, {replies} through it"
    )
    if not sent or not (requests or received):
        return inconclusive(expected, observed)
    return passed_if((sent, received) == (requests, replies) and received > 0, expected, observed)


def _every_segment_crosses(trace: Trace) -> CheckResult:
    """The same where the topology asks for loss: each segment once, however often it was sent."""
    expected = "the director forwards every segment that the client sends and receives"
    there = _segments(passage.came for passage in trace.request_passages())
    back = _segments(passage.went for passage in trace.reply_passages())
    sent = _segments(
        f
        for c in trace.conversations
        if c.exchange.answered
        for f in c.requests
        if _out_at_client(trace, f)
    )
    received = _segments(_received(trace))
    observed = (
        f"requests: {len(sent)} segments sent, {len(sent & there)} through the director; "
        f"replies: {len(received)} received, {len(received & back)} through it"
    )
    if not sent or not received:
        return inconclusive(expected, observed)
    return passed_if(sent <= there and received <= back, expected, observed)


def _segments(frames: Iterable[Frame]) -> set[tuple[int, bytes]]:
    """Segments with payload, by sequence number."""
    return {(f.tcp.seq, f.payload) for f in frames if f.tcp is not None and f.payload}


def _servers(trace: Trace) -> frozenset[Endpoint]:
    endpoint = trace.run.endpoint
    return frozenset(Endpoint(s.rip, s.answers_at(endpoint)) for s in trace.real_servers)


def _earlier(trace: Trace) -> frozenset[Endpoint]:
    """Return the ends at clients of connections that none of them opened while it was captured.

    After a failover, real servers repeat what the new director does not know, and it forwards that
    unchanged.
    """
    seen = [frame for client in trace.clients for frame in trace.at(client) if frame.flow]
    opened = {f.flow.src for f in seen if f.flow is not None and f.packet.opens_connection}
    received = {f.flow.dst for f in seen if f.flow is not None and f.direction is Direction.IN}
    return frozenset(received - opened)


def _received(trace: Trace) -> list[Frame]:
    """Reply frames that came in at clients."""
    return [
        frame
        for conversation in trace.conversations
        for frame in conversation.replies
        if frame.tap.node in trace.clients and frame.direction is Direction.IN
    ]


def _out_at_client(trace: Trace, frame: Frame) -> bool:
    return frame.tap.node in trace.clients and frame.direction is Direction.OUT


def _bypassing_replies(trace: Trace) -> Iterator[tuple[str, Frame]]:
    """Replies that bypass the director, or soon will; the clearest evidence first."""
    for frame in _received(trace):
        if frame.flow is not None and frame.flow.src != trace.vip:
            yield f"the client received {frame.flow}", frame
    for frame in trace.at_directors():
        if frame.icmp and frame.icmp.gateway and frame.direction is Direction.OUT:
            yield (
                f"the director sends an ICMP redirect to {frame.icmp.gateway}, which bypasses it",
                frame,
            )
    servers = {server.node for server in trace.real_servers}
    for conversation in trace.conversations:
        left = [f for f in conversation.replies if f.tap.node in servers]
        came = [f for f in conversation.replies if f.tap.node in trace.directors]
        if left and not any(frame.direction is Direction.IN for frame in came):
            yield f"{left[0].tap.node} sends its replies elsewhere than to the director", left[0]
        elif came and not any(frame.direction is Direction.OUT for frame in came):
            yield "replies enter the director but do not leave it", came[0]


def _one_hop(passage: Passage) -> bool:
    came, went = passage.came.outer, passage.went.outer
    return came is not None and went is not None and went.ttl == came.ttl - 1


def _ttls(passage: Passage) -> str:
    came, went = passage.came.outer, passage.went.outer
    return f"TTL {came.ttl if came else '?'} became {went.ttl if went else '?'}"


def _bytes(frames: Iterable[Frame]) -> int:
    """IP bytes, because link headers may differ."""
    return sum(frame.outer.total_length for frame in frames if frame.outer is not None)
