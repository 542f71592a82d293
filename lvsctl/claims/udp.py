"""The claims of UDP services: whether a flow stays, or every packet is scheduled by itself."""

from __future__ import annotations

from collections import Counter

from lvsctl.claims.base import CheckResult, ClaimTable, inconclusive, passed_if
from lvsctl.claims.trace import Passage, Trace
from lvsctl.model.service import Scheduler
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

    Positive control: the director forwarded packets of the flow.
    """
    passages = _passages(trace)
    expected = f"{_from(trace)}: one real server, the one in the connection table"
    if not passages:
        return inconclusive(expected, "the director forwarded no packet of the flow")
    entry = _entry(trace)
    answered = Counter(exchange.node for exchange in trace.run.flow if exchange.answered)
    observed = f"{_told(trace, answered)}; {_entry_text(trace, entry)}"
    if entry is None or len(answered) > 1:
        return passed_if(False, expected, observed, passages[0])
    if not answered:
        return inconclusive(expected, observed, passages[0])
    return passed_if(set(answered) == {_node(trace, entry)}, expected, observed, passages[0])


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
