"""Describe a hop: the fields that a node changed, and why, in the words of LVS.

Derived from frames alone: a director that is configured for one forwarding method and does another
is described by what it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lvsctl.claims.base import join_names
from lvsctl.model import dns, sip
from lvsctl.model.addresses import Endpoint
from lvsctl.model.evidence import Exchange, Run
from lvsctl.model.frame import Frame, chunk_name
from lvsctl.model.lab import Lab, Role
from lvsctl.model.packet import Ip
from lvsctl.model.walk import Change, Hop, Step

SOURCE_MAC, DESTINATION_MAC = "source MAC", "destination MAC"
SOURCE, DESTINATION = "source", "destination"
OUTER = "outer IP header"
TTL = frozenset({"TTL", "hop limit"})
MACS = frozenset({SOURCE_MAC, DESTINATION_MAC})


def label_of(frame: Frame) -> str:
    """Describe the content of a frame in a few words."""
    if frame.arp is not None:
        arp = frame.arp
        return (
            f"who has {arp.target_ip}?"
            if arp.is_request
            else f"{arp.sender_ip} is at {arp.sender_mac}"
        )
    if frame.icmp is not None:
        nd = frame.icmp.nd
        if nd is not None:
            return (
                f"who has {nd.target}?"
                if nd.is_solicit
                else f"{nd.target} is at {nd.mac or 'an unknown address'}"
            )
        return f"ICMP {frame.icmp.name}"
    return _of_transport(frame)


def _of_transport(frame: Frame) -> str:
    size = len(frame.payload)
    if frame.tcp is not None:
        return f"{_first_line(frame.payload)}{size} bytes" if size else str(frame.tcp.flags)
    if frame.sctp is not None and frame.sctp.chunk >= 0:
        return f"SCTP {chunk_name(frame.sctp.chunk)}"
    udp = frame.udp
    if udp is not None and dns.PORT in (udp.sport, udp.dport):
        return dns.summary(frame.payload) or f"{size} bytes"
    if udp is not None and (said := sip.summary(frame.payload)):
        return said
    return f"{size} bytes"


def _first_line(payload: bytes) -> str:
    """Return ``GET /, `` for an HTTP request, ``200 OK, `` for a reply; else an empty text."""
    words = payload[:120].split(b"\r\n", 1)[0].decode("ascii", "replace").split()
    if len(words) == 3 and words[2].startswith("HTTP/"):
        path = words[1] if len(words[1]) <= 16 else words[1][:15] + "…"
        return f"{words[0]} {path}, "
    if len(words) > 1 and words[0].startswith("HTTP/"):
        return f"{' '.join(words[1:3])}, "
    return ""


def changes_of(came: Frame, went: Frame) -> tuple[Change, ...]:
    """Return the fields of a packet that a node changed, outermost first."""
    return tuple(_changes(came, went))


def _changes(came: Frame, went: Frame) -> Iterator[Change]:
    if came.ethernet is not None and went.ethernet is not None:
        yield from _differing(SOURCE_MAC, came.ethernet.src, went.ethernet.src)
        yield from _differing(DESTINATION_MAC, came.ethernet.dst, went.ethernet.dst)
    wrapped, unwrapped = len(went.ips) > len(came.ips), len(went.ips) < len(came.ips)
    if wrapped or unwrapped:
        yield Change(
            OUTER, _outer(came) if unwrapped else "none", _outer(went) if wrapped else "none"
        )
    before, after = came.inner, went.inner
    if before is None or after is None:
        return
    yield from _differing(SOURCE, _end(came, before, 0), _end(went, after, 0))
    yield from _differing(DESTINATION, _end(came, before, 1), _end(went, after, 1))
    outer_before, outer_after = came.ips[0], went.ips[0]
    if len(came.ips) == len(went.ips) > 1:
        yield from _differing(outer_before.ttl_name, str(outer_before.ttl), str(outer_after.ttl))
        yield from _differing(f"{before.ttl_name} inside", str(before.ttl), str(after.ttl))
    else:
        yield from _differing(before.ttl_name, str(before.ttl), str(after.ttl))


def _differing(what: str, before: str, after: str) -> Iterator[Change]:
    if before != after:
        yield Change(what, before, after)


def _outer(frame: Frame) -> str:
    outer = frame.ips[0]
    kind = frame.packet.encapsulation
    return f"{outer.src} → {outer.dst}, {kind}" if kind else f"{outer.src} → {outer.dst}"


def _end(frame: Frame, ip: Ip, side: int) -> str:
    flow = frame.flow
    if flow is None:
        return str((ip.src, ip.dst)[side])
    return str((flow.src, flow.dst)[side])


class HopContext(NamedTuple):
    """A hop, and what its sender had received (None: it created the packet)."""

    lab: Lab
    run: Run
    exchange: Exchange
    hop: Hop
    before: Frame | None
    changes: Sequence[Change]
    hops: Sequence[Hop]

    def role(self, node: str) -> Role | None:
        """Return a node's role; None if the lab has no such node."""
        return next((known.role for known in self.lab.nodes if known.name == node), None)

    def changed(self, what: str) -> Change | None:
        """Return the change of one field."""
        return next((change for change in self.changes if change.what == what), None)

    @property
    def ttl_change(self) -> Change | None:
        """The change of the TTL (IPv6: hop limit), the outer header's where there are two."""
        return next((change for change in self.changes if change.what in TTL), None)

    @property
    def sender(self) -> str:
        """The name of the sender."""
        return self.hop.sender or "an unknown sender"

    @property
    def receivers(self) -> str:
        """The names of the receivers."""
        return join_names(self.hop.receivers) or "no node"


def why_of(passed: HopContext) -> str:
    """Explain a hop in one sentence."""
    said = _SENTENCES[passed.hop.step](passed)
    if passed.hop.lost and passed.hop.step is not Step.NEIGHBOUR_REQUEST:
        said += "; no node received it"
    return said


def _neighbour_request(passed: HopContext) -> str:
    hop, frame = passed.hop, passed.hop.frame
    who = str(frame.asks_for)
    vip = passed.run.endpoint.vip
    if who == str(vip):
        to = "broadcasts an ARP request" if frame.arp is not None else "multicasts a solicitation"
        said = f"{passed.sender} needs the MAC address of the VIP and {to} on {hop.network}"
    else:
        owner = _owner(passed.lab, who)
        said = f"{passed.sender} needs the MAC address of {owner or who} to send to it"
    if frame.asked_from == vip:
        said += f"; its sender address is {vip}, so neighbours may record its MAC for the VIP"
    return said + f"; received by {passed.receivers}"


def _neighbour_reply(passed: HopContext) -> str:
    frame = passed.hop.frame
    address = frame.answers_for
    said = f"{passed.sender} replies: {address} is at its MAC address"
    if address != passed.run.endpoint.vip:
        return said
    heard = {
        node
        for hop in passed.hops
        if hop.step is Step.NEIGHBOUR_REQUEST and hop.frame.asks_for == address
        for node in hop.receivers
    }
    answered = {
        hop.sender
        for hop in passed.hops
        if hop.step is Step.NEIGHBOUR_REPLY and hop.frame.answers_for == address
    }
    silent = sorted(
        node for node in heard - answered if passed.role(node) is Role.REAL_SERVER
    )  # fmt: skip
    others = sorted(answered - {passed.hop.sender})
    if silent:
        said += f"; {join_names(silent)} received the request and did not reply"
    if others:
        problem = "the ARP problem" if frame.arp is not None else "the ARP problem's like in IPv6"
        said += f"; but {join_names(others)} replied too: {problem}"
    return said


def _owner(lab: Lab, address: str) -> str:
    """Return the node that has ``address``, with the address."""
    for node in lab.nodes:
        for interface in node.interfaces:
            if any(str(a.ip) == address for a in interface.addresses):
                return f"{node.name} ({address})"
    return ""


def _request(passed: HopContext) -> str:
    hop = passed.hop
    role = passed.role(hop.sender)
    if passed.before is None:
        if not hop.sender:
            return f"{passed.receivers} received it; its sending was not captured"
        flow = hop.frame.flow
        to = flow.dst if flow is not None else passed.run.endpoint.vip
        return f"{hop.sender} sends to {to}; the next hop is {passed.receivers}"
    if role is Role.DIRECTOR:
        return _directed(passed)
    return _forwarded(passed)


def _directed(passed: HopContext) -> str:
    """Explain what the director did to a request: NAT, TUN or DR, according to the frames."""
    to, ttl = passed.receivers, _ttl(passed)
    outer = passed.changed(OUTER)
    if outer is not None and outer.after != "none":
        return (
            f"the director encapsulated the packet ({outer.after}) and left the inner packet "
            f"unchanged{ttl}: tunnelling"
        )
    rewritten = passed.changed(DESTINATION)
    if rewritten is not None:
        kept = "kept the client's source" if passed.changed(SOURCE) is None else "changed both ends"
        return (
            f"the director rewrote the destination {rewritten.before} to {rewritten.after} "
            f"and {kept}{ttl}: NAT"
        )
    if any(passed.role(node) is Role.REAL_SERVER for node in passed.hop.receivers):
        return (
            f"the director kept the IP header{ttl} and changed only the destination MAC "
            f"to {to}'s: direct routing"
        )
    return f"the director kept the IP header{ttl} and sent it to {to}, which is no real server"


def _ttl(passed: HopContext) -> str:
    change = passed.ttl_change
    return f" ({change.what} {change.before} → {change.after})" if change is not None else ""


def _forwarded(passed: HopContext) -> str:
    change = passed.ttl_change
    others = [c.what for c in passed.changes if c.what not in MACS | TTL]
    said = f"{passed.hop.sender} forwarded it to {passed.receivers}"
    if change is not None:
        said += f": {change.what} {change.before} → {change.after}"
    if len(passed.hop.frame.ips) > 1:
        said += " of the outer header; the inner packet stays as it was"
    return said + (f"; it changed the {', '.join(others)} too" if others else "")


def _decapsulated(passed: HopContext) -> str:
    hop, frame = passed.hop, passed.hop.frame
    to = frame.inner.dst if frame.inner is not None else "the VIP"
    return (
        f"{hop.sender} decapsulated it: {hop.network} delivers the client's packet, "
        f"still addressed to {to}"
    )


def _reply(passed: HopContext) -> str:
    hop = passed.hop
    if passed.before is not None:
        rewritten = passed.changed(SOURCE)
        if passed.role(hop.sender) is Role.DIRECTOR and rewritten is not None:
            return (
                f"the director rewrote the source {rewritten.before} to {rewritten.after}"
                f"{_ttl(passed)}, so that the client sees the VIP only: NAT"
            )
        return _forwarded(passed)
    flow = hop.frame.flow
    if flow is None or not hop.sender:
        return f"{passed.receivers} received it; its sending was not captured"
    return _first_reply(passed, flow.src)


def _first_reply(passed: HopContext, source: Endpoint) -> str:
    """Explain a reply as the real server sent it."""
    hop, endpoint = passed.hop, passed.run.endpoint
    if passed.role(hop.sender) is not Role.REAL_SERVER:
        return f"{hop.sender} itself replies from {source}"
    if source != Endpoint(endpoint.vip, endpoint.port):
        if passed.run.client in hop.receivers:
            return f"{hop.sender} replies from its own address {source}, directly to the client"
        return (
            f"{hop.sender} replies from its own address {source}; "
            f"its route to the client goes through {passed.receivers}"
        )
    if Role.DIRECTOR in {passed.role(node) for node in hop.receivers}:
        return f"{hop.sender} replies from the VIP through {passed.receivers}"
    direct = passed.run.client in hop.receivers
    to = "directly to the client" if direct else f"through {passed.receivers}"
    return f"{hop.sender} replies from the VIP {to}, bypassing the director"


def _icmp_error(passed: HopContext) -> str:
    hop = passed.hop
    icmp = hop.frame.icmp
    said = icmp.name if icmp is not None else "an error"
    if passed.before is not None:
        return _forwarded(passed)
    more = f" (MTU {icmp.mtu})" if icmp is not None and icmp.mtu else ""
    return f"{passed.sender} reports {said}{more}"


_SENTENCES = {
    Step.NEIGHBOUR_REQUEST: _neighbour_request,
    Step.NEIGHBOUR_REPLY: _neighbour_reply,
    Step.REQUEST: _request,
    Step.DECAPSULATED: _decapsulated,
    Step.REPLY: _reply,
    Step.ICMP_ERROR: _icmp_error,
}


def outcome_of(exchange: Exchange, hops: Sequence[Hop]) -> str:
    """Describe how the request ended; without a reply, where its last frame was captured."""
    if exchange.answered:
        if not hops:
            who = exchange.node or "a process that does not give its name"
            return f"answered by {who}: the sender holds the VIP itself, and no packet left it"
        # A server of the user's own does not give its name: the first reply shows it.
        first = next((hop.sender for hop in hops if hop.step is Step.REPLY), "")
        return f"answered by {exchange.node or first or 'a server that no frame shows'}"
    said = f"no answer: {exchange.error}"
    requests = [hop for hop in hops if hop.step in (Step.REQUEST, Step.DECAPSULATED)]
    replies = [hop for hop in hops if hop.step in (Step.REPLY, Step.ICMP_ERROR)]
    if not requests and not replies:
        return said + "; no packet of the request was captured"
    last, kind = (replies[-1], "reply") if replies else (requests[-1], "request")
    if not last.receivers:
        return said + (
            f"; {last.sender} sent the last {kind} packet on {last.network}, no node received it"
        )
    if last.sender in last.receivers:  # inside the node, out of its tunnel device
        return said + f"; the last {kind} packet was captured at {last.sender} on {last.network}"
    return said + (
        f"; the last {kind} packet was captured from {last.sender or 'an unknown sender'} to "
        f"{join_names(last.receivers)} on {last.network}"
    )
