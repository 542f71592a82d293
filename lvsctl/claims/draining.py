"""Why flows fared as they did when a real server was taken out. Pure.

net/netfilter/ipvs/ip_vs_core.c (ip_vs_in_hook, ip_vs_sched_persist) and
Documentation/networking/ipvs-sysctl.rst say what is to be expected; a reason is given only where
the frames and IPVS's connection table show it.
"""

from __future__ import annotations

from lvsctl.claims.flows import Case, Observed, case_of, not_started, result
from lvsctl.model.flows import FRESH, FlowKind, FlowRecord, FlowResult, Outcome, Way


def drained(observed: Observed, way: Way, record: FlowRecord) -> FlowResult:
    """Decide what became of a flow when a real server was taken out by ``way``, and why."""
    if record.trouble:
        return not_started(record)
    case = case_of(observed, record)
    return result(case, _why(case, way))


def _why(case: Case, way: Way) -> str:
    """Return the reason of an outcome, where what was seen shows it; else nothing."""
    match case.judged.outcome:
        case Outcome.WENT_ON:
            return _why_it_went_on(case) if way is Way.WEIGHT else ""
        case Outcome.MOVED:
            return _why_it_moved(case, way) if way is not Way.STOP else ""
        case Outcome.SILENT | Outcome.TIMED_OUT:
            return _why_it_is_silent(case, way)
        case Outcome.REFUSED if way is Way.STOP:
            server = case.observed.server
            return f"IPVS still sends connections to {server}, where nothing listens"
        case Outcome.REFUSED:
            return "no usable real server is left" if not case.judged.servers else ""
    return _why_it_ended(case, way)


def reuse(case: Case) -> str:
    """Return the settings that decide about a port that is used again."""
    return f"({case.setting('conn_reuse_mode')}, {case.setting('expire_nodest_conn')})"


def _why_it_went_on(case: Case) -> str:
    if case.record.kind in FRESH:
        if not case.persistent:
            return ""
        setting = case.setting("expire_quiescent_template")
        return f"the client's persistence template still leads to it ({setting})"
    if case.entry is None:
        return ""
    if case.record.kind is FlowKind.REUSED_PORT:
        return f"the entry of the earlier connection was used again {reuse(case)}"
    return "its entry stays in the table: weight 0 keeps only new connections away"


def _why_it_moved(case: Case, way: Way) -> str:
    if case.record.kind is FlowKind.REUSED_PORT:
        return f"a new entry was made {reuse(case)}"
    if case.record.kind is FlowKind.UDP:
        setting = case.setting("expire_nodest_conn")
        if case.judged.silent:
            return f"dropped ({setting}) until its entry timed out; then it was scheduled again"
        return f"its next packet ended its entry and was scheduled again ({setting})"
    if not case.persistent:
        gone = "its weight is 0" if way is Way.WEIGHT else "it is not in the table"
        return f"the scheduler leaves {case.observed.server} out: {gone}"
    if way is Way.DELETE:
        return "the client's persistence template led to a removed server: scheduled again"
    setting = case.setting("expire_quiescent_template")
    return f"weight 0 ended the client's persistence template ({setting})"


def _why_it_is_silent(case: Case, way: Way) -> str:
    seen, observed = case.seen, case.observed
    if seen.forwarded:
        return f"{observed.server} receives its packets ({seen.forwarded}) and does not answer"
    if not seen.arrived or case.service.snat:
        return ""
    text = f"the director receives its packets ({seen.arrived}) and forwards none"
    if way is Way.DELETE:
        setting = case.setting("expire_nodest_conn")
        text += f": its entry leads to the removed server ({setting})"
    return text


def _packets(count: int) -> str:
    return f"{count} packet" if count == 1 else f"{count} packets"


def _why_it_ended(case: Case, way: Way) -> str:
    seen, observed = case.seen, case.observed
    if not seen.ended_by:
        return ""
    verb, frame = "reset" if seen.reset else "closed", f"(frame #{seen.frame})"
    if way is Way.STOP and seen.ended_by == observed.server:
        return f"{observed.server} {verb} it when its process ended {frame}"
    if seen.ended_by not in {node.name for node in observed.lab.directors}:
        return f"{verb} by {seen.ended_by} {frame}"
    setting = case.setting("expire_nodest_conn")
    if seen.dropped:
        return (
            f"{_packets(seen.dropped)} dropped ({setting}) until its entry timed out; the director "
            f"itself {verb} the next {frame}"
        )
    return f"its next packet ended its entry ({setting}), and the director itself {verb} it {frame}"
