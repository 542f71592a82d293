"""Why a lab does not work, for people."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.diagnosis import Cause
from lvsctl.engine.findings import Diagnosis
from lvsctl.output.phrases import counted
from lvsctl.output.text.style import Style, printable


def format_diagnosis(result: Diagnosis, *, style: Style) -> str:
    """Each cause with its evidence and remedy; without one, what was ruled out."""
    lines = [_verdict(result, style)]
    for number, cause in enumerate(result.causes, 1):
        lines += ["", *_cause(number, cause, style)]
    if not result.works and not result.causes:
        lines += _list("ruled out", result.ruled_out, style)
        lines += _list("look at", result.next_steps, style)
    lines += _list("no harm, but different", result.remarks, style)
    return style.finished("\n".join(lines))


def _verdict(result: Diagnosis, style: Style) -> str:
    name = style.bold(result.lab.name)
    if result.healthy:
        return f"{name}: {style.green('healthy')}, no cause to name"
    if not result.causes:
        return f"{name}: {style.red('does not work')}, and no rule says why"
    found = counted(len(result.causes), "cause")
    if result.works:
        return f"{name}: {style.yellow(found)}, though every request was answered as promised"
    return f"{name}: {style.red('does not work')}, {found}"


def _cause(number: int, cause: Cause, style: Style) -> Iterator[str]:
    label = style.dim(f"[{cause.fault}]")
    yield f"{number}. {style.bold(cause.node)}: {printable(cause.text)}  {label}"
    for fact in cause.evidence:
        yield style.wrapped(f"· {printable(fact)}", 3, 2)
    yield style.wrapped(f"so: {printable(cause.consequence)}", 3, 4)
    commands = cause.remedy.split(" && ")
    for position, command in enumerate(commands):
        lead = "mend it: " if position == 0 else " " * 9
        yield f"   {lead}{style.cyan(printable(command))}"


def _list(title: str, items: tuple[str, ...], style: Style) -> Iterator[str]:
    if items:
        yield ""
        yield style.bold(f"{title}:")
        for item in items:
            yield style.wrapped(f"· {printable(item)}", 2, 2)
