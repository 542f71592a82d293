"""Sections for the report of a failed test: findings, the cause, and the capture as files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from lvsctl.api.lab import save_report
from lvsctl.engine.findings import Verification
from lvsctl.errors import LvsctlError
from lvsctl.output.saved_report import CAPTURE, HTML
from lvsctl.testing.labs import WatchedLab

Section = tuple[str, str]
_MAX_NAME = 120
"""Characters of a directory's name."""


def sections_of(lab: WatchedLab, directory: Path) -> Iterator[Section]:
    """Sections about a lab, which is verified and diagnosed now unless its test did so.

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


def _attached(verification: Verification, directory: Path) -> str:
    try:
        save_report(verification, directory)
    except LvsctlError as error:
        return f"\nthe capture could not be saved: {error.message}"
    return f"\nreport: {directory / HTML}\ncapture: {directory / CAPTURE}"


def directory_name(node_id: str) -> str:
    """A readable and unique directory name for a test."""
    name = re.sub(r"[^\w.-]+", "-", node_id).strip("-.")
    if len(name) <= _MAX_NAME and re.sub(r"::|/", "-", node_id) == name:
        return name
    digest = hashlib.sha256(node_id.encode()).hexdigest()[:8]
    return f"{name[: _MAX_NAME - 9]}-{digest}"


def report(labs: Sequence[WatchedLab], directory: Path) -> tuple[list[Section], bool]:
    """The sections of every lab that a test used, and whether files were written."""
    sections = [section for lab in labs for section in sections_of(lab, directory / lab.label)]
    written = False
    with suppress(OSError):
        written = any(directory.iterdir())
    return sections, written
