"""Directors on which a command of the user's, or keepalived, decides about IPVS. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.base import Resource
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.keepalived import Keepalived
from lvsctl.resources.user_command import UserCommand


def commanded(plan: Plan) -> frozenset[str]:
    """Return the directors on which a command of the user's own runs, such as keepalived."""
    directors = {one.netns for one in plan.resources if isinstance(one, IpvsService)}
    return frozenset(
        one.netns for one in plan.resources if isinstance(one, UserCommand)
    ).intersection(directors)


def owned_by_keepalived(plan: Plan) -> frozenset[str]:
    """Return the directors whose IPVS table keepalived sets up."""
    running = {
        one.netns for one in plan.resources if isinstance(one, UserCommand) and one.runs_keepalived
    }
    return commanded(plan).intersection(running)


def is_owned(one: Resource, owned: Collection[str]) -> bool:
    """Return whether keepalived, in the namespaces ``owned``, decides about a resource."""
    return isinstance(one, (IpvsService, IpvsRealServer)) and one.netns in owned


def without_owned(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """Return stages without what keepalived, which they start, sets up itself."""
    several = tuple(stages)
    started = {
        one.netns for stage in several for one in stage.resources if isinstance(one, Keepalived)
    }
    found = (
        Stage(stage.title, tuple(one for one in stage.resources if not is_owned(one, started)))
        for stage in several
    )
    return tuple(stage for stage in found if stage.resources)
