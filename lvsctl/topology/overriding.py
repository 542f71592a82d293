"""A draft, changed as the command line wants it (``overrides``)."""

from __future__ import annotations

from dataclasses import replace

from lvsctl.errors import UsageError
from lvsctl.model.lab import Role
from lvsctl.topology.drafts import NodeDraft, TopologyDraft
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.values import MAX_COUNT, Wrong, label_of


def overridden(draft: TopologyDraft, overrides: Overrides) -> TopologyDraft:
    """The draft as the command line wants it. Raises UsageError where it cannot be had."""
    if overrides.name is not None:
        try:
            draft = replace(draft, name=label_of(overrides.name))
        except Wrong as wrong:
            raise UsageError(f"--name: {wrong.message}", hint=wrong.hint) from None
    if overrides.servers is not None:
        draft = replace(draft, nodes=_resized(draft.nodes or {}, overrides.servers))
    if overrides.scheduler is not None:
        services = tuple(
            service and replace(service, scheduler=overrides.scheduler)
            for service in draft.services or ()
        )
        draft = replace(draft, services=services)
    return draft


def _resized(nodes: dict[str, NodeDraft | None], servers: int) -> dict[str, NodeDraft | None]:
    """The nodes with as many real servers in all.

    Entries without count stay what they are; those with count share the rest evenly,
    the first ones taking what does not divide.
    """
    real = {n: d for n, d in nodes.items() if d is not None and d.role is Role.REAL_SERVER}
    counted = [name for name, draft in real.items() if draft.count is not None]
    fixed = len(real) - len(counted)
    if not counted:
        if servers == fixed:
            return nodes
        raise UsageError(
            f"--servers {servers}: the topology names each of its real servers: {', '.join(real)}",
            hint="in the file, write one entry with a count, such as "
            "rs: {role: real-server, networks: [lan], count: 2}",
        )
    least, most = fixed + len(counted), fixed + len(counted) * MAX_COUNT
    if not least <= servers <= most:
        raise UsageError(
            f"--servers {servers}: this topology can have {least} to {most} real servers"
        )
    share, rest = divmod(servers - fixed, len(counted))
    counts = {name: share + (index < rest) for index, name in enumerate(counted)}
    return {
        name: replace(draft, count=counts[name]) if draft and name in counts else draft
        for name, draft in nodes.items()
    }
