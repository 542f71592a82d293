"""The files of a configuration: the first one, and those that it includes.

keepalived.conf(5), "include": a pattern of glob(7) with csh-style braces, relative to the directory
of the including file. Directories and executable files are skipped (check_glob_file in keepalived's
lib/parser.c).
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from glob import glob
from pathlib import Path

from lvsctl.errors import quoted
from lvsctl.formats.configuration import Notes, Place

MAX_DEPTH = 16
MAX_FILES = 500
MAX_BYTES = 4 << 20
MAX_WILDCARDS = 3
"""How many directories of a pattern may have wildcards: each multiplies what is looked at."""
_NO_FILES = ("/proc", "/sys", "/dev")
"""Where a regular file may be a device, or reading it may wait for ever."""
MAX_PATTERNS = 64
"""How many patterns the braces of one ``include`` may mean."""


class Files:
    """Reads files for one configuration, within limits on their number and size.

    ``directory`` is what relative names in the first file are relative to; None: the file may not
    include any, because it is not a file (standard input).
    """

    def __init__(self, notes: Notes, directory: Path | None) -> None:
        self._notes = notes
        self._directory = directory
        self._count = self._bytes = 0

    def matching(self, pattern: str, origin: Path | None, place: Place, depth: int) -> list[Path]:
        """Return the files that an ``include`` in the file ``origin`` means, in order."""
        directory = self._directory if origin is None else origin.parent
        if directory is None:
            hint = "name the file in place of standard input"
            self._notes.wrong(place, "standard input cannot include files", hint)
            return []
        if depth >= MAX_DEPTH:
            hint = "does a file include itself?"
            self._notes.wrong(place, f"files include each other {MAX_DEPTH} levels deep", hint)
            return []
        if sum(bool(re.search(r"[*?\[]", part)) for part in pattern.split("/")) > MAX_WILDCARDS:
            hint = f"at most {MAX_WILDCARDS} parts of the path"
            self._notes.wrong(place, "include has too many wildcards", hint)
            return []
        found: list[Path] = []
        for one in _without_braces(pattern):
            try:
                names = sorted(glob(str(directory / one)))  # noqa: PTH207 - Path.glob has hidden files too
            except (OSError, ValueError, re.error):
                names = []
            found += (path for path in map(Path, names) if _is_configuration(path))
        if not found:
            self._notes.remark(place, f"include {quoted(pattern)}: no such file")
        return found

    def read(self, path: Path, place: Place) -> str:
        """Return a file's text; empty, with a mistake noted at ``place``, if it has none."""
        self._count += 1
        self._notes.files.append(str(path))
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            self._notes.wrong(place, f"{path} cannot be read: {getattr(error, 'strerror', error)}")
            return ""
        self._bytes += len(raw)
        if self._count > MAX_FILES or self._bytes > MAX_BYTES:
            limits = f"at most {MAX_FILES} files and {MAX_BYTES} bytes"
            self._notes.wrong(place, "it includes too much", limits)
            return ""
        return raw.decode(errors="replace")


def _is_configuration(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
        if any(path.resolve().is_relative_to(place) for place in _NO_FILES):
            return False
    except (OSError, ValueError, RuntimeError):  # RuntimeError: a loop of links
        return False
    return stat.S_ISREG(mode) and not mode & 0o111


def _without_braces(pattern: str) -> list[str]:
    """Return the patterns that csh-style braces stand for: ``{a,b}.conf`` is two."""
    done: list[str] = []
    waiting = [pattern]
    while waiting and len(done) + len(waiting) <= MAX_PATTERNS:
        one = waiting.pop(0)
        inner = re.search(r"\{([^{}]*,[^{}]*)\}", one)
        if inner is None:
            done.append(one)
        else:
            before, after = one[: inner.start()], one[inner.end() :]
            waiting = [f"{before}{choice}{after}" for choice in inner[1].split(",")] + waiting
    return done


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, without the characters that end it."""
    for number, line in enumerate(text.split("\n"), 1):
        yield number, line.rstrip("\r")
