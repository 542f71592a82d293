"""What LVS promises in every forwarding method: the claims that `verify` decides.

How each is decided stands in ``lvsctl.verify``, under the same id.
"""

from __future__ import annotations

from lvsctl.model.finding import Claim

ANSWERS = Claim(
    "all.requests-answered",
    "every request to the VIP is answered, by real servers of the service and nobody else",
)
REACHED = Claim(
    "all.real-servers-reached",
    "every real server that the scheduler may choose answers through the VIP",
)
DISTRIBUTION = Claim(
    "all.distribution",
    "connections are distributed as the scheduler's definition and the weights say",
)
COUNTERS = Claim(
    "all.counters-agree",
    "IPVS counts, for each real server, the connections that the client saw it answer",
)
REPLIES = Claim(
    "all.reply-path-counted",
    "the director counts reply packets in NAT, and none in TUN and DR",
)
CONNECTIONS = Claim(
    "all.connection-table-agrees",
    "the connection table leads each of the client's connections to who answered it",
)

FRAMES = Claim(
    "all.frames-agree",
    "IPVS counts as many packets as were captured at the director, and no frame was lost",
)

CLAIMS = (ANSWERS, REACHED, DISTRIBUTION, COUNTERS, REPLIES, CONNECTIONS, FRAMES)
"""In the order in which they are shown."""
