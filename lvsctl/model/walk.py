"""One request's path through a lab, hop by hop, from captured frames (``walk.walk``)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lvsctl.model.evidence import Exchange
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
    def headers(self) -> dict[str, str]:
        """The frame's header fields by name."""
        return dict(header_fields(self.frame))

    @property
    def lost(self) -> bool:
        """It was sent but received nowhere."""
        return not self.receivers

    def __str__(self) -> str:
        way = f"{self.sender or '?'} → {', '.join(self.receivers) or 'not received'}"
        return f"{self.network}: {way}  {self.label}" + (f"  ({self.why})" if self.why else "")


@dataclass(frozen=True, slots=True, repr=False)
class Walk:
    """One request to one virtual service: every hop of it and of its reply, in time order.

    True if a whole reply came.

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

    @property
    def answered(self) -> bool:
        """Whether a whole reply came."""
        return self.exchange.answered

    @property
    def server(self) -> str:
        """The real server that replied; empty if none did, or its reply does not name it."""
        return self.exchange.node

    @property
    def seconds(self) -> float:
        """How long it took from opening the connection to the last byte, or to the failure."""
        return self.exchange.seconds

    def __bool__(self) -> bool:
        return self.answered

    def __repr__(self) -> str:
        name = f"{self.lab.name}/{self.service.name}"
        return f"<{name}: {self.outcome}, {len(self.hops)} hops>"

    def __str__(self) -> str:
        last = f"{self.lab.name}/{self.service.name}: {self.outcome}"
        return "\n".join([*map(str, self.hops), last])


def header_fields(frame: Frame) -> list[tuple[str, str]]:
    """Return the header fields that a walk shows, outermost first, with ``Change.what``'s names."""
    rows = []
    if frame.ethernet is not None:
        rows += [("source MAC", frame.ethernet.src), ("destination MAC", frame.ethernet.dst)]
    if frame.arp is not None:
        return rows
    if len(frame.ips) > 1:
        outer, kind = frame.ips[0], frame.packet.encapsulation
        rows += [
            ("outer IP header", f"{outer.src} → {outer.dst}, {kind}"),
            (outer.ttl_name, str(outer.ttl)),
        ]
    inner, flow = frame.inner, frame.flow
    if inner is not None:
        rows.append(("source", str(flow.src if flow else inner.src)))
        rows.append(("destination", str(flow.dst if flow else inner.dst)))
        name = f"{inner.ttl_name} inside" if len(frame.ips) > 1 else inner.ttl_name
        rows.append((name, str(inner.ttl)))
    return rows
