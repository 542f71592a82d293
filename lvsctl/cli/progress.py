"""The progress of ``up``: one line on a terminal, if it takes longer than a second."""

from __future__ import annotations

import sys
import time
from typing import Self, TextIO

from lvsctl.cli.failure import say
from lvsctl.model.event import Event, GoingBack, Notice, OpsDone, StageBegun, Undoing

DELAY = 1.0
"""Seconds before anything is shown: most labs are up before that."""

_INTERVAL = 0.05
_BAR = 24


class Progress:
    """An ``Emit`` that draws a progress bar. Leaving its context clears the line."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._next = time.monotonic() + DELAY if self._stream.isatty() else float("inf")
        self._stage = StageBegun("", 0, 0, 0)
        self._done = 0
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def __call__(self, event: Event) -> None:
        """Record an event, and redraw the line if it is time."""
        match event:
            case StageBegun():
                self._stage, self._done = event, 0
                self._draw()
            case OpsDone(count):
                self._done += count
                self._draw()
            case Undoing(lab):
                self.clear()
                say(f"removing the incomplete lab {lab}")
            case GoingBack(lab):
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
