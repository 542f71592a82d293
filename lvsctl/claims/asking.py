"""Which node may be a client: why requests of a director or of a real server prove nothing.

The topology's clients reach every service. Any other node can be asked to (``--client NODE``),
and some of these cannot reach the VIP in the way that the forwarding method describes, however
well everything works.
"""

from __future__ import annotations

from typing import NamedTuple

from lvsctl.claims.trace import Trace
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Role
from lvsctl.model.service import ForwardingMethod


class Unsuitable(NamedTuple):
    """Why a node is no client of a service. ``frames`` and ``facts`` show it.

    ``cause`` is what ``diagnose`` calls it. ``crosses_only``: only what is said about packets that
    cross the director cannot be decided; requests are answered.
    """

    cause: str
    text: str
    facts: tuple[str, ...]
    consequence: str
    frames: tuple[Frame, ...] = ()
    crosses_only: bool = False


def unsuitable_client(trace: Trace) -> Unsuitable | None:
    """Why the requests of the run's client prove nothing; None if it is a client like others."""
    role = trace.evidence.lab.node(trace.run.client).role
    if not trace.run.exchanges:
        return None
    if role is Role.DIRECTOR:
        return _director(trace)
    if role is Role.REAL_SERVER:
        return _holds_vip(trace) or _beside_others(trace)
    return None


def _director(trace: Trace) -> Unsuitable | None:
    """A director's own request has the VIP as its source, as the route to a local address says."""
    client, vip = trace.run.client, trace.run.endpoint.vip
    if not trace.holds(client, vip):
        return None
    sent = tuple(
        frame
        for conversation in trace.everything
        for frame in conversation.requests
        if frame.tap.node == client and frame.direction is Direction.OUT
    )
    if all(exchange.answered for exchange in trace.run.exchanges):
        return Unsuitable(
            "client-is-director",
            "the director itself is the client",
            (f"{client}: it holds {vip}, so its requests and their replies do not cross it",),
            "what is said about packets that cross the director cannot be seen",
            sent[:1],
            crosses_only=True,
        )
    holders = [
        server.node
        for server in trace.run.service.remote
        if server.forward is not ForwardingMethod.NAT and trace.holds(server.node, vip)
    ]
    own = [exchange.local for exchange in trace.run.exchanges if exchange.local is not None]
    if not holders or any(end.address != vip for end in own):
        return None
    facts = [f"{client}: it holds {vip}, and sends requests for it from {vip}"]
    what, outcome = "the packet comes", "drop it"
    shown = sent[:1]
    asked = () if sent else _asked_from_vip(trace)
    if asked:
        what = "an ARP request comes" if vip.version == 4 else "a neighbour solicitation comes"
        outcome, shown = "do not reply", asked[:1]
        facts.append(f"{client}: no request left it, because it knows no MAC address to send to")
    return Unsuitable(
        "client-is-director",
        "a director cannot be its own client in direct routing and tunneling",
        tuple(facts),
        f"the real servers hold {vip} too: to them {what} from themselves, and they {outcome}",
        shown,
    )


def _asked_from_vip(trace: Trace) -> tuple[Frame, ...]:
    """The director's own ARP requests, or solicitations, for real servers that name the VIP."""
    vip, rips = trace.run.endpoint.vip, {server.rip for server in trace.run.service.remote}
    return tuple(
        frame
        for frame in trace.at(trace.run.client)
        if frame.direction is Direction.OUT and frame.asked_from == vip and frame.asks_for in rips
    )


def _holds_vip(trace: Trace) -> Unsuitable | None:
    """A node that holds the VIP delivers its own requests to itself."""
    client, vip = trace.run.client, trace.run.endpoint.vip
    devices = trace.holds(client, vip)
    left = any(
        frame.tap.node == client and frame.tap.device != "lo" and frame.direction is Direction.OUT
        for conversation in trace.everything
        for frame in conversation.requests
    )
    if not devices or left:
        return None
    asked = len(trace.run.exchanges)
    answered = sum(exchange.node == client for exchange in trace.run.exchanges)
    return Unsuitable(
        "client-is-real-server",
        "a real server that holds the VIP cannot be a client of it",
        (
            f"{client}: it holds {vip} on {', '.join(devices)}",
            f"{client}: none of {asked} requests left it; {answered} were answered by itself",
        ),
        "its requests never reach the director, nor another real server",
    )


def _beside_others(trace: Trace) -> Unsuitable | None:
    """In NAT a real server's replies to another one do not return through the director."""
    client, lab = trace.run.client, trace.evidence.lab
    service = trace.run.service
    lost = [e for e in trace.run.exchanges if not e.answered]
    given = {trace.assigned(exchange) for exchange in lost}
    nat = {server.node: server.rip for server in service.by(ForwardingMethod.NAT)}
    if not lost or service.snat or not given <= nat.keys():
        return None
    own = lab.node(client).networks
    if any(not set(own) & set(lab.node(node).networks) for node in given):
        return None
    astray = tuple(
        frame
        for conversation in trace.everything
        for frame in conversation.replies
        if frame.flow is not None
        and frame.flow.src.address in nat.values()
        and frame.tap.node == client
        and frame.direction is Direction.IN
    )
    others = given - {client}
    if others and not astray:
        return None
    facts = [f"{client}: replies of {', '.join(sorted(others))} reach it directly, from the RIP"]
    own_rip = nat.get(client)
    if client in given:
        facts.append(
            f"{client}: requests that the director forwards to {client} itself come back with "
            f"{own_rip}, its own address, as their source, and it drops them"
        )
    return Unsuitable(
        "client-is-real-server",
        "a real server cannot be a client of its own service in NAT",
        tuple(facts if others else facts[1:]),
        "replies bypass the director, which alone could give them the VIP as their source",
        astray[:1],
    )
