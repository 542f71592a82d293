"""The director does not forward, so no reply gets past it.

Requests do: IPVS sends them itself. Replies are ordinary packets that it has to route.
(Only NAT needs forwarding: in TUN and DR no reply comes to the director.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import NAT, NOBODY_ANSWERS, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role


def changes(scene: Scene) -> Iterator[Change]:
    """Forwarding, off as kernels come."""
    setting = scene.setting("net.ipv4.ip_forward")
    yield Change(setting, replace(setting, value="0"))


FAULT = Fault(
    id="ip-forward-off",
    says="the director does not forward",
    modes=(NAT,),
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=(
        "requests reach the real servers; their replies enter the director and do not leave it"
    ),
    breaks=("nat.reply-crosses-director", "nat.both-directions-load-director", *NOBODY_ANSWERS),
)
