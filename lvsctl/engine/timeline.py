"""Check the time line that a topology has of its own before its lab is brought up."""

from __future__ import annotations

from lvsctl.faults import FAULTS
from lvsctl.model.lab import Lab
from lvsctl.topology.drill import check_names
from lvsctl.topology.loading import has_timeline, parse_drill
from lvsctl.topology.shipped import Topology


def check_timeline(topology: Topology, lab: Lab) -> None:
    """Raise TopologyError for faults in it that do not exist; its other names were looked at."""
    if has_timeline(topology.text):
        drill, problems = parse_drill(topology.text, topology.source)
        check_names(drill, lab, tuple(FAULTS), problems)
