"""Packet filters (iptables) that drop or reject what the lab needs."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.claims.segments import HEADERS
from lvsctl.faults.base import (
    EVERY_MODE,
    NAT,
    NO_ANSWER,
    ONE_SERVER_SILENT,
    UNANSWERED,
    FaultContext,
    FaultTable,
)
from lvsctl.faults.change import Change, added, removed
from lvsctl.model.lab import Role
from lvsctl.model.packet_filter import FilterProgram, FilterRule
from lvsctl.resources.mss_clamp import MssClamp
from lvsctl.resources.packet_filter import PacketFilter

FAULTS = FaultTable()


UNRESOLVED = ("tun.routed", "nat.both-directions-load-director")
"""Claims that fail if the real server answers no neighbour solicitation either."""

PROGRAMS = {4: FilterProgram.IPTABLES, 6: FilterProgram.IP6TABLES}


def _every_packet(context: FaultContext, chain: str, action: str) -> Iterator[Change]:
    """The changes that add a rule for every packet of a chain of the table ``filter``."""
    for version in context.versions:
        rule = FilterRule(PROGRAMS[version], "filter", chain, 1, f"-A {chain} -j {action}", action)
        yield added(
            PacketFilter(netns=context.netns, program=rule.program, table=rule.table, rules=(rule,))
        )


@FAULTS.add(
    "mss-clamp-missing",
    "a node that should limit the segment size of TCP does not",
    modes=EVERY_MODE,
    at=(Role.ROUTER, Role.DIRECTOR, Role.REAL_SERVER),
    symptom="SYN+ACKs reach the client with the real server's own segment size",
    breaks=("mss.clamped",),
)
def mss_clamp_missing(context: FaultContext) -> Iterator[Change]:
    """The rule that limits the segment size was lost, for example by another set of rules.

    Not offered where neither clients nor real servers announce more than the rule lets through.

    Changes: each rule is removed.
    """
    lab, node = context.lab, context.node
    if not context.large_requests or node.mss_clamp is None:
        return
    ends = (*lab.having(Role.CLIENT), *lab.having(Role.REAL_SERVER))
    largest = max(lab.mtu_of(end, name) for end in ends for name in end.networks)
    smallest = min(lab.mtu_of(node, name) for name in node.networks)
    for planned in context.planned(MssClamp):
        version, size = planned.clamp
        headers = HEADERS[version]
        if version in context.versions and largest - headers > (size or smallest - headers):
            yield removed(planned)


@FAULTS.add(
    "input-dropped",
    "a packet filter of a real server drops what it receives",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    cause="packet-filter",
    symptom="requests reach the real server, which sends nothing",
    breaks=ONE_SERVER_SILENT,
    may_break=(*UNANSWERED, *UNRESOLVED, "tun.decapsulated-on-tunnel-device"),
)
def input_dropped(context: FaultContext) -> Iterator[Change]:
    """A packet filter of a real server drops every packet that it receives.

    Of the VIP's IP version. ARP is not filtered, so the director finds the real server; neighbour
    discovery is.

    Changes: a rule in the chain INPUT.
    """
    yield from _every_packet(context, "INPUT", "DROP")


@FAULTS.add(
    "input-rejected",
    "a packet filter of a real server rejects what it receives",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    cause="packet-filter",
    symptom="the real server answers requests with ICMP port unreachable",
    breaks=ONE_SERVER_SILENT,
    may_break=(
        *UNANSWERED,
        *UNRESOLVED,
        "tun.decapsulated-on-tunnel-device",
        "all.frames-agree",
    ),
)
def input_rejected(context: FaultContext) -> Iterator[Change]:
    """A packet filter of a real server rejects every packet that it receives.

    Changes: a rule in the chain INPUT.
    """
    yield from _every_packet(context, "INPUT", "REJECT")


@FAULTS.add(
    "forward-dropped",
    "a packet filter of the director drops what it forwards",
    modes=(NAT,),
    at=(Role.DIRECTOR,),
    cause="packet-filter",
    symptom="replies enter the director but do not leave it",
    breaks=("nat.reply-crosses-director", "nat.both-directions-load-director", *NO_ANSWER),
)
def forward_dropped(context: FaultContext) -> Iterator[Change]:
    """A packet filter of the director drops the replies, which it must forward in NAT.

    Requests to the VIP are the director's own: IPVS takes them in the chain INPUT.

    Changes: a rule in the chain FORWARD.
    """
    yield from _every_packet(context, "FORWARD", "DROP")
