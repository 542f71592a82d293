"""Labs on any kernel with network namespaces: the whole plan but what only some kernels have.

Much quicker than in the throwaway kernel, for tests of what does not rest on IPVS.
"""

from __future__ import annotations

import http.client
import socket
from dataclasses import replace

import pytest

from lvsctl.engine.labs import running_lab
from lvsctl.kernel import features, netns, parts, probe, state, wide
from lvsctl.model.lab import Lab
from lvsctl.plan import planner
from lvsctl.plan.stages import Plan
from lvsctl.resources.base import Resource
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.marks import Marks
from lvsctl.resources.netem import Netem
from lvsctl.resources.tunnel import Tunnel

LACKING = (IpvsService, IpvsRealServer, Tunnel, GuePort, Netem, Marks)
TUNNELS = ("tunl", "gre", "gue", "sit", "ip6tnl")


def is_ordinary(op: Resource) -> bool:
    """Whether every kernel with network namespaces can do it."""
    about = f"{getattr(op, 'device', '')} {getattr(op, 'name', '')}"
    return not isinstance(op, LACKING) and not any(kind in about for kind in TUNNELS)


@pytest.fixture
def without_ipvs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans without what a kernel may lack; nothing else of ``up`` and ``down`` is changed."""
    whole = planner.plan_for

    def reduced(lab: Lab) -> Plan:
        plan = whole(lab)
        stages = (
            replace(s, resources=tuple(filter(is_ordinary, s.resources))) for s in plan.stages
        )
        return replace(plan, stages=tuple(stage for stage in stages if stage.resources))

    monkeypatch.setattr(planner, "plan_for", reduced)
    monkeypatch.setattr(probe, "load_ipvs", lambda: None)
    monkeypatch.setattr(features, "check", lambda _: None)
    for module in (state, parts):
        monkeypatch.setattr(module, "read_services", tuple)  # there are none
    monkeypatch.setattr(wide, "with_ipvs_config", lambda found: found)


def answers(name: str) -> bool:
    """Whether every real server answers at its own address, to itself."""
    lab = running_lab(name)
    return all(
        page(lab.netns(server.node), str(server.rip), server.answers_at(service.endpoint))
        for service in lab.services
        for server in service.real_servers
    )


def page(namespace: str, address: str, port: int) -> bool:
    """Whether a real server answers at ``address``, asked from ``namespace``."""

    def ask() -> bytes:
        with socket.create_connection((address, port), timeout=10) as sock:
            connection = http.client.HTTPConnection(address)
            connection.sock = sock
            connection.request("GET", "/")
            return connection.getresponse().read()

    return b"answered" in netns.run_inside(namespace, ask)
