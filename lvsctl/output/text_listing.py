"""The labs there are, as text: what `lvsctl ls` shows, and all that it needs to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lvsctl.output.style import Cell, Style, printable
from lvsctl.output.words import broken_on_purpose, host_port, method

if TYPE_CHECKING:
    from lvsctl.engine.results import Listed
    from lvsctl.model.lab import Lab

Row = list[str | Cell]

UP, CHANGING, BROKEN = "up", "changing", "broken"
"""lvsctl.kernel.registry.State's, without loading the kernel room for it."""


def listing(listed: Sequence[Listed], *, style: Style) -> str:
    """The labs there are, a line each; what is wrong with one stands below the table."""
    if not listed:
        return style.finished("no lab is running; start one: " + style.cyan("lvsctl up dr"))
    rows = [_listed_row(one, style) for one in listed]
    lines = [style.table(rows, headings=("lab", "state", "nodes", "services", "started"))]
    lines += [
        style.wrapped(f"{one.entry.lab}: {trouble}", hanging=2)
        for one in listed
        if (trouble := _trouble(one))
    ]
    lines += [broken_on_purpose(one.entry.lab, one.faults, style) for one in listed if one.faults]
    return style.finished("\n".join(lines))


def _listed_row(one: Listed, style: Style) -> Row:
    state = str(one.entry.state)
    if state == UP and not one.answering:
        state = "not answering"
    started = ""
    if one.entry.started:
        from datetime import UTC, datetime

        moment = datetime.fromtimestamp(one.entry.started, UTC)
        started = moment.strftime("%Y-%m-%d %H:%M UTC")
    return [
        Cell(one.entry.lab, style.bold),
        Cell(state, style.red if _trouble(one) else style.green, whole=True),
        Cell(str(len(one.lab.nodes)) if one.lab else "", right=True),
        _services(one.lab) if one.lab else "",
        started,
    ]


def _services(lab: Lab) -> str:
    return ", ".join(
        f"{service.name} {host_port(service.vip, service.key.port)} {method(service)}"
        for service in lab.services
    )


def _trouble(one: Listed) -> str:
    """What is wrong with a lab, with what to type; empty where it is fine."""
    name = one.entry.lab
    if one.entry.state == UP:
        if one.answering:
            return ""
        return f"what answers for its real servers has died: lvsctl down {name}, then up again"
    if one.entry.state == BROKEN:
        return f"{printable(one.entry.problem)}; remove it: lvsctl down {name}"
    if one.entry.state == CHANGING:
        return (
            f"a command is changing it, or did not get to the end: it is neither what it was nor "
            f"what it was to be; lvsctl up makes it anew, lvsctl down {name} removes it"
        )
    return f"a command is at it, or was killed: lvsctl down {name} removes what there is"
