"""One request's path through a lab, hop by hop, from captured frames (``walk.walk``)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lvsctl.model.exchange import Exchange
from lvsctl.model.frame import Frame
from lvsctl.model.lab import Lab
from lvsctl.model.service import VirtualService


class Step(StrEnum):
    """The kind of a hop."""

    NEIGHBOUR_REQUEST = "neighbour-request"
    """An ARP request, or IPv6 neighbour solicitation."""
    NEIGHBOUR_REPLY = "neighbour-reply"
    """An ARP reply, or IPv6 neighbour advertisement."""
    REQUEST = "request"
    """A packet from the client to the real server."""
    DECAPSULATED = "decapsulated"
    """A request on the tunnel device of a node, after decapsulation."""
    REPLY = "reply"
    """A packet from the real server to the client."""
    ICMP_ERROR = "icmp-error"
    """An ICMP message about a packet of the connection."""


@dataclass(frozen=True, slots=True)
class Change:
    """A header field that a node changed between receiving and sending a packet."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Hop:
    """One frame from one node to the next.

    ``sent`` is the frame at the sender's tap and ``received`` the same frame at each tap
    that it came in at; one of them may be missing. ``label`` is its content (``SYN``).
    ``changes`` are the fields that the sender changed, ``why`` explains them. ``again``: an
    earlier packet of the connection took the same hop with the same changes.
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
        """The frame as it was sent, or else as it was received."""
        return self.sent or self.received[0]

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The frame at every tap."""
        return ((self.sent,) if self.sent else ()) + self.received

    @property
    def lost(self) -> bool:
        """It was sent but received nowhere."""
        return not self.receivers


@dataclass(frozen=True, slots=True)
class Walk:
    """One request to one virtual service: every hop of it and of its reply, in time order.

    ``nodes`` are those on the path, clients first, real servers last. ``outcome`` says how it
    ended and, without a reply, where the request was captured last.
    """

    lab: Lab
    service: VirtualService
    client: str
    exchange: Exchange
    nodes: tuple[str, ...]
    hops: tuple[Hop, ...]
    outcome: str
