"""Faults, and what they did to a lab, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lvsctl.model.claim import Finding, Verdict
from lvsctl.output.style import Cell, Style
from lvsctl.output.words import counted

if TYPE_CHECKING:
    from lvsctl.engine.campaign import Proof, Trial
    from lvsctl.engine.findings import FaultListed, FaultShown

Row = list[str | Cell]


def listing(faults: Sequence[FaultListed], lab: str | None, *, style: Style) -> str:
    """Every fault in a line; with a lab only those that it can have, and where."""
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


def shown(one: FaultShown, *, style: Style) -> str:
    """A fault in full: what it is, how it shows, what it breaks, how to make and mend it."""
    fault = one.fault
    rows: list[Row] = [
        [Cell("modes", style.dim), ", ".join(fault.modes)],
        [Cell("on the wire", style.dim), fault.symptom],
        [Cell("breaks", style.dim), ", ".join(one.predicted)],
    ]
    if fault.may_break:
        rows.append([Cell("may break", style.dim), ", ".join(fault.may_break)])
    lines = [style.heading(fault.id, fault.text), "", style.table(rows, indent=2)]
    lines += ["", f"  made at {one.node} of lab {one.lab} by"]
    lines += [f"    {style.cyan(command)}" for command in one.commands]
    lines += ["  and mended by"]
    lines += [f"    {style.cyan(command)}" for command in one.remedy]
    return style.finished("\n".join(lines))


def injected(one: FaultShown, *, style: Style) -> str:
    """What has just been broken, and what to type next."""
    lines = [f"{style.bold(one.lab)}: {style.yellow(one.fault.id)} at {one.node}: {one.fault.text}"]
    lines += [f"  {style.cyan(command)}" for command in one.commands]
    lines += [f"see it: {style.cyan(f'lvsctl verify {one.lab}')}"]
    lines += [f"mend it: {style.cyan(f'lvsctl fault restore --lab {one.lab}')}"]
    return style.finished("\n".join(lines))


def restored(faults: Sequence[str], lab: str, *, style: Style) -> str:
    """What has been taken back."""
    if not faults:
        return style.finished(f"{lab}: no fault is injected")
    return style.finished("\n".join(f"{lab}: {style.green('restored')} {one}" for one in faults))


def trial(one: Trial) -> str:
    """A trial in a line, for who waits."""
    return f"{one.fault.id} at {one.node}: {_outcome(one)}"


def proof(proof: Proof, *, style: Style) -> str:
    """A row for each fault, then what remains to be said of the claims, and the verdict."""
    lines: list[str] = []
    if proof.trials:
        rows = [_row(one, style) for one in proof.trials]
        headings = ("fault", "node", "predicted", "failed", "as predicted?")
        lines += [style.table(rows, headings=headings), ""]
    lines += _unwell(proof.before, "before any fault was injected", style)
    lines += _unwell(proof.after, "after all faults were taken back", style) if proof.trials else []
    for claim in proof.unbroken if proof.trials else ():
        told = f"{claim.id} is not broken by anything"
        if claim.unbroken:
            lines.append(style.dim(style.wrapped(f"{told}: {claim.unbroken}", hanging=2)))
        else:
            lines.append(style.red(f"{told} here"))
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
    words = [f"{claim} did not fail" for claim in one.missing]
    words += [f"{claim} failed too" for claim in one.surprising]
    return "no: " + (", ".join(words) or "it breaks nothing")


def _unwell(findings: Sequence[Finding], when: str, style: Style) -> Iterator[str]:
    for finding in findings:
        if finding.verdict is not Verdict.PASS:
            told = f"{when}: {finding.claim.id} {finding.verdict}: {finding.observed}"
            yield style.red(style.wrapped(told, hanging=2))


def _verdict(proof: Proof, style: Style) -> str:
    name = style.bold(proof.lab.name)
    if not proof.trials:
        return f"{name}: {style.red('not healthy, so nothing was injected')}"
    as_predicted = sum(one.as_predicted for one in proof.trials)
    told = f"{as_predicted} of {counted(len(proof.trials), 'fault')} broke what they must"
    broken = len(proof.claims) - len(proof.unbroken)
    told += f"; {broken} of {counted(len(proof.claims), 'claim')} broken by at least one"
    paint = style.green if proof.holds else style.red
    return f"{name}: {paint('proved' if proof.holds else 'not proved')} ({told})"
