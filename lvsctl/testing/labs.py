"""The value of the fixtures: labs under unique names, which are removed at the end.

Also the sections of a failed test's report: findings, the cause, and the capture as files.
"""

from __future__ import annotations

import hashlib
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from lvsctl.api.command import Command, Done, is_lvsctl_error
from lvsctl.api.lab import Lab, Topology, is_text, save_report, topology_argument
from lvsctl.engine.campaign import Proof
from lvsctl.engine.findings import Diagnosis, FaultShown, Inspection, Verification
from lvsctl.errors import LvsctlError, UsageError
from lvsctl.model.lab import Lab as Configuration
from lvsctl.model.played import Played
from lvsctl.model.service import Scheduler
from lvsctl.model.walk import Walk
from lvsctl.output.saved_report import CAPTURE, HTML
from lvsctl.topology.loading import parse_drill

MAX_NAME = 31
"""Characters of a lab's name (topology.parsers.MAX_LABEL)."""

_SUFFIXES = (".yaml", ".yml", ".json")


__tracebackhide__ = is_lvsctl_error


class Watch(Protocol):
    """Is notified about labs: the worker."""

    def begins(self, lab: str) -> None:
        """The lab may exist from now on."""

    def came_up(self, lab: WatchedLab) -> None:
        """The lab was created for the running test."""

    def touched(self, lab: WatchedLab) -> None:
        """The running test uses the lab."""

    def gone(self, lab: str) -> None:
        """The lab does not exist any more."""


class WatchedLab(Lab):
    """A lab of the fixture ``lvs``; keeps the last results for the report of a failed test."""

    def __init__(self, configuration: Configuration, command: Command, *, created: bool) -> None:
        super().__init__(configuration, command, created=created)
        self.label = self.name
        self.is_up = True
        self.verification: Verification | None = None
        self.diagnosis: Diagnosis | None = None
        self.last_walk: Walk | None = None
        self.watch: Watch | None = None
        self.places: Sequence[Path] = ()

    def _touch(self) -> None:
        if self.watch is not None:
            self.watch.touched(self)

    def forget(self) -> None:
        """Forget the results of earlier tests."""
        self.verification = self.diagnosis = self.last_walk = None

    def down(self) -> None:
        """Remove it now instead of at the end of its fixture."""
        super().down()
        self.is_up = False
        if self.watch is not None:
            self.watch.gone(self.name)

    def verify(self) -> Verification:
        """As ``Lab.verify``; the result is in the report if the test fails."""
        self._touch()
        self.verification = super().verify()
        return self.verification

    def walk(self, service: str | None = None, client: str | None = None) -> Walk:
        """As ``Lab.walk``; the result is in the report if the test fails."""
        self._touch()
        self.last_walk = super().walk(service, client)
        return self.last_walk

    def diagnose(self) -> Diagnosis:
        """As ``Lab.diagnose``; the result is in the report if the test fails."""
        self._touch()
        self.diagnosis = super().diagnose()
        return self.diagnosis

    def prove(self) -> Proof:
        """As ``Lab.prove``."""
        self._touch()
        return super().prove()

    def play(self, drill: Topology) -> Played:
        """As ``Lab.play``; a path is relative to the test's directory."""
        self._touch()
        given = topology_argument(drill)
        return super().play(given if is_text(given) else found_in(self.places, given))

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
    """The value of the fixtures ``lvs``, ``lvs_module`` and ``lvs_session``."""

    def __init__(self, watch: Watch, command: Command, token: str, places: Sequence[Path]) -> None:
        self._watch = watch
        self._command = command
        self._token = token
        self._places = places
        self._labs: list[WatchedLab] = []

    def up(
        self,
        topology: Topology,
        *,
        servers: int | None = None,
        scheduler: Scheduler | str | None = None,
    ) -> WatchedLab:
        """Create a lab under a unique name.

        ``topology`` is a shipped name (``dr``), a path, or (if it has several lines, or is a
        JSON object) a topology's text, or a dict. A path is relative to the test's directory, or
        else to pytest's root directory. Raises the same errors as ``Lab.up``.
        """
        given = topology_argument(topology)
        found = self.found(given)
        label = _label(given, {lab.label for lab in self._labs})
        name = f"{label[: MAX_NAME - len(self._token) - 1]}-{self._token}{len(self._labs)}"
        self._watch.begins(name)
        try:
            lab = WatchedLab.up(
                found, name=name, servers=servers, scheduler=scheduler, command=self._command
            )
        except LvsctlError:  # it has rolled back
            self._watch.gone(name)
            raise
        lab.label = label
        lab.watch = self._watch
        lab.places = self._places
        self._labs.append(lab)
        self._watch.came_up(lab)
        return lab

    def found(self, topology: str | os.PathLike[str]) -> str:
        """Resolve a topology to the argument of ``lvsctl up``. Raises UsageError."""
        text = os.fspath(topology)
        is_path = not isinstance(topology, str) or "/" in text or text.endswith(_SUFFIXES)
        if is_text(topology) or not is_path:
            return text
        return found_in(self._places, text)

    def play(self, drill: str | os.PathLike[str]) -> Played:
        """Create a lab of a drill's own topology, and carry the drill out.

        ``drill`` is a file, as for ``up``, that names a ``topology:`` or is one. The result is true
        if every expectation is met. Raises the same errors as ``Lab.up`` and ``Lab.play``.
        """
        file = Path(found_in(self._places, drill))
        parsed, _ = parse_drill(file.read_bytes(), str(file))
        if parsed.inside:
            return self.up(file).play(file)
        if not parsed.topology:
            raise UsageError(f"{file} names no topology", hint="write topology: dr")
        shipped = "/" not in parsed.topology and not parsed.topology.endswith(_SUFFIXES)
        return self.up(parsed.topology if shipped else file.parent / parsed.topology).play(file)

    def down(self) -> None:
        """Remove all labs, the latest first. Raises the errors after all were tried."""
        errors: list[LvsctlError] = []
        while self._labs:
            lab = self._labs.pop()
            try:
                if lab.is_up:
                    lab.down()
            except LvsctlError as error:
                errors.append(error)
        if errors:
            raise errors[0] if len(errors) == 1 else ExceptionGroup("labs were not removed", errors)


def found_in(places: Sequence[Path], file: str | os.PathLike[str]) -> str:
    """Return a file's path, which is relative to one of ``places``. Raises UsageError."""
    candidates = [place / file for place in places]
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate)
    looked = ", ".join(map(str, dict.fromkeys(candidates)))
    raise UsageError(f"the file {os.fspath(file)!r} does not exist", hint=f"looked for: {looked}")


def _label(topology: str | os.PathLike[str], taken: set[str]) -> str:
    """The readable part of a lab's name: the topology's, numbered if there are several."""
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


Section = tuple[str, str]
_MAX_NAME = 120
"""Characters of a directory's name."""


def sections_of(lab: WatchedLab, directory: Path) -> Iterator[Section]:
    """Yield sections about a lab, which is verified and diagnosed now unless its test did so.

    The report of the verification, with the captured frames, is written to ``directory``.
    """
    if lab.last_walk is not None and not lab.last_walk:
        yield f"lvsctl walk {lab.label}", str(lab.last_walk)
    title, after = f"lvsctl verify {lab.label}", " (after the test had failed)"
    try:
        if lab.verification is None and lab.is_up:
            title += after
            lab.verify()
        if lab.verification is not None:
            yield title, str(lab.verification) + _attached(lab.verification, directory)
        title = f"lvsctl diagnose {lab.label}"
        if lab.diagnosis is None and lab.is_up:
            title += after
            lab.diagnose()
        if lab.diagnosis is not None:
            yield title, str(lab.diagnosis)
    except LvsctlError as error:
        yield title, f"not available: {error.message}"
    except Exception:  # noqa: BLE001 (in a hook of pytest it would end the whole run)
        yield title, f"not available, because of an unexpected error:\n{traceback.format_exc()}"


def _attached(verification: Verification, directory: Path) -> str:
    try:
        save_report(verification, directory)
    except LvsctlError as error:
        return f"\nthe capture could not be saved: {error.message}"
    return f"\nreport: {directory / HTML}\ncapture: {directory / CAPTURE}"


def report_directory(node_id: str) -> str:
    """Return a readable and unique directory name for a test."""
    name = re.sub(r"[^\w.-]+", "-", node_id).strip("-.")
    if len(name) <= _MAX_NAME and re.sub(r"::|/", "-", node_id) == name:
        return name
    digest = hashlib.sha256(node_id.encode()).hexdigest()[:8]
    return f"{name[: _MAX_NAME - 9]}-{digest}"


def failure_report(labs: Sequence[WatchedLab], directory: Path) -> tuple[list[Section], bool]:
    """Return the sections of every lab that a test used, and whether files were written."""
    sections = [section for lab in labs for section in sections_of(lab, directory / lab.label)]
    written = False
    with suppress(OSError):
        written = any(directory.iterdir())
    return sections, written
