"""What tests on a kernel share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.witness import witness


@pytest.fixture(scope="module")
def iptables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The programs under the names that an installed package gives them."""
    place = tmp_path_factory.mktemp("bin")
    for name in ("iptables", "iptables-save", "ip6tables", "ip6tables-save"):
        program = place / name
        program.write_text(f'#!/bin/sh\nexec {witness("xtables-legacy-multi")} {name} "$@"\n')
        program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{place}:{os.environ['PATH']}")
        yield
