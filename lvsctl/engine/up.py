"""Bringing a lab up, or making the running one equal to its topology: the beginning of it.

What reads the topology (``spec``) and what comes after (``carrying_out``) is imported while
another CPU makes namespaces already.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lvsctl.kernel import paths
from lvsctl.kernel.ahead import Ahead
from lvsctl.model.event import Emit, ignore
from lvsctl.topology import glance
from lvsctl.topology.overrides import Overrides

if TYPE_CHECKING:
    from lvsctl.engine.results import Up
    from lvsctl.topology.shipped import Topology


def bring_up(
    topology: Topology,
    overrides: Overrides = Overrides(),  # noqa: B008 (frozen)
    emit: Emit = ignore,
) -> Up:
    """Bring the lab of ``topology`` up, or make the running one equal to it.

    Raises SpecError, LabError, HostError, KernelError. Where it fails half-way, or is
    interrupted, a new lab is removed again, and a running one made what it was.
    """
    name = overrides.name or glance.name(topology.text)
    seen = glance.namespaces(topology.text, overrides.servers)
    with _collecting_no_garbage(), Ahead(_to_make(name, seen)) as ahead:
        from lvsctl.engine.plans import load_lab

        lab = load_lab(topology, overrides)
        ahead.expect(_to_make(lab.name, len(lab.nodes) + len(lab.networks)))
        from lvsctl.engine.carrying_out import carried_out

        return carried_out(lab, topology, overrides, ahead, emit)


def _to_make(lab: str, namespaces: int) -> int:
    """How many of them are new; one more or less does no harm. A wrong name says nothing here."""
    if not paths.is_name(lab) or os.path.lexists(paths.registry(lab)):  # it runs, and has them
        return 0
    return namespaces


@contextmanager
def _collecting_no_garbage() -> Iterator[None]:
    """A plan is thousands of values that live on: going through them over and over finds none."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
