"""Labs for kernel tests: up, and down again whatever happens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lvsctl import app, spec
from lvsctl.errors import LabError
from lvsctl.model.lab import Lab
from lvsctl.spec import shipped
from lvsctl.spec.shipped import Topology
from tests.kernel.by_hand import run


def topology_of(text_or_name: str) -> Topology:
    """A topology given as YAML, or a shipped one by name."""
    if "\n" in text_or_name:
        return Topology("test.yaml", text_or_name.encode())
    return Topology(text_or_name, shipped.text_of(text_or_name).encode())


@contextlib.contextmanager
def lab_up(text_or_name: str, **overrides: object) -> Iterator[Lab]:
    """The lab of a topology, running; ``overrides`` as ``spec.Overrides`` takes them."""
    topology = topology_of(text_or_name)
    chosen = spec.Overrides(**overrides)  # type: ignore[arg-type]
    name = app.lab_of(topology, chosen).name
    try:
        yield app.up(topology, chosen).lab
    finally:
        with contextlib.suppress(LabError):
            app.down(name)


def curl(lab: Lab, url: str, node: str = "client") -> str:
    """What curl, the independent witness, gets from ``url`` at a node."""
    return run(f"curl -sS --max-time 5 {url}", netns=lab.netns(node))


def url_of(lab: Lab, index: int = 0) -> str:
    """Where clients reach a virtual service of the lab."""
    service = lab.services[index]
    return f"http://{service.vip}:{service.key.port}/"
