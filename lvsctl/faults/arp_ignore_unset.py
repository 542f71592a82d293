"""A real server answers ARP questions for the VIP: arp_ignore is not set.

Linux answers for any of its addresses on any interface (ip-sysctl.rst, arp_ignore=0).
It often goes unnoticed: whoever answers, serves. But nothing is balanced any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import DR, PAST_DIRECTOR, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role


def changes(scene: Scene) -> Iterator[Change]:
    """The setting on `all`, as kernels come."""
    setting = scene.setting("net.ipv4.conf.all.arp_ignore")
    yield Change(setting, replace(setting, value="0"))


FAULT = Fault(
    id="arp-ignore-unset",
    says="arp_ignore is not set on a real server",
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
