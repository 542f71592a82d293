"""What verify rests on: everything observed of one virtual service while requests were sent.

A model type, so that every verdict can be computed again from a saved report.
"""

from __future__ import annotations

from dataclasses import dataclass

from lvsctl.model.exchange import Exchange
from lvsctl.model.service import VirtualService
from lvsctl.model.state import Connection, ServiceState


@dataclass(frozen=True, slots=True)
class Evidence:
    """One virtual service under load from one client.

    ``exchanges`` came one after the other, every connection kept open until the last
    was over (UDP has none to keep). ``before`` and ``after`` are the director's IPVS
    table around them, None where the service was not in it; ``connections`` its
    connection table while they were open.
    """

    service: VirtualService
    client: str
    exchanges: tuple[Exchange, ...]
    before: ServiceState | None
    after: ServiceState | None
    connections: tuple[Connection, ...]

    @property
    def answered(self) -> tuple[Exchange, ...]:
        """The requests that got a whole answer."""
        return tuple(exchange for exchange in self.exchanges if exchange.answered)
