"""A topology read, and what `up` would do for it: no kernel, no root."""

from __future__ import annotations

from lvsctl import modes
from lvsctl.model.lab import Lab
from lvsctl.resources.ops import Plan
from lvsctl.topology.loading import parse_topology
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology


def load_lab(
    topology: Topology,
    overrides: Overrides = Overrides(),  # noqa: B008 (frozen)
) -> Lab:
    """The lab that a topology describes. Raises SpecError with every mistake in it."""
    return parse_topology(
        topology.text, topology.source, overrides=overrides, rules=modes.violations
    )


def make_plan(lab: Lab) -> Plan:
    """What ``up`` does for ``lab``."""
    from lvsctl.plan import planner

    return planner.plan_for(lab)
