"""The claims of IP tunneling (tun): each with the faults that break it and how it is decided."""

from __future__ import annotations

from collections.abc import Container, Iterable

from lvsctl.claims.base import CheckResult, ClaimTable, inconclusive, join_names, passed_if
from lvsctl.claims.direct_reply import reply_is_direct
from lvsctl.claims.distribution import room_for
from lvsctl.claims.trace import Conversation, Passage, Trace
from lvsctl.model.addresses import IPAddress
from lvsctl.model.evidence import Failure, Run
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import USUAL_MTU, Role
from lvsctl.model.packet import GRE, IPIP, IPV6, UDP, Gue, Tcp
from lvsctl.model.service import (
    GUE_PORT,
    Encapsulation,
    ForwardingMethod,
    RealServer,
    TunnelChecksum,
)
from lvsctl.modes.tun import COSTS, cost

CLAIMS = ClaimTable()


def carried(
    encapsulation: Encapsulation, inner: int, ports: Iterable[int] = (GUE_PORT,)
) -> tuple[int, str]:
    """What the outer IP header carries: the protocol number, and its name in messages.

    ``inner`` is the IP version of the packet inside, which is the VIP's; ``ports`` are GUE's.
    """
    if encapsulation is Encapsulation.GRE:
        return GRE, "protocol 47, GRE"
    if encapsulation is Encapsulation.GUE:
        return UDP, f"UDP port {' or '.join(map(str, sorted(set(ports))))}, GUE"
    return (IPIP, "protocol 4") if inner == 4 else (IPV6, "protocol 41")


def _ttl(trace: Trace) -> str:
    """What the field is called in the packet inside."""
    return "TTL" if trace.run.endpoint.vip.version == 4 else "hop limit"


@CLAIMS.add(
    "tun.request-encapsulated",
    "the director puts a request, unchanged but for its TTL, into a new IP packet DIP to RIP",
    broken_by=("wrong-forwarding-method", "encapsulation-mismatch", "vip-is-outer-source"),
    wording=lambda trace: (
        f"the director puts a request, unchanged but for its {_ttl(trace)}, into a new IP packet "
        "DIP to RIP"
    ),
)
def request_encapsulated(trace: Trace) -> CheckResult:
    """Compare each request packet as it came into the director and as it left."""
    vip = trace.run.endpoint.vip
    ports = [server.tunnel_port for server in trace.real_servers]
    _, what = carried(trace.run.service.encapsulation, vip.version, ports)
    expected = f"IP(DIP → RIP, {what}) around the same packet with {_ttl(trace)} − 1"
    passages = trace.request_passages()
    if not passages:
        return inconclusive(expected, "no request crossed the director")
    for passage in passages:
        wrong = _encapsulation_error(trace, passage)
        if wrong:
            return passed_if(False, expected, wrong, passage)
    first = passages[0]
    around = f"{first.went.outer}, {what}, around them"
    return passed_if(True, expected, f"{len(passages)} packets; the first: {around}", first)


def _encapsulation_error(trace: Trace, passage: Passage) -> str:
    """Describe what is wrong with the packet that left the director; empty if nothing is."""
    came, went = passage
    before, outer, inner = came.outer, went.outer, went.inner
    if before is None or outer is None or inner is None or len(went.ips) != 2:
        return f"it left as {went.summary()}"
    wanted = trace.run.service.encapsulation
    ports = {tunnel.dport for tunnel in went.packet.tunnels if isinstance(tunnel, Gue)}
    right = {server.tunnel_port for server in trace.real_servers if server.rip == outer.dst}
    if (
        went.packet.encapsulation is not wanted
        or outer.protocol != carried(wanted, before.version)[0]
        or ports - (right or {GUE_PORT})
    ):
        to = "".join(f" to UDP port {port}" for port in ports)
        return f"it left by {went.packet.encapsulation} (protocol {outer.protocol}){to}"
    if not trace.holds(passage.node, outer.src) or outer.src == trace.run.endpoint.vip:
        return f"the outer source {outer.src} is not a DIP"
    if outer.dst not in {server.rip for server in trace.real_servers}:
        return f"the outer destination {outer.dst} is not a RIP"
    if not before.same_but_ttl(inner) or inner.ttl != before.ttl - 1 or came.flow != went.flow:
        return f"the inner packet changed: {before} became {inner}"
    return ""


@CLAIMS.add(
    "tun.decapsulated-on-tunnel-device",
    "the real server decapsulates the request and finds the VIP on its tunnel device",
    broken_by=("tunnel-down", "vip-missing", "encapsulation-mismatch"),
)
def decapsulated(trace: Trace) -> CheckResult:
    """Find each tunnelled request again at the real server's tunnel device."""
    vip = trace.run.endpoint.vip
    nodes = [server.node for server in trace.real_servers]
    devices = {server.node: server.tunnel_device(vip) for server in trace.real_servers}
    names = " and ".join(dict.fromkeys(devices.values()))
    expected = f"requests are decapsulated on {names} of {join_names(nodes)}, which has {vip}"
    without = [node for node in nodes if devices[node] not in trace.holds(node, vip)]
    if without:
        return passed_if(
            False, expected, f"{join_names(without)}: no {vip} on {devices[without[0]]}"
        )
    came = [f for c in trace.conversations for f in c.requests if f.direction.inward]
    outside = {node: trace.evidence.lab.node(node).networks for node in nodes}
    wrapped = {
        node: [
            f
            for f in came
            if (f.tap.node, len(f.ips)) == (node, 2) and f.tap.device in outside[node]
        ]
        for node in nodes
    }
    shown: list[Frame] = []
    for node, frames in wrapped.items():
        # A more specific tunnel device of the same node may have decapsulated them.
        out = [f for f in came if f.tap.node == node and f.tap.device not in outside[node]]
        if frames and len(out) < len(frames):
            lost = f"{node} received {len(frames)} tunnelled packets and decapsulated {len(out)}"
            return passed_if(False, expected, lost, frames[:1])
        shown += [*frames[:1], *out[:1]]
    if not any(wrapped.values()):
        return inconclusive(expected, "no tunnelled packet reached a real server")
    count = sum(map(len, wrapped.values()))
    return passed_if(True, expected, f"{count} packets, all decapsulated", shown[:2])


def _has_own_header(trace: Trace) -> bool:
    return trace.run.service.encapsulation is not Encapsulation.IPIP


def _checksums(trace: Trace) -> str:
    """The claim in the words for a service's real servers."""
    wanted = {server.checksum for server in trace.real_servers}
    if wanted == {TunnelChecksum.NONE}:
        return "the tunnel's own header carries no checksum"
    if TunnelChecksum.NONE not in wanted:
        return "the tunnel's own header carries a checksum"
    return "the tunnel's own header carries a checksum where it is asked for, and else none"


@CLAIMS.add(
    "tun.checksum",
    "the tunnel's own header carries a checksum where it is asked for, and else none",
    broken_by=("tunnel-checksum-mismatch",),
    applies=_has_own_header,
    wording=_checksums,
)
def checksum_as_asked(trace: Trace) -> CheckResult:
    """Look at the GRE or UDP header of each packet that left a director, by its real server.

    With remote checksum offload UDP has one too (ip_vs_tunnel_xmit in ip_vs_xmit.c).
    """
    service = trace.run.service
    header = "GRE" if service.encapsulation is Encapsulation.GRE else "UDP"
    wanted = {s.rip: s.checksum is not TunnelChecksum.NONE for s in trace.real_servers}
    names = join_names([s.node for s in trace.real_servers if wanted[s.rip]])
    expected = f"{header} with a checksum to {names}" if names else f"{header} without a checksum"
    if names and not all(wanted.values()):
        expected += " only"
    count = 0
    for passage in trace.request_passages():
        outer = passage.went.outer
        if outer is None or outer.dst not in wanted or len(passage.went.ips) != 2:
            continue
        for tunnel in passage.went.packet.tunnels:
            if tunnel.checksum is not wanted[outer.dst]:
                has = "a" if tunnel.checksum else "no"
                text = f"{header} to {outer.dst} has {has} checksum"
                return passed_if(False, expected, text, [passage.went])
            count += 1
    if not count:
        return inconclusive(expected, f"no packet with a {header} header left the director")
    return passed_if(True, expected, f"{count} packets, all so")


CLAIMS.add(
    "tun.reply-direct",
    "replies go from the real server, with the VIP as their source, and bypass the director",
    broken_by=("rp-filter-on-tunnel", "rp-filter-on-router", "no-default-gateway"),
)(reply_is_direct)


def _remote_real_servers(trace: Trace) -> list[str]:
    """Real servers that share no network with a director."""
    lab = trace.evidence.lab
    local = {network for name in trace.directors for network in lab.node(name).networks}
    return [s.node for s in trace.real_servers if not local & set(lab.node(s.node).networks)]


def _has_remote_real_servers(trace: Trace) -> bool:
    return bool(_remote_real_servers(trace))


@CLAIMS.add(
    "tun.routed",
    "routers forward the tunnel: real servers may be on other networks than the director",
    broken_by=("tunnel-filtered", "real-server-down"),
    applies=_has_remote_real_servers,
)
def routed(trace: Trace) -> CheckResult:
    """Find the tunnelled requests to real servers on other networks at the routers."""
    lab = trace.evidence.lab
    far = _remote_real_servers(trace)
    routers = [node.name for node in lab.having(Role.ROUTER)]
    expected = f"routers forward tunnelled requests to {join_names(far)}"
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
        return passed_if(False, expected, f"nothing reached {join_names(missed)}", lost[:1])
    if not passages:
        return inconclusive(expected, "no tunnelled packet was captured at a router")
    router, first = passages[0]
    return passed_if(
        True, expected, f"{len(passages)} packets through {router}: {first.went.outer}", first
    )


def _sent_to(trace: Trace) -> dict[str, Frame]:
    """One tunnelled request for each real server that the director sent any to."""
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


def header_cost(trace: Trace, headers: int) -> CheckResult:
    """Send a request of full-sized packets: too large once the tunnel's headers are added."""
    vip = trace.run.endpoint.vip
    too_big, packet = _too_big(vip.version)
    expected = (
        f"{headers} bytes more per packet; a full-sized {packet} causes "
        f"{too_big}, and the request is still answered"
    )
    paying = {server.rip for server in _paying(trace.real_servers, headers)}
    large = _informative(trace, paying)
    if large is None:
        return inconclusive(expected, "no large request was sent")
    passages = [
        p
        for node in trace.directors
        for p in large.passages(node, large.requests)
        if p.went.outer is None or len(p.went.ips) < 2 or p.went.outer.dst in paying
    ]
    added = {
        passage.went.outer.total_length - passage.came.outer.total_length
        for passage in passages
        if passage.went.outer is not None and passage.came.outer is not None
    }
    told = _told(trace, large)
    answered = large.exchange.answered
    outcome = "answered" if answered else large.exchange.error
    if not _established(trace, large):
        return inconclusive(expected, f"its connection was not established: {outcome}")
    if not added:
        return inconclusive(
            expected, f"no packet of the large request crossed the director; {outcome}"
        )
    mtu = told[0].icmp.mtu if told and told[0].icmp is not None else 0
    observed = (
        f"{', '.join(map(str, sorted(added)))} bytes more; "
        + (f"{too_big}, MTU {mtu}" if told else f"no {too_big}")
        + f"; {outcome}"
    )
    if not told and added == {headers} and answered:
        why = _nothing_too_big(trace, large, headers)
        if why:
            return passed_if(True, expected, f"{observed}: {why}")
    right = added == {headers} and bool(told)
    if right and not answered and _made_progress(trace, large):
        return inconclusive(
            expected, f"{observed}, while data was still being acknowledged: this machine is slow"
        )
    return passed_if(right and answered, expected, observed, told[:1])


def _informative(trace: Trace, paying: Container[IPAddress]) -> Conversation | None:
    """The large request to judge: one that failed, or one that was told of the smaller MTU.

    They are sent at once; an ICMP error about one of them changes the path MTU for all. Of
    tunnels that cost different numbers of bytes it is one to a real server of ``paying``, by its
    RIP.
    """
    sent = {exchange.local for exchange in trace.run.every_large}
    larges = [one for one in trace.everything if one.client in sent]
    theirs = [one for one in larges if not (to := _tunnelled_to(trace, one)) or to in paying]
    chosen = (one for one in theirs if not one.exchange.answered or _told(trace, one))
    if trace.large in theirs or not theirs:
        return next(chosen, trace.large)
    return next(chosen, theirs[0])


def _tunnelled_to(trace: Trace, conversation: Conversation) -> IPAddress | None:
    """Where a director sent the tunnelled packets of a request; None if nowhere."""
    sent = (
        frame.outer.dst
        for frame in conversation.requests
        if frame.tap.node in trace.directors
        and frame.direction is Direction.OUT
        and len(frame.ips) == 2
        and frame.outer is not None
    )
    return next(sent, None)


def _told(trace: Trace, large: Conversation) -> list[Frame]:
    """The errors (fragmentation needed, packet too big) about a connection at a client."""
    return [
        frame
        for client in trace.clients
        for frame in trace.at(client)
        if frame.direction.inward
        and frame.icmp is not None
        and frame.icmp.needs_fragmentation
        and frame.icmp.quoted is not None
        and frame.icmp.quoted.flow is not None
        and frame.icmp.quoted.flow.src == large.client
    ]


def _nothing_too_big(trace: Trace, conversation: Conversation, headers: int) -> str:
    """Why no packet had to be refused; empty if one was too large for the tunnel.

    The client sends without DF (ip_no_pmtu_disc, RFC 1191), or its segments leave room for the
    tunnel's headers (an advertised or clamped MSS, or a larger MTU on the way).
    """
    room = _carried(trace, conversation) - headers
    outers = [
        frame.outer
        for frame in conversation.requests
        if frame.tap.node in trace.directors
        and frame.direction is Direction.IN
        and frame.outer is not None
    ]
    large = [outer for outer in outers if outer.total_length > room]
    if not large:
        most = max((outer.total_length for outer in outers), default=0)
        return f"packets of at most {most} bytes leave room for the tunnel"
    if all(outer.version == 4 and not outer.df for outer in large):
        return "the client allows fragmentation (no DF)"
    return ""


def _carried(trace: Trace, conversation: Conversation) -> int:
    """Bytes of the largest packet that every link carries where a request's tunnel was captured.

    A tunnel device of GRE shows the outer header too, but its own MTU is that of the inner packet.
    """
    lab = trace.evidence.lab
    links = {
        frame.tap: link.mtu
        for frame in conversation.requests
        if len(frame.ips) == 2
        and frame.tap.device in lab.node(frame.tap.node).networks
        and (state := trace.evidence.states.get(frame.tap.node)) is not None
        and (link := state.link(frame.tap.device)) is not None
    }
    return min(links.values(), default=USUAL_MTU)


def _made_progress(trace: Trace, conversation: Conversation) -> bool:
    """Whether a request that timed out still made progress in the second half of its timeout.

    One that hangs does so from the start: it retransmits the same segments. Replies after the
    timeout answer the client's FIN.
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
    """Whether the client received a SYN+ACK or INIT-ACK."""
    return any(
        frame.packet.accepts_connection
        for frame in conversation.replies
        if frame.tap.node in trace.clients and frame.direction.inward
    )


def _too_big(version: int) -> tuple[str, str]:
    """What reports that a packet is too large, and which packets are not fragmented.

    IPv6's routers never fragment (RFC 8200, section 5), and IPVS is one here.
    """
    if version == 4:
        return "fragmentation-needed", "DF packet"
    return "packet-too-big", "packet"


def _paying(servers: Iterable[RealServer], headers: int) -> list[RealServer]:
    """The real servers whose tunnel costs so many bytes."""
    return [
        server
        for server in servers
        if server.forward is ForwardingMethod.TUN and cost(server) == headers
    ]


def _sends_large(run: Run) -> bool:
    """Whether large requests are sent: not over UDP, nor where thresholds leave no room for one."""
    limited = room_for(run.service, run.before) is not None
    return run.endpoint.protocol.has_connections and (not limited or bool(run.every_large))


def _cost_claim(headers: int) -> None:
    def wording(trace: Trace) -> str:
        too_big, packet = _too_big(trace.run.endpoint.vip.version)
        return f"the tunnel costs {headers} bytes: a larger {packet} causes {too_big}"

    def applies(trace: Trace) -> bool:
        return _sends_large(trace.run) and bool(_paying(trace.real_servers, headers))

    CLAIMS.add(
        f"tun.costs-{headers}-bytes",
        f"the tunnel costs {headers} bytes: a larger DF packet causes fragmentation-needed",
        broken_by=("icmp-filtered", "pmtu-discovery-off"),
        applies=applies,
        wording=wording,
    )(lambda trace: header_cost(trace, headers))


for _headers in COSTS:
    _cost_claim(_headers)
