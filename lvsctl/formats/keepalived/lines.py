"""The lines of keepalived.conf as keepalived's parser sees them (read_line, lib/parser.c 2.2.7).

Comments are gone, parameters replaced, included files in place, lines for other hosts left out,
and each brace ends its line. What is left of a line is words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lvsctl.errors import quoted
from lvsctl.formats.configuration import Notes, Place
from lvsctl.formats.keepalived.definitions import (
    Definitions,
    InvalidParameter,
    Sequence,
    parse_definition,
    parse_sequence,
)
from lvsctl.formats.keepalived.files import Files, lines_of

MAX_LINES = 50_000
"""How many lines a configuration may have in all, with each repetition."""

_INCLUDE = re.compile(r"include[rmwba]?\s+(.*)", re.DOTALL)
_SPECIAL = re.compile(r'[!#"\\]')
_BRACE = re.compile(r'[{}"]')
_WORD = re.compile(r'[ \t\r\n\f\v]*(?:"([^"]*)"|([^ \t\r\n\f\v"]+)|(")[^"]*$)')


@dataclass(frozen=True, slots=True)
class Line:
    """The words of one line; a brace outside quotation marks is a line of its own."""

    words: tuple[str, ...]
    place: Place


class _TooLong(Exception):
    """The configuration has more lines than may be read."""


def read_lines(
    text: str, notes: Notes, directory: Path | None, config_id: str = ""
) -> Iterator[Line]:
    """Yield the lines of a configuration.

    ``directory`` is that of the file, for what it includes (None: it may not). Lines that begin
    with ``@ID`` are kept for ``config_id`` only, those with ``@^ID`` for every other one.
    """
    reader = _Reader(notes, Files(notes, directory), config_id)
    try:
        yield from reader.file(text, notes.source, None, 0)
    except _TooLong as error:
        notes.end(Place(notes.source, 1), str(error))
        return
    reader.finish()


class _Reader:
    """The state of reading: parameters, open sequences, and how many lines there were."""

    def __init__(self, notes: Notes, files: Files, config_id: str) -> None:
        self._notes, self._files, self._config_id = notes, files, config_id
        self._definitions = Definitions()
        self._open: tuple[str, list[str]] | None = None
        self._count = 0

    def file(self, text: str, name: str, path: Path | None, depth: int) -> Iterator[Line]:
        """Yield the lines of a file and of those that it includes."""
        for number, raw in lines_of(text):
            place = Place(name, number)
            self._count_line()
            if "\0" in raw:
                self._notes.wrong(place, "the line contains a NUL character", "write text")
                continue
            line = _without_comment(raw)
            if line is None:
                self._notes.wrong(place, "a quotation mark is not closed", 'close it with "')
                continue
            if self._open is not None:
                self._continue_definition(line)
                continue
            yield from self._line(line, place, path, depth)

    def finish(self) -> None:
        """Define what the last line of the files began to define."""
        if self._open is not None:
            self._continue_definition("")

    def _count_line(self) -> None:
        self._count += 1
        if self._count > MAX_LINES:
            raise _TooLong(f"the configuration has more than {MAX_LINES} lines")

    def _continue_definition(self, line: str) -> None:
        assert self._open is not None  # noqa: S101 - for the type checker
        name, lines = self._open
        more = line.endswith("\\")
        value = line[:-1].rstrip(" \t") if more else line
        if value:
            lines.append(value)
        if not more:
            self._definitions.define(name, tuple(lines))
            self._open = None

    def _line(self, line: str, place: Place, path: Path | None, depth: int) -> Iterator[Line]:
        """Yield what one line means, innermost sequence first."""
        waiting: list[str | Sequence] = [line]
        while waiting:
            self._count_line()
            one = waiting.pop()
            if isinstance(one, Sequence):
                values = next(one.values, None)
                if values is None:
                    continue
                for name, value in values.items():
                    self._definitions.define(name, (value,))
                waiting += [one, one.text]
                continue
            try:
                found = self._replaced(one, place)
                if found is None:
                    continue
                text, rest = found
                waiting += reversed(rest)
                if text.startswith(("~SEQ", "~LST")):
                    waiting.append(parse_sequence(text, self._definitions))
                    continue
            except InvalidParameter as error:
                self._notes.wrong(place, f"{error}", f"it reads: {quoted(one)}")
                continue
            included = _INCLUDE.fullmatch(text)
            if included is not None:
                for other in self._files.matching(included[1].strip(), path, place, depth):
                    content = self._files.read(other, place)
                    yield from self.file(content, str(other), other, depth + 1)
                continue
            yield from self._split(text, place)

    def _replaced(self, line: str, place: Place) -> tuple[str, tuple[str, ...]] | None:
        """Return a line with its parameters replaced and what follows; None if it means nothing."""
        rest: tuple[str, ...] = ()
        for _ in range(100):
            if line.startswith("@"):
                chosen = self._for_this_host(line, place)
                if chosen is None:
                    return None
                line = chosen
            if (definition := parse_definition(line)) is not None:
                if definition.continues:
                    self._open = definition.name, [definition.value] if definition.value else []
                else:
                    self._definitions.define(definition.name, (definition.value,))
                return None
            if line.startswith("~") or "$" not in line or not self._definitions.defined:
                break
            before = line
            line, more = self._definitions.replace(line)
            rest = (*more, *rest)
            line = _without_comment(line) or ""
            if line == before or not ("$" in line or line.startswith("@")):
                break
        if not line.startswith("~") and (missing := self._definitions.undefined(line)):
            self._notes.wrong(place, f"{missing} is not defined", f"define it before: {missing}=…")
            return None
        return (line, rest) if line or rest else None

    def _for_this_host(self, line: str, place: Place) -> str | None:
        """Return the line without its ``@ID``; None if it is for other hosts."""
        found = re.fullmatch(r"@(\^?)([^ \t]*)[ \t]+(.*)", line, re.DOTALL)
        if found is None:
            return None
        if (found[2] == self._config_id) is bool(found[1]):
            other = "any other host" if found[1] else f"host {quoted(found[2])}"
            take = "" if found[1] else f" (--config-id {found[2]} takes it)"
            self._notes.remark(place, f"left out, because it is for {other}{take}")
            return None
        return found[3]

    def _split(self, line: str, place: Place) -> Iterator[Line]:
        """Yield a line's words, and each brace as a line of its own."""
        while line:
            position = 0
            while True:
                brace = _BRACE.search(line, position)
                if brace is None or brace[0] != '"':
                    break
                closing = line.find('"', brace.end())
                if closing < 0:
                    brace = None
                    break
                position = closing + 1
            if brace is None:
                yield from self._words(line, place)
                return
            if before := line[: brace.start()].strip(" \t"):
                yield from self._words(before, place)
            yield Line((brace[0],), place)
            line = line[brace.end() :].strip(" \t")

    def _words(self, line: str, place: Place) -> Iterator[Line]:
        words: list[str] = []
        for found in _WORD.finditer(line):
            if found[3]:
                self._notes.wrong(place, "a quotation mark is not closed", 'close it with "')
                return
            words.append(found[2] if found[1] is None else found[1])
        if words:
            yield Line(tuple(words), place)


def _without_comment(raw: str) -> str | None:
    """Return a line without comment and blanks around it; None if a quotation mark is not closed.

    A backslash keeps ``#`` and ``!`` from beginning a comment. One at the end of the line stays.
    """
    line = raw.lstrip(" \t")
    kept: list[str] = []
    position, quoting, continued = 0, False, False
    while (found := _SPECIAL.search(line, position)) is not None:
        kept.append(line[position : found.start()])
        position = found.end()
        if found[0] == '"':
            quoting = not quoting
            kept.append('"')
        elif found[0] == "\\":
            after = line[position : position + 1]
            if not after:
                continued = True
                break
            escaped = not quoting and after in "#!"
            kept.append(after if escaped else f"\\{after}")
            position += 1
        elif quoting:
            kept.append(found[0])
        else:
            position = len(line)
            break
    kept.append(line[position:])
    if quoting:
        return None
    return "".join(kept).rstrip(" \t") + ("\\" if continued else "")
