"""Frames as they pass, as text or as pcapng: capture.

A command imports what it needs of the engine when it runs: where it is only forwarded to the
throwaway kernel, that takes longer than everything else.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from lvsctl.capture.decode import decode
from lvsctl.capture.pcapng import PcapngWriter
from lvsctl.cli import failure, options
from lvsctl.cli.files import cannot_write
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Progress, discard, show
from lvsctl.cli.where import ForwardRequest, Where, in_lab_kernel
from lvsctl.errors import HostError, UsageError
from lvsctl.output import safe_files
from lvsctl.output.phrases import counted
from lvsctl.output.text.style import printable

if TYPE_CHECKING:
    from lvsctl.capture.capture import LiveCapture

STDOUT = "-"

SECONDS_BETWEEN_COUNTS = 0.5
"""How often the number of frames is shown, at most."""

LONGEST = 1e6
"""Maximum of ``--seconds``, twelve days: a timer cannot wait for ever."""

app = new_app()


def _write_here(
    words: list[str],
    lab: str | None,
    expression: str | None,
    taps: list[str] | None,
    file: str | None,
    count: int | None,
    seconds: float | None,
    **_: object,
) -> ForwardRequest:
    """Open the file here and have the machine write the capture to standard output.

    So the file can be anywhere the user may write, even where the machine has directories of
    its own.
    """
    if file in (None, STDOUT):
        return ForwardRequest(words)
    with _open(Path(str(file))) as stream:
        os.dup2(stream.fileno(), 1)
    inside = ["capture", "-w", STDOUT]
    for tap in taps or ():
        inside += ["--tap", tap]
    inside += ["--count", str(count)] if count is not None else []
    inside += ["--seconds", str(seconds)] if seconds is not None else []
    # The filter is the second argument: an empty lab name stands for the only lab.
    inside += ["--", lab or ""] + ([expression] if expression else [])
    return ForwardRequest(inside)


def _installs(*, installs: bool, **_: object) -> bool:
    """Return whether nothing is captured."""
    return installs


def _install_extcap() -> None:
    from lvsctl.cli import extcap

    try:
        for path in extcap.install(Path.home()):
            show(f"written: {path}")
    except OSError as error:
        raise HostError(f"cannot write {error.filename}: {error.strerror}") from error
    failure.say("Wireshark lists lvsctl.LAB and lvsctl.LAB.NODE.NETWORK once it is started again")


@app.command(cls=Command)
@in_lab_kernel(prepare=_write_here, anywhere=_installs)
def capture(
    ctx: typer.Context,
    lab: options.Lab = None,
    expression: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILTER]", help="Filter in tcpdump's syntax, such as 'tcp port 80 or arp'."
        ),
    ] = None,
    taps: Annotated[
        list[str] | None,
        typer.Option(
            "--tap",
            metavar="NODE:DEV",
            help="Capture only at this interface; can be repeated. Default: at all.",
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "-w", "--write", metavar="FILE", help="Write pcapng to this file; - is standard output."
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-c", metavar="N", min=1, help="Stop after N frames.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            metavar="S",
            min=0,
            max=LONGEST,
            callback=options.refuse_nan,
            help="Stop after S seconds.",
        ),
    ] = None,
    installs: Annotated[
        bool,
        typer.Option(
            "--install-extcap",
            help="Put the taps of running labs into Wireshark's list of interfaces, and end.",
        ),
    ] = False,
    where: options.Placement = Where.AUTO,
) -> None:
    """Capture frames at every interface of every node.

    Without -w, prints one line a frame: its time, tap, direction and headers. Says on standard
    error when it captures; runs until Ctrl-C or a limit, then prints how many frames were captured
    and lost. A pcapng file has one named interface a tap; Wireshark opens it.

    Examples:
      lvsctl capture
      lvsctl capture dr arp --tap director:lan --tap rs1:lan
      lvsctl capture dr -w dr.pcapng --seconds 10
      lvsctl capture -w - | wireshark -k -i -
      lvsctl capture --install-extcap          then, in Wireshark, the interface lvsctl.dr
    """
    if installs:
        if lab or expression or taps or file or count is not None or seconds is not None:
            raise UsageError(
                "--install-extcap captures nothing: it takes no lab, filter or other option",
                hint="lvsctl capture --install-extcap",
            )
        _install_extcap()
        return
    from lvsctl.engine.inspect import open_capture
    from lvsctl.engine.labs import running_lab

    with ExitStack() as stack:
        out = stack.enter_context(_open(Path(file))) if file not in (None, STDOUT) else None
        if file == STDOUT:
            out = sys.stdout.buffer
        live = stack.enter_context(
            open_capture(running_lab(lab or None), taps or (), expression or "")
        )
        stack.enter_context(_stop_on_signals(live, seconds))
        doing = _doing(live, count, seconds)
        if out is None or not sys.stderr.isatty():  # else it is shown until the end
            failure.say(doing)
        try:
            seen = _write(live, out, count, doing) if out is not None else _print(live, count)
        except BrokenPipeError:
            raise
        except OSError as error:
            if out is sys.stdout.buffer or out is None:
                discard()
            raise HostError(f"cannot write the capture: {error.strerror}") from error
        drops = live.drops
    lost = sum(drops.values())
    places = ", ".join(f"{node} {number}" for node, number in drops.items() if number)
    failure.say(
        f"{counted(seen, 'frame')} captured, {lost} lost" + (f" ({places})" if places else "")
    )


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    try:
        stream = safe_files.opened(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    with stream:
        yield stream


@contextmanager
def _stop_on_signals(live: LiveCapture, seconds: float | None) -> Iterator[None]:
    """While entered, Ctrl-C and the end of ``seconds`` stop the capture without an error."""
    before = {
        number: signal.signal(number, lambda *_: live.stop())
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    timer = threading.Timer(seconds, live.stop) if seconds is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _doing(live: LiveCapture, count: int | None, seconds: float | None) -> str:
    """Return the sentence that says what is captured where, and what ends it."""
    limits = []
    if count is not None:
        limits.append(f"until {counted(count, 'frame')}")
    if seconds is not None:
        limits.append(f"for {seconds:g} s")
    many = "".join(f", {limit}" for limit in limits)
    before = " before" if limits else ""
    return f"capturing at {counted(len(live.taps), 'tap')}{many}; Ctrl-C (SIGINT) ends it{before}"


def _write(live: LiveCapture, out: BinaryIO, count: int | None, doing: str) -> int:
    writer = PcapngWriter(out, live.taps, flush=True)
    seen, shown = 0, time.monotonic()
    with Progress() as progress:
        progress.note(doing)
        for seen, raw in enumerate(live, 1):
            writer.write(raw)
            if seen == count:
                break
            if time.monotonic() - shown >= SECONDS_BETWEEN_COUNTS:
                shown = time.monotonic()
                progress.note(f"{doing}; {counted(seen, 'frame')} so far")
    writer.finish(live.drops)
    return seen


def _print(live: LiveCapture, count: int | None) -> int:
    seen = start = 0
    for seen, raw in enumerate(live, 1):
        frame = decode(raw, seen)
        start = start or frame.time
        since = (frame.time - start) / 1e9
        line = f"{since:12.6f} {frame.tap} {frame.direction.name.lower()} {frame.summary()}"
        sys.stdout.write(printable(line) + "\n")
        sys.stdout.flush()
        if seen == count:
            break
    return seen
