"""Rules about the server process on each real server: does it listen, and does it answer?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lvsctl.claims.trace import Conversation
from lvsctl.diagnosis.base import NAT, Case, Found, Rule, shown
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Cause, Remark
from lvsctl.model.evidence import Exchange, Failure
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.packet import TcpFlag
from lvsctl.model.service import Protocol, RealServer
from lvsctl.model.state import ListenerState

STOPPED = frozenset({"T", "t"})
"""States of a process that a signal or a debugger has stopped (proc_pid_stat(5))."""


def _target(case: Case, server: RealServer) -> tuple[IPAddress, int]:
    """Where requests arrive: NAT rewrites their destination."""
    if server.forward is NAT:
        return server.rip, server.answers_at(case.endpoint)
    return case.vip, case.endpoint.port


def _usable(case: Case, server: RealServer) -> tuple[ListenerState, ...]:
    """The listeners that the requests reach."""
    address, port = _target(case, server)
    return tuple(
        one
        for one in case.state(server.node).listeners
        if (one.protocol, one.port) == (case.endpoint.protocol, port)
        and (one.address.is_unspecified or one.address == address)
        # An IPv6 socket without an address takes IPv4 too (ipv6(7)).
        and (one.address.version in (address.version, 6))
    )


def listening(case: Case) -> Iterator[Found]:
    """A process listens where the requests arrive."""
    for server, node in case.members():
        if _usable(case, server) or node.name not in case.evidence.states:
            continue
        address, port = _target(case, server)
        protocol = case.endpoint.protocol
        found = _elsewhere(case, server, address, port)
        if not server.weight:
            fact = found[1] if found else f"nothing listens on {protocol} port {port}"
            yield Remark(node.name, f"{fact}; its weight is 0 in the topology")
            continue
        text, fact = found or (
            "nothing listens on a real server",
            f"nothing listens on {protocol} port {port}",
        )
        if case.served(node.name) and not case.troubled(node.name):
            yield Remark(node.name, f"{fact}; no harm observed")
            continue
        yield Cause(
            fault="listens-elsewhere" if found else "service-stopped",
            node=node.name,
            text=text,
            evidence=(f"{node.name}: {fact}", *shown(_refusals(case, node.name))),
            consequence="the real server refuses the requests that the director forwards",
            remedy=_start(case, node.name, port),
        )


def _start(case: Case, node: str, port: int) -> str:
    """The command that starts what should be running, or shows what runs in its place."""
    if not case.by_state:
        return case.restore(node)
    shown_by = {Protocol.UDP: "-Hlnup", Protocol.SCTP: "-HlnSp"}.get(
        case.endpoint.protocol, "-Hlntp"
    )
    look = case.type(node, "ss", shown_by, f"sport = :{port}")
    return f"{look}  # empty until the server listens there: start it, or change its port"


def _elsewhere(
    case: Case, server: RealServer, address: IPAddress, port: int
) -> tuple[str, str] | None:
    """The text and fact where a process listens, but not where requests arrive; else None."""
    protocol = case.endpoint.protocol
    listeners = case.state(server.node).listeners
    named = _process
    same_port = [one for one in listeners if one.port == port]
    same = [one for one in same_port if one.protocol is protocol]
    if same:
        only = same[0].address
        what = "its loopback address" if only.is_loopback else str(only)
        return (
            f"the server on a real server listens on {what} only, not on {address}",
            f"{named(same[0])} listens on {only} port {port} only; requests arrive for {address}",
        )
    if same_port:
        other = same_port[0].protocol
        return (
            f"the server on a real server listens on {other} port {port}, not on {protocol}",
            f"{named(same_port[0])} listens on {other} port {port}, nothing on {protocol}",
        )
    others = [
        one
        for one in listeners
        if not case.by_state  # a host that is no lab's has servers of its own
        and one.protocol is protocol
        and one.process
        and not one.address.is_loopback
    ]
    if others and not any(s.node == server.node and s.port == others[0].port
                          for service in case.lab.services if service != case.service
                          for s in service.real_servers):  # fmt: skip
        return (
            f"the server on a real server listens on port {others[0].port}, not on {port}",
            f"{named(others[0])} listens on {protocol} port {others[0].port}, nothing on {port}",
        )
    return None


def _process(listener: ListenerState) -> str:
    """The process in words."""
    if not listener.process:
        return "a process"
    return f"{listener.process} (process {listener.pid})"


def _refusals(case: Case, node: str) -> Iterator[Frame]:
    for frame in case.replies(node, out=True):
        if frame.packet.refuses:
            yield frame


def running(case: Case) -> Iterator[Found]:
    """No server process is stopped by a signal."""
    for server, _ in case.members():
        for listener in _usable(case, server):
            if listener.state not in STOPPED:
                continue
            yield Cause(
                fault="process-stopped",
                node=server.node,
                text="the server process on a real server is stopped by a signal",
                evidence=(
                    (
                        f"{server.node}: {_process(listener)} is in state {listener.state} "
                        f"(stopped) and listens on port {listener.port}"
                    ),
                    *_queue(case, server, listener),
                ),
                consequence="the kernel accepts connections for it, which it never answers",
                remedy=case.type(server.node, "kill", "-CONT", listener.pid),
            )
            break


def _queue(case: Case, server: RealServer, listener: ListenerState) -> Iterator[str]:
    if listener.queued:
        yield (
            f"{server.node}: {listener.queued} connections wait to be accepted on port "
            f"{listener.port}, of at most {listener.backlog}"
        )
    dropped = case.evidence.counters.get(server.node, {}).get("TcpExtListenOverflows", 0)
    if dropped:
        yield f"{server.node}: its kernel counted TcpExtListenOverflows +{dropped} (queue full)"


def answering(case: Case) -> Iterator[Found]:
    """Every server process accepts connections and answers what it is asked."""
    for server, _ in case.members():
        listeners = _usable(case, server)
        given = case.given(server.node)
        if not listeners or any(one.state in STOPPED for one in listeners):
            continue
        full = next((one for one in listeners if one.full), None)
        failed = [c for c in given if not c.exchange.answered or c.exchange.server_error]
        if full is not None and failed:
            yield Cause(
                fault="backlog-full",
                node=server.node,
                text="the server on a real server does not accept connections: its queue is full",
                evidence=tuple(_queue(case, server, full)),
                consequence="the kernel drops further connections without an answer",
                remedy=_restart(case, server, full),
            )
            continue
        yield from _misbehaving(case, server, listeners[0], given)


def _misbehaving(
    case: Case, server: RealServer, listener: ListenerState, given: Iterable[Conversation]
) -> Iterator[Found]:
    """What the process does with the requests that reach it, one kind of failure at a time."""
    name = _process(listener)
    for conversation in given:
        exchange = conversation.exchange
        kind = _kind(conversation, server.node)
        if kind is None:
            continue
        fault, text, fact, consequence = kind
        if fault == "server-silent":
            slow = [e for e in case.trace.run.slow if case.trace.assigned(e) == server.node]
            fault, text, fact, consequence = _slow_or_silent(exchange, slow)
        asked = [f for f in conversation.requests if f.tap.node == server.node and f.payload]
        yield Cause(
            fault=fault,
            node=server.node,
            text=text,
            evidence=(f"{server.node}: {name} {fact}", *shown(asked)),
            consequence=consequence,
            remedy=_restart(case, server, listener),
        )
        return


Failing = tuple[str, str, str, str]
"""A fault, its text, what the process did, and the consequence."""

_CLOSES = (
    "server-closes",
    "the server on a real server accepts connections and closes them without an answer",
    "accepted the connection and closed it",
    "requests arrive and are not answered",
)
_MALFORMED = (
    "server-malformed",
    "the server on a real server answers something that is not HTTP",
    "answered, but not with an HTTP response",
    "the requests arrive; the answer makes no sense to a client",
)
_SILENT = ("server-silent", "", "", "")


def _kind(conversation: Conversation, node: str) -> Failing | None:
    """How the process, and not the network, failed; None if it did not."""
    exchange = conversation.exchange
    if exchange.server_error:
        return (
            "server-error",
            f"the server on a real server answers an error: HTTP {exchange.status}",
            f"answered HTTP {exchange.status}",
            "the requests arrive and are answered; the error is the server's own",
        )
    if exchange.error == Failure.MALFORMED:
        return _MALFORMED
    said = [f for f in conversation.replies if f.tap.node == node and f.direction is Direction.OUT]
    asked = _received_whole(conversation, said)
    accepted = any(f.tcp is not None and f.tcp.is_syn_ack for f in said)
    reached = asked and accepted and not any(f.payload for f in said)
    if exchange.answered or not reached:
        return None
    ends = TcpFlag.FIN | TcpFlag.RST
    ended = any(f.tcp is not None and f.tcp.flags & ends for f in said)
    if ended and exchange.error in (Failure.CLOSED, Failure.RESET):
        return _CLOSES
    return _SILENT if exchange.error == Failure.TIMED_OUT else None


def _received_whole(conversation: Conversation, said: Iterable[Frame]) -> bool:
    """Whether a real server acknowledged all that the client sent it (``said``: its segments)."""
    ends = [f.tcp.seq + len(f.payload) for f in conversation.requests if f.tcp and f.payload]
    acknowledged = [f.tcp.ack for f in said if f.tcp is not None]
    if not ends or not acknowledged:
        return False
    missing = (max(ends) - max(acknowledged)) % (1 << 32)
    return missing == 0 or missing >= 1 << 31


def _slow_or_silent(exchange: Exchange, slow: Iterable[Exchange]) -> tuple[str, str, str, str]:
    took = [one.seconds for one in slow if one.answered]
    waited = max([exchange.seconds, *(one.seconds for one in slow)])
    if took:
        return (
            "server-slow",
            f"the server on a real server is slow: it answers after {max(took):.1f} s",
            f"answered after {max(took):.1f} s",
            f"clients that wait less than that time out, as here after {exchange.seconds:.1f} s",
        )
    return (
        "server-silent",
        "the server on a real server accepts connections but does not answer: stuck, or very slow",
        f"did not answer within {waited:.0f} s",
        "requests arrive and are acknowledged, but not answered in time",
    )


def _restart(case: Case, server: RealServer, listener: ListenerState) -> str:
    """End the process that does not do its work, and start what the topology says."""
    if not listener.pid:
        return case.restore(server.node)
    return f"{case.type(server.node, 'kill', '-KILL', listener.pid)} && {case.restore(server.node)}"


def answering_as_vip(case: Case) -> Iterator[Found]:
    """Replies leave a real server from the VIP, not from its own address (UDP, DR and TUN)."""
    if case.endpoint.protocol is not Protocol.UDP:
        return
    for server, _ in case.members():
        entry = case.entry(server)
        if server.forward is NAT or (entry is not None and entry.forward != server.forward):
            continue  # a request whose destination NAT has rewritten is answered from the RIP
        wrong = [
            frame
            for frame in case.replies(server.node, out=True)
            if frame.flow is not None and frame.flow.src.address == server.rip
        ]
        if wrong:
            yield Cause(
                fault="replies-from-rip",
                node=server.node,
                text="the server on a real server answers from its RIP instead of the VIP",
                evidence=shown(wrong),
                consequence=(
                    "the client does not accept a datagram from an address that it did not ask: "
                    "a UDP server that is bound to no address must answer from the one that was "
                    f"asked (IP_PKTINFO), or be bound to {case.vip}"
                ),
                remedy=case.restore(server.node),
            )


RULES = (
    Rule(
        find=listening,
        latent=True,
        rules_out="a process listens on every real server",
    ),
    Rule(
        find=running,
        latent=True,
        rules_out="no server process is stopped",
    ),
    Rule(find=answering, by_state=False, rules_out="every server process accepts and answers"),
    Rule(find=answering_as_vip, by_state=False, rules_out="real servers answer from the VIP"),
)
