"""What ``up`` did, and the list of labs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from lvsctl.engine.labs import Listed
from lvsctl.model.lab import Lab
from lvsctl.output.phrases import (
    host_port,
    injected_faults,
    method,
)
from lvsctl.output.text.style import Cell, Style, printable

Row = list[str | Cell]

UP, CHANGING, BROKEN = "up", "changing", "broken"
"""Values of ``kernel.registry.State``."""


def format_labs(listed: Sequence[Listed], *, style: Style) -> str:
    """Format the list of labs; problems follow the table."""
    if not listed:
        return style.finished("no lab is running; start one: " + style.cyan("lvsctl up dr"))
    rows = [_listed_row(one, style) for one in listed]
    lines = [style.table(rows, headings=("lab", "state", "nodes", "services", "started"))]
    lines += [
        style.wrapped(f"{one.entry.lab}: {trouble}", hanging=2)
        for one in listed
        if (trouble := _trouble(one))
    ]
    lines += [injected_faults(one.entry.lab, one.faults, style) for one in listed if one.faults]
    return style.finished("\n".join(lines))


def _listed_row(one: Listed, style: Style) -> Row:
    state = str(one.entry.state)
    if state == UP and not one.answering:
        state = "not answering"
    started = ""
    if one.entry.started:
        moment = datetime.fromtimestamp(one.entry.started, UTC)
        started = moment.strftime("%Y-%m-%d %H:%M UTC")
    return [
        Cell(one.entry.lab, style.bold),
        Cell(state, style.red if _trouble(one) else style.green, whole=True),
        Cell(str(len(one.lab.nodes)) if one.lab else "", right=True),
        _services(one.lab) + _masters(one) if one.lab else "",
        started,
    ]


def _services(lab: Lab) -> str:
    return ", ".join(
        f"{service.name} {host_port(service.endpoint.vip, service.endpoint.port)} {method(service)}"
        for service in lab.services
    )


def _masters(one: Listed) -> str:
    if one.lab is not None and one.lab.ecmp:
        return f", {' and '.join(node.name for node in one.lab.directors)} are active"
    if one.lab is None or not one.lab.floating:
        return ""
    return f", {' and '.join(one.masters) or 'no director'} is master"


def _trouble(one: Listed) -> str:
    """Return what is wrong with a lab, with a remedy; empty if it is fine."""
    name = one.entry.lab
    if one.entry.state == UP:
        if one.answering:
            return ""
        return (
            "the process that answers for its real servers is not running: "
            f"lvsctl down {name}, then lvsctl up"
        )
    if one.entry.state == BROKEN:
        return f"{printable(one.entry.problem)}; remove it: lvsctl down {name}"
    if one.entry.state == CHANGING:
        return (
            "a command is changing it, or was interrupted: it may match neither its old nor its "
            f"new topology; lvsctl up changes it again, lvsctl down {name} removes it"
        )
    return f"a command is creating or removing it, or was killed: lvsctl down {name} removes it"
