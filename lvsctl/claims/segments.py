"""The claim about nodes that limit TCP's segment size (MSS clamping)."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.claims.base import CheckResult, ClaimTable, inconclusive, join_names, passed_if
from lvsctl.claims.trace import Trace, identity
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Node
from lvsctl.model.packet import Tcp
from lvsctl.model.packet_filter import TO_PATH_MTU
from lvsctl.model.service import Protocol

CLAIMS = ClaimTable()


def _clamping(trace: Trace) -> tuple[Node, ...]:
    return tuple(node for node in trace.evidence.lab.nodes if node.mss_clamp is not None)


def _clamps(trace: Trace) -> bool:
    return trace.run.endpoint.protocol is Protocol.TCP and bool(_clamping(trace))


@CLAIMS.add(
    "mss.clamped",
    "no SYN or SYN+ACK leaves a node with a larger segment size than its mss_clamp",
    broken_by=("mss-clamp-missing",),
    unbroken="where neither end of a connection announces more, nothing has to be changed",
    applies=_clamps,
)
def clamped(trace: Trace) -> CheckResult:
    """Look at the segment size in each SYN and SYN+ACK that left such a node."""
    nodes = _clamping(trace)
    limits = (f"{n.mss_clamp} bytes" if n.mss_clamp else "what its links carry" for n in nodes)
    names = join_names([node.name for node in nodes])
    expected = f"SYNs leave {names} with at most {' or '.join(dict.fromkeys(limits))}"
    seen: list[int] = []
    shown: list[Frame] = []
    for node in nodes:
        for frame, tcp, limit in _announced(trace, node):
            if tcp.mss > limit:
                what = "a SYN+ACK" if tcp.is_syn_ack else "a SYN"
                text = f"{what} left {node.name} with {tcp.mss} bytes, more than {limit}"
                return passed_if(False, expected, text, [frame])
            seen.append(tcp.mss)
            shown = shown or [frame]
    if not seen:
        return inconclusive(expected, "no TCP connection was opened through it")
    return passed_if(True, expected, f"{len(seen)} SYNs, at most {max(seen)} bytes", shown)


def _announced(trace: Trace, node: Node) -> Iterator[tuple[Frame, Tcp, int]]:
    """The SYNs that left a node, each with the largest segment size that it may announce.

    What is in a tunnel is not looked into, by no node. ``pmtu`` is the smaller MTU of the two
    links by which a packet came and left (tcpmss_mangle_packet in xt_TCPMSS.c).
    """
    lab = trace.evidence.lab
    for conversation in trace.everything:
        came: dict[object, str] = {}
        for frame in (*conversation.requests, *conversation.replies):
            tcp = frame.packet.transport
            if frame.tap.node != node.name or frame.tap.device not in node.networks:
                continue
            if not isinstance(tcp, Tcp) or not (tcp.is_syn or tcp.is_syn_ack):
                continue
            if len(frame.ips) != 1:
                continue
            if frame.direction is not Direction.OUT:
                came[identity(frame)] = frame.tap.device
                continue
            if node.mss_clamp != TO_PATH_MTU:
                yield frame, tcp, node.mss_clamp or 0
                continue
            devices = {frame.tap.device, came.get(identity(frame), frame.tap.device)}
            carried = min(lab.mtu_of(node, device) for device in devices)
            yield frame, tcp, carried - HEADERS[frame.ips[0].version]


HEADERS = {4: 40, 6: 60}
"""Bytes of the IP and TCP headers, by IP version (RFC 6691)."""
