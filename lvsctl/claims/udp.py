"""The claims of UDP services: whether a flow stays, or every packet is scheduled by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lvsctl.claims.base import CheckResult, ClaimTable, inconclusive, passed_if
from lvsctl.claims.trace import Passage, Trace
from lvsctl.model.addresses import Endpoint
from lvsctl.model.evidence import Exchange
from lvsctl.model.frame import Frame
from lvsctl.model.service import Scheduler
from lvsctl.model.sip import call_of
from lvsctl.model.state import Connection

CLAIMS = ClaimTable()


def _keeps_flows(trace: Trace) -> bool:
    return bool(trace.run.flow) and not trace.run.service.one_packet


def _schedules_packets(trace: Trace) -> bool:
    return bool(trace.run.flow) and trace.run.service.one_packet


@CLAIMS.add(
    "udp.flow-stays",
    "a client that keeps its port stays with one real server, which the connection table names",
    broken_by=("one-packet-scheduling",),
    applies=_keeps_flows,
)
def flow_stays(trace: Trace) -> CheckResult:
    """Count who answered a flow's packets, and look the flow up in the connection table.

    Positive control: the director forwarded packets of the flow, or received them as the real
    server that it is itself.
    """
    shown = next(iter(_passages(trace)), ()) or _delivered(trace)
    expected = f"{_from(trace)}: one real server, the one in the connection table"
    if not shown:
        return inconclusive(expected, "the director forwarded no packet of the flow")
    entry = _entry(trace)
    answered = Counter(exchange.node for exchange in trace.run.flow if exchange.answered)
    observed = f"{_told(trace, answered)}; {_entry_text(trace, entry)}"
    if entry is None or len(answered) > 1:
        return passed_if(False, expected, observed, shown)
    if not answered:
        return inconclusive(expected, observed, shown)
    return passed_if(set(answered) == {_node(trace, entry)}, expected, observed, shown)


@CLAIMS.add(
    "ops.each-packet-scheduled",
    "every packet is scheduled by itself, also those of a client that keeps its port",
    broken_by=("one-packet-missing",),
    applies=_schedules_packets,
)
def each_packet_scheduled(trace: Trace) -> CheckResult:
    """Count who answered a flow's packets; the connection table has no entry for them.

    Where the table's scheduler takes turns, several real servers must have answered. Positive
    control: the director forwarded packets of the flow.
    """
    passages = _passages(trace)
    turns = _takes_turns(trace)
    expected = f"{_from(trace)}: " + ("several real servers, " if turns else "")
    expected += "no entry in the connection table"
    if not passages:
        return inconclusive(expected, "the director forwarded no packet of the flow")
    entry = _entry(trace)
    answered = Counter(exchange.node for exchange in trace.run.flow if exchange.answered)
    complete = all(exchange.answered for exchange in trace.run.flow)
    alone = turns and complete and len(answered) == 1 and len(trace.run.flow) > 1
    observed = f"{_told(trace, answered)}; {_entry_text(trace, entry)}"
    shown = [frame for passage in passages[:2] for frame in passage]
    return passed_if(entry is None and not alone, expected, observed, shown)


def _keeps_calls(trace: Trace) -> bool:
    return trace.run.service.keeps_calls and bool(trace.run.calls)


@CLAIMS.add(
    "sip.call-stays",
    "requests of one SIP call go to one real server, from whatever port; other calls are scheduled",
    broken_by=("persistence-missing", "persistence-engine-missing"),
    applies=_keeps_calls,
)
def call_stays(trace: Trace) -> CheckResult:
    """Count who was given the requests of one Call-ID, and who those with Call-IDs of their own.

    By the connection table, or by who answered. Where the table's scheduler takes turns, other
    calls must have been given to several real servers.
    Positive control: the requests crossed the director, with different Call-IDs.
    """
    ports = {one.local for one in trace.run.calls}
    sent = {
        conversation.client: frame
        for conversation in trace.everything
        for frame in conversation.requests
        if frame.tap.node in trace.directors and frame.direction.inward
    }
    mine = {call_of(frame.payload) for end, frame in sent.items() if end in ports}
    others = {one.local for one in trace.run.exchanges}
    theirs = {call_of(frame.payload) for end, frame in sent.items() if end in others}
    turns = _is_several(trace)
    expected = f"{len(ports)} ports, one Call-ID: one real server"
    expected += "; other Call-IDs: several" if turns else ""
    if len(mine) != 1 or not all(mine) or not theirs or mine & theirs:
        return inconclusive(expected, "the director received no requests of different calls")
    given = _given(trace, trace.run.calls)
    moved = _given(trace, trace.run.exchanges)
    observed = f"one call: {_counts(given)}; others: {_counts(moved)}"
    shown = [frame for end, frame in sent.items() if end in ports][:2]
    if len(given) > 1 or (turns and len(moved) == 1 and moved.total() > 1):
        return passed_if(False, expected, observed, shown)
    if given.total() < 2 or not moved:
        return inconclusive(expected, observed, shown)
    return passed_if(True, expected, observed, shown)


def _given(trace: Trace, exchanges: Iterable[Exchange]) -> Counter[str]:
    """How many requests each real server was given, also one that the topology does not have."""
    table = {Endpoint(c.client, c.client_port): c.rip for c in trace.run.connections}
    names = {server.rip: server.node for server in trace.real_servers}
    places = ((one, table.get(one.local) if one.local else None) for one in exchanges)
    given = (names.get(rip, str(rip)) if rip is not None else one.node for one, rip in places)
    return Counter(name for name in given if name)


def _counts(answered: Counter[str]) -> str:
    return ", ".join(f"{name or 'unnamed'} {n}" for name, n in sorted(answered.items())) or "none"


def _is_several(trace: Trace) -> bool:
    """Whether the director's table lets a client's calls go to several real servers."""
    table = trace.run.after
    return (
        table is not None
        and table.scheduler in (Scheduler.RR, Scheduler.WRR)
        and sum(server.weight > 0 for server in table.real_servers) > 1
    )


def _delivered(trace: Trace) -> tuple[Frame, ...]:
    """The flow's first packet at the director, where that is a real server that answered it."""
    own = {server.node for server in trace.run.service.local}
    answered = {exchange.node for exchange in trace.run.flow if exchange.answered}
    if trace.flow is None or not answered <= own:
        return ()
    came = (f for f in trace.flow.requests if f.tap.node in own and f.direction.inward)
    return tuple(came)[:1]


def _passages(trace: Trace) -> tuple[Passage, ...]:
    flow = trace.flow
    if flow is None:
        return ()
    return tuple(p for node in trace.directors for p in flow.passages(node, flow.requests))


def _entry(trace: Trace) -> Connection | None:
    """The flow's entry in the director's connection table."""
    if trace.flow is None:
        return None
    end, endpoint = trace.flow.client, trace.run.endpoint
    for entry in trace.run.connections:
        place = (entry.protocol, entry.vip, entry.vport)
        if place == (endpoint.protocol, endpoint.vip, endpoint.port) and (
            (entry.client, entry.client_port) == (end.address, end.port)
        ):
            return entry
    return None


def _takes_turns(trace: Trace) -> bool:
    """Whether the director's table lets a client's packets go to several real servers."""
    table = trace.run.after
    return (
        table is not None
        and table.scheduler in (Scheduler.RR, Scheduler.WRR)
        and not table.persistence
        and sum(server.weight > 0 for server in table.real_servers) > 1
    )


def _from(trace: Trace) -> str:
    port = trace.flow.client.port if trace.flow is not None else 0
    return f"{len(trace.run.flow)} packets from port {port}"


def _told(trace: Trace, answered: Counter[str]) -> str:
    names = ", ".join(f"{name or 'an unnamed server'} {n}" for name, n in sorted(answered.items()))
    lost = len(trace.run.flow) - answered.total()
    return (names or "no answer") + (f", {lost} unanswered" if lost and names else "")


def _entry_text(trace: Trace, entry: Connection | None) -> str:
    return "no entry" if entry is None else f"an entry for {_node(trace, entry) or entry.rip}"


def _node(trace: Trace, entry: Connection) -> str:
    place = (entry.rip, entry.rport)
    here = trace.run.endpoint
    return next((s.node for s in trace.real_servers if (s.rip, s.answers_at(here)) == place), "")
