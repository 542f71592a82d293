"""The programs that tests hold lvsctl against; `make test` unpacks what the machine lacks."""

from __future__ import annotations

import os

import pytest

from lvsctl.kernel.probe import which


def witness(program: str) -> str:
    """Its path. Without it a test fails under `make test`, and is skipped elsewhere."""
    found = which(program)
    if found is None and not os.environ.get("LVSCTL_REQUIRE_IPVS"):
        pytest.skip(f"{program} is not installed: `tools/setup witnesses` unpacks it")
    assert found is not None, f"{program} is not installed"
    return found
