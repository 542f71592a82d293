"""The outputs in docs/ are current: the commands of the pages are run again, in a fresh machine.

One page always; the others with `make test-all`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.docs import DOCS, run
from tools.docs.page import read

pytestmark = [pytest.mark.machine, pytest.mark.slow]

ALWAYS = "own-topology.md"
"""It has a lab, a verification, a change and mistakes, in few commands."""

PAGES = [
    pytest.param(
        path,
        id=str(path.relative_to(DOCS)),
        marks=() if path.name == ALWAYS else pytest.mark.exhaustive,
    )
    for path in run.pages(DOCS)
]


@pytest.mark.parametrize("path", PAGES)
def test_output_is_current(path: Path) -> None:
    page = read(path)
    changed = run.differences(page, run.rerun(page))
    assert not changed, f"check it, then type: make docs-refresh\n{changed}"
