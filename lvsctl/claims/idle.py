"""Why flows fared as they did that were silent for longer than IPVS keeps them. Pure.

net/netfilter/ipvs/ip_vs_proto_tcp.c has the states with their timeouts; a packet of an unknown
connection that is no SYN is left to the director itself, unless sloppy_tcp is set
(tcp_conn_schedule).
"""

from __future__ import annotations

from lvsctl.claims.draining import reuse
from lvsctl.claims.flows import Case, Observed, case_of, not_started, result
from lvsctl.model.flows import SEVERAL, FlowKind, FlowRecord, FlowResult, Outcome


def idled(observed: Observed, record: FlowRecord) -> FlowResult:
    """Decide what became of a flow that was silent, and why."""
    if record.trouble:
        return not_started(record)
    case = case_of(observed, record)
    return result(case, _why(case))


def _why(case: Case) -> str:
    match case.record.kind:
        case FlowKind.REUSED_PORT:
            return _why_of_a_port(case)
        case FlowKind.KEEPALIVE if case.entry and case.judged.outcome is Outcome.WENT_ON:
            return "its keepalives, one every second, kept its entry in the table"
    if case.entry is not None:
        return "its entry was still in the table"
    whose = "their entries" if case.record.kind in SEVERAL else "its entry"
    return _why_without_an_entry(case, f"{whose} had timed out ({_timeout(case)})")


def _why_without_an_entry(case: Case, gone: str) -> str:
    seen, sloppy = case.seen, case.observed.settings["sloppy_tcp"] == "1"
    if sloppy and case.record.kind is not FlowKind.IDLE_UDP:
        gone += ", and the next packet was scheduled without a SYN (sloppy_tcp=1)"
    directors = {node.name for node in case.observed.lab.directors}
    if seen.ended_by in directors and seen.reset:
        return f"{gone}: the director itself reset the next packet (frame #{seen.frame})"
    if sloppy and seen.reset:
        frame = f"(frame #{seen.frame})"
        return f"{gone}: {seen.ended_by} does not know the connection and reset it {frame}"
    if case.record.kind is FlowKind.IDLE_UDP and case.judged.outcome in _ANSWERED:
        return f"{gone}: the next packets were scheduled as new flows"
    return gone if case.judged.outcome in _ANSWERED else ""


_ANSWERED = (Outcome.WENT_ON, Outcome.MOVED)


def _timeout(case: Case) -> str:
    timeouts = case.observed.timeouts
    match case.record.kind:
        case FlowKind.IDLE_UDP:
            return f"udp {timeouts.udp} s"
        case FlowKind.HALF_CLOSED:
            return f"FIN_WAIT, tcpfin {timeouts.tcp_fin} s"
    return f"tcp {timeouts.tcp} s"


def _why_of_a_port(case: Case) -> str:
    if case.entry is not None and set(case.judged.servers) == {case.observed.server}:
        return f"the entries of the earlier connections were used again {reuse(case)}"
    if len(case.judged.servers) > 1 and not case.judged.failed:
        return f"their SYNs made new entries, for which the scheduler chose {reuse(case)}"
    return ""
