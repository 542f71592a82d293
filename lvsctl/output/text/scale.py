"""Throughput over the number of real servers, as tables."""

from __future__ import annotations

from lvsctl.model.claim import Verdict
from lvsctl.model.scale import Scale, ScaleCurve, ScalePoint
from lvsctl.output.text.style import Cell, Paint, Style

VERDICTS = {Verdict.PASS: "fits", Verdict.FAIL: "does not fit", Verdict.INCONCLUSIVE: "undecided"}
"""What a curve's verdict is called."""

HEADINGS = ("servers", "expected", "measured", "windows", "p50", "p99", "link",
             "bytes", "busy")  # fmt: skip
"""Of the table of a forwarding method."""


def format_scale(result: Scale, *, style: Style) -> str:
    """Format a table for each forwarding method, and the verdict on it."""
    lines = [style.heading(f"{result.topology}: throughput over the number of real servers",
                           f"service {result.service}")]  # fmt: skip
    lines += [style.wrapped(line, 2, 2) for line in conditions(result)]
    for curve in result.curves:
        lines += ["", *_curve(curve, style)]
    lines += ["", *(style.dim(style.wrapped(line, 0, 2)) for line in LEGEND)]
    return style.finished("\n".join(lines))


def conditions(result: Scale) -> list[str]:
    """Return how it was measured, a sentence each."""
    load = result.load
    clients = ", ".join(load.clients)
    rate = f"at most {megabits(result.own_rate)} Mbit/s each" if result.own_rate else "no rate"
    sent = (
        f"load: {load.tool}; {clients}, {load.connections} connections for each real server, "
        f"replies of {load.reply} bytes; what a client receives has no rate"
    )
    measured = (
        f"measured: {load.windows} windows of {load.seconds:g} s after {load.warm_up:g} s; "
        "nothing is captured meanwhile"
    )
    servers = (
        f"real servers: {result.built} in each lab, {rate}; those that are not in the service are "
        "out of IPVS's table and idle"
    )
    return [sent, measured, servers]


_SPEED = (
    "Mbit/s of frames that the clients receive: expected from the links' rates, measured, and the "
    "slowest, median and fastest window; p50, p99: ms until a reply was complete, from the first "
    "request on"
)
_LOAD = (
    "link: how full the director's fullest link is; bytes: in and out of the director for each "
    "byte that a client receives; busy: this machine's processors"
)
LEGEND = (_SPEED, _LOAD)
"""What the columns are."""


def _curve(curve: ScaleCurve, style: Style) -> list[str]:
    if curve.obstacle:
        return [style.bold(str(curve.method)), style.wrapped(f"not here: {curve.obstacle}", 2, 2)]
    rows = [_row(point, style) for point in curve.points]
    headings = [Cell(text, right=True) for text in HEADINGS]
    lines = [style.bold(str(curve.method)), style.table(rows, headings=headings, indent=2)]
    lines += [style.wrapped(line, 2, 2) for line in remarks(curve)]
    if curve.verdict is None:
        return [*lines, style.wrapped(curve.text, 2, 2)]
    paint = _PAINT[curve.verdict](style)
    return [*lines, f"  {paint(VERDICTS[curve.verdict])}: {style.wrapped(curve.text, 4).lstrip()}"]


_PAINT = {
    Verdict.PASS: lambda style: style.green,
    Verdict.FAIL: lambda style: style.red,
    Verdict.INCONCLUSIVE: lambda style: style.yellow,
}


def remarks(curve: ScaleCurve) -> list[str]:
    """Return which links the replies share, and when the director's would be full."""
    shared = ", ".join(curve.limits) or "none with a rate"
    found = [f"links that replies share: {shared}"]
    if curve.full_at:
        link = curve.points[-1].director.busiest
        found.append(f"{link} is full at about {curve.full_at} real servers (calculated)")
    again = [str(point.servers) for point in curve.points if point.tries > 1]
    if again:
        found.append(f"measured twice, because the windows differed: {', '.join(again)}")
    return found


def cells(point: ScalePoint) -> tuple[str, ...]:
    """Return the texts of a point's row."""
    latency, director = point.latency, point.director
    return (
        str(point.servers),
        "–" if point.expected is None else megabits(point.expected),
        megabits(point.whole),
        " ".join(map(megabits, (point.least, point.middle, point.most))),
        f"{latency.p50:.0f}" if latency else "–",
        f"{latency.p99:.0f}" if latency else "–",
        f"{director.use:.0%}" if director.busiest else "–",
        f"{director.bytes:.2f}",
        f"{point.busy:.0%}",
    )


def _row(point: ScalePoint, style: Style) -> list[str | Cell]:
    paints: dict[int, Paint] = {2: style.bold}
    return [
        Cell(text, paints.get(number, str), right=True) for number, text in enumerate(cells(point))
    ]


def megabits(rate: float) -> str:
    """Format bits per second as Mbit/s."""
    return f"{rate / 1e6:.2f}" if rate < 1e7 else f"{rate / 1e6:.1f}"
