"""Labs for kernel tests: up, and down again whatever happens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lvsctl.engine.labs import tear_down
from lvsctl.engine.up import bring_up
from lvsctl.errors import LabError
from lvsctl.model.addresses import Endpoint
from lvsctl.model.lab import Lab
from lvsctl.plan.planner import load_lab
from lvsctl.topology import shipped
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology
from tests.kernel.by_hand import run

OVER_TCP = tuple(n for n in shipped.names() if "protocol: " not in shipped.text_of(n))
"""The shipped topologies whose services curl can ask."""


def topology_of(text_or_name: str) -> Topology:
    """A topology given as YAML, or a shipped one by name."""
    if "\n" in text_or_name:
        return Topology("test.yaml", text_or_name.encode())
    return Topology(text_or_name, shipped.text_of(text_or_name).encode())


@contextlib.contextmanager
def lab_up(text_or_name: str, **overrides: object) -> Iterator[Lab]:
    """The lab of a topology, running; ``overrides`` as ``Overrides`` takes them."""
    topology = topology_of(text_or_name)
    chosen = Overrides(**overrides)  # type: ignore[arg-type]
    name = load_lab(topology, chosen).name
    try:
        yield bring_up(topology, chosen).lab
    finally:
        with contextlib.suppress(LabError):
            tear_down(name)


def curl(lab: Lab, url: str, node: str = "client") -> str:
    """What curl, the independent witness, gets from ``url`` at a node."""
    return run(f"curl -sS --max-time 5 {url}", netns=lab.netns(node))


def url_of(lab: Lab, index: int = 0) -> str:
    """Where clients reach a virtual service of the lab."""
    endpoint = lab.services[index].endpoint
    return f"http://{Endpoint(endpoint.vip, endpoint.port)}/"
