"""The whole state of a running lab: what its plan sets, and everything else that may differ."""

from __future__ import annotations

from collections.abc import Iterable

from lvsctl.kernel import netns, processes, state, wide
from lvsctl.model.lab import Lab
from lvsctl.model.state import ChangedSysctls, NodeState
from lvsctl.plan import diff, planner
from lvsctl.plan.stages import Plan
from lvsctl.resources.sysctl import Sysctl


def whole_state(
    lab: Lab,
    plan: Plan | None = None,
    names: Iterable[str] | None = None,
    *,
    settings: bool = True,
) -> dict[str, NodeState]:
    """Read the state of every node and switch of ``lab`` that exists, by its namespace.

    ``plan`` is the lab's own where none is given. With ``names`` (of namespaces, which must
    exist) only those are read. Without ``settings`` the sysctls that no plan sets are left out,
    for ``changed_settings``. Raises as ``state.lab_state``.
    """
    plan = plan or planner.plan_for(lab)
    wanted = netns.existing(lab.name, plan.namespaces) if names is None else tuple(names)
    sysctls = (*state.INSPECTED_SYSCTLS, *diff.settings_of(plan))
    return state.lab_state(
        wanted,
        sysctls=dict.fromkeys(sysctls),
        directors=_directors(lab).intersection(wanted),
        pids=processes.daemons(lab.name).values(),
        whole=state.Whole(_planned(plan), settings),
    )


def changed_settings(lab: Lab, but: Iterable[str] = ()) -> ChangedSysctls:
    """Read the part of ``whole_state`` that takes longest and rests on no traffic.

    Namespaces in ``but`` are left out. Raises as ``state.lab_state``.
    """
    plan, left_out = planner.plan_for(lab), frozenset(but)
    wanted = (name for name in netns.existing(lab.name, plan.namespaces) if name not in left_out)
    return wide.read_changed(wanted, _planned(plan), _directors(lab))


def _directors(lab: Lab) -> frozenset[str]:
    return frozenset(lab.netns(node.name) for node in lab.directors)


def _planned(plan: Plan) -> dict[str, dict[str, str]]:
    planned: dict[str, dict[str, str]] = {}
    for one in plan.resources:
        if isinstance(one, Sysctl):
            planned.setdefault(one.netns, {})[one.name] = one.value
    return planned
