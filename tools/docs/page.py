"""A page as pieces: prose, commands with their output, files that the reader saves.

A fenced block ``console`` contains commands, each after ``$``, and their output below. A fenced
block with ``title="NAME"`` is a file that the reader saves as NAME. Everything else is prose. The
comment ``<!-- exit N -->`` before a block gives the exit status of its last command, if it is not
0. A page with ``<!-- not run: WHY -->`` is only prose: its commands need something that tests do
not have, such as another kernel or a CI service.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROMPT = "$ "
MORE = "> "
"""The prompt of a command's further lines, as a shell prints it."""
_FENCE = re.compile(r"(?P<fence>`{3,})(?P<info>.*)")
_TITLE = re.compile(r'title="(?P<name>[^"/]+)"')
_NOT_RUN = re.compile(r"^<!-- not run: \S.* -->$", re.MULTILINE)
_EXIT = re.compile(r"<!-- exit (?P<status>\d+) -->")


class PageError(Exception):
    """A page has a mistake; the message says where."""


@dataclass(frozen=True, slots=True)
class Prose:
    """Lines that are not run, fences included."""

    lines: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Command:
    """What the reader types, its output and its exit status."""

    words: str
    output: tuple[str, ...]
    status: int
    line: int


@dataclass(frozen=True, slots=True)
class Console:
    """The commands of one block."""

    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class File:
    """A file that the reader saves; ``lines`` are the block's, without its fences."""

    name: str
    lines: tuple[str, ...]
    fence: str


Piece = Prose | Console | File


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the documentation."""

    path: Path
    pieces: tuple[Piece, ...]

    @property
    def commands(self) -> Iterator[Command]:
        """All commands, in the order in which the reader types them."""
        for piece in self.pieces:
            if isinstance(piece, Console):
                yield from piece.commands

    def text(self) -> str:
        """Return the page as Markdown; reading and writing it changes only blank lines."""
        return "\n".join(line for piece in self.pieces for line in _written(piece)) + "\n"


def read(path: Path) -> Page:
    """Read a page. Raises PageError if a block is not closed or contains no command."""
    text = path.read_text(encoding="utf-8")
    if _NOT_RUN.search(text):
        return Page(path, (Prose(tuple(text.splitlines()), 1),))
    return Page(path, tuple(_pieces(path, text.splitlines())))


def has_commands(path: Path) -> bool:
    """Return whether a page has a block of commands to run, well-formed or not."""
    text = path.read_text(encoding="utf-8")
    return "\n```console" in text and not _NOT_RUN.search(text)


def _pieces(path: Path, lines: list[str]) -> Iterator[Piece]:
    prose: list[str] = []
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        if opening is None:
            prose.append(lines[at])
            at += 1
            continue
        end = _end(path, lines, at, opening["fence"])
        piece = _block(path, lines, at, end, _status(prose))
        if piece is None:
            prose += lines[at : end + 1]
        else:
            if prose:
                yield Prose(tuple(prose), at - len(prose) + 1)
            prose = []
            yield piece
        at = end + 1
    if prose:
        yield Prose(tuple(prose), len(lines) - len(prose) + 1)


def _end(path: Path, lines: list[str], start: int, fence: str) -> int:
    for at in range(start + 1, len(lines)):
        if lines[at].rstrip() == fence:
            return at
    raise PageError(f"{path}:{start + 1}: this block is never closed")


def _status(prose: list[str]) -> int:
    found = _EXIT.fullmatch(prose[-1]) if prose else None
    return int(found["status"]) if found else 0


def _block(path: Path, lines: list[str], start: int, end: int, status: int) -> Piece | None:
    info = lines[start].lstrip("`")
    inside = lines[start + 1 : end]
    title = _TITLE.search(info)
    if title is not None:
        return File(title["name"], tuple(inside), lines[start])
    if info.strip() != "console":
        return None
    return Console(tuple(_commands(path, inside, start + 2, status)))


def _commands(path: Path, lines: list[str], first: int, last_status: int) -> Iterator[Command]:
    starts = [at for at, line in enumerate(lines) if line.startswith(PROMPT)]
    if not starts or starts[0] != 0:
        raise PageError(f"{path}:{first}: a console block begins with a command after {PROMPT!r}")
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        words = [lines[start].removeprefix(PROMPT)]
        at = start + 1
        while at < end and lines[at].startswith(MORE):
            words.append(lines[at].removeprefix(MORE))
            at += 1
        output = _trimmed(lines[at:end])
        status = last_status if end == len(lines) else 0
        yield Command("\n".join(words), output, status, first + start)


def _trimmed(lines: list[str]) -> tuple[str, ...]:
    """Without the blank line that keeps the next command apart."""
    while lines and not lines[-1]:
        lines = lines[:-1]
    return tuple(lines)


def _written(piece: Piece) -> Iterator[str]:
    if isinstance(piece, Prose):
        yield from piece.lines
    elif isinstance(piece, File):
        yield piece.fence
        yield from piece.lines
        yield re.match("`+", piece.fence)[0]  # type: ignore[index]
    else:
        yield "```console"
        for number, command in enumerate(piece.commands):
            if number and piece.commands[number - 1].output:
                yield ""
            first, *more = command.words.split("\n")
            yield PROMPT + first
            yield from (MORE + line for line in more)
            yield from command.output
        yield "```"
