"""The VIP is missing on a real server, so it throws away what is addressed to it.

The director hands requests over still addressed to the VIP: who does not hold it takes
them for somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.faults.base import DR, ONE_SILENT, TUN, Fault, Scene
from lvsctl.faults.change import Change, removed
from lvsctl.model.lab import Role


def changes(scene: Scene) -> Iterator[Change]:
    """The VIP, taken off whatever device holds it."""
    yield from map(removed, scene.vips())


FAULT = Fault(
    id="vip-missing",
    says="a real server does not hold the VIP",
    modes=(DR, TUN),
    at=(Role.REAL_SERVER,),
    changes=changes,
    symptom=("requests reach the real server and no reply leaves it"),
    breaks=(
        "dr.same-vip",
        "tun.decapsulated-on-tunnel-device",
        "dr.reply-direct",
        "tun.reply-direct",
        *ONE_SILENT,
    ),
)
