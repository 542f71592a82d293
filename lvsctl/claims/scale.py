"""Whether throughput over the number of real servers bends where the links' rates say. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from lvsctl.model.claim import Verdict
from lvsctl.model.scale import Bend, ScaleCurve, ScalePoint

TOLERANCE = 0.15
"""By which part throughput may differ from what is expected, and a proportion from itself.

Requests and acknowledgements take some of a link that replies share, and so does what is sent
again where a queue overflows.
"""

SPREAD = 0.15
"""The part of the throughput by which the windows of a point differ that decides nothing.

Those of a full link hardly differ. Where they do, something else was in the way, such as other
programs on this machine.
"""

BUSY = 0.9
"""The share of the processors beyond which the machine, and not a link, may be the limit."""


def bend_of(values: Sequence[tuple[int, float]]) -> Bend | None:
    """Find where ``values``, throughput by number of real servers, stop growing in proportion.

    The first one is the measure. None where there is nothing to compare it with.
    """
    if len(values) < 2 or values[0][1] <= 0:
        return None
    each = values[0][1] / values[0][0]
    after = values[0][0]
    for servers, throughput in values[1:]:
        if throughput < (1 - TOLERANCE) * servers * each:
            return Bend(after, servers)
        after = servers
    return Bend(after, 0)


def judge(curve: ScaleCurve) -> ScaleCurve:
    """Decide a curve: each measured point against what the links' rates allow."""
    points = curve.points
    measured = bend_of([(one.servers, one.whole) for one in points])
    curve = replace(curve, bend=measured)
    expected = [(one.servers, one.expected) for one in points if one.expected is not None]
    if len(expected) < len(points) or not points:
        return replace(curve, text="no link on the return path has a rate")
    predicted = bend_of(expected)
    found = _decided(points, measured, predicted)
    return replace(curve, predicted=predicted, verdict=found.verdict, text=found.text)


class _Decided(NamedTuple):
    verdict: Verdict
    text: str


def _decided(
    points: Sequence[ScalePoint], measured: Bend | None, predicted: Bend | None
) -> _Decided:
    wrong = [one for one in points if _off(one)]
    if not wrong:
        what = _bend_text(measured)
        if measured == predicted:
            return _Decided(Verdict.PASS, f"{what}, as the links' rates say")
        # Within the tolerance of every point, and the proportion just beyond it.
        return _Decided(Verdict.PASS, f"{what}; every point is within 15 % of the links' rates")
    worst = max(wrong, key=_deviation)
    where = f"with {worst.servers} real server{'s' if worst.servers > 1 else ''}"
    expected = worst.expected or 0.0
    less = "less" if worst.whole < expected else "more"
    text = f"{where} {_deviation(worst):.0%} {less} than the links' rates say"
    if all(one.busy >= BUSY and one.whole < (one.expected or 0.0) for one in wrong):
        return _Decided(
            Verdict.INCONCLUSIVE, f"{text}: this machine's processors were {worst.busy:.0%} busy"
        )
    if all(map(is_unsteady, wrong)):
        return _Decided(Verdict.INCONCLUSIVE, f"{text}, and the windows differ by more than that")
    return _Decided(Verdict.FAIL, text)


def is_unsteady(point: ScalePoint) -> bool:
    """Whether a point differs from what is expected, and its windows from each other."""
    return _off(point) and point.most - point.least > SPREAD * point.whole


def _deviation(point: ScalePoint) -> float:
    expected = point.expected or 0.0
    return abs(point.whole - expected) / expected if expected else 0.0


def _off(point: ScalePoint) -> bool:
    return _deviation(point) > TOLERANCE


def _bend_text(bend: Bend | None) -> str:
    if bend is None:
        return "measured with one number of real servers"
    if not bend.before:
        return f"grows with every real server, up to {bend.after}"
    return f"bends after {bend.after}, before {bend.before} real servers"
