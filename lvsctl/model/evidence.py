"""The evidence of a lab: everything observed while requests were sent through it.

A model type, so that every verdict can be computed again from a saved report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lvsctl.model.exchange import Exchange
from lvsctl.model.frame import Frame, Tap
from lvsctl.model.lab import Lab
from lvsctl.model.service import VipPort, VirtualService
from lvsctl.model.state import Connection, Dropped, NodeState, ServiceState


@dataclass(frozen=True, slots=True)
class Run:
    """One virtual service under load from one client.

    ``exchanges`` came one after the other, every connection kept open until the last
    was over (UDP has none to keep). ``before`` and ``after`` are the director's IPVS
    table around them, None where the service was not in it; ``connections`` its
    connection table while they were open. ``began`` and ``ended`` are when the counters
    were read, in nanoseconds since the epoch, as frames' times are. ``large`` is one
    request of several full-sized segments, sent afterwards (None: not sent, for UDP).
    """

    service: VirtualService
    client: str
    exchanges: tuple[Exchange, ...]
    before: ServiceState | None
    after: ServiceState | None
    connections: tuple[Connection, ...]
    large: Exchange | None = None
    began: int = 0
    ended: int = 0

    @property
    def endpoint(self) -> VipPort:
        """The protocol, VIP and port that the requests were sent to."""
        return self.service.endpoint

    @property
    def answered(self) -> tuple[Exchange, ...]:
        """The requests that were answered completely."""
        return tuple(exchange for exchange in self.exchanges if exchange.answered)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A lab, the requests sent through it, and everything observed.

    ``frames`` of all ``taps``, in time order; ``drops`` counts frames that the capture
    lost, by node. ``states`` are the nodes' states afterwards, by node. ``counters`` is by how
    much each node's kernel raised its own meanwhile (nstat(8)'s names), ``kernel_drops`` what
    it dropped and why, ``kernel_log`` what it wrote of martians to its log; all three are empty
    in reports written before they were noted, and the latter two where the kernel does not tell.
    """

    lab: Lab
    runs: tuple[Run, ...]
    frames: tuple[Frame, ...] = ()
    taps: tuple[Tap, ...] = ()
    drops: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[str, NodeState] = field(default_factory=dict)
    counters: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    kernel_drops: tuple[Dropped, ...] = ()
    kernel_log: tuple[str, ...] = ()

    @property
    def dropped(self) -> int:
        """How many frames are missing in all."""
        return sum(self.drops.values())
