"""How far ``up`` is: one line on a terminal, once it has taken longer than a second."""

from __future__ import annotations

import sys
import time
from typing import Self, TextIO

from lvsctl.cli.failure import say
from lvsctl.model.event import Event, GoingBack, Notice, OpsDone, StageBegun, Undoing

PATIENCE = 1.0
"""Seconds before anything is shown: most labs are up by then."""

_INTERVAL = 0.05
_BAR = 24


class Progress:
    """An ``Emit`` that draws. Leaving its context clears the line."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._next = time.monotonic() + PATIENCE if self._stream.isatty() else float("inf")
        self._stage = StageBegun("", 0, 0, 0)
        self._done = 0
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def __call__(self, event: Event) -> None:
        """Take note of an event, and show where that leaves us if it is time."""
        match event:
            case StageBegun():
                self._stage, self._done = event, 0
                self._draw()
            case OpsDone(count):
                self._done += count
                self._draw()
            case Undoing(lab):
                self.clear()
                say(f"taking down what there is of lab {lab}")
            case GoingBack(lab):
                self.clear()
                say(f"making lab {lab} what it was before")
            case Notice(text):
                self.clear()
                say(text)

    def note(self, text: str) -> None:
        """Say on a terminal what takes a while, until something else is to be shown."""
        self.clear()
        if self._stream.isatty():
            self._write(text)

    def clear(self) -> None:
        """Leave nothing of the line on the terminal."""
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
