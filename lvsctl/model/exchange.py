"""One request as the client observed it, and what the reply says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lvsctl.model.addresses import Endpoint


class Failure(StrEnum):
    """Why a request was not answered (``Exchange.error``)."""

    NONE = ""
    TIMED_OUT = "timed out"
    REFUSED = "connection refused"
    """A RST to the SYN, or an ICMP port unreachable (the director without a usable real server)."""
    RESET = "reset"
    NO_ROUTE = "no route"
    PROHIBITED = "prohibited"
    """Rejected by a firewall (ICMP administratively prohibited, or a local rule)."""
    NO_PORT = "no local port left"
    CLOSED = "closed early"
    """The connection was closed before the reply was complete."""
    MALFORMED = "malformed answer"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, sent over a connection (or, for UDP, from a port) of its own.

    ``sent_at`` is when the connection was opened: seconds since the epoch by
    CLOCK_REALTIME, the clock of the captured frames, so that the two can be laid
    side by side. ``seconds`` is how long it took from there to the last byte of
    the answer, or to the failure, by CLOCK_MONOTONIC, which never jumps.

    ``local`` is the client's own end; None where it never got one (no route).
    ``status`` is HTTP's; 0 where there is none (UDP, or no answer).
    ``node`` is the real server that answered, ``local_seen`` and ``peer_seen`` the
    two ends of the connection as that real server sees them; '' and None where the
    answer does not say (the user's own server) or did not come.
    ``error`` is '' for an answer; otherwise one of ``Failure``'s words, or the
    kernel's own where none fits.
    """

    sent_at: float
    local: Endpoint | None
    status: int
    node: str
    local_seen: Endpoint | None
    peer_seen: Endpoint | None
    seconds: float
    error: str = Failure.NONE

    @property
    def answered(self) -> bool:
        """Whether a complete reply was received."""
        return not self.error
