"""keepalived's parameters: ``$NAME=value``, ``~SEQ`` and ``~LST``.

keepalived.conf(5), "Parameter substitution" and "Sequence blocks"; lib/parser.c of version 2.2.7:
check_definition, find_definition, replace_param, add_seq, add_lst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

MAX_LINE = 1024
"""Longest line after substitution (MAXBUF, lib/parser.h)."""

MAX_STEPS = 10_000
"""How many lines one ``~SEQ`` or ``~LST`` may stand for."""

MAX_REPLACEMENTS = 200_000
"""How many parameters are replaced in one configuration, with each repetition."""

_DEFINITION = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(.*)", re.DOTALL)
_USE = re.compile(r"\$(?:\{([A-Za-z_]\w*)((?: +\d+)*)\}|([A-Za-z_]\w*)(?=[ \t,)]|$))", re.ASCII)
# $NAME ends at a blank, a comma, a parenthesis or the line's end (find_definition).

_STANDARD = {"_HASH": ("#",), "_BANG": ("!",), "_INSTANCE": ("",), "_PWD": (".",)}
_RANDOM = "_RANDOM"


class InvalidParameter(ValueError):
    """A parameter or sequence that keepalived would not take either."""


class Definition(NamedTuple):
    """``$NAME=value``; the value has several lines if its first one ends with a backslash."""

    name: str
    value: str
    continues: bool


def parse_definition(line: str) -> Definition | None:
    """Return what ``line`` defines; None if it is no definition."""
    found = _DEFINITION.fullmatch(line)
    if found is None:
        return None
    value = found[2]
    if value.endswith("\\"):
        return Definition(found[1], value[:-1].rstrip(" \t"), continues=True)
    return Definition(found[1], value, continues=False)


class Definitions:
    """The parameters that are defined so far; each is a list of lines."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[str, ...]] = dict(_STANDARD)
        self.defined = False
        self._left = MAX_REPLACEMENTS

    def define(self, name: str, lines: tuple[str, ...]) -> None:
        """Define a parameter, or define it anew."""
        self._values[name] = lines or ("",)
        self.defined = True

    def replace(self, line: str) -> tuple[str, tuple[str, ...]]:
        """Return the line with each parameter replaced, and the lines that follow it.

        What follows comes from a parameter of several lines, which must end the line. Raises
        InvalidParameter where a value contains itself, or the line becomes too long.
        """
        rest: tuple[str, ...] = ()
        position = 0
        for _ in range(MAX_LINE):
            found = _USE.search(line, position)
            if found is None:
                return line, rest
            self._left -= 1
            if self._left < 0:
                raise InvalidParameter(f"more than {MAX_REPLACEMENTS} parameters are replaced")
            name = found[1] or found[3]
            value = self._values.get(name)
            if name == _RANDOM and value is None:
                raise InvalidParameter("$_RANDOM is another number each time")
            ends = found.end() == len(line)
            if value is None or (len(value) > 1 and not ends) or (found[2] and name != _RANDOM):
                position = found.start() + 1
                continue
            line = line[: found.start()] + value[0] + line[found.end() :]
            if len(value) > 1:
                rest = (*value[1:], *rest)
            position = found.start()
            if len(line) >= MAX_LINE:
                raise InvalidParameter(f"the line is longer than {MAX_LINE} characters")
            if value[0].lstrip(" \t").startswith("~"):
                return line, rest
        raise InvalidParameter("a parameter's value contains the parameter itself")

    def undefined(self, line: str) -> str:
        """Return the first parameter of the line that is not defined; empty if all are."""
        for found in _USE.finditer(line):
            if (found[1] or found[3]) not in self._values:
                return found[0]
        return ""


@dataclass(slots=True)
class Sequence:
    """A line to be repeated: the parameters' values for each repetition, and its text."""

    values: Iterator[Mapping[str, str]]
    text: str


def parse_sequence(line: str, definitions: Definitions) -> Sequence:
    """Parse a line that begins with ``~SEQ``, ``~SEQx`` or ``~LST``. Raises InvalidParameter."""
    found = re.match(r"~(SEQx?|LST)[ \t]*\(", line)
    if found is None:
        raise InvalidParameter("expected ~SEQ(NAME, START, STEP, END) or ~LST(NAME, VALUE, ...)")
    if found[1] == "LST":
        return _parse_list(line, found.end())
    inside, close, text = line[found.end() :].partition(")")
    name, comma, numbers = inside.partition(",")
    if not close or not comma or not name.strip():
        raise InvalidParameter("expected ~SEQ(NAME, START, STEP, END)")
    numbers, rest = definitions.replace(numbers.strip())
    if rest:
        raise InvalidParameter("a parameter of several lines cannot be a number")
    values = _numbers(numbers, hexadecimal=found[1] == "SEQx")
    return Sequence(({name.strip(): value} for value in values), text.lstrip(" \t"))


def _numbers(text: str, *, hexadecimal: bool) -> tuple[str, ...]:
    """Return the numbers of ``END``, ``START, END`` or ``START, STEP, END``."""
    try:
        given = [int(word, 0) for word in re.split(r"[ \t]*,[ \t]*", text.strip())]
    except ValueError:
        raise InvalidParameter("~SEQ needs numbers, such as ~SEQ(N, 1, 10)") from None
    if len(given) == 1:
        end = given[0]
        start, step = (-1 if end < 0 else 1), (-1 if end < 1 else 1)
    elif len(given) == 2:
        start, end = given
        step = 1 if start <= end else -1
    else:
        start, step, end = given[:3]
    if len(given) > 3 or not step or (end - start) * step < 0:
        raise InvalidParameter("~SEQ's step does not lead from its start to its end")
    if hexadecimal and min(start, end) < 0:
        raise InvalidParameter("~SEQx needs positive numbers")
    numbers = range(start, end + (1 if step > 0 else -1), step)
    if abs(end - start) // abs(step) > MAX_STEPS:
        raise InvalidParameter(f"~SEQ stands for more than {MAX_STEPS} lines")
    return tuple(f"{number:x}" if hexadecimal else str(number) for number in numbers)


def _parse_list(line: str, position: int) -> Sequence:
    """Parse ``~LST(NAME, VALUE, ...)`` or ``~LST({A, B}, {A1, B1}, ...)`` from after its ``(``."""
    groups: list[list[str]] = []
    here = re.compile(r"[ \t]*(?:\{([^{})]*)\}|([^ \t,{})]*))[ \t]*([,)])")
    while (found := here.match(line, position)) is not None:
        words = found[2] if found[1] is None else found[1]
        groups.append([word.strip() for word in words.split(",")])
        position = found.end()
        if found[3] == ")" or len(groups) > MAX_STEPS:
            break
    if found is None or found[3] != ")" or len(groups) < 2 or not all(groups[0]):
        raise InvalidParameter("expected ~LST(NAME, VALUE, ...) or ~LST({A, B}, {A1, B1}, ...)")
    names = groups[0]
    most = max(map(len, groups[1:]))
    if most > len(names):
        raise InvalidParameter(f"~LST has {most} values for {len(names)} parameters")
    return Sequence(
        (dict(zip_longest(names, values, fillvalue="")) for values in groups[1:]),
        line[position:].lstrip(" \t"),
    )
