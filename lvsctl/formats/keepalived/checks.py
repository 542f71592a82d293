"""The health check that keepalived makes of a real server."""

from __future__ import annotations

from typing import NamedTuple

from lvsctl.model.service import Protocol, RealServer, ServiceMatch, VipPort

_KEYWORDS = {Protocol.TCP: "TCP_CHECK", Protocol.UDP: "UDP_CHECK"}


class HealthCheck(NamedTuple):
    """A keyword of keepalived.conf(5), and the port that is checked."""

    keyword: str
    port: int


def health_check(server: RealServer, match: ServiceMatch) -> HealthCheck | None:
    """Return the check of a real server; None where keepalived has none: SCTP, any port.

    A firewall mark may be of several protocols: then TCP is checked, because UDP_CHECK fails only
    where the real server reports by ICMP that its port is closed.
    """
    # Not VipPort.endpoints: those of any port are lvsctl's own requests'.
    endpoints = (match,) if isinstance(match, VipPort) else match.endpoints
    for protocol, keyword in _KEYWORDS.items():
        for one in endpoints:
            if one.protocol is protocol and (port := server.port or one.port):
                return HealthCheck(keyword, port)
    return None
