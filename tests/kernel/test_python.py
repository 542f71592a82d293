"""The Python interface and its pytest plugin where the process itself has root and IPVS."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvsctl.testing.labs import Labs

pytestmark = pytest.mark.ipvs


def test_labs_are_on_this_very_kernel(lvs: Labs) -> None:
    lab = lvs.up("dr")
    namespace = Path("/run/netns", lab.node("client").netns)
    assert namespace.exists()

    assert lab.node("client").run(["curl", "-sf", "http://10.10.0.100/"]).stdout.startswith("rs")

    lab.down()
    assert not namespace.exists()
