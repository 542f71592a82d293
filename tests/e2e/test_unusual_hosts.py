"""Labs on hosts that are not set up as most are: they work, and prove the same.

Each host is a machine's initial namespace, in which labs run with ``--where host``.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lvsctl.topology import shipped
from tests.e2e.unusual import HOSTS

pytestmark = [pytest.mark.machine, pytest.mark.slow]

TOGETHER = "forwarding,strict,arp,proxy-arp,firewall,ipvs,tunnels"
"""Those that do not contradict each other."""


def troubles(hosts: str, *topologies: str) -> str:
    """What ``tests.e2e.unusual`` says, in a machine of its own."""
    lvsctl = [sys.executable, "-m", "lvsctl", "machine"]
    environment = {**os.environ, "LVSCTL_MACHINE": f"unusual-{os.getpid()}"}
    if "no-ipv6" in hosts:
        environment["LVSCTL_KERNEL_OPTIONS"] = "ipv6.disable=1"
    driver = [sys.executable, "-m", "tests.e2e.unusual", hosts, *topologies]
    try:
        done = subprocess.run(
            [*lvsctl, "run", "--", *driver],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        subprocess.run([*lvsctl, "stop"], env=environment, check=False, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("hosts", "topologies"), [(TOGETHER, ("dr", "nat", "tun")), ("no-ipv6", ("dr",))]
)
def test_labs_work_on_an_unusual_host(hosts: str, topologies: tuple[str, ...]) -> None:
    assert troubles(hosts, *topologies) == ""


@pytest.mark.exhaustive
@pytest.mark.parametrize("host", HOSTS)
def test_every_topology_works_on_each(host: str) -> None:
    assert troubles(host, *shipped.names()) == ""
