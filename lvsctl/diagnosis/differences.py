"""Differences of a lab's nodes and switches from its topology, as evidence."""

from __future__ import annotations

from typing import NamedTuple

from lvsctl.model.evidence import Evidence
from lvsctl.plan.deviations import Deviating, deviating


class Changed(NamedTuple):
    """A difference from the topology at a node, or at the switch of a network."""

    place: str
    difference: Deviating


def changes(evidence: Evidence) -> tuple[Changed, ...]:
    """Return every difference of the lab's nodes and switches from its topology.

    None where the evidence does not contain their whole state, as in older reports.
    """
    read = {**evidence.states, **evidence.switches}
    if not any(state.whole for state in read.values()):
        return ()
    names = {state.netns: name for name, state in read.items()}
    states = {state.netns: state for state in read.values()}
    return tuple(Changed(names[one.netns], one) for one in deviating(evidence.lab, states))
