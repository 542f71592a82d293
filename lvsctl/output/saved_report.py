"""Saved reports: written completely or not at all, and readable on any machine.

    report.json      what verify found, as ``verify --format json`` prints it
    report.html      the same as a page, with the topology and the path of a request
    junit.xml        the same for a CI server
    capture.pcapng   every captured frame, for Wireshark
    evidence.json    everything else that the verdicts rest on; written last

A directory without evidence.json is not a report: that file is written last, and removed first
when a report is replaced. All files are written under temporary names first, so that an older
report survives a full disk. No directory is renamed: inside the machine the directory is a
mount, and its parent cannot be written.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lvsctl.engine.findings import Verification
from lvsctl.errors import DamagedFile, HostError, UsageError
from lvsctl.model.evidence import Evidence
from lvsctl.output import safe_files
from lvsctl.output.evidence import FORMAT, capture_bytes, evidence_bytes, evidence_from
from lvsctl.output.html.page import page
from lvsctl.output.serialize import to_json
from lvsctl.output.text.verification import junit

CAPTURE, EVIDENCE = "capture.pcapng", "evidence.json"
JSON, JUNIT, HTML = "report.json", "junit.xml", "report.html"
NAMES = (JSON, HTML, JUNIT, CAPTURE, EVIDENCE)
"""Every file of a report, in the order in which they are renamed: the last completes it."""

_UNFINISHED = ".unfinished"
LARGEST = {EVIDENCE: 64 << 20, CAPTURE: 256 << 20}
"""Maximum size of a file in bytes: JSON takes up to thirty times as much memory."""


def save(directory: Path, verification: Verification) -> None:
    """Write a report. Raises UsageError (not a report), HostError (disk full, …)."""
    write(directory, report_files(verification))


def write(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files of a report. Raises the same errors as ``save``."""
    refuse_others(directory)
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            refuse_others(directory)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | safe_files.nofollow(directory)
        fd = os.open(directory, flags)
        try:
            _write(fd, contents)
        finally:
            os.close(fd)
    except OSError as error:
        raise HostError(
            f"cannot write the report to {directory}: {error.strerror}",
            hint="free some space, or name another directory",
        ) from error


def report_files(verification: Verification) -> Mapping[str, bytes]:
    """Return the content of each file of a report."""
    capture = capture_bytes(verification.evidence)
    document = to_json(verification, capture=CAPTURE)
    return {
        JSON: json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n",
        HTML: page(verification, capture=CAPTURE).encode(),
        JUNIT: junit(verification).encode(),
        CAPTURE: capture,
        EVIDENCE: evidence_bytes(verification.evidence, capture),
    }


def refuse_others(directory: Path) -> None:
    """Raise UsageError where a directory holds something that is no report; HostError.

    And where another user made it, or a link on the way to it (``safe_files``).
    """
    safe_files.nofollow(directory)
    try:
        there = {entry.name for entry in directory.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise UsageError(f"{directory} is a file", hint="--report needs a directory") from None
    except OSError as error:
        raise HostError(f"cannot read {directory}: {error.strerror}") from error
    unfinished = {name + _UNFINISHED for name in NAMES}
    interrupted = bool(there & unfinished) and there <= {*NAMES, *unfinished}
    if there and not interrupted and not _is_report(directory):
        raise UsageError(
            f"{directory} is not empty and is not an lvsctl report: nothing was written",
            hint="name a new directory",
        )


def _is_report(directory: Path) -> bool:
    try:
        with os.fdopen(os.open(directory / EVIDENCE, _READING), "rb") as file:
            return FORMAT.encode() in file.read(200)
    except OSError:
        return False


_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Does not wait for a pipe, and does not make a terminal the controlling one."""


def _write(directory: int, contents: Mapping[str, bytes]) -> None:
    """Write the files to an open directory, which stays the same if its path is renamed."""
    unfinished = {name: name + _UNFINISHED for name in NAMES}
    try:
        for name, fresh in unfinished.items():
            with suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=directory)
            with os.fdopen(os.open(fresh, safe_files.FRESH, 0o666, dir_fd=directory), "wb") as file:
                file.write(contents[name])
                file.flush()
                os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            os.unlink(EVIDENCE, dir_fd=directory)
        for name, fresh in unfinished.items():
            os.replace(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        for fresh in unfinished.values():
            with suppress(OSError):
                os.unlink(fresh, dir_fd=directory)
        raise


def load(directory: Path) -> Evidence:
    """Load the evidence of a saved report. Raises UsageError (no report), DamagedFile."""
    if not directory.is_dir():
        raise UsageError(f"the directory {directory} does not exist")
    return evidence_from(
        _content(directory / EVIDENCE),
        _content(directory / CAPTURE),
        source=str(directory / EVIDENCE),
    )


def _content(path: Path) -> bytes:
    largest = LARGEST[path.name]
    try:
        fd = os.open(path, _READING)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UsageError(f"{path} is not a regular file")
            content = file.read(largest + 1)
    except FileNotFoundError:
        raise UsageError(
            f"{path.parent} contains no complete report: {path.name} is missing",
            hint="write one: lvsctl verify --report DIR",
        ) from None
    except IsADirectoryError:
        raise UsageError(f"{path} is not a regular file") from None
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > largest:
        raise DamagedFile(f"{path} is larger than any lvsctl report")
    return content
