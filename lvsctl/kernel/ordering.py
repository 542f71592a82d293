"""Real servers in the order of the plan, where a scheduler goes by it (``ha: ecmp``).

IPVS has no command for the order: a real server is deleted and added again, as the last one.
Its connections go on meanwhile; packets of others may be lost in that moment.
"""

from __future__ import annotations

from collections.abc import Iterable

from lvsctl.kernel import parts, undo
from lvsctl.kernel.apply import apply_plan
from lvsctl.model.event import ignore
from lvsctl.plan.stages import Stage
from lvsctl.resources.base import Resource
from lvsctl.resources.ipvs_real_server import IpvsRealServer


def put_in_order(planned: Iterable[Resource], lab: str) -> None:
    """Delete the planned real servers that are not in their place, and add them again, in order.

    Those that are missing stay so. Raises LabError if a director's namespace does not exist.
    """
    ordered = [one for one in planned if isinstance(one, IpvsRealServer) and one.after]
    wanted = {one.netns: parts.Wanted(ipvs=True) for one in ordered}
    states = parts.read_states(wanted) if wanted else {}
    wrong = [one for one in ordered if one.in_the_way(states)]
    if wrong:
        undo.undo(wrong, lab)
        apply_plan((Stage("order", tuple(wrong)),), lab, ignore, reconciling=True)
