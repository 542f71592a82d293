"""What happened while one director took over from another."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.model.claim import Verdict
from lvsctl.model.failover import Failover, Moment
from lvsctl.output.text.style import Cell, Style


def format_failover(result: Failover, *, style: Style) -> str:
    """Format the story in the order of time, the outage, the held connections, the claims."""
    lines = [style.heading(f"{result.lab}: {title_text(result)}", result.action), ""]
    rows: list[list[str | Cell]] = [
        [
            Cell(f"{step.at:+.0f} ms", right=True),
            Cell(step.text, style.bold) if step.moment is Moment.ACTION else step.text,
            Cell(f"#{step.frame}" if step.frame else "", style.dim),
        ]
        for step in result.steps
    ]
    lines += [style.table(rows, indent=2), "", style.wrapped(outage_text(result), 0, 2), ""]
    lines += _held(result, style)
    lines.append(
        style.table(
            [
                [
                    one.claim.id,
                    Cell(one.verdict, _PAINT[one.verdict](style)),
                    one.observed,
                ]
                for one in result.findings
            ],
            indent=2,
        )
    )
    if not result.back:
        lines += ["", f"bring it back: {style.cyan(f'lvsctl failover {result.lab} --back')}"]
    return style.finished("\n".join(lines))


_PAINT = {
    Verdict.PASS: lambda style: style.green,
    Verdict.FAIL: lambda style: style.red,
    Verdict.INCONCLUSIVE: lambda style: style.yellow,
}


def title_text(result: Failover) -> str:
    """Return who was master and who is."""
    if len(result.masters) > 1:
        return f"{' and '.join(result.masters)} are master at the same time (split brain)"
    if result.lossy is not None and result.back:
        return f"flows go to {result.after} again"
    if result.lossy is not None:
        return f"{result.before} is lost, {result.after} is left"
    if result.after == result.before:
        return f"{result.after or 'no director'} is master as before"
    return f"{result.before or 'no director'} → {result.after or 'no director'}"


def outage_text(result: Failover) -> str:
    """Return how long no request was answered at once, and how that was measured."""
    asked = f"{result.client} asked every {result.interval:g} ms"
    if result.lossy:
        rest = "" if result.outage is not None else "; not over when the client stopped"
        return (
            f"for {result.lossy:.0f} ms not every request was answered at once ({asked}; "
            f"{result.answered} of {result.sent} answered at once){rest}"
        )
    if result.outage == 0:
        return f"outage: none; every request was answered at once ({asked}, {result.sent} requests)"
    if result.outage is None:
        return (
            f"outage: not over when the client stopped ({asked}; {result.answered} of "
            f"{result.sent} answered at once)"
        )
    return (
        f"outage: {result.outage:.0f} ms without an answer, known to within "
        f"{result.resolution:.0f} ms ({asked}; {result.answered} of {result.sent} answered at "
        "once)"
    )


def _held(result: Failover, style: Style) -> Iterator[str]:
    if not result.held:
        return
    survived = sum(one.survived for one in result.held)
    yield f"{survived} of {len(result.held)} connections that were open survived"
    yield style.table(
        [
            [
                one.client,
                one.real_server,
                Cell(f"{one.packets} packets", right=True),
                Cell("survived", style.green) if one.survived else Cell(one.why, style.red),
            ]
            for one in result.held
        ],
        indent=2,
    )
    yield ""
