"""arp_ignore is set on the loopback, where the VIP is, and nowhere else.

What counts is the greater of `all` and the interface that the question comes in on
(ip-sysctl.rst). A well-known tutorial has it on `lo` alone, where it has no effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import DR, PAST_DIRECTOR, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role
from lvsctl.resources.ops import SetSysctl


def changes(scene: Scene) -> Iterator[Change]:
    """From `all` to `lo`."""
    setting = scene.setting("net.ipv4.conf.all.arp_ignore")
    yield Change(setting, replace(setting, value="0"))
    lo = SetSysctl(netns=scene.netns, key="net.ipv4.conf.lo.arp_ignore", value="0")
    yield Change(lo, replace(lo, value="1"))


FAULT = Fault(
    id="arp-ignore-on-lo-only",
    says="arp_ignore is set on a real server's loopback only",
    modes=(DR,),
    at=(Role.REAL_SERVER,),
    changes=changes,
    symptom=(
        "the real server answers ARP questions for the VIP as the director does; who "
        "believes it talks past the director"
    ),
    breaks=("dr.only-director-answers-arp",),
    may_break=PAST_DIRECTOR,
)
