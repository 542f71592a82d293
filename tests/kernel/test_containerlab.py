"""The exported file, interpreted as containerlab's manual says, builds a lab that `verify` passes.

A namespace for each node, a veth for each link, then `exec` in order and without a shell. The code
here has nothing of the exporter's.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from lvsctl.engine.inspect import verify_lab
from lvsctl.formats import writers
from lvsctl.kernel import netns
from lvsctl.kernel.probe import which
from lvsctl.model.claim import Verdict
from lvsctl.model.lab import Lab
from lvsctl.plan import planner
from lvsctl.topology import shipped
from tests.kernel.by_hand import run
from tests.kernel.labs import topology_of

pytestmark = [pytest.mark.ipvs, pytest.mark.usefixtures("iptables")]


@contextlib.contextmanager
def deployed(text: str, prefix: str) -> Iterator[None]:
    """The nodes of a containerlab file as namespaces called ``prefix`` and the node's name."""
    found = yaml.safe_load(text)["topology"]
    nodes = {node: f"{prefix}{node}" for node in found["nodes"]}
    with contextlib.ExitStack() as undo:
        for name in nodes.values():
            run(f"ip netns add {name}")
            undo.callback(_remove, name)
        for number, link in enumerate(found["links"]):
            (one, device), (other, port) = (end.split(":") for end in link["endpoints"])
            run(
                f"ip -n {nodes[one]} link add name {device} index {100 + number} type veth "
                f"peer name {port} index {1000 + number} netns {nodes[other]}"
            )
        for node, settings in found["nodes"].items():
            for command in settings["exec"]:
                words = shlex.split(command)
                words[0] = which(words[0]) or words[0]
                done = subprocess.run(
                    ["ip", "netns", "exec", nodes[node], *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, f"{node}: {command[:200]}: {done.stderr}"
        yield


def _remove(name: str) -> None:
    for pid in run(f"ip netns pids {name}").split():
        os.kill(int(pid), signal.SIGKILL)
    run(f"ip netns del {name}")


def lab_and_text(name: str, target: writers.Target) -> tuple[Lab, str]:
    lab = planner.load_lab(topology_of(name))
    (text,) = writers.export(lab, planner.plan_for(lab).resources, target).values()
    return lab, text


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "dr" else pytest.mark.exhaustive)
        for name in shipped.names()
    ],
)
def test_verify_passes_on_what_containerlab_would_build(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The lab is none of lvsctl's, and not in its registry: its namespaces are read all the same.
    monkeypatch.setattr(netns, "existing", lambda _, names: tuple(names))
    lab, text = lab_and_text(name, writers.Target.CONTAINERLAB)
    _, wrapped = lab_and_text(name, writers.Target.CLABERNETES)
    assert yaml.safe_load(wrapped)["spec"]["definition"]["containerlab"] == text
    with deployed(text, lab.netns("")):
        findings = verify_lab(lab).findings
    failed = [one for one in findings if one.verdict is not Verdict.PASS]
    assert not failed, [f"{one.claim.id}: {one.observed}" for one in failed]
