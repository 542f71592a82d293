"""The screen of `watch`: everything if it fits, otherwise problems first.

Drawn with rich, which is slow to import: only `watch` on a terminal imports this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from lvsctl.output.phrases import counted, host_port, match_phrase
from lvsctl.output.text.style import printable
from lvsctl.watch.changes import ChangeEvent
from lvsctl.watch.view import LossView, OwnerView, ServerView, ServiceView, View

LEAST_EVENTS = 3
"""Lines that are reserved for events."""

QUIET = "no traffic: send requests, or let watch send them (--traffic)"


@dataclass(frozen=True, slots=True)
class Screen:
    """One view with the events so far (``happened``, the latest last)."""

    view: View
    happened: Sequence[ChangeEvent] = ()
    interval: float = 1.0
    probing: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render lines that fit into the terminal."""
        height = options.height or options.max_height
        ascii_only = options.ascii_only
        parts = list(self._parts(options.max_width, height))
        yield Group(*(_plain(part) if ascii_only else part for part in parts))

    def _parts(self, width: int, height: int) -> Iterator[RenderableType]:
        view = self.view
        yield self._title(width)
        left = height - 1
        troubles = [_line(f"! {one}", "bold red") for one in view.troubles]
        if left <= 2 * len(view.services):  # a tiny terminal: problems only
            fine = _line("no problems", "green")
            yield from (troubles or [*map(_summary, view.services), fine])[:left]
            return
        below = _below(self)
        # If space is short, events are dropped first, then owners and losses, then real servers.
        reserved = min(len(below), max(left // 3, LEAST_EVENTS + 1))
        rows = sum(2 + len(s.servers) for s in view.services)
        for_servers = min(rows, left - reserved)
        for service, lines in zip(view.services, _shares(view.services, for_servers), strict=True):
            yield _heading(service)
            left -= 1
            if lines > 1:
                shown = _chosen(service.servers, lines - 2)
                yield _servers(shown, width)
                left -= 1 + len(shown)
                rest = len(service.servers) - len(shown)
                if rest:
                    yield _line(f"  … {rest} more real servers", "dim")
                    left -= 1
        yield from below[:left]

    def _title(self, width: int) -> Text:
        view = self.view
        when = datetime.fromtimestamp(view.when).astimezone().strftime("%H:%M:%S")
        said = f"every {self.interval:g} s"
        if self.probing:
            said += ", sending test traffic"
        title = Text(f"{view.lab.name}  ", "bold", no_wrap=True, overflow="ellipsis")
        title.append(when, "not bold")
        if view.troubles:
            title.append(f"  {counted(len(view.troubles), 'problem')}", "bold red")
        title.append(f"  {said}, Ctrl-C to quit", "not bold dim")
        title.truncate(width)
        return title


def _below(screen: Screen) -> list[RenderableType]:
    """Lines below the services: the VIP's owners, losses, events (the latest first)."""
    view = screen.view
    lines: list[RenderableType] = []
    for owner in view.owners:
        lines.append(_owner(owner))
        if owner.trouble:
            lines.append(_line(f"  ! {owner.trouble}", "bold red"))
    if not screen.probing and not any(s.rates.connections or _open(s) for s in view.services):
        lines.append(_line(QUIET, "dim"))
    ranked = sorted(view.losses, key=lambda loss: (-loss.count, -loss.total))
    lines += [_loss(one) for one in ranked[: max(3, LEAST_EVENTS)]]
    lines += [
        _line(f"the kernel dropped {d.count}: {d.reason}, {d.text}", "yellow") for d in view.dropped
    ]
    lines += [_event(one) for one in reversed(screen.happened)]
    return lines


def _open(service: ServiceView) -> int:
    return sum(s.entry.active for s in service.servers if s.entry is not None)


def _shares(services: Sequence[ServiceView], lines: int) -> list[int]:
    """Number of lines for each service: heading, column names and real servers."""
    wanted = [2 + len(service.servers) for service in services]
    shares = [1] * len(services)
    spare = lines - len(services)
    while spare > 0 and shares != wanted:
        for index, want in enumerate(wanted):
            if spare > 0 and shares[index] < want:
                shares[index] += 1
                spare -= 1
    return shares


def _chosen(servers: Sequence[ServerView], lines: int) -> Sequence[ServerView]:
    """The real servers that fit, in the topology's order: problems first, then the busiest."""
    if len(servers) <= lines:
        return servers
    ranked = sorted(servers, key=lambda s: (not s.trouble, -s.rates.connections))
    kept = ranked[: max(0, lines - 1)]  # one line is for the number of the others
    return [server for server in servers if server in kept]


# ── lines ────────────────────────────────────────────────────────────────────────────────────


def _line(text: str, look: str = "") -> Text:
    return Text(printable(text), look, no_wrap=True, overflow="ellipsis")


def _summary(service: ServiceView) -> Text:
    return _line(f"{service.name}  {_amount(service.rates.connections)} conn/s")


def _heading(service: ServiceView) -> Text:
    line = _line(service.name, "bold")
    line.append(
        f"  {match_phrase(service.match)}  {service.forward}  {service.scheduler}  ", "not bold dim"
    )
    line.append(f"{_amount(service.rates.connections)} conn/s", "not bold")
    if service.asked:
        look = "not bold green" if service.answered == service.asked else "bold red"
        line.append(f"  {service.answered} of {service.asked} requests answered", look)
    if service.trouble and not service.asked:
        line.append(f"  {service.trouble}", "bold red")
    elif service.errors:
        line.append(f": {', '.join(service.errors)}", "bold red")
    return line


class _Column(NamedTuple):
    """A column that is shown on terminals of ``least`` columns and more."""

    heading: str
    least: int
    right: bool = True


_COLUMNS = (
    _Column("  real server", 0, right=False),
    _Column("address", 110, right=False),
    _Column("weight", 40),
    _Column("active", 30),
    _Column("inact", 72),
    _Column("half", 90),
    _Column("conn/s", 24),
    _Column("in B/s", 52),
    _Column("out B/s", 64),
    _Column("sent B/s", 80),
    _Column("total in", 124),
    _Column("total out", 136),
    _Column("", 0, right=False),
)


def _servers(servers: Iterable[ServerView], width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim", width=width)
    wanted = [number for number, column in enumerate(_COLUMNS) if width >= column.least]
    for number in wanted:
        column = _COLUMNS[number]
        last = number == len(_COLUMNS) - 1
        table.add_column(
            column.heading,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if last else None,
        )
    for server in servers:
        cells = _cells(server)
        table.add_row(*(cells[number] for number in wanted), style="red" if server.trouble else "")
    return table


def _cells(server: ServerView) -> list[str]:
    entry, rates = server.entry, server.rates
    none = "-"
    counters = entry.counters if entry is not None else None
    return [
        f"  {server.name}",
        host_port(server.address, server.port),
        str(entry.weight) if entry is not None else none,
        str(entry.active) if entry is not None else none,
        str(entry.inactive) if entry is not None else none,
        str(server.half_open) if server.half_open is not None else none,
        _amount(rates.connections),
        _amount(rates.bytes_in),
        _amount(rates.bytes_out),
        _amount(rates.sent),
        _amount(counters.bytes_in) if counters is not None else none,
        _amount(counters.bytes_out) if counters is not None else none,
        f" {printable(server.trouble)}",
    ]


def _owner(one: OwnerView) -> Text:
    line = _line(f"VIP {one.vip}", "bold")
    line.append(f"  {one.node}: ", "not bold")
    if one.mac:
        line.append(f"{one.owner or 'unknown'} {one.mac}", "bold red" if one.trouble else "green")
        line.append(f" ({one.state})", "not bold dim")
    else:
        line.append("has no entry yet" if not one.state else one.state, "not bold dim")
    if one.answered is not None:
        line.append(f"; answered by {', '.join(one.answered) or 'no node'}", "not bold")
    return line


def _loss(one: LossView) -> Text:
    line = _line(f"{one.node} {one.counter} +{one.count}", "yellow" if one.count else "dim")
    line.append(f" ({one.total} in all): {one.text}", "dim")
    return line


def _event(one: ChangeEvent) -> Text:
    when = datetime.fromtimestamp(one.when).astimezone().strftime("%H:%M:%S")
    line = _line(f"{when} ", "dim")
    line.append(f"{one.node}: {printable(one.text)}", "not dim")
    if one.times > 1:
        line.append(f" ({one.times} times)", "dim")
    return line


def _amount(value: float) -> str:
    """About three digits, with k, M or G (powers of 1000)."""
    for unit in ("", "k", "M"):
        if value < 999.5:
            return (
                f"{value:.0f}{unit}"
                if value >= 100 or value == int(value)
                else f"{value:.1f}{unit}"
            )
        value /= 1000
    return f"{value:.1f}G"


_ASCII = str.maketrans({"→": ">", "…": "~"})


def _plain(part: RenderableType) -> RenderableType:
    """Convert to ASCII: rich would truncate with an ellipsis."""
    if isinstance(part, Text):
        part.plain = part.plain.translate(_ASCII)
        part.overflow = "crop"
    elif isinstance(part, Table):
        for column in part.columns:
            column.overflow = "crop"
    return part
