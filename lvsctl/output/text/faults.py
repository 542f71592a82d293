"""Faults, counter-experiments, and the matrix of faults and topologies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lvsctl.engine import campaign
from lvsctl.engine.campaign import Column, Proof, Trial
from lvsctl.engine.findings import FaultListed, FaultShown
from lvsctl.faults import FAULTS
from lvsctl.model.claim import Finding, Verdict
from lvsctl.output.phrases import counted
from lvsctl.output.text.style import Cell, Style

Row = list[str | Cell]


def format_faults(faults: Sequence[FaultListed], lab: str | None, *, style: Style) -> str:
    """Format the list of faults; with a lab only those that apply to it, with their nodes."""
    if lab is None:
        rows: list[Row] = [
            [Cell(one.fault.id, style.bold), ", ".join(one.fault.modes), one.fault.text]
            for one in faults
        ]
        return style.finished(style.table(rows, headings=("fault", "modes", "what it is")))
    rows = [
        [
            Cell(one.fault.id, style.bold),
            ", ".join(one.nodes),
            one.fault.text,
            Cell(f"injected at {', '.join(one.injected)}" if one.injected else "", style.yellow),
        ]
        for one in faults
        if one.nodes
    ]
    return style.finished(style.table(rows, headings=("fault", "nodes", "what it is", "")))


def format_fault(one: FaultShown, *, style: Style) -> str:
    """Format a fault in full: symptom, broken claims, commands to inject and restore it."""
    fault = one.fault
    rows: list[Row] = [
        [Cell("modes", style.dim), ", ".join(fault.modes)],
        [Cell("on the wire", style.dim), fault.symptom],
        [Cell("breaks", style.dim), ", ".join(one.predicted)],
    ]
    if fault.may_break:
        rows.append([Cell("may break", style.dim), ", ".join(fault.may_break)])
    lines = [style.heading(fault.id, fault.text), "", style.table(rows, indent=2)]
    lines += ["", f"  injected at {one.node} of lab {one.lab} by"]
    lines += [f"    {style.cyan(command)}" for command in one.commands]
    lines += ["  and restored by"]
    lines += [f"    {style.cyan(command)}" for command in one.remedy]
    return style.finished("\n".join(lines))


def format_injected(one: FaultShown, *, style: Style) -> str:
    """Format an injected fault, with the commands to see and to remove it."""
    lines = [f"{style.bold(one.lab)}: {style.yellow(one.fault.id)} at {one.node}: {one.fault.text}"]
    lines += [f"  {style.cyan(command)}" for command in one.commands]
    lines += [f"see it: {style.cyan(f'lvsctl verify {one.lab}')}"]
    lines += [f"remove it: {style.cyan(f'lvsctl fault restore --lab {one.lab}')}"]
    return style.finished("\n".join(lines))


def format_restored(faults: Sequence[str], lab: str, *, style: Style) -> str:
    """Format the faults that were removed."""
    if not faults:
        return style.finished(f"{lab}: no fault is injected")
    return style.finished("\n".join(f"{lab}: {style.green('restored')} {one}" for one in faults))


def format_trial(one: Trial) -> str:
    """Format a trial in one line, as progress."""
    outcome = "detected as predicted" if one.as_predicted else _outcome(one)
    return f"{one.fault.id} at {one.node}: {outcome}"


def format_proof(proof: Proof, *, style: Style) -> str:
    """Format a row for each fault, the claims that no fault broke, and the verdict."""
    lines: list[str] = []
    if proof.trials:
        rows = [_row(one, style) for one in proof.trials]
        headings = ("fault", "node", "predicted", "failed", "as predicted?")
        lines += [style.table(rows, headings=headings), ""]
    lines += _not_passing(proof.before, "before any fault was injected", style)
    lines += (
        _not_passing(proof.after, "after all faults were removed", style) if proof.trials else []
    )
    for claim in proof.unbroken if proof.trials else ():
        told = f"no fault breaks {claim.id}"
        if claim.unbroken:
            lines.append(style.dim(style.wrapped(f"{told}: {claim.unbroken}", hanging=2)))
        else:
            lines.append(style.red(f"{told} in this lab"))
    lines.append(_verdict(proof, style))
    return style.finished("\n".join(lines))


def _row(one: Trial, style: Style) -> Row:
    paint = style.green if one.as_predicted else style.red
    return [
        Cell(one.fault.id, style.bold),
        one.node,
        " ".join(one.predicted),
        " ".join(one.failed_claims) or "none",
        Cell(_outcome(one), paint),
    ]


def _outcome(one: Trial) -> str:
    if one.as_predicted:
        return "yes"
    return "no: " + (", ".join(one.wrong) or "no claim failed")


def _not_passing(findings: Sequence[Finding], when: str, style: Style) -> Iterator[str]:
    for finding in findings:
        if finding.verdict is not Verdict.PASS:
            told = f"{when}: {finding.claim.id} {finding.verdict}: {finding.observed}"
            yield style.red(style.wrapped(told, hanging=2))


def _verdict(proof: Proof, style: Style) -> str:
    name = style.bold(proof.lab.name)
    if not proof.trials:
        return f"{name}: {style.red('not healthy, so nothing was injected')}"
    as_predicted = sum(one.as_predicted for one in proof.trials)
    told = (
        f"{as_predicted} of {counted(len(proof.trials), 'fault')} broke the claims that they must"
    )
    broken = len(proof.claims) - len(proof.unbroken)
    told += f"; {broken} of {counted(len(proof.claims), 'claim')} broken by at least one"
    paint = style.green if proof.holds else style.red
    return f"{name}: {paint('proved' if proof.holds else 'not proved')} ({told})"


def format_matrix(columns: Sequence[Column], *, style: Style) -> str:
    """Format a row for each injected fault, then every cell that does not hold."""
    cells = {(c.trial.fault.id, column.topology): c for column in columns for c in column.cells}
    rows: list[list[str | Cell]] = []
    for fault in FAULTS:
        found = [cells.get((fault, column.topology)) for column in columns]
        if any(found):
            rows.append([Cell(fault, style.bold), *(_mark(cell, style) for cell in found)])
    lines = []
    if rows:
        headings = ("fault", *(column.topology for column in columns))
        lines += [style.table(rows, headings=headings), ""]
    for column in columns:
        if not column.before.healthy:
            told = f"{column.topology} was not healthy before any fault was injected"
            lines.append(style.red(style.wrapped(f"{told}: {column.before.text}", hanging=2)))
        elif column.after is not None and not column.after.healthy:
            told = f"{column.topology} is not healthy after all faults were removed"
            lines.append(style.red(style.wrapped(f"{told}: {column.after.text}", hanging=2)))
    wrong = [cell for cell in cells.values() if not cell.holds]
    for cell in wrong:
        told = f"{cell.topology}: {format_cell(cell)}"
        lines.append(style.red(style.wrapped(told, hanging=2)))
    good = f"{len(cells) - len(wrong)} of {counted(len(cells), 'cell')} ok"
    paint = style.green if cells and not wrong else style.red
    lines.append(paint(good))
    return style.finished("\n".join(lines))


def _mark(cell: campaign.Cell | None, style: Style) -> Cell:
    if cell is None:
        return Cell("–", style.dim)
    return Cell("ok" if cell.holds else "WRONG", style.green if cell.holds else style.red)


def format_cell(cell: campaign.Cell) -> str:
    """Format a cell in one line, as progress."""
    said = "named first, detected as predicted, restored" if cell.holds else "; ".join(cell.wrong)
    return f"{cell.trial.fault.id} at {cell.trial.node}: {said}"
