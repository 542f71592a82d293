"""What LVS promises in every forwarding method: the claims that `verify` decides.

How each is decided stands in ``lvsctl.claims``, under the same id.
"""

from __future__ import annotations

from lvsctl.model.claim import Claim

ANSWERS = Claim(
    "all.requests-answered",
    "every request to the VIP is answered, by real servers of the service and nobody else",
    broken_by=("vip-missing-on-director", "service-stopped", "stale-vip-neighbour"),
)
REACHED = Claim(
    "all.real-servers-reached",
    "every real server that the scheduler may choose answers through the VIP",
    broken_by=("real-server-removed", "real-server-drained", "real-server-down"),
)
DISTRIBUTION = Claim(
    "all.distribution",
    "connections are distributed as scheduler, weights, thresholds and persistence say",
    broken_by=(
        "scheduler-changed",
        "weight-changed",
        "persistence-added",
        "persistence-missing",
        "threshold-missing",
    ),
)
COUNTERS = Claim(
    "all.counters-agree",
    "IPVS counts, for each real server, the connections that the client saw it answer",
    broken_by=("director-bypassed", "service-stopped"),
)
REPLIES = Claim(
    "all.reply-path-counted",
    "the director counts reply packets in NAT, and none in TUN and DR",
    broken_by=("service-missing",),
)
CONNECTIONS = Claim(
    "all.connection-table-agrees",
    "the connection table leads each of the client's connections to who answered it",
    broken_by=("director-bypassed",),
    unbroken="in NAT no reply gets back to the client but through an entry of the table",
)

FRAMES = Claim(
    "all.frames-agree",
    "IPVS counts as many packets as were captured at the director, and no frame was lost",
    broken_by=("service-missing",),
)

CLAIMS = (ANSWERS, REACHED, DISTRIBUTION, COUNTERS, REPLIES, CONNECTIONS, FRAMES)
"""In the order in which they are shown."""
