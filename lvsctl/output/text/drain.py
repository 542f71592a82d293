"""What became of flows when a real server was taken out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lvsctl.model.flows import (
    Drain,
    DrainRow,
    FlowKind,
    FlowResult,
    FlowSetting,
    Idle,
    Outcome,
    SettingTrial,
)
from lvsctl.output.text.style import Cell, Paint, Style


def format_drain(result: Drain, *, style: Style) -> str:
    """Format the flows, the settings that decide, and what others would change."""
    how = f"--by {result.way}, seen by {result.client} for {result.window:g} s"
    lines = [style.heading(f"{result.lab}: {result.real_server} is taken out", how)]
    lines += [f"  {style.cyan(command)}" for command in result.commands]
    lines += ["", *_flows(result.flows, style), ""]
    lines += _settings(result.settings, style)
    if result.trials:
        lines += ["", "with another setting", *_trials(result, style)]
    asked = f"clients ask every {result.interval:g} ms; "
    lines += ["", style.dim(asked + _end(result))]
    return style.finished("\n".join(lines))


def format_idle(result: Idle, *, style: Style) -> str:
    """Format the flows that were silent, the settings that decide, and what others would change."""
    how = f"from {result.client} to {result.real_server}"
    title = f"{result.lab}: flows are silent for {result.idle:g} s"
    lines = [style.heading(title, how), "", *_flows(result.flows, style), ""]
    lines += _settings(result.settings, style)
    if result.trials:
        lines += ["", "with another setting", *_trials(result, style)]
    lines += ["", style.dim(_end(result))]
    return style.finished("\n".join(lines))


def _end(result: Drain | Idle) -> str:
    more = "" if result.trials else "; --try shows what other settings change"
    return f"the lab is as it was{more}"


def _settings(settings: Iterable[FlowSetting], style: Style) -> list[str]:
    rows: list[list[str | Cell]] = [
        [one.name, one.value, Cell(one.text, style.dim)] for one in settings
    ]
    return ["settings", style.table(rows, indent=2)]


def _flows(flows: Iterable[FlowResult], style: Style) -> list[str]:
    lines = []
    for flow in flows:
        paint = _paint(flow, style)
        lines.append(f"  {style.bold(f'{flow.kind:<11}')}  {paint(flow.text)}")
        if flow.why:
            lines.append(style.wrapped(flow.why, _INDENT))
        if flow.entry:
            lines.append(style.dim(style.wrapped(f"in IPVS's table: {flow.entry}", _INDENT)))
    return lines


_INDENT = 15


def _paint(flow: FlowResult, style: Style) -> Paint:
    match flow.outcome:
        case Outcome.WENT_ON | Outcome.MOVED:
            return style.yellow if flow.silent else style.green
        case Outcome.NOT_STARTED:
            return style.yellow
    return style.red


def _trials(result: Drain | Idle, style: Style) -> list[str]:
    before = {one.kind: one for one in result.flows}
    rows: list[list[str | Cell]] = []
    for trial in result.trials:
        name = f"{trial.setting.name}: {trial.setting.value}"
        if not trial.changed:
            rows.append([name, Cell("changes nothing", style.dim)])
        for kind, flow in _changed(trial):
            rows.append([name, f"{kind}: {flow.text} (now: {brief(before[kind])})"])
            name = ""
    return [style.table(rows, indent=2)]


def _changed(trial: SettingTrial) -> Sequence[tuple[FlowKind, FlowResult]]:
    return [(one.kind, one) for one in trial.flows if one.kind in trial.changed]


def brief(flow: FlowResult) -> str:
    """Return the outcome without figures, which differ from run to run."""
    if flow.failed and flow.servers and not flow.silent:
        return f"{flow.outcome} in part"
    if flow.outcome is Outcome.WENT_ON and len(flow.servers) > 1:
        return "went on in part"
    if flow.silent and flow.outcome not in (Outcome.SILENT, Outcome.TIMED_OUT):
        return f"silent, then {flow.outcome}"
    return str(flow.outcome)


def format_row(row: DrainRow) -> str:
    """Format one row of the matrix in a line."""
    sysctls = ", ".join(f"{name}={value}" for name, value in row.sysctls.items())
    return f"{row.way}, {sysctls}: " + "; ".join(f"{o.kind} {brief(o)}" for o in row.flows)


def format_matrix(rows: Sequence[DrainRow], *, style: Style) -> str:
    """Format the matrix, a line a row."""
    return style.finished("\n".join(style.wrapped(format_row(one), 0, 2) for one in rows))
