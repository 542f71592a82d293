"""The router between client and lab does not forward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import EVERY_MODE, NOBODY_ANSWERS, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role


def changes(scene: Scene) -> Iterator[Change]:
    """Forwarding, off as kernels come."""
    setting = scene.setting("net.ipv4.ip_forward")
    yield Change(setting, replace(setting, value="0"))


FAULT = Fault(
    id="router-not-forwarding",
    says="the router does not forward",
    modes=EVERY_MODE,
    at=(Role.ROUTER,),
    changes=changes,
    symptom=("requests enter the router and nothing leaves it"),
    breaks=NOBODY_ANSWERS,
)
