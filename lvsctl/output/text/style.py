"""Colour, width and tables of text. This module does not access the terminal.

Our own and not rich's: rich takes longer to import (17–45 ms) than most commands take
to run, and ten times that in the machine; what is needed of it are the lines below.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

Paint = Callable[[str], str]

GAP = 2
"""Blanks between the columns of a table."""

_ASCII = str.maketrans({"→": "->", "─": "-", "│": "|", "·": "-", "…": "...", "–": "-", "×": "x"})


def _plain(text: str) -> str:
    return text


@dataclass(frozen=True, slots=True)
class Cell:
    """A table's cell with its looks: ``paint`` is applied after the layout.

    ``right``: aligned right. ``whole``: never wrapped, such as a command to be copied.
    """

    text: str
    paint: Paint = _plain
    right: bool = False
    whole: bool = False

    def least(self) -> int:
        """The fewest columns that it fits into. Words are never broken: half an address is
        worse than a line too long."""
        parts = [self.text] if self.whole else self.text.split()
        return max(map(display_width, parts), default=0)


@dataclass(frozen=True, slots=True)
class Style:
    """How the reader sees it: with colours or without, so many columns wide.

    ``unicode`` False: the few signs beyond ASCII are replaced.
    """

    color: bool
    width: int
    unicode: bool = True

    def bold(self, text: str) -> str:
        """Emphasis."""
        return self._sgr("1", text)

    def dim(self, text: str) -> str:
        """Less important."""
        return self._sgr("2", text)

    def red(self, text: str) -> str:
        """Wrong."""
        return self._sgr("31", text)

    def green(self, text: str) -> str:
        """Right."""
        return self._sgr("32", text)

    def yellow(self, text: str) -> str:
        """Undecided or worth attention."""
        return self._sgr("33", text)

    def cyan(self, text: str) -> str:
        """A command."""
        return self._sgr("36", text)

    def _sgr(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.color and text else text

    def heading(self, text: str, note: str = "") -> str:
        """A heading with an optional remark."""
        return f"{self.bold(text)}  {self.dim(note)}" if note else self.bold(text)

    def wrapped(self, text: str, indent: int = 0, hanging: int = 0) -> str:
        """``text`` in lines that fit, all but the first indented by ``hanging`` more."""
        lines = _wrap(text, max(self.width - indent - hanging, 20))
        first, rest = " " * indent, " " * (indent + hanging)
        return "\n".join((rest if number else first) + line for number, line in enumerate(lines))

    def table(
        self,
        rows: Sequence[Sequence[str | Cell]],
        *,
        headings: Sequence[str | Cell] = (),
        indent: int = 0,
    ) -> str:
        """Aligned columns that fit the width: the widest are wrapped, between words only."""
        body = [_cells(row) for row in rows]
        if headings:
            body = [[replace(cell, paint=self.bold) for cell in _cells(headings)], *body]
        widths = _fitted(body, self.width - indent)
        lines = [line for row in body for line in _row_lines(row, widths)]
        return "\n".join(" " * indent + line for line in lines)

    def finished(self, text: str) -> str:
        """The final text: ends with a newline, in ASCII if the terminal needs that."""
        return (text if self.unicode else text.translate(_ASCII)).rstrip("\n") + "\n"


def display_width(text: str) -> int:
    """The number of terminal columns that ``text`` takes."""
    if text.isascii() or all(sign.isascii() or ord(sign) in _ASCII for sign in text):
        return len(text)
    return sum(
        0 if unicodedata.combining(sign) else 1 + (unicodedata.east_asian_width(sign) in {"W", "F"})
        for sign in text
    )


def printable(text: str) -> str:
    """Replace control characters, which could control the terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _cells(row: Sequence[str | Cell]) -> list[Cell]:
    return [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]


def _fitted(rows: Sequence[Sequence[Cell]], width: int) -> list[int]:
    """The columns' widths: those of their contents, reduced to fit into ``width``."""
    count = max((len(row) for row in rows), default=0)
    columns = [[row[index] for row in rows if index < len(row)] for index in range(count)]
    widths = [max(display_width(cell.text) for cell in column) for column in columns]
    least = [max(cell.least() for cell in column) for column in columns]
    excess = sum(widths) + GAP * (count - 1) - width
    while excess > 0:
        index = max(range(count), key=lambda i: (widths[i] > least[i], widths[i]))
        if widths[index] <= least[index]:
            break
        widths[index] -= 1
        excess -= 1
    return widths


def _row_lines(row: Sequence[Cell], widths: Sequence[int]) -> list[str]:
    wrapped = [_wrap(cell.text, width) for cell, width in zip(row, widths, strict=False)]
    lines = []
    for number in range(max(map(len, wrapped), default=0)):
        line = ""
        blanks = 0
        for cell, parts, width in zip(row, wrapped, widths, strict=False):
            part = parts[number] if number < len(parts) else ""
            fill = width - display_width(part)
            left, right = (fill, 0) if cell.right else (0, fill)
            if part:
                line += " " * (blanks + left) + cell.paint(part)
                blanks = right + GAP
            else:
                blanks += width + GAP
        lines.append(line)
    return lines


def _wrap(text: str, width: int) -> list[str]:
    if display_width(text) <= width:
        return [text]
    # textwrap counts characters, not columns; and takes 2 ms to import, for a dozen lines.
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if display_width(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
