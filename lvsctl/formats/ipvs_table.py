"""The IPVS table that a configuration stands for, as resources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lvsctl.formats.configuration import Destination, Service
from lvsctl.model.service import FwMark, RealServer, ServiceMatch, VipPort
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService

Rule = IpvsService | IpvsRealServer


def table(services: Iterable[Service], netns: str = "") -> Iterator[Rule]:
    """Yield each virtual service followed by its real servers, in the namespace ``netns``."""
    for service in services:
        match = _match(service)
        yield IpvsService(
            netns=netns,
            service=match,
            scheduler=service.scheduler,
            persistence=service.persistence,
            flags=service.flags,
            netmask=service.netmask,
            engine=service.engine,
        )
        for one in service.destinations:
            yield IpvsRealServer(netns=netns, service=match, real_server=_real_server(one))


def _match(service: Service) -> ServiceMatch:
    if isinstance(service.match, VipPort):
        return service.match
    return FwMark(service.match.mark, service.match.version)


def _real_server(one: Destination) -> RealServer:
    return RealServer(
        "",
        one.rip,
        one.port,
        one.weight,
        one.upper,
        one.lower,
        forward=one.forward,
        encapsulation=one.encapsulation,
        tunnel_port=one.tunnel_port,
        checksum=one.checksum,
    )
