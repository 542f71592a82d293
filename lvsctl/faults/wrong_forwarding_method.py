"""The director forwards to a real server by another method than the one it is set up for.

ipvsadm takes direct routing where neither -m nor -i is given. That is what NAT and TUN
get here; a real server for direct routing gets NAT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import DR, EVERY_MODE, NAT, ONE_SILENT, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role


def changes(scene: Scene) -> Iterator[Change]:
    """The first real server of each service."""
    for server in scene.first_entries():
        yield Change(server, replace(server, forward=NAT if server.forward is DR else DR))


FAULT = Fault(
    id="wrong-forwarding-method",
    says="the director forwards to a real server by another method",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=(
        "requests leave the director in the form of the other method, which the real "
        "server cannot answer"
    ),
    breaks=(
        "nat.request-rewritten",
        "nat.port-mapping",
        "tun.request-encapsulated",
        "dr.request-only-macs-change",
        "dr.reply-direct",
        "tun.reply-direct",
        *ONE_SILENT,
    ),
)
