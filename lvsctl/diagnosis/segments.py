"""The rule about MSS clamping: a node limits the segment size that TCP announces through it."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.diagnosis.base import Case, Found, Rule, shown
from lvsctl.model.claim import Cause
from lvsctl.model.packet import Tcp
from lvsctl.model.packet_filter import Clamp
from lvsctl.model.service import Protocol


def clamped(case: Case) -> Iterator[Found]:
    """Every node with ``mss_clamp`` has the rule that limits the segment size."""
    version = case.vip.version
    for node in case.lab.nodes:
        state = case.state(node.name)
        if node.mss_clamp is None or not state.whole:
            continue
        wanted = Clamp(version, node.mss_clamp)
        there = [r.clamps for r in state.packet_filters if r.clamps and r.clamps.version == version]
        if wanted in there:
            continue
        left = (*case.replies(node.name, out=True), *case.requests(node.name, out=True))
        opening = [
            (tcp.mss, frame)
            for frame in left
            if isinstance(tcp := frame.packet.transport, Tcp)
            and (tcp.is_syn or tcp.is_syn_ack)
            and len(frame.ips) == 1
        ]
        largest = sorted(opening, key=lambda one: -one[0])[:1]
        has = f"limits it to {there[0].text}" if there else "limits it"
        yield Cause(
            fault="mss-clamp-missing",
            node=node.name,
            text="a node does not limit the segment size of TCP as it should",
            evidence=(
                f"{node.name}: {'a' if there else 'no'} rule {has}; it should be {wanted.text}",
                *(f"a SYN left it with a segment size of {mss} bytes" for mss, _ in largest),
                *shown(frame for _, frame in largest),
            ),
            consequence=(
                "both ends send segments as large as they learn; what a link or a tunnel on the "
                "way does not carry depends on ICMP then"
            ),
            remedy=case.restore(node.name),  # the program that adds a rule may not be installed
        )


RULES = (
    Rule(
        find=clamped,
        by_state=False,
        latent=True,
        rules_out="the segment size of TCP is limited where the topology says",
        applies=lambda case: (
            case.endpoint.protocol is Protocol.TCP
            and any(node.mss_clamp is not None for node in case.lab.nodes)
        ),
    ),
)
