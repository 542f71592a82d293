"""Every kind of resource on a real kernel: applied, read back, undone.

switch (bridge lan) ── lan ── client, director, rs1
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvsctl.kernel import netns, parts, registry, state, undo
from lvsctl.kernel.apply import PROCESSES, apply_plan
from lvsctl.model.event import ignore
from lvsctl.model.service import Scheduler
from lvsctl.plan.stages import Stage
from lvsctl.resources.base import Resource, States
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.kinds import KINDS
from lvsctl.resources.link_up import LinkUp
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.sysctl import Sysctl
from tests.kernel.dr_shape import dr_plan
from tests.resource_values import WEB, values

pytestmark = pytest.mark.ipvs

LAB = "kinds"
NODE, SWITCH = f"lvs-{LAB}-rs1", f"lvs-{LAB}-lan"
VALUES = values(NODE, SWITCH)
APPLIED = [kind for kind in KINDS if kind.PLANNED and kind not in PROCESSES]
"""Processes have tests of their own, and so has what is only found (test_equal.py)."""


@pytest.fixture(scope="module", autouse=True)
def lab() -> Iterator[None]:
    plan = dr_plan(LAB, 1)
    registry.begin(registry.Entry(lab=LAB, namespaces=plan.namespaces))
    try:
        apply_plan(plan, LAB, ignore)
        service = IpvsService(netns=NODE, service=WEB, scheduler=Scheduler.RR)
        apply_plan([Stage("service", (service,))], LAB, ignore)
        yield
    finally:
        with registry.lock(LAB):
            registry.remove(LAB)


def states_of(resource: Resource) -> States:
    names = netns.existing(LAB, resource.namespaces)
    if isinstance(resource, GuePort):  # which inspect asks about only where a tunnel is
        return parts.read_states({NODE: parts.Wanted(gue_ports=True)})
    sysctls = [resource.name] if isinstance(resource, Sysctl) else []
    directors = {NODE}.intersection(names)
    return state.lab_state(names, sysctls=sysctls, directors=directors, whole=state.Whole({}))


@pytest.mark.parametrize("kind", APPLIED, ids=lambda kind: kind.__name__)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_kind_is_applied_read_back_and_undone(kind: type[Resource], data: st.DataObject) -> None:
    resource = data.draw(VALUES[kind])
    # Applied to a running lab, as `up` does a second time: what exists already is no error.
    apply_plan([Stage("one", (resource,))], LAB, ignore, reconciling=True)
    try:
        states = states_of(resource)
        assert resource.satisfied_by(states)
        found = {one.key for one in kind.from_state(states[resource.netns])}
        assert not found or resource.key in found
    finally:
        if kind.UNDOABLE:
            undo.undo([resource], LAB)
    if kind is Namespace:
        assert not netns.existing(LAB, [resource.netns])
    elif kind.UNDOABLE and resource.undo_commands() and kind in SHOWN:
        assert not resource.satisfied_by(states_of(resource))
    if kind is LinkUp:
        apply_plan([Stage("up again", (resource,))], LAB, ignore, reconciling=True)


SHOWN = {kind for kind in KINDS if "holds" in vars(kind) or "satisfied_by" in vars(kind)}
"""Kinds that a state shows."""
