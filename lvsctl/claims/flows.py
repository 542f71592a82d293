"""What became of flows, decided on what their clients saw, on frames and IPVS's table. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lvsctl.model.addresses import Endpoint
from lvsctl.model.evidence import Failure
from lvsctl.model.flows import (
    FRESH,
    SEVERAL,
    FlowKind,
    FlowRecord,
    FlowResult,
    Outcome,
    Request,
)
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Lab
from lvsctl.model.packet import TcpFlag
from lvsctl.model.service import IpvsTimeouts, VirtualService
from lvsctl.model.state import Connection

SETTINGS = ("expire_nodest_conn", "expire_quiescent_template", "conn_reuse_mode", "sloppy_tcp")
"""The sysctls of IPVS that decide what becomes of flows (ipvs-sysctl.rst)."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen while a real server was taken out.

    ``began`` and ``done`` are when that began and was done, ``until`` when watching ended, in
    seconds since the epoch. ``table`` is IPVS's connection table then; ``frames`` may be empty.
    ``settings`` are those of ``SETTINGS`` by name, ``persistence`` the timeout of each service.
    """

    lab: Lab
    server: str
    began: float
    done: float
    until: float
    settings: Mapping[str, str]
    persistence: Mapping[str, int]
    timeouts: IpvsTimeouts
    table: tuple[Connection, ...] = ()
    frames: tuple[Frame, ...] = ()


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


@dataclass(frozen=True, slots=True)
class Judged:
    """``noticed`` is when the client did, in seconds since the epoch; 0: it did not."""

    outcome: Outcome
    text: str
    servers: Mapping[str, int]
    failed: int = 0
    noticed: float = 0.0
    resolution: float = 0.0
    silent: float = 0.0


_FAILED = {
    Failure.RESET: Outcome.RESET,
    Failure.CLOSED: Outcome.CLOSED,
    Failure.REFUSED: Outcome.REFUSED,
    Failure.TIMED_OUT: Outcome.TIMED_OUT,
}

PROMPT = 0.3
"""Seconds within which an answer comes to what was not lost: TCP sends lost data again after 0.2,
0.4 … seconds at the earliest (RFC 6298 with Linux's minimum), a SYN after one."""


def _one(observed: Observed, record: FlowRecord, *, dropped: bool) -> Judged:
    """Judge requests of one flow, in their order."""
    later = [one for one in record.requests if _concerns(observed, one)]
    servers = Counter(one.server for one in later if one.answered)
    failed = next((one for one in later if one.error), None)
    answered = next((one for one in later if one.answered), None)
    # The last one may only have had no time.
    lost = sum(bool(one.error) or _is_unanswered(observed, one) for one in later)
    if failed is not None and not (answered and record.kind is FlowKind.UDP):
        return _broken(observed, record, failed, servers, lost, dropped=dropped)
    if answered is None:
        seconds = observed.until - observed.done
        text = f"silent until the end ({seconds:.1f} s)"
        return Judged(Outcome.SILENT, text, servers, lost, silent=seconds)
    begun = _first_unanswered(later, answered)
    silent = _silence(record, answered.ended - begun)
    gap = f"silent for {silent:.1f} s, then " if silent else ""
    where = _where(servers)
    if set(servers) == {record.server}:
        outcome, text = Outcome.WENT_ON, f"{gap}went on at {where}"
    else:
        outcome, text = Outcome.MOVED, f"{gap}moved to {where}"
    noticed = answered.ended if silent or outcome is Outcome.MOVED else 0.0
    resolution = _resolution(record, answered) if noticed else 0.0
    return Judged(outcome, text, servers, lost, noticed, resolution, silent)


def _silence(record: FlowRecord, seconds: float) -> float:
    """Return how long a client waited in vain, where that was longer than an answer takes."""
    late = record.kind is FlowKind.HALF_CLOSED  # which is answered late
    return seconds if seconds > PROMPT and not late else 0.0


def _concerns(observed: Observed, one: Request) -> bool:
    """Whether a request was sent once the real server was out, or failed since it was going."""
    if one.error:
        return one.ended >= observed.began
    return one.sent >= (observed.done if one.ended else observed.began)


def _first_unanswered(later: Sequence[Request], answered: Request) -> float:
    return min((one.sent for one in later if one.sent <= answered.sent), default=answered.sent)


def _resolution(record: FlowRecord, one: Request) -> float:
    """Return how long the client had not asked before a request: it could not have noticed."""
    before = [other.sent for other in record.requests if other.sent < one.sent]
    return one.sent - max(before) if before else 0.0


def _broken(
    observed: Observed,
    record: FlowRecord,
    failed: Request,
    servers: Mapping[str, int],
    lost: int,
    *,
    dropped: bool,
) -> Judged:
    outcome, verb = _outcome(failed.error), failed.error
    if outcome is None:  # such as no route: in the kernel's words
        outcome = Outcome.REFUSED
    else:
        verb = str(outcome)
    silent = _silence(record, failed.ended - failed.sent)
    if record.kind is FlowKind.KEEPALIVE:  # it asked nothing: its probes had no answer
        timed_out = outcome is Outcome.TIMED_OUT
        silent = failed.ended - observed.done if timed_out or dropped else 0.0
    after = failed.ended - observed.began
    if silent:
        text = f"silent for {silent:.1f} s, then {verb}"
    else:
        text = f"{verb} after {after * 1000:.0f} ms"
    if outcome is Outcome.REFUSED:
        text = f"silent for {silent:.1f} s, then {verb}" if silent else verb
    resolution = 0.0 if record.kind is FlowKind.KEEPALIVE else _resolution(record, failed)
    return Judged(outcome, text, servers, lost, failed.ended, resolution, silent)


def _is_unanswered(observed: Observed, one: Request) -> bool:
    """Whether a request had time to be answered, and was not."""
    return not one.ended and one.sent < observed.until - PROMPT


def _outcome(error: str) -> Outcome | None:
    return next((found for one, found in _FAILED.items() if one == error), None)


def _several(observed: Observed, record: FlowRecord) -> Judged:
    """Judge requests that have a connection each."""
    later = [one for one in record.requests if one.sent >= observed.done]
    servers = Counter(one.server for one in later if one.answered)
    errors = Counter(one.error for one in later if one.error)
    unanswered = [one for one in later if _is_unanswered(observed, one)]
    total = servers.total() + errors.total() + len(unanswered)
    parts = [f"{count} of {total} {_outcome(error) or error}" for error, count in errors.items()]
    if unanswered:
        parts.append(f"{len(unanswered)} of {total} silent")
    if parts:
        worst = max(errors, key=errors.__getitem__, default="")
        outcome = (_outcome(worst) or Outcome.REFUSED) if errors else Outcome.SILENT
        if servers:
            parts.append(f"others at {_where(servers)}")
        failed = errors.total() + len(unanswered)
        return Judged(outcome, ", ".join(parts), servers, failed)
    if not servers:
        return Judged(Outcome.SILENT, "no request was sent", servers)
    if set(servers) == {observed.server}:
        return Judged(Outcome.WENT_ON, f"{total} of {total} still at {observed.server}", servers)
    if servers[observed.server]:
        others = _where({one: 1 for one in servers if one != observed.server})
        text = (
            f"{servers[observed.server]} of {total} still at {observed.server}, others at {others}"
        )
        return Judged(Outcome.WENT_ON, text, servers)
    return Judged(Outcome.MOVED, f"all {total} at {_where(servers)}", servers)


def _where(servers: Mapping[str, int]) -> str:
    return " and ".join(sorted(one or "an unknown server" for one in servers))


@dataclass(frozen=True, slots=True)
class Seen:
    """What frames show of a flow after the real server was taken out.

    ``arrived`` counts the client's packets at a director, ``forwarded`` those at a real server,
    ``dropped`` those before the flow's end that got no further. ``ended_by`` is the node that sent
    the first RST or FIN, ``frame`` its number; ``reset``: it was a RST.
    """

    arrived: int = 0
    forwarded: int = 0
    dropped: int = 0
    ended_by: str = ""
    frame: int = 0
    reset: bool = False


def _seen(observed: Observed, record: FlowRecord) -> Seen:
    clients = frozenset(record.clients) if record.kind not in FRESH else frozenset()
    if not clients or not observed.frames:
        return Seen()
    directors = {node.name for node in observed.lab.directors}
    servers = {s.node for service in observed.lab.services for s in service.real_servers}
    since, done = observed.began * 1e9, observed.done * 1e9
    arrived = forwarded = before = 0
    ending: Frame | None = None
    for frame in observed.frames:
        flow = frame.flow
        if frame.time < since or flow is None:
            continue
        if flow.src in clients and frame.direction is Direction.IN and frame.time >= done:
            arrived += frame.tap.node in directors and len(frame.ips) == 1
            forwarded += frame.tap.node in servers
        before = arrived if ending is None else before
        ends = frame.tcp is not None and frame.tcp.flags & (TcpFlag.RST | TcpFlag.FIN)
        to_client = flow.dst in clients and frame.direction is Direction.OUT
        if ending is None and ends and to_client:
            ending = frame
    if ending is None or ending.tcp is None:
        return Seen(arrived, forwarded)
    reset = bool(ending.tcp.flags & TcpFlag.RST)
    # The last one is what the end answers.
    dropped = max(0, before - 1) if not forwarded else 0
    return Seen(arrived, forwarded, dropped, ending.tap.node, ending.number, reset)


def _entry(observed: Observed, record: FlowRecord) -> Connection | None:
    """Return the flow in the connection table: of several connections the first that is there."""
    if record.kind in FRESH:
        return None
    service = _service(observed, record)
    for one in observed.table:
        if Endpoint(one.client, one.client_port) in record.clients and one.vip in service.vips:
            return one
    return None


def _owner(lab: Lab, entry: Connection) -> str:
    """Return the real server that an entry leads to."""
    servers = (s for service in lab.services for s in service.real_servers)
    return next((one.node for one in servers if one.rip == entry.rip), str(entry.rip))


def _service(observed: Observed, record: FlowRecord) -> VirtualService:
    return next(one for one in observed.lab.services if one.name == record.service)


@dataclass(frozen=True, slots=True)
class Case:
    """A flow, judged: everything that a reason may rest on. ``entry``: its own in IPVS's table."""

    observed: Observed
    record: FlowRecord
    judged: Judged
    seen: Seen
    entry: Connection | None

    def setting(self, name: str) -> str:
        """A sysctl with its value."""
        return f"{name}={self.observed.settings[name]}"

    @property
    def persistent(self) -> bool:
        """Whether the service is."""
        return self.observed.persistence[self.record.service] > 0

    @property
    def service(self) -> VirtualService:
        """The service that the flow asked."""
        return _service(self.observed, self.record)


def case_of(observed: Observed, record: FlowRecord) -> Case:
    """Judge a flow that was started."""
    seen = _seen(observed, record)
    if record.kind in SEVERAL:
        judged = _several(observed, record)
    else:
        judged = _one(observed, record, dropped=seen.dropped > 0)
    return Case(observed, record, judged, seen, _entry(observed, record))


def result(case: Case, why: str) -> FlowResult:
    """Return what became of a flow, with the reason."""
    observed, record, judged, found = case.observed, case.record, case.judged, case.entry
    entry = ""
    if found is not None:
        entry = f"{found.state} at {_owner(observed.lab, found)}, {found.expires} s left"
    return FlowResult(
        record.kind,
        record.service,
        _client(record),
        judged.outcome,
        judged.text,
        _ms(judged.noticed - observed.began) if judged.noticed else None,
        _ms(judged.resolution),
        _ms(judged.silent),
        dict(judged.servers),
        judged.failed,
        entry,
        why,
    )


def not_started(record: FlowRecord) -> FlowResult:
    """Return that a flow could not be started, and why."""
    return FlowResult(
        record.kind, record.service, _client(record), Outcome.NOT_STARTED, record.trouble
    )


def _client(record: FlowRecord) -> str:
    one = len(record.clients) == 1 and record.kind not in FRESH
    return str(record.clients[0]) if one else ""


def differing(now: Iterable[FlowResult], other: Iterable[FlowResult]) -> tuple[FlowKind, ...]:
    """Return the kinds of flow that fared differently in two runs.

    Times differ from run to run: only the outcome, the servers and whether there was silence do.
    """
    before = {one.kind: one for one in now}
    return tuple(
        one.kind
        for one in other
        if one.kind in before and _essence(one) != _essence(before[one.kind])
    )


def _essence(one: FlowResult) -> tuple[object, ...]:
    return one.outcome, frozenset(one.servers), bool(one.silent), bool(one.failed)
