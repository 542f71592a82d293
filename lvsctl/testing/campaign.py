"""The fault matrix as tests, which pytest spreads over processes, machines and kernels.

    pytest --pyargs lvsctl.testing.campaign -n 3 --dist loadgroup --lvs-matrix matrix.md
    pytest --pyargs lvsctl.testing.campaign --lvs-shard 3/8 --lvs-matrix part3.md

A test is a fault in a shipped topology. All faults of a topology that one process tries share a
lab, so that xdist has to keep them together (``--dist loadgroup``).
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lvsctl.engine.campaign import Cell, Column
from lvsctl.engine.faults import applicable_faults
from lvsctl.output.matrix_markdown import said
from lvsctl.output.serialize import from_json
from lvsctl.testing.matrix_page import CELL
from lvsctl.testing.worker import Worker
from lvsctl.topology import shipped

TRIALS = [
    pytest.param(name, fault, id=f"{name}-{fault}", marks=pytest.mark.xdist_group(name))
    for name in shipped.names()
    for fault in applicable_faults(name)
]

TryFaults = Callable[[str, tuple[str, ...]], Column]


@pytest.fixture(scope="session")
def try_faults(_lvs_worker: Worker) -> TryFaults:
    """Tries faults in a topology; each topology once."""
    done: dict[str, Column] = {}

    def run(topology: str, faults: tuple[str, ...]) -> Column:
        _lvs_worker.require("fail")
        if topology not in done:
            words = [word for fault in faults for word in ("--fault", fault)]
            found = _lvs_worker.command.json("fault", "matrix", topology, *words)
            done[topology] = from_json(found["topologies"][0], Column)
        return done[topology]

    return run


@pytest.mark.parametrize(("topology", "fault"), TRIALS)
def test_fault(
    topology: str,
    fault: str,
    try_faults: TryFaults,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    """Its claims fail and no others, diagnose names it first, and its removal repairs the lab."""
    column = try_faults(topology, _chosen(request, topology))
    assert column.before.healthy, f"without a fault: {column.before.text}"
    (cell,) = [one for one in column.cells if one.trial.fault.id == fault]
    record_property(CELL, json.dumps([fault, topology, said(cell)]))
    assert not cell.wrong, _complaint(cell)
    assert column.after is not None
    assert column.after.healthy, f"after the last fault: {column.after.text}"


def _chosen(request: pytest.FixtureRequest, topology: str) -> tuple[str, ...]:
    """Return the faults that this process tries in ``topology``."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    params = [call.params for call in calls if call is not None]
    return tuple(str(p["fault"]) for p in params if p.get("topology") == topology)


def _complaint(cell: Cell) -> str:
    return f"{cell.trial.fault.id} at {cell.trial.node} in {cell.topology}: {'; '.join(cell.wrong)}"
