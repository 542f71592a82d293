"""What tests on a kernel share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.kernel.by_hand import install_iptables


@pytest.fixture(scope="module")
def iptables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """iptables and its companions, as if they were installed."""
    place = tmp_path_factory.mktemp("bin")
    install_iptables(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{place}:{os.environ['PATH']}")
        yield
