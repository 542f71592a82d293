"""Text: how real hosts differ from a topology."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.engine.findings import Check, CheckedHost
from lvsctl.output.phrases import counted
from lvsctl.output.text.style import Style, printable
from lvsctl.output.text.verification import cause_lines, listed


def format_check(result: Check, *, style: Style) -> str:
    """Format what was judged, each cause with its evidence and remedy, and what is in order."""
    lines = [_heading(result, style), ""]
    width = max((len(host.node or host.name) for host in result.hosts), default=0)
    for host in result.hosts:
        lines += _host(host, width, style)
    for number, cause in enumerate(result.causes, 1):
        lines += ["", *cause_lines(number, cause, style)]
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
    if result.causes:
        found = style.red(counted(len(result.causes), "cause"))
        return f"{name}: {found} on {hosts}{missing}"
    if not judged:
        return f"{name}: nothing was judged{missing}"
    return f"{name}: {style.green('as the topology says')}, {hosts}{missing}"


def _host(host: CheckedHost, width: int, style: Style) -> Iterator[str]:
    name = host.node or host.name
    if host.problem:
        said = style.dim(printable(host.problem)) if host.ignored else printable(host.problem)
        known = f"{printable(host.name)}: " if host.name not in ("", name) else ""
        mark = " " if host.ignored else style.red("✗")
        yield style.wrapped(f"{mark} {printable(name):{width}}  {known}{said}", 2, width + 6)
        return
    devices = ", ".join(
        f"{network} is {printable(device)}" if device else f"no interface on {network}"
        for network, device in host.interfaces.items()
    )
    also = f"{printable(host.name)}, " if host.name != name else ""
    yield style.wrapped(f"{style.green('✓')} {name:{width}}  {also}{devices}", 2, width + 6)
    for part in host.unread:
        yield style.wrapped(f"not read: {part}", width + 6, width + 16)
