"""What happened while one director took over from another: frozen values, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lvsctl.model.claim import Finding, Verdict, overall


class Moment(StrEnum):
    """What happened at one moment of a failover."""

    ACTION = "action"
    ADVERTISED = "last-advertisement"
    RESIGNED = "resigned"
    TOOK_OVER = "took-over"
    STAYED = "stayed-master"
    ANNOUNCED = "announced"
    FOLLOWED = "followed"
    LAST_ANSWER = "last-answer"
    ANSWERED = "answered-again"
    FIRST_LOST = "first-unanswered"
    """The first request without an answer, where others are answered meanwhile."""
    ROUTED = "route-changed"
    """A router's next hops were changed."""
    MOVED = "flow-moved"
    """A director received a packet of a connection that another one had handled."""


@dataclass(frozen=True, slots=True)
class Step:
    """A line of the story. ``at`` in milliseconds since the action, negative before it.

    ``frame`` is the number of the frame that shows it; 0: none does.
    """

    at: float
    moment: Moment
    node: str
    text: str
    frame: int = 0


@dataclass(frozen=True, slots=True)
class HeldConnection:
    """A connection that was open before. ``packets`` are the client's that its director had seen.

    ``known``: whether the new director had it in its table when the client went on. ``why`` is
    the reason why it did not survive.
    """

    client: str
    real_server: str
    packets: int
    known: bool
    survived: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Failover:
    """One director took over from another, or did not.

    ``before`` and ``after`` are the masters (empty: none). ``outage`` is the longest time in
    milliseconds in which ``client``, which asks every ``interval`` milliseconds, received no
    answer that came at once; None: it was not over when the client stopped. It is known to within
    ``resolution``: how long no request was sent where it began and ended. ``back``: it was
    brought back. ``masters`` are all directors that hold the addresses afterwards.

    Where several directors are active (``ha: ecmp``), ``before`` is the one that was lost, and
    ``after`` are those that flows are sent to afterwards. Then there need be no time without an
    answer: ``lossy`` is how long some requests were not answered, in milliseconds.
    """

    lab: str
    service: str
    action: str
    client: str
    before: str
    after: str
    interval: float
    resolution: float
    outage: float | None
    sent: int
    answered: int
    steps: tuple[Step, ...]
    held: tuple[HeldConnection, ...]
    findings: tuple[Finding, ...]
    back: bool = False
    masters: tuple[str, ...] = ()
    lossy: float | None = None

    @property
    def verdict(self) -> Verdict:
        """What the findings amount to."""
        return overall(self.findings)
