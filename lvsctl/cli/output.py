"""Standard output and the terminal, and the progress of ``up`` on standard error."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import time
from enum import StrEnum
from typing import Any, Self, TextIO

from lvsctl.cli.failure import say
from lvsctl.errors import HostError
from lvsctl.model.event import Event, Notice, OpsDone, Restoring, RollingBack, StageStarted
from lvsctl.output.text.style import Style


class Format(StrEnum):
    """The output formats of most commands."""

    TEXT = "text"
    JSON = "json"


def style() -> Style:
    """Return the width, colours and characters that standard output can show."""
    return Style(
        color=_color(),
        width=shutil.get_terminal_size().columns,
        unicode=(sys.stdout.encoding or "").lower().replace("-", "") == "utf8",
    )


def _color() -> bool:
    # https://no-color.org and https://force-color.org
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def show(text: str) -> None:
    """Write text, with one line feed at its end, to standard output and flush it.

    Raises HostError if it cannot be written, BrokenPipeError if the reader has closed the pipe.
    """
    if not text:
        return
    try:
        sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard()
        raise cannot_write(error) from error


def show_json(result: object = None, /, **more: Any) -> None:
    """Write a result, and further keys, as JSON to standard output."""
    show(json_text(result, **more))


def json_text(result: object = None, /, *, indent: int | None = 2, **more: Any) -> str:
    """Return a result, and further keys, as JSON."""
    # cattrs is slow to import, and only JSON needs it.
    from lvsctl.output.serialize import to_json

    return escaped(json.dumps(to_json(result, **more), indent=indent, ensure_ascii=False))


def escaped(text: str) -> str:
    """Escape in JSON's strings what could control a terminal (C1 controls, bidirectional marks)."""
    if text.isascii():
        return text  # json.dumps has escaped C0 controls; DEL is harmless
    return "".join(sign if sign.isprintable() or sign == "\n" else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    return json.dumps(sign).strip('"')


def is_full_disk(error: OSError) -> bool:
    """Return whether an error is a disk's refusal of text that Typer printed.

    Errors about our own files are handled where these are written, and have the file's name.
    """
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def cannot_write(error: OSError) -> HostError:
    """Return the error for standard output that cannot be written."""
    return HostError(f"cannot write the output: {error.strerror}")


def discard(stream: TextIO | None = None) -> None:
    """Send what a stream (standard output) still holds to /dev/null.

    Otherwise Python tries to write it again at exit, and prints an error of its own.
    """
    with contextlib.suppress(OSError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2 if stream is sys.stderr else 1)
        os.close(devnull)


DELAY = 1.0
"""Seconds before anything is shown: most labs are up before that."""

_INTERVAL = 0.05
_BAR = 24


class Progress:
    """An ``Emit`` that draws a progress bar. Leaving its context clears the line."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._next = time.monotonic() + DELAY if self._stream.isatty() else float("inf")
        self._stage = StageStarted("", 0, 0, 0)
        self._done = 0
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def __call__(self, event: Event) -> None:
        """Record an event, and redraw the line if it is time."""
        match event:
            case StageStarted():
                self._stage, self._done = event, 0
                if event.ops or not self._stream.isatty():
                    self._draw()
                else:
                    self._write(f"[{event.number}/{event.total}] {event.title} …")
            case OpsDone(number):
                self._done += number
                self._draw()
            case RollingBack(lab):
                self.clear()
                say(f"removing the incomplete lab {lab}")
            case Restoring(lab):
                self.clear()
                say(f"restoring lab {lab} to its previous state")
            case Notice(text):
                self.clear()
                say(text)

    def note(self, text: str) -> None:
        """Show on a terminal what is being done, until something else is shown."""
        self.clear()
        if self._stream.isatty():
            self._write(text)

    def clear(self) -> None:
        """Erase the line from the terminal."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False

    def _draw(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _INTERVAL
        stage = self._stage
        filled = _BAR * self._done // stage.ops if stage.ops else 0
        bar = "█" * filled + "░" * (_BAR - filled)
        place = f"[{stage.number}/{stage.total}]"
        self._write(f"{place} {bar} {self._done}/{stage.ops} {stage.title}")

    def _write(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()
        self._drawn = True
