"""Measured curves, made up: for the tests of what is said about them."""

from __future__ import annotations

from lvsctl.claims.scale import judge
from lvsctl.model.scale import DirectorLoad, Latency, Load, Scale, ScaleCurve, ScalePoint
from lvsctl.model.service import ForwardingMethod

_SAME = -1.0


def point(
    servers: int,
    megabits: float,
    expected: float | None = _SAME,
    *,
    busy: float = 0.2,
    spread: float = 0.0,
) -> ScalePoint:
    """A point with a throughput in Mbit/s; ``expected`` is the same if left out."""
    wanted = megabits if expected == _SAME else expected
    return ScalePoint(
        servers=servers,
        throughput=tuple((megabits + one * spread) * 1e6 for one in (-1, 0, 1)),
        expected=None if wanted is None else wanted * 1e6,
        latency=Latency(280.0, 290.0, 300.0),
        requests=100,
        errors=0,
        busy=busy,
        director=DirectorLoad(2.1, 3.8, 1.05, 0.04, 0.99, "director on public", 0.5),
    )


def measured(method: ForwardingMethod, *points: tuple[int, float]) -> Scale:
    """One curve that is as expected, and one method that the topology cannot have."""
    curve = judge(ScaleCurve(method, tuple(point(*one) for one in points), ("director: 5mbit",)))
    other = ScaleCurve(ForwardingMethod.TUN, obstacle="rs1 has no route")
    load = Load("wrk 4.1.0", ("client",), 2, 8192, 1.5, 1.0, 3)
    return Scale("methods", "web", 20, 500_000, load, (curve, other))
