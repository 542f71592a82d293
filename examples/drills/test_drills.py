"""Each drill of this directory is a test: what happens to clients while things happen.

The pytest plugin with the fixture ``lvs`` is part of lvsctl. Run: ``pytest``
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lvsctl.testing.labs import Labs


@pytest.mark.parametrize("drill", ["maintenance.yaml", "failover.yaml"])
def test_clients_notice_as_little_as_expected(lvs: Labs, drill: str) -> None:
    assert lvs.play(Path(drill))
