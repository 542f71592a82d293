"""Ended at every moment, on any kernel: the whole plan but what a kernel without IPVS lacks.

The same checks as in ``test_killed``, much quicker than in the throwaway kernel, so that every
moment of every shipped topology is tried, always for SIGKILL in the dr lab.
"""

from __future__ import annotations

import http.client
import signal
import socket
from dataclasses import replace

import pytest

from lvsctl import app, planner
from lvsctl.kernel import netns, probe, state
from lvsctl.model.lab import Lab
from lvsctl.ops import AddGuePort, AddRealServer, AddService, AddTunnel, Impair, Op, Plan
from lvsctl.spec import shipped
from tests.kernel.moments import NEVER
from tests.kernel.test_killed import (
    BY_SIGNAL,
    RARELY,
    check_down_ended,
    check_up_interrupted,
    check_up_killed,
    every_moment,
)

LACKING = (AddService, AddRealServer, AddTunnel, AddGuePort, Impair)
TUNNELS = ("tunl", "gre", "gue", "sit", "ip6tnl")


def is_ordinary(op: Op) -> bool:
    """Whether every kernel with network namespaces can do it."""
    about = f"{getattr(op, 'device', '')} {getattr(op, 'key', '')}"
    return not isinstance(op, LACKING) and not any(kind in about for kind in TUNNELS)


@pytest.fixture(autouse=True)
def without_ipvs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans without what a kernel may lack; nothing else of ``up`` and ``down`` is changed."""
    whole = planner.plan_for

    def reduced(lab: Lab) -> Plan:
        plan = whole(lab)
        stages = (replace(s, ops=tuple(filter(is_ordinary, s.ops))) for s in plan.stages)
        return replace(plan, stages=tuple(stage for stage in stages if stage.ops))

    monkeypatch.setattr(planner, "plan_for", reduced)
    monkeypatch.setattr(probe, "load_ipvs", lambda: None)
    monkeypatch.setattr(state, "_services", tuple)  # there are none


def answers(name: str) -> bool:
    """Whether every real server answers at its own address, to itself."""
    lab = app.running(name)
    return all(
        _page(lab.netns(server.node), str(server.rip), server.port)
        for service in lab.services
        for server in service.real_servers
    )


def _page(namespace: str, address: str, port: int) -> bool:
    def ask() -> bytes:
        with socket.create_connection((address, port), timeout=10) as sock:
            connection = http.client.HTTPConnection(address)
            connection.sock = sock
            connection.request("GET", "/")
            return connection.getresponse().read()

    return b"answered" in netns.run_inside(namespace, ask)


some_names = pytest.mark.parametrize(
    "name",
    [n if n in {"dr", "tun"} else pytest.param(n, marks=RARELY) for n in shipped.names()],
)


@every_moment
@pytest.mark.parametrize("name", shipped.names())
def test_up_killed(name: str, wanted: int) -> None:
    """`down` leaves nothing; and after the same again, `up` over what is left makes it whole."""
    assert check_up_killed(name, NEVER if name == "dr" else wanted, answers) > 3


@every_moment
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@some_names
def test_up_interrupted(name: str, sign: signal.Signals, wanted: int) -> None:
    """It undoes what it has done, says so by its status, and leaves nothing for `down`."""
    assert check_up_interrupted(name, sign, wanted, answers) > 3


@every_moment
@pytest.mark.parametrize("sign", BY_SIGNAL)
@some_names
def test_down_ended(name: str, sign: signal.Signals, wanted: int) -> None:
    """The next `down` goes on from there, where there is anything left; and so does `up`."""
    assert check_down_ended(name, sign, wanted, answers) > 3
