"""What hosts and machines offer, and the shipped topologies, as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from lvsctl.kernel.probe import Feature
from lvsctl.machine.client import MachineStatus
from lvsctl.machine.kinds import KindStatus
from lvsctl.output.phrases import counted, duration
from lvsctl.output.text.style import Cell, Style, printable

Row = list[str | Cell]


def format_features(features: Iterable[Feature], where: str, *, style: Style) -> str:
    """Format whether labs can run on a kernel, what helps, and its features: first what is so."""
    found = _merged(features)
    lines = [_ability(found, where, style)]
    remedies: dict[str, list[str]] = {}
    for feature in found:
        if not feature.present:
            remedies.setdefault(feature.remedy, []).append(feature.id)
    if remedies:
        lines += ["  What helps:"]
        for remedy, ids in remedies.items():
            what: list[Row] = [[Cell(", ".join(ids), style.dim)]]
            # On a line of its own, so that it can be copied.
            lines += ["    " + style.cyan(remedy), style.table(what, indent=8)]
    order = sorted(found, key=lambda feature: not feature.present)
    rows = [_feature_row(feature, style) for feature in order]
    return style.finished("\n".join([*lines, "", style.table(rows, indent=2)]))


def format_verdict(*, host: bool, machine: bool, remark: str, style: Style) -> str:
    """Format doctor's first line: whether and where labs can run on this computer.

    ``remark`` says how the throwaway kernel is, if it is not running.
    """
    if host:
        text = style.green("Labs can run here, on the host's kernel") + ": lvsctl up dr"
    elif machine:
        text = style.green("Labs can run here, in the throwaway kernel") + ": lvsctl up dr"
    else:
        text = style.red("Labs cannot run here yet")
    return text + (f"\n{style.bold('throwaway kernel')}: {remark}" if remark else "")


def _feature_row(feature: Feature, style: Style) -> Row:
    if feature.present:
        sign = Cell("ok", style.green)
    elif not feature.known:
        sign = Cell("unknown", style.dim)
    elif feature.optional:
        sign = Cell("absent", style.yellow)
    else:
        sign = Cell("missing", style.red)
    return [sign, feature.id, printable(feature.text), Cell(feature.needed_for, style.dim)]


def _ability(found: Sequence[Feature], where: str, style: Style) -> str:
    needed = [one for one in found if not (one.present or one.optional) and one.known]
    if any(feature.needed_for == EVERY_MODE for feature in needed):
        return style.red(f"{where}: labs cannot run here")
    if needed:
        without = ", ".join(dict.fromkeys(feature.needed_for for feature in needed))
        return style.yellow(f"{where}: labs can run here, but not {without}")
    if any(not one.known and one.needed_for == EVERY_MODE for one in found):
        return f"{style.bold(where)}: whether labs can run here is not known without root"
    return style.green(f"{where}: labs can run here")


EVERY_MODE = "every mode"
"""``needed_for`` of the features without which no lab can run."""


_MODPROBE = "sudo modprobe "


def _merged(features: Iterable[Feature]) -> list[Feature]:
    """Merge the schedulers with the same finding and remedy into one row."""
    merged: dict[tuple[str, str, bool, str], Feature] = {}
    for feature in features:
        kind, _, name = feature.id.partition(" ")
        if kind != "scheduler":
            merged[feature.id, "", True, ""] = feature
            continue
        # "module ip_vs_rr, not tried" is the same finding for each
        found = feature.text.replace(f"ip_vs_{name}", "ip_vs_…")
        by_modprobe = feature.remedy.startswith(_MODPROBE)
        key = kind, found, feature.present, _MODPROBE if by_modprobe else feature.remedy
        known = merged.get(key)
        merged[key] = (
            replace(feature, text=found, remedy=feature.remedy)
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
    """Combine two remedies: `modprobe -a` loads several modules."""
    if other == remedy or not other.startswith(_MODPROBE):
        return remedy
    return (
        remedy.replace("sudo modprobe ip", "sudo modprobe -a ip")
        + " "
        + other.rsplit(maxsplit=1)[-1]
    )


def format_topologies(summaries: Mapping[str, str], *, style: Style) -> str:
    """Format the list of shipped topologies."""
    rows: list[Row] = [[Cell(name, style.bold), summary] for name, summary in summaries.items()]
    example = style.cyan("lvsctl up " + next(iter(summaries), "./mine.yaml"))
    return style.finished(f"{style.table(rows)}\n\nStart one: {example}")


def format_machine(
    status: MachineStatus | None, features: Mapping[str, bool], *, style: Style
) -> str:
    """Format the state of the machine; ``features`` by the ids that doctor shows."""
    if status is None:
        start = style.cyan("lvsctl machine start")
        return style.finished(f"no machine is running; start one: {start}")
    used = status.memory - status.memory_available
    missing = ", ".join(name for name, has in features.items() if not has)
    rows: list[Row] = [
        ["kernel", " ".join(filter(None, [status.title, status.release]))],
        ["missing", missing or "nothing"],
        ["runs on", _EXECUTION[status.accelerator] + f", {counted(status.cpus, 'core')}"],
        ["up", duration(status.uptime)],
        ["memory", f"{used} of {status.memory} MiB in use"],
        ["running", counted(status.commands, "command")],
        ["writable", ", ".join(map(printable, status.writable)) or "nothing on the host"],
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


_EXECUTION = {"": "host CPU", "kvm": "KVM", "tcg": "emulation (TCG)"}
"""By accelerator."""


def format_machine_kinds(kinds: Sequence[KindStatus], *, style: Style) -> str:
    """Format the kinds of machine: which this host can run, and why not the others."""
    rows: list[Row] = []
    for kind in kinds:
        mark = Cell("no", style.red) if kind.obstacle else Cell("yes", style.green)
        rows.append([Cell(kind.name, style.bold), kind.title, mark, kind.obstacle or kind.how])
        for name, release in kind.kernels.items():
            what = release if name == release else f"{printable(name)}: {release}"
            rows.append(["", "", "", f"ready: {what}"])
    heads: Row = [Cell(head, style.dim) for head in ("kind", "", "here", "how, or why not")]
    choose = style.cyan("lvsctl machine start --kind qemu --kernel 6.12")
    return style.finished(f"{style.table([heads, *rows])}\n\nChoose: {choose}")
