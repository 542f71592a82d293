"""The classic comparison of NAT, TUN and DR, with what was measured: frozen values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lvsctl.model.claim import Verdict
from lvsctl.model.frame import Frame
from lvsctl.model.service import ForwardingMethod

SOURCE = "http://www.linuxvirtualserver.org/how.html"
"""The page with the table that is quoted: Wensong Zhang, "How virtual server works?"."""


class Subject(StrEnum):
    """What is compared: the rows of the table."""

    SERVER = "server"
    WITHOUT = "without"
    GATEWAY = "gateway"
    NETWORK = "network"
    ADDRESSES = "addresses"
    EXPOSED = "exposed"
    PORT = "port"
    CLIENT = "client"
    LOAD = "load"
    LATENCY = "latency"
    MTU = "mtu"
    IPV6 = "ipv6"
    NUMBER = "number"


TITLES = {
    Subject.SERVER: "what a real server needs",
    Subject.WITHOUT: "tried without each of it",
    Subject.GATEWAY: "replies leave by",
    Subject.NETWORK: "where real servers can be",
    Subject.ADDRESSES: "addresses in the client's packets",
    Subject.EXPOSED: "what a client reaches besides",
    Subject.PORT: "another port at the real server",
    Subject.CLIENT: "client that the real server sees",
    Subject.LOAD: "director, for each request",
    Subject.LATENCY: "added latency",
    Subject.MTU: "largest packets",
    Subject.IPV6: "IPv6",
    Subject.NUMBER: "number of real servers",
}
"""What each row is called."""

QUOTED = {
    Subject.SERVER: ("any", "tunneling", "non-arp device"),
    Subject.NETWORK: ("private", "LAN/WAN", "LAN"),
    Subject.NUMBER: ("low (10~20)", "high", "high"),
    Subject.GATEWAY: ("load balancer", "own router", "own router"),
}
"""The cells of the quoted table, for NAT, TUN and DR: it has these four rows."""


@dataclass(frozen=True, slots=True)
class MethodCell:
    """One method in one row: what is ``quoted`` (empty: nothing), and what was ``measured``.

    ``command`` shows the same by hand. ``frames`` are some of those that show it, ``figures``
    the numbers in the text by name. ``done``: whether it was measured; else the text says why not.
    """

    method: ForwardingMethod
    measured: str
    command: str
    quoted: str = ""
    frames: tuple[Frame, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    done: bool = True


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One row of the table, a cell for each method."""

    subject: Subject
    title: str
    cells: tuple[MethodCell, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The methods side by side, in labs of one topology.

    ``source`` is where the quoted cells are from. ``verified`` is the verdict on every claim of
    each method: in a lab that fails, what was measured means little.
    """

    topology: str
    source: str
    methods: tuple[ForwardingMethod, ...]
    rows: tuple[ComparedRow, ...]
    verified: Mapping[str, Verdict]

    @property
    def holds(self) -> bool:
        """Whether every claim of every method passed in the labs that were measured."""
        return all(verdict is Verdict.PASS for verdict in self.verified.values())
