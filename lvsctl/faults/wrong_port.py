"""The director maps a real server's port to one where nobody listens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import NAT, ONE_SILENT, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role


def changes(scene: Scene) -> Iterator[Change]:
    """The next port, for the first real server of each service."""
    for server in scene.first_entries():
        real = server.real_server
        yield Change(server, replace(server, real_server=replace(real, port=real.port + 1)))


FAULT = Fault(
    id="wrong-port",
    says="the director sends a real server's requests to the wrong port",
    modes=(NAT,),
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=("the real server refuses the connections (RST)"),
    breaks=("nat.request-rewritten", "nat.reply-crosses-director", "nat.port-mapping", *ONE_SILENT),
)
