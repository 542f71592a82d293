"""The claim about nodes that limit TCP's segment size (MSS clamping)."""

from __future__ import annotations

from lvsctl.claims.base import CheckResult, ClaimTable, inconclusive, join_names, passed_if
from lvsctl.claims.trace import Trace
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Node
from lvsctl.model.packet import Tcp
from lvsctl.model.packet_filter import TO_PATH_MTU
from lvsctl.model.service import Protocol

CLAIMS = ClaimTable()

_HEADERS = {4: 40, 6: 60}
"""Bytes of the IP and TCP headers, by IP version (RFC 6691)."""


def _clamping(trace: Trace) -> tuple[Node, ...]:
    return tuple(node for node in trace.evidence.lab.nodes if node.mss_clamp is not None)


def _clamps(trace: Trace) -> bool:
    return trace.run.endpoint.protocol is Protocol.TCP and bool(_clamping(trace))


@CLAIMS.add(
    "mss.clamped",
    "TCP connections through a node with mss_clamp announce no larger segments than it says",
    broken_by=("mss-clamp-missing",),
    applies=_clamps,
)
def clamped(trace: Trace) -> CheckResult:
    """Look at the segment size in each SYN and SYN+ACK that left such a node."""
    nodes = _clamping(trace)
    names = join_names([node.name for node in nodes])
    limits = [_limit(trace, node, device) for node in nodes for device in node.networks[:1]]
    expected = f"SYNs that leave {names} announce at most {max(limits)} bytes"
    count = 0
    shown: list[Frame] = []
    for conversation in trace.everything:
        for frame in (*conversation.requests, *conversation.replies):
            node = next((one for one in nodes if one.name == frame.tap.node), None)
            transport = frame.packet.transport
            if node is None or frame.direction is not Direction.OUT or len(frame.ips) != 1:
                continue  # what is in a tunnel is not looked into
            if not isinstance(transport, Tcp) or not (transport.is_syn or transport.is_syn_ack):
                continue
            count += 1
            if transport.mss > _limit(trace, node, frame.tap.device):
                what = "SYN+ACK" if transport.is_syn_ack else "SYN"
                text = f"{what} left {node.name} with a segment size of {transport.mss}"
                return passed_if(False, expected, text, [frame])
            shown = shown or [frame]
    if not count:
        return inconclusive(expected, f"no connection was opened through {names}")
    return passed_if(True, expected, f"{count} SYNs, none larger", shown)


def _limit(trace: Trace, node: Node, device: str) -> int:
    """The largest segment size that may leave by a device."""
    if node.mss_clamp not in (None, TO_PATH_MTU):
        return node.mss_clamp or 0
    mtu = trace.evidence.lab.mtu_of(node, device)
    return mtu - _HEADERS[trace.run.endpoint.vip.version]
