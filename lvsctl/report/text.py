"""What people read, a function for each thing that is reported.

All are pure and return the whole text, newline at its end. The longer ones have a
module of their own (``text_…``) and are only named here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lvsctl.report.style import Cell, Style, printable
from lvsctl.report.text_inspection import inspection
from lvsctl.report.text_plan import plan
from lvsctl.report.text_up import up
from lvsctl.report.text_verification import verification
from lvsctl.report.words import broken_on_purpose, counted, duration, host_port, method

if TYPE_CHECKING:
    from lvsctl.kernel.probe import Feature
    from lvsctl.model.lab import Lab
    from lvsctl.report.machine_status import MachineStatus
    from lvsctl.results import Listed

__all__ = [
    "features",
    "inspection",
    "listing",
    "machine",
    "plan",
    "topologies",
    "up",
    "verification",
]


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
        return f"a command is changing it, or was killed: lvsctl up {name} makes it anew"
    return f"a command is at it, or was killed: lvsctl down {name} removes what there is"


def features(features: Iterable[Feature], where: str, *, style: Style) -> str:
    """What a kernel and its tools have, how to mend what they lack, and what that comes to."""
    found = _merged(features)
    rows = [_feature_row(feature, style) for feature in found]
    lines = [style.bold(where), style.table(rows, indent=2)]
    remedies: dict[str, list[str]] = {}
    for feature in found:
        if not feature.present:
            remedies.setdefault(feature.remedy, []).append(feature.id)
    if remedies:
        mended: list[Row] = [
            [Cell(remedy, style.cyan, whole=True), Cell(", ".join(ids), style.dim)]
            for remedy, ids in remedies.items()
        ]
        lines += ["", "To mend it:", style.table(mended, indent=2)]
    return style.finished("\n".join([*lines, "", _ability(found, where, style)]))


def _feature_row(feature: Feature, style: Style) -> Row:
    if feature.present:
        sign = Cell("ok", style.green)
    elif feature.optional:
        sign = Cell("absent", style.yellow)
    else:
        sign = Cell("missing", style.red)
    return [sign, feature.id, printable(feature.says), Cell(feature.needed_for, style.dim)]


def _ability(found: Sequence[Feature], where: str, style: Style) -> str:
    needed = [feature for feature in found if not feature.present and not feature.optional]
    if any(feature.needed_for == EVERY_MODE for feature in needed):
        return style.red(f"{where}: labs cannot run here")
    if needed:
        without = ", ".join(dict.fromkeys(feature.needed_for for feature in needed))
        return style.yellow(f"{where}: labs can run here, but not {without}")
    return style.green(f"{where}: labs can run here")


EVERY_MODE = "every mode"
"""What the features without which no lab runs are needed for."""


def _merged(features: Iterable[Feature]) -> list[Feature]:
    """Schedulers in one row where the same was found of them: there are fourteen."""
    merged: dict[tuple[str, str, bool], Feature] = {}
    for feature in features:
        kind, _, name = feature.id.partition(" ")
        if kind != "scheduler":
            merged[feature.id, "", True] = feature
            continue
        # "module ip_vs_rr, not tried": the same of each
        says = feature.says.replace(f"ip_vs_{name}", "ip_vs_…")
        known = merged.get((kind, says, feature.present))
        merged[kind, says, feature.present] = (
            replace(feature, says=says, remedy=feature.remedy)
            if known is None
            else replace(
                known,
                id=f"{known.id} {name}",
                needed_for="services with these schedulers",
                remedy=_both(known.remedy, feature.remedy),
                optional=known.optional and feature.optional,
            )
        )
    return list(merged.values())


def _both(remedy: str, other: str) -> str:
    """Two remedies in one: `modprobe` loads several modules with -a."""
    if other == remedy or not other.startswith("sudo modprobe "):
        return remedy
    return (
        remedy.replace("sudo modprobe ip", "sudo modprobe -a ip")
        + " "
        + other.rsplit(maxsplit=1)[-1]
    )


def topologies(summaries: Mapping[str, str], *, style: Style) -> str:
    """The shipped topologies."""
    rows: list[Row] = [[Cell(name, style.bold), summary] for name, summary in summaries.items()]
    example = style.cyan("lvsctl up " + next(iter(summaries), "./mine.yaml"))
    return style.finished(f"{style.table(rows)}\n\nStart one: {example}")


def machine(status: MachineStatus | None, *, style: Style) -> str:
    """The throwaway kernel: whether it runs, and what it can."""
    if status is None:
        start = style.cyan("lvsctl machine start")
        return style.finished(f"no machine is running; start one: {start}")
    used = status.memory - status.memory_available
    rows: list[Row] = [
        ["kernel", f"User-Mode Linux {status.release}"],
        ["up", duration(status.uptime)],
        ["memory", f"{used} of {status.memory} MiB in use"],
        ["running", counted(status.commands, "command")],
        ["writable", ", ".join(map(printable, status.writable)) or "nothing of the host's"],
        ["pid", str(status.pid)],
        ["socket", printable(str(status.socket))],
    ]
    rows += [["!", Cell(printable(one), style.yellow)] for one in status.complaints]
    if status.failed_modules:
        failed = ", ".join(
            f"{name} ({printable(why)})" for name, why in sorted(status.failed_modules.items())
        )
        rows.append(["!", Cell(f"kernel modules that did not load: {failed}", style.yellow)])
    heading = f"machine {status.name}: " + style.green("running")
    return style.finished(heading + "\n" + style.table(rows, indent=2))
