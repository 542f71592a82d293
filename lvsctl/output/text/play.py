"""What happened during a drill."""

from __future__ import annotations

from lvsctl.model.claim import Verdict
from lvsctl.model.flows import Outcome
from lvsctl.model.played import Phase, Played
from lvsctl.output.text.style import Cell, Style


def format_played(result: Played, *, style: Style) -> str:
    """Format what happened after each step, the connections that were held, and the verdicts."""
    lines = [style.heading(f"{result.lab}: {result.drill}", result.description), ""]
    rows: list[list[str | Cell]] = [_phase(one, style) for one in result.phases]
    headings: list[str | Cell] = ["", "", Cell("requests", right=True), Cell("late", right=True)]
    headings += [Cell("lost", right=True), "answered by"]
    lines += [style.table(rows, headings=headings, indent=2), ""]
    if result.held:
        lines += ["held connections", *_held(result, style), ""]
    asked = f"{result.client} asked {result.service} every {result.interval:g} ms"
    lines += [style.wrapped(f"{_outage(result)} ({asked}, {result.sent} requests)", 0, 2), ""]
    verdicts: list[list[str | Cell]] = [
        [
            one.measure,
            Cell(one.verdict, _PAINT[one.verdict](style)),
            f"{one.observed}; expected {one.expected}",
        ]
        for one in result.expectations
    ]
    lines += [style.table(verdicts, indent=2)] if verdicts else []
    lines += [f"{result.lab}: {_PAINT[result.verdict](style)(str(result.verdict))}"]
    return style.finished("\n".join(lines))


_PAINT = {
    Verdict.PASS: lambda style: style.green,
    Verdict.FAIL: lambda style: style.red,
    Verdict.INCONCLUSIVE: lambda style: style.yellow,
}


def _phase(phase: Phase, style: Style) -> list[str | Cell]:
    servers = ", ".join(f"{name} {count}" for name, count in sorted(phase.servers.items()))
    lost, late = Cell(str(phase.lost), right=True), Cell(str(phase.late), right=True)
    return [
        Cell(f"{phase.began:.1f} s", right=True),
        Cell(phase.text, style.bold) if phase.text else Cell("before", style.dim),
        Cell(str(phase.sent), right=True),
        Cell(late.text, style.yellow, right=True) if phase.late else late,
        Cell(lost.text, style.red, right=True) if phase.lost else lost,
        servers,
    ]


def _held(result: Played, style: Style) -> list[str]:
    rows: list[list[str | Cell]] = [
        [
            one.client,
            Cell(one.text, style.green if one.outcome is Outcome.WENT_ON else style.red),
        ]
        for one in result.held
    ]
    return [style.table(rows, indent=2)]


def _outage(result: Played) -> str:
    if result.outage is None:
        return "outage: requests were not answered again"
    if not result.outage:
        return "outage: none"
    return (
        f"outage: {result.outage:.0f} ms without an answer that came at once, known to within "
        f"{result.resolution:.0f} ms"
    )
