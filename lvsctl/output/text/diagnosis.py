"""Causes and remedies as text."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.diagnosis import Cause
from lvsctl.engine.findings import Diagnosis
from lvsctl.output.phrases import counted
from lvsctl.output.text.style import Style, printable


def format_diagnosis(result: Diagnosis, *, style: Style) -> str:
    """Format each cause with its evidence and remedy; without causes, what was ruled out."""
    lines = [_verdict(result, style)]
    for number, cause in enumerate(result.causes, 1):
        lines += ["", *_cause(number, cause, style)]
    if not result.works and not result.causes:
        lines += _list("ruled out", result.ruled_out, style)
        lines += _list("next steps", result.next_steps, style)
    lines += _list("differs from the topology, harmless", result.remarks, style)
    return style.finished("\n".join(lines))


def _verdict(result: Diagnosis, style: Style) -> str:
    name = style.bold(result.lab.name)
    if result.healthy:
        return f"{name}: {style.green('healthy')}: no problem found"
    if not result.causes:
        return f"{name}: {style.red('not working')}; cause not identified"
    found = counted(len(result.causes), "cause")
    if result.works:
        return f"{name}: {style.yellow(found)}, although every request was answered as required"
    return f"{name}: {style.red('not working')}, {found}"


def _cause(number: int, cause: Cause, style: Style) -> Iterator[str]:
    label = style.dim(f"[{cause.fault}]")
    yield f"{number}. {style.bold(cause.node)}: {printable(cause.text)}  {label}"
    for fact in cause.evidence:
        yield style.wrapped(f"· {printable(fact)}", 3, 2)
    yield style.wrapped(f"so: {printable(cause.consequence)}", 3, 4)
    commands = cause.remedy.split(" && ")
    for position, command in enumerate(commands):
        lead = "remedy: " if position == 0 else " " * 8
        yield f"   {lead}{style.cyan(printable(command))}"


def _list(title: str, items: tuple[str, ...], style: Style) -> Iterator[str]:
    if items:
        yield ""
        yield style.bold(f"{title}:")
        for item in items:
            yield style.wrapped(f"· {printable(item)}", 2, 2)
