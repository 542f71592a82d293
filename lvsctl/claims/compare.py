"""What the evidence of a verification says of its forwarding method, for the comparison. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from lvsctl.claims.trace import Trace
from lvsctl.model.compare import MethodCell
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Lab, Role
from lvsctl.model.service import ForwardingMethod
from lvsctl.plan.stages import Plan
from lvsctl.resources.address import Address
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel

SHOWN = 4
"""Frames that a cell refers to."""


def needs(lab: Lab, plan: Plan, method: ForwardingMethod, server: str, command: str) -> MethodCell:
    """Count what a real server has beyond what any host of its network has."""
    own = {one.ip for interface in lab.node(server).interfaces for one in interface.addresses}
    mine = [one for one in plan.resources if one.netns == lab.netns(server)]
    devices = [one.device for one in mine if isinstance(one, Tunnel)]
    vips = [o for o in mine if isinstance(o, Address) and o.address.ip not in own]
    settings = [one for one in mine if isinstance(one, Sysctl) and not one.base]
    gateways = [str(one.via) for one in mine if isinstance(one, StaticRoute) and one.to is None]
    owner = next((n.name for n in lab.nodes if str(n.addresses[0]) in gateways), "")
    names = dict.fromkeys(one.name.rpartition(".")[2] for one in settings)
    parts = [f"device {name}" for name in devices]
    parts += [f"VIP on {one.device}" for one in vips]
    parts += [f"{len(settings)} sysctls ({', '.join(names)})"] if settings else []
    parts.append(f"gateway {owner or _gateway_owner(lab, gateways)}")
    figures = {
        "devices": len(devices),
        "addresses": len(vips),
        "sysctls": len(settings),
        "gateways": len(gateways),
    }
    return MethodCell(method, ", ".join(parts), command, figures=figures)


def _gateway_owner(lab: Lab, gateways: Sequence[str]) -> str:
    for node in lab.nodes:
        if any(str(address) in gateways for address in node.addresses):
            return node.name
    return "none"


def gateway(trace: Trace, method: ForwardingMethod, command: str) -> MethodCell:
    """Find the node that a real server sends its replies to, by the frames' MAC addresses."""
    servers = {server.node for server in trace.real_servers}
    sent = [
        frame
        for conversation in trace.conversations
        for frame in conversation.replies
        if frame.tap.node in servers and frame.direction is Direction.OUT
    ]
    names = {mac: node for node in trace.evidence.states for mac in trace.macs(node)}
    to = Counter(names.get(f.ethernet.dst, "?") for f in sent if f.ethernet)
    shares = (f"{node}: {count} of {len(sent)} packets" for node, count in to.items())
    text = f"the {next(iter(to))}" if len(to) == 1 else ", ".join(shares)
    return MethodCell(method, text or "no reply was seen", command, frames=tuple(sent[:SHOWN]),
                figures={f"to {node}": count for node, count in to.items()})  # fmt: skip


def addresses(trace: Trace, method: ForwardingMethod, command: str) -> MethodCell:
    """List the addresses that the client's packets to and from the service have, but its own."""
    clients = {node.name for node in trace.evidence.lab.having(Role.CLIENT)}
    seen: Counter[str] = Counter()
    frames = []
    for conversation in trace.conversations:
        for frame in (*conversation.requests, *conversation.replies):
            flow = frame.flow
            if frame.tap.node not in clients or flow is None:
                continue
            other = flow.dst if flow.src == conversation.client else flow.src
            seen[str(other.address)] += 1
            frames.append(frame)
    lab = trace.evidence.lab
    parts = [f"{_called(lab, text)} {text}" for text in sorted(seen)]
    only = " alone" if len(parts) == 1 else ""
    return MethodCell(method, ", ".join(parts) + only, command, frames=tuple(frames[:SHOWN]),
                figures=dict(seen))  # fmt: skip


def _called(lab: Lab, address: str) -> str:
    if any(str(vip) == address for service in lab.services for vip in service.vips):
        return "VIP"
    for node in lab.nodes:
        if address in map(str, node.addresses):
            return {Role.DIRECTOR: "DIP", Role.REAL_SERVER: "RIP"}.get(node.role, node.name)
    return "address"


def client_seen(trace: Trace, method: ForwardingMethod, command: str) -> MethodCell:
    """Compare the client that real servers saw with the client's own address."""
    answered = trace.run.answered
    kept = [one for one in answered if one.peer_seen is not None and one.peer_seen == one.local]
    others = sorted({str(o.peer_seen.address) for o in answered if o.peer_seen and o not in kept})
    text = f"its own address and port: {len(kept)} of {len(answered)} requests"
    if others:
        text += f"; others from {', '.join(others)}"
    return MethodCell(method, text, command, figures={"kept": len(kept), "answered": len(answered)})


def load(trace: Trace, method: ForwardingMethod, command: str) -> MethodCell:
    """Count what crosses a director for a request and its reply, by frames and by IPVS.

    While the counters are compared the connections stay open: their end is not counted.
    """
    run = trace.run
    count = max(1, len(run.answered))
    requests, replies = (
        [one for one in passages if run.began <= one.came.time <= run.ended]
        for passages in (trace.request_passages(), trace.reply_passages())
    )
    figures = {
        "request packets": len(requests) / count,
        "reply packets": len(replies) / count,
        "bytes in": sum(one.came.length for one in (*requests, *replies)) / count,
        "bytes out": sum(one.went.length for one in (*requests, *replies)) / count,
    }
    text = (
        f"{round(figures['request packets'], 1):g} packets of the request, "
        f"{round(figures['reply packets'], 1):g} of the reply, "
        f"{figures['bytes in']:.0f} bytes in and {figures['bytes out']:.0f} out"
    )
    if run.before is not None and run.after is not None:
        into = (run.after.counters.packets_in - run.before.counters.packets_in) / count
        out = (run.after.counters.packets_out - run.before.counters.packets_out) / count
        figures |= {"ipvs packets in": into, "ipvs packets out": out}
        text += f"; IPVS counts {round(into, 1):g} and {round(out, 1):g}"
    shown = [one for pair in (*requests[:1], *replies[:1]) for one in pair]
    return MethodCell(method, text, command, frames=tuple(shown), figures=figures)


def largest(
    trace: Trace, replies: Iterable[Frame], method: ForwardingMethod, command: str
) -> MethodCell:
    """Find the largest packets of large requests at the real servers, and of large replies."""
    servers = {server.node for server in trace.real_servers}
    asked = {exchange.local for exchange in trace.run.every_large}
    requests = [
        frame
        for conversation in trace.everything
        if conversation.client in asked
        for frame in conversation.requests
        if frame.tap.node in servers and frame.inner is not None
    ]
    inner = max(requests, key=_inner_length, default=None)
    outer = max(requests, key=_outer_length, default=None)
    reply = max(replies, key=_inner_length, default=None)
    fragments = sum(any(ip.is_fragment for ip in frame.ips) for frame in requests)
    figures = {
        "request": _inner_length(inner) if inner else 0,
        "request outside": _outer_length(outer) if outer else 0,
        "reply": _inner_length(reply) if reply else 0,
        "fragments": fragments,
    }
    text = f"request {figures['request']} bytes"
    if figures["request outside"] > figures["request"]:
        text += f" ({figures['request outside']} in the tunnel)"
    text += f", reply {figures['reply']}; "
    text += f"{fragments} fragments" if fragments else "no fragments"
    shown = tuple(frame for frame in (outer, reply) if frame is not None)
    return MethodCell(method, text, command, frames=shown, figures=figures)


def _inner_length(frame: Frame) -> int:
    return frame.inner.total_length if frame.inner is not None else 0


def _outer_length(frame: Frame) -> int:
    return max((ip.total_length for ip in frame.ips), default=0)


def latency(
    trace: Trace,
    through: Sequence[float],
    direct: Sequence[float],
    method: ForwardingMethod,
    command: str,
) -> MethodCell:
    """Measure how long packets are at the director, and requests with and without it.

    ``through`` are the seconds of requests to the VIP, ``direct`` those of requests to a real
    server's own address.
    """
    figures = {}
    parts = []
    passages = {"request": trace.request_passages(), "reply": trace.reply_passages()}
    for name, found in passages.items():
        if found:
            held = median((one.went.time - one.came.time) / 1e6 for one in found)
            figures[name] = held
            parts.append(f"{held:.2f} ms at the director for each {name} packet")
    if through and direct:
        here, there = median(through) * 1000, median(direct) * 1000
        spread = median(abs(one * 1000 - here) for one in through)
        figures |= {"vip": here, "rip": there, "spread": spread}
        parts.append(f"a request in {here:.1f} ms (± {spread:.1f}), without it {there:.1f}")
    shown = [one for found in passages.values() for pair in found[:1] for one in pair]
    if not parts:
        return MethodCell(method, "requests were not answered", command, done=False)
    return MethodCell(method, "; ".join(parts), command, frames=tuple(shown), figures=figures)


def segment(trace: Trace) -> str:
    """Say how many requests were answered by real servers on the director's network."""
    return f"{len(trace.run.answered)} of {len(trace.run.exchanges)} answered"
