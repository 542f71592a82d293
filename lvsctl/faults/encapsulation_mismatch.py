"""The director puts requests into another tunnel than the real server takes them out of.

ipvsadm takes IP in IP where --tun-type is not given; the real server's device may be for
GRE or behind a GUE port, or the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import ONE_SILENT, TUN, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role
from lvsctl.model.service import GUE_PORT, Encapsulation
from lvsctl.resources.ops import AddGuePort, AddTunnel

ORDER = (Encapsulation.GRE, Encapsulation.IPIP, Encapsulation.GUE)
"""What to send instead: the first of these that the real server does not take."""


def changes(scene: Scene) -> Iterator[Change]:
    """The first real server of each service by TUN."""
    for server in scene.first_entries():
        if server.forward is not TUN:
            continue
        taken = _taken(scene.at(server.real_server.node))
        other = next((kind for kind in ORDER if kind not in taken), None)
        if other is not None:
            port = GUE_PORT if other is Encapsulation.GUE else 0
            yield Change(server, replace(server, encapsulation=other, tunnel_port=port))


def _taken(scene: Scene) -> set[Encapsulation]:
    """What a real server can take off: for several services, several."""
    kinds = {tunnel.encapsulation for tunnel in scene.planned(AddTunnel)}
    return kinds | {Encapsulation.GUE for _ in scene.planned(AddGuePort)}


FAULT = Fault(
    id="encapsulation-mismatch",
    says="the director's tunnel is of another kind than the real server's",
    modes=(TUN,),
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=(
        "tunnelled requests reach the real server, nothing takes them out, and ICMP "
        "port unreachable goes back to the director"
    ),
    breaks=(
        "tun.request-encapsulated",
        "tun.decapsulated-on-tunnel-device",
        "tun.reply-direct",
        *ONE_SILENT,
    ),
)
