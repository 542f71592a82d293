"""Lines about labs for the terminal's summary; xdist's workers send theirs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

NOTES = pytest.StashKey[list[Mapping[str, Any]]]()
"""Of this process and, in xdist's controller, of its workers: the fields of a worker's note."""

WORKER_OUTPUT = "lvsctl"
"""Key under which an xdist worker leaves its notes for the controller."""


def leave(config: pytest.Config, note: Mapping[str, Any]) -> None:
    """Add a note, and send it to the controller if this is an xdist worker."""
    config.stash.setdefault(NOTES, []).append(note)
    output = getattr(config, "workeroutput", None)
    if output is not None:
        output[WORKER_OUTPUT] = config.stash[NOTES]


def summary(notes: Sequence[Mapping[str, Any]], how: str) -> Iterator[tuple[str, bool]]:
    """Lines, each with whether it is important. ``how`` is the name of the option."""
    for place, count in _counted(notes, "place").items():
        labs = sum(note.get("labs", 0) for note in notes if note.get("place") == place)
        workers = f" (by {count} workers, each in its own)" if count > 1 else ""
        yield f"{labs} lab{'' if labs == 1 else 's'} on {place}{workers}", False
    for reason in _counted(notes, "skipped_for"):
        skipped = sum(note["skipped"] for note in notes if note.get("skipped_for") == reason)
        tests = f"{skipped} test{' was' if skipped == 1 else 's were'}"
        yield f"{tests} SKIPPED: this host cannot run labs: {reason}", True
        yield f"{how}=fail makes that a failure, as it is where CI is set", True
    for complaint in _counted(notes, "complaint"):
        yield complaint, True


def _counted(notes: Sequence[Mapping[str, Any]], key: str) -> Counter[str]:
    return Counter(note[key] for note in notes if note.get(key))
