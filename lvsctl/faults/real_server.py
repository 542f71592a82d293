"""Real servers that do not serve."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import (
    EVERY_MODE,
    ONE_SERVER_SILENT,
    FaultContext,
    FaultTable,
    unanswered_udp,
)
from lvsctl.faults.change import Change, removed
from lvsctl.model.lab import Role
from lvsctl.resources.link_up import LinkUp
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.veth_link import VethLink

FAULTS = FaultTable()


@FAULTS.add(
    "service-stopped",
    "nothing listens on a real server",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    symptom="the real server refuses the connections (RST; UDP: ICMP port unreachable)",
    breaks=ONE_SERVER_SILENT,
    breaks_where=unanswered_udp,
)
def service_stopped(context: FaultContext) -> Iterator[Change]:
    """The server process on a real server has ended; the director still sends requests.

    Changes: the listeners on the real server stop.
    """
    yield from map(removed, context.planned(ResponderPort))


@FAULTS.add(
    "real-server-down",
    "a real server is disconnected from the network",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    symptom="ARP requests for the RIP stay unanswered",
    breaks=(
        "all.interfaces-up",
        "dr.reply-direct",
        "tun.reply-direct",
        "tun.routed",
        "nat.both-directions-load-director",
        "all.interfaces-up",
        *ONE_SERVER_SILENT,
    ),
)
def real_server_down(context: FaultContext) -> Iterator[Change]:
    """A real server is disconnected from the network; the director still sends requests.

    Changes: its bridge ports are down.
    """
    for op in context.plan.resources:
        if isinstance(op, VethLink) and op.node_netns == context.netns:
            yield removed(LinkUp(netns=op.netns, device=op.port))


@FAULTS.add(
    "listens-elsewhere",
    "the server on a real server listens on another port",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    symptom="the real server refuses the connections (RST; UDP: ICMP port unreachable)",
    breaks=ONE_SERVER_SILENT,
    breaks_where=unanswered_udp,
)
def listens_elsewhere(context: FaultContext) -> Iterator[Change]:
    """The server on a real server was configured for another port than the virtual service.

    Changes: every listener of the real server moves to a port that no service has.
    """
    taken = {op.port for op in context.plan.resources if isinstance(op, ResponderPort)}
    for op in context.planned(ResponderPort):
        free = next(port for port in range(op.port + 1000, 65536) if port not in taken)
        taken.add(free)
        yield Change(op, replace(op, port=free))
