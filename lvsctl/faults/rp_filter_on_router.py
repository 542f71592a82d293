"""A router drops replies whose source does not belong where they come from (BCP 38).

A real server in another network than the director replies from the VIP, an address of
the director's network: to a router with strict reverse path filtering that is forged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import NOBODY_ANSWERS, TUN, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role


def changes(scene: Scene) -> Iterator[Change]:
    """Strict filtering on every interface of the router."""
    setting = scene.setting("net.ipv4.conf.all.rp_filter")
    yield Change(setting, replace(setting, value="1"))


FAULT = Fault(
    id="rp-filter-on-router",
    says="a router filters replies by their source (reverse path filtering)",
    modes=(TUN,),
    at=(Role.ROUTER,),
    changes=changes,
    symptom=("replies leave the real servers and enter the router, which drops them"),
    breaks=("tun.reply-direct", *NOBODY_ANSWERS),
)
