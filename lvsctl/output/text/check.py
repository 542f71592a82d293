"""Text: how real hosts differ from a topology."""

from __future__ import annotations

from lvsctl.engine.findings import Check, CheckedHost
from lvsctl.output.phrases import counted
from lvsctl.output.text.style import Cell, Style, printable
from lvsctl.output.text.verification import cause_lines, claim_lines, listed


def format_check(result: Check, *, style: Style) -> str:
    """Format what was judged, each cause with its evidence and remedy, and what is in order."""
    lines = [_heading(result, style), ""]
    lines.append(style.table([_host(host, style) for host in result.hosts], indent=2))
    for number, cause in enumerate(result.causes, 1):
        lines += ["", *cause_lines(number, cause, style)]
    if result.findings:
        lines += ["", *claim_lines(result.lab, result.findings, style)]
    if result.healthy:
        lines += listed("in order", result.ruled_out, style)
    lines += listed("differs from the topology, or was not judged", result.remarks, style)
    return style.finished("\n".join(lines))


def _heading(result: Check, style: Style) -> str:
    name = style.bold(result.lab.name)
    judged = sum(not host.problem for host in result.hosts)
    silent = sum(not host.judged for host in result.hosts)
    missing = f", {style.red(counted(silent, 'host') + ' not judged')}" if silent else ""
    hosts = counted(judged, "host")
    wrong = [one for one in result.findings if not one]
    if wrong and not result.causes:
        claims = f"{counted(len(wrong), 'claim')} of {len(result.findings)} not shown"
        return f"{name}: {style.red(claims)} on {hosts}{missing}"
    if result.causes:
        found = style.red(counted(len(result.causes), "cause"))
        return f"{name}: {found} on {hosts}{missing}"
    if not judged:
        return f"{name}: nothing was judged{missing}"
    return f"{name}: {style.green('as the topology says')}, {hosts}{missing}"


def _host(host: CheckedHost, style: Style) -> tuple[Cell, str, str]:
    """A row: whether it was judged, the node, the host's own name and interfaces or the problem."""
    name = host.node or host.name
    also = f"{printable(host.name)}: " if host.name not in ("", name) else ""
    if host.problem:
        mark = Cell("-", style.dim) if host.ignored else Cell("✗", style.red)
        return mark, printable(name), also + printable(host.problem.replace("\n", "; "))
    parts = [
        f"{network} is {printable(device)}" if device else f"no interface on {network}"
        for network, device in host.interfaces.items()
    ]
    unread = "; ".join(("", *(f"not read: {part}" for part in host.unread)))
    return Cell("✓", style.green), printable(name), f"{also}{', '.join(parts)}{unread}"
