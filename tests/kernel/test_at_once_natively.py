"""Twenty labs at once on any kernel, by twenty commands at once."""

from __future__ import annotations

import pytest

from tests.kernel import natively
from tests.kernel.natively import without_ipvs as without_ipvs  # noqa: PLC0414 (a fixture)
from tests.kernel.test_at_once import check_labs_at_once

pytestmark = pytest.mark.usefixtures("without_ipvs")


def answers(lab: str) -> None:
    assert natively.answers(lab), lab


def test_twenty_labs_at_once() -> None:
    check_labs_at_once(20, answers, answers)
