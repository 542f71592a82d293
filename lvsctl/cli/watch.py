"""A lab seen live: watch."""

from __future__ import annotations

import signal
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from math import isnan
from typing import TYPE_CHECKING, Annotated

import typer

from lvsctl.cli import failure, options
from lvsctl.cli.output import show
from lvsctl.cli.where import in_lab_kernel
from lvsctl.errors import UsageError

if TYPE_CHECKING:
    from lvsctl.watch.happenings import Happening
    from lvsctl.watch.loop import Watcher

REMEMBERED = 100
"""Events that are kept for the screen: no terminal has more lines to spare."""


class Shown(StrEnum):
    """How watch reports."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


@in_lab_kernel()
def watch(
    lab: options.Lab = None,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", "-i", metavar="S", min=0.1, max=3600.0, help="Seconds between two looks."
        ),
    ] = 1.0,
    count: Annotated[
        int | None, typer.Option("--count", "-c", metavar="N", min=1, help="End after N looks.")
    ] = None,
    traffic: Annotated[
        bool,
        typer.Option("--traffic", help="Send requests and ask for the VIPs by ARP, each interval."),
    ] = False,
    wanted: Annotated[
        Shown,
        typer.Option("--format", "-f", help="A screen, or JSON lines; auto: by the terminal."),
    ] = Shown.AUTO,
) -> None:
    """Watch a lab live, and see a fault the moment it bites.

    Connections, rates and bytes of every real server, weights, whom clients and routers take
    for the VIP, packets lost by what the kernels count, and every change: of addresses,
    devices, routes, neighbours, ARP settings and IPVS's table. The kernel tells of most changes
    at once; the rest is looked at each interval. Nothing is sent and nothing is changed,
    unless --traffic asks for it. Ctrl-C ends it.

    Without a terminal (or with --format json) each look is a line of JSON.

    Examples:
      lvsctl watch
      lvsctl watch dr --traffic            then, elsewhere: lvsctl fault inject arp-ignore-unset
      lvsctl watch dr --format json | jq -r '.troubles[]'
      lvsctl watch dr -c 5 -i 0.5 > looks.jsonl
    """
    from lvsctl.engine.inspect import watch_lab
    from lvsctl.engine.labs import running_lab

    if isnan(interval):
        raise UsageError("--interval must be a number of seconds")
    named = running_lab(lab)
    on_screen = wanted is Shown.TEXT or (wanted is Shown.AUTO and sys.stdout.isatty())
    with watch_lab(named, interval=interval, probing=traffic) as watcher, _ending(watcher):
        if on_screen:
            _draw(watcher, count, interval=interval, probing=traffic)
        else:
            _print(watcher, count)
        if watcher.lab_ended:
            failure.say(f"lab {named.name} has ended, or was changed into another")


def _print(watcher: Watcher, count: int | None) -> None:
    import json

    from lvsctl.output.watch_json import moment

    for number, view in enumerate(watcher.views(), 1):
        show(json.dumps(moment(view), ensure_ascii=False))
        if number == count:
            return


def _draw(watcher: Watcher, count: int | None, *, interval: float, probing: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    from lvsctl.output.watch_screen import Screen

    console = Console(highlight=False, markup=False, emoji=False)
    happened: deque[Happening] = deque(maxlen=REMEMBERED)
    # Not a terminal, yet a screen is wanted: screens one after the other.
    live = Live(console=console, screen=console.is_terminal, auto_refresh=False)
    with live:
        for number, view in enumerate(watcher.views(), 1):
            happened.extend(view.happenings)
            screen = Screen(view, tuple(happened), interval=interval, probing=probing)
            if console.is_terminal:
                live.update(screen, refresh=True)
            else:
                console.print(screen)
            if number == count:
                break
    if console.is_terminal:
        console.print(screen)


@contextmanager
def _ending(watcher: Watcher) -> Iterator[None]:
    """Ctrl-C ends the watching in order, and is no failure; a resized terminal is drawn anew."""
    actions = {
        signal.SIGINT: watcher.stop,
        signal.SIGTERM: watcher.stop,
        signal.SIGWINCH: watcher.redraw,
    }
    before = {
        number: signal.signal(number, lambda *_, act=act: act())
        for number, act in actions.items()
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
