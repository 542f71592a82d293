"""Reverse path filtering is on for a real server's tunnel device.

The way to the client is not through the tunnel, so every request that comes out of it
looks forged (ip-sysctl.rst, rp_filter=1; the greater of `all` and the device counts).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import ONE_SILENT, TUN, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role
from lvsctl.resources.ops import AddTunnel


def changes(scene: Scene) -> Iterator[Change]:
    """The setting of each tunnel device."""
    for tunnel in scene.planned(AddTunnel):
        setting = scene.setting(f"net.ipv4.conf.{tunnel.device}.rp_filter")
        yield Change(setting, replace(setting, value="1"))


FAULT = Fault(
    id="rp-filter-on-tunnel",
    says="reverse path filtering is on for a real server's tunnel device",
    modes=(TUN,),
    at=(Role.REAL_SERVER,),
    changes=changes,
    symptom=("requests come out of the tunnel and no reply leaves the real server"),
    breaks=("tun.reply-direct", *ONE_SILENT),
)
