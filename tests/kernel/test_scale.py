"""Throughput over the number of real servers, and the comparison, on real IPVS.

client ── outside ── router ── lan ── director (2.5 Mbit/s), real servers (0.25 Mbit/s each)
"""

from __future__ import annotations

import pytest

from lvsctl.engine.compare import compare
from lvsctl.engine.scale import measure
from lvsctl.engine.scale_counts import Settings
from lvsctl.kernel import registry
from lvsctl.model.compare import Subject
from lvsctl.model.scale import Bend
from lvsctl.model.service import ForwardingMethod
from tests.kernel.labs import topology_of

pytestmark = pytest.mark.ipvs


def test_nat_bends_where_the_directors_link_is_full() -> None:
    settings = Settings(warm_up=0.5, seconds=0.5)
    result = measure(topology_of("methods"), (5, 20), (ForwardingMethod.NAT,), settings)
    (curve,) = result.curves
    few, many = curve.points
    assert curve.bend == curve.predicted == Bend(5, 20)
    assert many.director.use > 0.8 > few.director.use
    # In and out of the director: with DR it would be requests alone.
    assert many.director.bytes > 2
    assert many.latency is not None
    assert registry.read("scale-methods") is None


@pytest.mark.exhaustive
def test_a_port_of_the_real_servers_is_for_nat_alone() -> None:
    result = compare([Subject.PORT])
    assert result.holds
    arrived = {str(cell.method): cell.figures["arrived"] for cell in result.rows[0].cells}
    assert arrived == {"nat": 8080, "tun": 80, "dr": 80}
    assert registry.read("compare-methods") is None
