"""One request's way through a lab, hop by hop: what ``walk`` draws.

Made from captured frames by ``verify.walk``; nothing here is configured or assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lvsctl.model.exchange import Exchange
from lvsctl.model.frame import Frame
from lvsctl.model.lab import Lab
from lvsctl.model.service import VirtualService


class Step(StrEnum):
    """What a hop is to the request."""

    QUESTION = "question"
    """Who has this address? (ARP, or IPv6's neighbour solicitation)"""
    ANSWER = "answer"
    """It is at this MAC."""
    REQUEST = "request"
    """A packet of the client's, on its way to the real server."""
    UNPACKED = "unpacked"
    """The same, as it came out of a tunnel device: within one node, on no wire."""
    REPLY = "reply"
    """A packet on its way to the client."""
    MESSAGE = "message"
    """An ICMP message about a packet of the connection."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a node made of a header's field between receiving the packet and sending it on."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Hop:
    """One frame from one node to the next.

    ``sent`` is the frame at the sender's tap and ``received`` the same frame at each tap
    that it came in at; one of them may be missing. ``label`` is what it carries (``SYN``).
    ``changes`` are what the sender changed, ``why`` says it in words. ``again``: another packet
    of the connection took the same hop with the same changes before, so little is new.
    """

    step: Step
    sender: str
    receivers: tuple[str, ...]
    network: str
    sent: Frame | None
    received: tuple[Frame, ...]
    label: str
    changes: tuple[Change, ...] = ()
    why: str = ""
    again: bool = False

    @property
    def frame(self) -> Frame:
        """The frame to look at: as it was sent, where that was seen."""
        return self.sent or self.received[0]

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The frame at every tap."""
        return ((self.sent,) if self.sent else ()) + self.received

    @property
    def lost(self) -> bool:
        """It was sent, and came in nowhere."""
        return not self.receivers


@dataclass(frozen=True, slots=True)
class Walk:
    """One request to one virtual service: every hop of it and of its answer, in time order.

    ``nodes`` are those on the way, clients first, real servers last. ``outcome`` says how it
    ended; where there was no answer, also where the request was seen last.
    """

    lab: Lab
    service: VirtualService
    client: str
    exchange: Exchange
    nodes: tuple[str, ...]
    hops: tuple[Hop, ...]
    outcome: str
