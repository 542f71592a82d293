"""The fixture's value: labs under names of their own, watched, and down again at the end."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lvsctl.api.command import Command, Done, is_lvsctl_error
from lvsctl.api.lab import Lab, is_text
from lvsctl.engine.findings import Diagnosis, FaultShown, Inspection, Verification
from lvsctl.errors import LvsctlError, UsageError
from lvsctl.model.lab import Lab as Configuration
from lvsctl.model.service import Scheduler
from lvsctl.model.walk import Walk

MAX_NAME = 31
"""Characters of a lab's name (topology.parsers.MAX_LABEL)."""

_SUFFIXES = (".yaml", ".yml", ".json")


__tracebackhide__ = is_lvsctl_error


class Watch(Protocol):
    """Who wants to know of labs: the worker."""

    def begins(self, lab: str) -> None:
        """There may be something of it from now on."""

    def came_up(self, lab: WatchedLab) -> None:
        """It is there, for the test that runs."""

    def touched(self, lab: WatchedLab) -> None:
        """A test has something to do with it."""

    def gone(self, lab: str) -> None:
        """Nothing is left of it."""


class WatchedLab(Lab):
    """A lab of the fixture ``lvs``: keeps what was found last, for the report of a failed test."""

    def __init__(self, configuration: Configuration, command: Command, *, created: bool) -> None:
        super().__init__(configuration, command, created=created)
        self.label = self.name
        self.is_up = True
        self.verification: Verification | None = None
        self.diagnosis: Diagnosis | None = None
        self.last_walk: Walk | None = None
        self.watch: Watch | None = None

    def _touch(self) -> None:
        if self.watch is not None:
            self.watch.touched(self)

    def forget(self) -> None:
        """What earlier tests found is none of this one's business."""
        self.verification = self.diagnosis = self.last_walk = None

    def down(self) -> None:
        """Remove it now, and not only when its fixture ends."""
        super().down()
        self.is_up = False
        if self.watch is not None:
            self.watch.gone(self.name)

    def verify(self) -> Verification:
        """As ``Lab.verify``; where the test fails, its report has this."""
        self._touch()
        self.verification = super().verify()
        return self.verification

    def walk(self, service: str | None = None, client: str | None = None) -> Walk:
        """As ``Lab.walk``; where the test fails, its report has this."""
        self._touch()
        self.last_walk = super().walk(service, client)
        return self.last_walk

    def diagnose(self) -> Diagnosis:
        """As ``Lab.diagnose``; where the test fails, its report has this."""
        self._touch()
        self.diagnosis = super().diagnose()
        return self.diagnosis

    def inspect(self, *nodes: str) -> Inspection:
        """As ``Lab.inspect``."""
        self._touch()
        return super().inspect(*nodes)

    def inject(self, fault: str, node: str | None = None) -> FaultShown:
        """As ``Lab.inject``."""
        self._touch()
        return super().inject(fault, node)

    def _run(
        self, node: str, argv: Sequence[str], stdin: bytes | None, timeout: float | None
    ) -> Done:
        self._touch()
        return super()._run(node, argv, stdin, timeout)


class Labs:
    """What the fixtures ``lvs``, ``lvs_module`` and ``lvs_session`` are."""

    def __init__(self, watch: Watch, command: Command, token: str, places: Sequence[Path]) -> None:
        self._watch = watch
        self._command = command
        self._token = token
        self._places = places
        self._labs: list[WatchedLab] = []

    def up(
        self,
        topology: str | os.PathLike[str],
        *,
        servers: int | None = None,
        scheduler: Scheduler | str | None = None,
    ) -> WatchedLab:
        """Bring a lab up that nobody else has.

        ``topology`` is a shipped name (``dr``), a path, or (where it has several lines, or
        is a JSON object) a topology's text. A path is looked for beside the test's file,
        then in pytest's root directory. Raises as ``Lab.up``.
        """
        found = self.found(topology)
        label = _label(topology, {lab.label for lab in self._labs})
        name = f"{label[: MAX_NAME - len(self._token) - 1]}-{self._token}{len(self._labs)}"
        self._watch.begins(name)
        try:
            lab = WatchedLab.up(
                found, name=name, servers=servers, scheduler=scheduler, command=self._command
            )
        except LvsctlError:  # having undone what was half done
            self._watch.gone(name)
            raise
        lab.label = label
        lab.watch = self._watch
        self._labs.append(lab)
        self._watch.came_up(lab)
        return lab

    def found(self, topology: str | os.PathLike[str]) -> str:
        """What ``lvsctl up`` is given. Raises UsageError."""
        text = os.fspath(topology)
        is_path = not isinstance(topology, str) or "/" in text or text.endswith(_SUFFIXES)
        if is_text(topology) or not is_path:
            return text
        candidates = [place / text for place in self._places]
        for candidate in candidates:
            if candidate.is_file():
                return str(candidate)
        looked = ", ".join(map(str, dict.fromkeys(candidates)))
        raise UsageError(f"the file {text!r} does not exist", hint=f"looked for: {looked}")

    def down(self) -> None:
        """Take all of them down, the latest first. Raises what went wrong, when all were tried."""
        errors: list[LvsctlError] = []
        while self._labs:
            lab = self._labs.pop()
            try:
                if lab.is_up:
                    lab.down()
            except LvsctlError as error:
                errors.append(error)
        if errors:
            raise errors[0] if len(errors) == 1 else ExceptionGroup("labs did not go down", errors)


def _label(topology: str | os.PathLike[str], taken: set[str]) -> str:
    """What people see of a lab's name: the topology's, with a number where there are several."""
    text = os.fspath(topology)
    stem = "lab" if is_text(topology) else Path(text).stem.lower()
    label = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")
    label = label if label[:1].isalpha() else f"lab-{label}".rstrip("-")
    number = 2
    fresh = label
    while fresh in taken:
        fresh = f"{label}-{number}"
        number += 1
    return fresh
