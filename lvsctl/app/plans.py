"""A topology read, and what `up` would do for it: no kernel, no root."""

from __future__ import annotations

from lvsctl import modes, spec
from lvsctl.model.lab import Lab
from lvsctl.ops import Plan
from lvsctl.spec.shipped import Topology


def lab_of(
    topology: Topology,
    overrides: spec.Overrides = spec.Overrides(),  # noqa: B008 (frozen)
) -> Lab:
    """The lab that a topology describes. Raises SpecError with every mistake in it."""
    return spec.load(topology.text, topology.source, overrides=overrides, rules=modes.violations)


def plan_of(lab: Lab) -> Plan:
    """What ``up`` does for ``lab``."""
    from lvsctl import planner

    return planner.plan_for(lab)
