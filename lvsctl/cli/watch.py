"""A running lab, live: watch.

A command imports what it needs of the engine when it runs: where it is only forwarded to the
throwaway kernel, that takes longer than everything else.
"""

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
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import json_text, show
from lvsctl.cli.where import Where, in_lab_kernel
from lvsctl.errors import UsageError

if TYPE_CHECKING:
    from lvsctl.watch.changes import ChangeEvent
    from lvsctl.watch.loop import Watcher

EVENTS_KEPT = 100
"""Events kept for the screen: no terminal has more lines for them."""

app = new_app()


class WatchFormat(StrEnum):
    """The output formats of watch."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


def _serves(*, metrics: str | None, **_: object) -> bool:
    """Return whether it serves metrics, which is done on this host."""
    return metrics is not None


@app.command(cls=Command)
@in_lab_kernel(anywhere=_serves)
def watch(
    ctx: typer.Context,
    lab: options.Lab = None,
    interval: Annotated[
        float,
        typer.Option(
            "--interval",
            "-i",
            metavar="S",
            min=0.1,
            max=3600.0,
            callback=options.refuse_nan,
            help="Seconds between samples.",
        ),
    ] = 1.0,
    count: Annotated[
        int | None, typer.Option("--count", "-c", metavar="N", min=1, help="Stop after N samples.")
    ] = None,
    traffic: Annotated[
        bool,
        typer.Option(
            "--traffic",
            help="Each interval, send requests, and ask for each VIP by ARP or ND.",
        ),
    ] = False,
    wanted: Annotated[
        WatchFormat,
        typer.Option(
            "--format",
            "-f",
            help="Output format: text (a screen), json (a line a sample), or auto (text on a "
            "terminal, else json).",
        ),
    ] = WatchFormat.AUTO,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="ADDRESS:PORT",
            help="Serve Prometheus metrics there instead, under node_exporter's names.",
        ),
    ] = None,
    where: options.Placement = Where.AUTO,
) -> int | None:
    """Watch a running lab live.

    Shows connections, rates and bytes of every real server, weights, which node clients and
    routers take for the VIP, packets dropped according to the kernels' counters, and every
    change: of addresses, devices, routes, neighbours, ARP settings and the IPVS table. The
    kernel reports most changes at once; the rest is sampled each interval. Nothing is sent
    and nothing is changed, except with --traffic. Ctrl-C quits.

    Columns: active and inact are IPVS's connections in these states; half, those of which the
    handshake is not finished; conn/s, in B/s and out B/s, IPVS's counters by second (out is 0 in
    TUN and DR); sent B/s, what the real server's interfaces sent.

    Without a terminal (or with --format json) each sample is a line of JSON. --metrics serves
    IPVS's counters, connections and weights at http://ADDRESS:PORT/metrics, as the collector ipvs
    of node_exporter does on a real director; it needs prometheus_client (pip install
    'lvsctl[metrics]').

    Examples:
      lvsctl watch
      lvsctl watch dr --traffic            then, elsewhere: lvsctl fault inject arp-ignore-unset
      lvsctl watch dr --format json | jq -r '.troubles[]'
      lvsctl watch dr -c 5 -i 0.5 > samples.jsonl
      lvsctl watch dr --metrics 127.0.0.1:9100
    """
    if metrics is not None:
        return _serve(metrics, lab, interval, count, traffic=traffic, where=where)
    from lvsctl.engine.inspect import watch_lab
    from lvsctl.engine.labs import running_lab

    if isnan(interval):
        raise UsageError("--interval must be a number of seconds")
    named = running_lab(lab)
    on_screen = wanted is WatchFormat.TEXT or (wanted is WatchFormat.AUTO and sys.stdout.isatty())
    with watch_lab(named, interval=interval, probing=traffic) as watcher, _on_signals(watcher):
        if on_screen:
            _draw(watcher, count, interval=interval, probing=traffic)
        else:
            _print(watcher, count)
        if watcher.lab_ended:
            failure.say(f"lab {named.name} was removed, or changed to another topology")
    return None


def _serve(
    metrics: str,
    lab: str | None,
    interval: float,
    count: int | None,
    *,
    traffic: bool,
    where: Where,
) -> int:
    from lvsctl.cli.metrics import parse_address, serve

    words = ["watch", *([lab] if lab is not None else []), "--format", "json"]
    words += ["--interval", str(interval), "--where", str(where)]
    words += ["--traffic"] if traffic else []
    words += ["--count", str(count)] if count is not None else []
    return serve(parse_address(metrics), words)


def _print(watcher: Watcher, count: int | None) -> None:
    for number, view in enumerate(watcher.views(), 1):
        show(json_text(view, indent=None))
        if number == count:
            return


def _draw(watcher: Watcher, count: int | None, *, interval: float, probing: bool) -> None:
    # rich takes longer to import than all of lvsctl, and only the screen needs it.
    from rich.console import Console
    from rich.live import Live

    from lvsctl.output.text.watch_screen import Screen
    from lvsctl.watch.changes import add_change

    console = Console(highlight=False, markup=False, emoji=False)
    happened: deque[ChangeEvent] = deque(maxlen=EVENTS_KEPT)
    # Without a terminal, the screens are printed one after the other.
    live = Live(console=console, screen=console.is_terminal, auto_refresh=False)
    with live:
        for number, view in enumerate(watcher.views(), 1):
            for change in view.changes:
                add_change(happened, change)
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
def _on_signals(watcher: Watcher) -> Iterator[None]:
    """While entered, Ctrl-C ends watching without an error and a resized terminal is redrawn."""
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
