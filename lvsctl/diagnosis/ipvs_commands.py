"""Commands for the director's IPVS table, as the topology has it."""

from __future__ import annotations

from dataclasses import replace

from lvsctl.diagnosis.base import Case
from lvsctl.model.service import RealServer
from lvsctl.model.state import RealServerState
from lvsctl.resources.base import Command
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService


def service_resource(case: Case) -> IpvsService:
    """The virtual service as configured."""
    return IpvsService(
        netns=case.lab.netns(case.director),
        service=case.service.match,
        scheduler=case.service.scheduler,
        persistence=case.service.persistence,
        flags=("ops",) if case.service.one_packet else (),
    )


def server_resource(case: Case, server: RealServer) -> IpvsRealServer:
    """A real server of the virtual service as configured."""
    return IpvsRealServer(
        netns=case.lab.netns(case.director),
        service=case.service.match,
        real_server=server,
    )


def typed(case: Case, *commands: tuple[Command, ...]) -> str:
    """Commands for the director, joined by ``&&``."""
    return " && ".join(case.type(case.director, *one.argv) for each in commands for one in each)


def exchanged(case: Case, server: RealServer, entry: RealServerState) -> str:
    """Replace the entry; with another port it is another entry for IPVS."""
    wanted = server_resource(case, server)
    if entry.port == server.port:
        return typed(case, wanted.edit_commands())
    wrong = server_resource(case, replace(server, port=entry.port))
    return typed(case, wanted.commands(), wrong.undo_commands())
