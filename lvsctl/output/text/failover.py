"""What happened while one director took over from another."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.model.claim import Verdict
from lvsctl.model.failover import Failover, Moment
from lvsctl.output.text.style import Cell, Style


def format_failover(result: Failover, *, style: Style) -> str:
    """Format the story in the order of time, the outage, the held connections, the claims."""
    if len(result.masters) > 1:
        title = f"{' and '.join(result.masters)} are master at the same time (split brain)"
    elif result.after == result.before:
        title = f"{result.after or 'no director'} is master as before"
    else:
        title = f"{result.before or 'no director'} → {result.after or 'no director'}"
    lines = [style.heading(f"{result.lab}: {title}", result.action), ""]
    rows: list[list[str | Cell]] = [
        [
            Cell(f"{step.at:+.0f} ms", right=True),
            Cell(step.text, style.bold) if step.moment is Moment.ACTION else step.text,
            Cell(f"#{step.frame}" if step.frame else "", style.dim),
        ]
        for step in result.steps
    ]
    lines += [style.table(rows, indent=2), "", style.wrapped(_outage(result), 0, 2), ""]
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


def _outage(result: Failover) -> str:
    asked = f"{result.client} asked every {result.interval:g} ms"
    if result.outage == 0:
        return f"outage: none; every request was answered at once ({asked}, {result.sent} requests)"
    if result.outage is None:
        return f"outage: no request was answered again ({asked}, {result.sent} requests)"
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
