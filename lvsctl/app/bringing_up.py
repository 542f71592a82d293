"""Bringing a lab up, or making the running one equal to its topology: the beginning of it.

What comes after (``carrying_out``) is imported while another CPU makes namespaces already.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

from lvsctl import spec
from lvsctl.app.plans import lab_of
from lvsctl.kernel import paths
from lvsctl.kernel.ahead import Ahead
from lvsctl.model.event import Emit, ignore
from lvsctl.model.lab import Lab
from lvsctl.results import Up
from lvsctl.spec.shipped import Topology


def up(
    topology: Topology,
    overrides: spec.Overrides = spec.Overrides(),  # noqa: B008 (frozen)
    emit: Emit = ignore,
) -> Up:
    """Bring the lab of ``topology`` up, or make the running one equal to it.

    Raises SpecError, LabError, HostError, KernelError. Where it fails half-way, or is
    interrupted, a new lab is removed again, and a running one made what it was.
    """
    with _collecting_no_garbage():
        lab = lab_of(topology, overrides)
        with Ahead(_new_namespaces(lab)) as ahead:
            from lvsctl.app.carrying_out import carried_out

            return carried_out(lab, topology, overrides, ahead, emit)


def _new_namespaces(lab: Lab) -> int:
    """How many there will be to make; one more or less does no harm."""
    if os.path.lexists(paths.registry(lab.name)):  # it runs, and has them
        return 0
    return len(lab.nodes) + len(lab.networks)


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
