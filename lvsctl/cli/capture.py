"""Frames as they pass, as text or as pcapng: capture."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from lvsctl.cli import failure, options
from lvsctl.cli.output import let_go
from lvsctl.cli.where import Handover, in_lab_kernel
from lvsctl.errors import HostError

if TYPE_CHECKING:
    from lvsctl.capture.capture import LiveCapture

STDOUT = "-"


def _written_here(
    words: list[str],
    lab: str | None,
    expression: str | None,
    taps: list[str] | None,
    file: str | None,
    count: int | None,
    seconds: float | None,
    **_: object,
) -> Handover:
    """Let the machine stream to standard output, and make the file that: it is the user's.

    So it can be anywhere that the user may write, the machine's own directories included.
    """
    if file in (None, STDOUT):
        return Handover(words)
    with _opened(Path(str(file))) as stream:
        os.dup2(stream.fileno(), 1)
    inside = ["capture", "-w", STDOUT]
    for tap in taps or ():
        inside += ["--tap", tap]
    inside += ["--count", str(count)] if count is not None else []
    inside += ["--seconds", str(seconds)] if seconds is not None else []
    # A filter needs a place behind the lab's: an empty name stands for the only lab.
    inside += ["--", lab or ""] + ([expression] if expression else [])
    return Handover(inside)


@in_lab_kernel(prepare=_written_here)
def capture(
    lab: options.Lab = None,
    expression: Annotated[
        str | None,
        typer.Argument(metavar="[FILTER]", help="As tcpdump takes it: 'tcp port 80 or arp'."),
    ] = None,
    taps: Annotated[
        list[str] | None,
        typer.Option("--tap", metavar="NODE:DEV", help="This interface only; can be repeated."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("-w", "--write", metavar="FILE", help="Write pcapng there; - streams it."),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-c", metavar="N", min=1, help="End after N frames.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="S", min=0, help="End after S seconds.")
    ] = None,
) -> None:
    """Capture at every interface of every node, in one file or one list.

    Without -w, a line for each frame: its time, tap, direction, and headers. Ends with Ctrl-C;
    then says how many frames there were, and how many were lost. A file has an interface for
    each tap, by name, and Wireshark opens it.

    Examples:
      lvsctl capture
      lvsctl capture dr arp --tap director:lan --tap rs1:lan
      lvsctl capture dr -w dr.pcapng --seconds 10
      lvsctl capture -w - | wireshark -k -i -
    """
    from lvsctl.engine.inspect import open_capture
    from lvsctl.engine.labs import running_lab

    with ExitStack() as stack:
        out = stack.enter_context(_opened(Path(file))) if file not in (None, STDOUT) else None
        if file == STDOUT:
            out = sys.stdout.buffer
        live = stack.enter_context(
            open_capture(running_lab(lab or None), taps or (), expression or "")
        )
        stack.enter_context(_ending(live, seconds))
        try:
            seen = _written(live, out, count) if out is not None else _printed(live, count)
        except BrokenPipeError:
            raise
        except OSError as error:
            if out is sys.stdout.buffer or out is None:
                let_go()
            raise HostError(f"cannot write the capture: {error.strerror}") from error
        drops = live.drops
    from lvsctl.output.words import counted

    lost = sum(drops.values())
    where = ", ".join(f"{node} {number}" for node, number in drops.items() if number)
    failure.say(
        f"{counted(seen, 'frame')} captured, {lost} lost" + (f" ({where})" if where else "")
    )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    from lvsctl.output import planted

    try:
        stream = planted.opened(path)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from error
    with stream:
        yield stream


@contextmanager
def _ending(live: LiveCapture, seconds: float | None) -> Iterator[None]:
    """Ctrl-C and the end of ``seconds`` end the capture in order, and are no failure."""
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


def _written(live: LiveCapture, out: BinaryIO, count: int | None) -> int:
    from lvsctl.capture.pcapng import PcapngWriter

    writer = PcapngWriter(out, live.taps, flush=True)
    seen = 0
    for seen, raw in enumerate(live, 1):
        writer.write(raw)
        if seen == count:
            break
    writer.finish(live.drops)
    return seen


def _printed(live: LiveCapture, count: int | None) -> int:
    from lvsctl.capture.decode import decode
    from lvsctl.output.style import printable

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
