"""Flows that run while something happens in a lab, and what became of each.

Frozen values, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from lvsctl.model.addresses import Endpoint
from lvsctl.model.service import IpvsTimeouts


class Way(StrEnum):
    """How a real server is taken out."""

    WEIGHT = "weight"
    """Its weight is set to 0 (ipvsadm -e … -w 0)."""
    DELETE = "delete"
    """It is removed from IPVS's table (ipvsadm -d)."""
    STOP = "stop"
    """Its server process ends; IPVS's table stays as it is."""


class FlowKind(StrEnum):
    """What a client does meanwhile."""

    HELD = "held"
    """A connection that goes on asking."""
    KEEPALIVE = "keepalive"
    """An idle connection with TCP keepalives, which asks again at the end."""
    NEW = "new"
    """Connections that are opened one after the other."""
    PERSISTENT = "persistent"
    """The same to a persistent service, by a client that it has bound to the real server."""
    REUSED_PORT = "reused-port"
    """Connections from the ports of others that were closed before."""
    UDP = "udp"
    """Datagrams from one port."""
    IDLE = "idle"
    """Connections that are silent for longer than IPVS keeps their entries, and then ask again."""
    HALF_CLOSED = "half-closed"
    """A client that has shut down its side of a connection, and gets its answer late."""
    IDLE_UDP = "idle-udp"
    """Flows of UDP that are silent for longer than IPVS keeps their entries."""


DRAINED = (
    *(FlowKind.HELD, FlowKind.KEEPALIVE, FlowKind.NEW),
    *(FlowKind.PERSISTENT, FlowKind.REUSED_PORT, FlowKind.UDP),
)
"""Kinds that run while a real server is taken out."""

IDLING = (
    *(FlowKind.IDLE, FlowKind.KEEPALIVE, FlowKind.HALF_CLOSED),
    *(FlowKind.REUSED_PORT, FlowKind.IDLE_UDP),
)
"""Kinds that show IPVS's timeouts."""
FRESH = (FlowKind.NEW, FlowKind.PERSISTENT)
"""Kinds whose every request is from a port that the client has not used before."""

SEVERAL = (*FRESH, FlowKind.REUSED_PORT, FlowKind.IDLE, FlowKind.IDLE_UDP)
"""Kinds of several connections or flows, which may fare differently."""


class Outcome(StrEnum):
    """What became of a flow."""

    WENT_ON = "went on"
    MOVED = "moved"
    RESET = "reset"
    CLOSED = "closed"
    REFUSED = "refused"
    TIMED_OUT = "timed out"
    """The client gave it up: its TCP keepalives were not acknowledged."""
    SILENT = "silent"
    """No answer until the end."""
    NOT_STARTED = "not started"


class Request(NamedTuple):
    """A request of a flow: when it was sent, and when it was answered or failed.

    In seconds since the epoch; ``ended`` 0: neither until the end. ``server`` is the real server
    that answered, ``error`` the failure (one of ``evidence.Failure``; empty: none).
    """

    sent: float
    ended: float = 0.0
    server: str = ""
    error: str = ""

    @property
    def answered(self) -> bool:
        """Whether a real server answered."""
        return self.ended > 0 and not self.error


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """What a client did and saw. ``clients`` are its ends of the flow, or of the connections that
    it had before.

    ``server`` answered before the real server was taken out. ``trouble``: why the flow could not
    be started.
    """

    kind: FlowKind
    service: str
    clients: tuple[Endpoint, ...] = ()
    server: str = ""
    requests: tuple[Request, ...] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class FlowResult:
    """What became of a flow since something happened.

    ``after`` is when the client noticed, in milliseconds since then: the failure, or the first
    answer after a time without any; None: it noticed nothing. It is known to within
    ``resolution`` milliseconds. ``silent`` is how long no answer came before, in milliseconds.
    ``servers`` counts the answers since by real server, ``failed`` the requests without one.
    ``entry`` is the flow in IPVS's connection table at the end (empty: none), ``why`` the reason.
    """

    kind: FlowKind
    service: str
    client: str
    outcome: Outcome
    text: str
    after: float | None = None
    resolution: float = 0.0
    silent: float = 0.0
    servers: Mapping[str, int] = field(default_factory=dict)
    failed: int = 0
    entry: str = ""
    why: str = ""


class FlowSetting(NamedTuple):
    """A setting that decides what becomes of flows, with its value and what that does."""

    name: str
    value: str
    text: str


@dataclass(frozen=True, slots=True)
class SettingTrial:
    """The same with one setting changed. ``changed``: the kinds of flow that fared differently."""

    setting: FlowSetting
    flows: tuple[FlowResult, ...]
    changed: tuple[FlowKind, ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """A real server was taken out by ``way`` while flows of ``client`` ran.

    ``window`` is for how long they were watched afterwards, in seconds, ``interval`` how long a
    client waits between two requests, in milliseconds. ``commands`` are those that a person would
    type. ``trials`` are further runs, each with another setting.
    """

    lab: str
    real_server: str
    way: Way
    client: str
    window: float
    interval: float
    commands: tuple[str, ...]
    flows: tuple[FlowResult, ...]
    settings: tuple[FlowSetting, ...]
    trials: tuple[SettingTrial, ...] = ()

    @property
    def decided(self) -> bool:
        """Whether every flow ran, so that something became of it."""
        flows = [*self.flows, *(flow for trial in self.trials for flow in trial.flows)]
        return all(flow.outcome is not Outcome.NOT_STARTED for flow in flows)


@dataclass(frozen=True, slots=True)
class DrainRow:
    """A real server was taken out with ``sysctls`` of IPVS, which are named without net.ipv4.vs."""

    way: Way
    sysctls: Mapping[str, str]
    flows: tuple[FlowResult, ...]


@dataclass(frozen=True, slots=True)
class Idle:
    """Flows of ``client`` that were silent for ``idle`` seconds and then went on.

    ``timeouts`` are IPVS's meanwhile, ``window`` for how long flows were watched afterwards, in
    seconds. ``trials`` are further runs, each with another setting.
    """

    lab: str
    real_server: str
    client: str
    idle: float
    window: float
    timeouts: IpvsTimeouts
    flows: tuple[FlowResult, ...]
    settings: tuple[FlowSetting, ...]
    trials: tuple[SettingTrial, ...] = ()

    @property
    def decided(self) -> bool:
        """Whether every flow ran, so that something became of it."""
        flows = [*self.flows, *(flow for trial in self.trials for flow in trial.flows)]
        return all(flow.outcome is not Outcome.NOT_STARTED for flow in flows)
