"""The script that collects a host's state, and the document that it prints.

A document is text: a first line with its version, sections, a last line. Each line of a section's
content begins with a bar, so that no content can be taken for a section.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lvsctl.errors import DamagedFile, quoted

_SECTION = "# section.sh: lvsctl puts that file here.\n"
_FIRST = "lvsctl-collect 1"
_LAST = "end of lvsctl-collect"

LARGEST = 32 << 20
"""Bytes of a document. A host with 10,000 routes and 1,000 virtual services prints about 4 MB."""


class Damaged(DamagedFile):
    """A document that is none, or not whole."""


@dataclass(frozen=True, slots=True)
class Section:
    """The output of one command, and its exit status."""

    text: str
    status: int

    @property
    def was_read(self) -> bool:
        """Whether the command did its work: it succeeded, or printed something all the same."""
        return self.status == 0 or bool(self.text)


def script() -> str:
    """Return the script, for a POSIX shell."""
    return script_from("collect.sh")


def script_from(file: str) -> str:
    """Return a script of this package with the function that prints a section of a document."""
    directory = Path(__file__).parent
    text, section = (
        (directory / name).read_text(encoding="utf-8") for name in (file, "section.sh")
    )
    return text.replace(_SECTION, section)


def sections(data: bytes, source: str) -> Mapping[str, Section]:
    """Split a document into its sections, by name. Raises Damaged."""
    if len(data) > LARGEST:
        raise Damaged(f"{source}: larger than {LARGEST >> 20} MiB: not written by lvsctl collect")
    lines = data.decode(errors="replace").replace("\r\n", "\n").split("\n")
    while lines and not lines[-1]:
        lines.pop()
    # What a login shell says comes before, as a banner.
    start = next((n for n, line in enumerate(lines) if line.startswith("lvsctl-collect ")), None)
    if start is None:
        raise Damaged(
            f"{source}: not written by lvsctl collect: no line `{_FIRST}`",
            hint="lvsctl collect > collect.sh && ssh HOST sh -s <collect.sh >HOST.txt",
        )
    if lines[start] != _FIRST:
        raise Damaged(
            f"{source}:{start + 1}: {quoted(lines[start])}: written by another version of lvsctl",
            hint="collect it again with this version's script: lvsctl collect",
        )
    if _LAST not in lines:
        raise Damaged(
            f"{source}:{len(lines)}: the file ends before `{_LAST}`",
            hint="collect it again: the connection or the disk failed",
        )
    return _split(lines, start + 1, source)


def _split(lines: list[str], start: int, source: str) -> Mapping[str, Section]:
    found: dict[str, Section] = {}
    name, text = "", [""]
    for number, line in enumerate(lines[start:], start + 1):
        if line == _LAST:
            return found
        if name and line.startswith("|"):
            text.append(line[1:])
        elif name and (end := re.fullmatch(rf"end {re.escape(name)} ([0-9]{{1,3}})", line)):
            found[name] = Section("\n".join(text), int(end[1]))
            name = ""
        elif not name and (begin := re.fullmatch(r"section ([a-z0-9-]{1,40})", line)):
            name, text = begin[1], []
        else:
            raise Damaged(f"{source}:{number}: {quoted(line)}: the file was changed or damaged")
    return found
