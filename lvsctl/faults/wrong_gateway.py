"""A real server's default gateway is not the director, so its replies are not rewritten.

NAT only works both ways. Another gateway carries the reply to the client with the RIP as
its source, and the client, who knows of no such connection, refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import NAT, ONE_SILENT, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role
from lvsctl.resources.ops import AddRoute


def changes(scene: Scene) -> Iterator[Change]:
    """The default route through a router, or else through another real server beside it."""
    others = (*scene.neighbours(Role.ROUTER), *scene.neighbours(Role.REAL_SERVER))
    for route in scene.planned(AddRoute):
        if route.to is None and others:
            yield Change(route, replace(route, via=others[0][2]))


def to_the_client(scene: Scene) -> tuple[str, ...]:
    """A router carries the replies to the client; another real server just drops them."""
    if not any(scene.neighbours(Role.ROUTER)):
        return ()
    return "nat.client-never-sees-rip", "nat.both-directions-load-director"


FAULT = Fault(
    id="wrong-gateway",
    says="a real server's default gateway is not the director",
    modes=(NAT,),
    at=(Role.REAL_SERVER,),
    changes=changes,
    symptom=("replies leave the real server towards another gateway, with the RIP as their source"),
    breaks=("nat.reply-crosses-director", *ONE_SILENT),
    breaks_where=to_the_client,
)
