"""The plainest command lines of the commands that are typed most, read without Typer.

Typer takes 45 ms to import and to be told of a command: as long as everything else that
`lvsctl up` does for a small lab. So what stands in ``_COMMANDS`` is read here where it is
beyond doubt: options in full, each once, with a value of its kind; no `--`, no ``-s5``,
no help. This never says no: whatever is not plain is left to Typer, mistakes first of all.

The options are declared with the commands, for Typer; what is repeated here is their names
and kinds. tests/unit/test_plain.py holds every reading against Typer's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvsctl.cli.where import Placed
    from lvsctl.model.service import Scheduler


Kind = Callable[[str], Any]
"""What makes a value of a word; ValueError: it is none."""


@dataclass(frozen=True, slots=True)
class _Plain:
    """How one command's line is read: parameters' names by option, and by position."""

    command: Placed
    values: dict[str, tuple[str, Kind]]
    flags: dict[str, str]
    words: str = ""
    """The parameter that all other words go to."""
    one: bool = False
    """Exactly one word, rather than a list of any length (empty: None)."""


def run(words: Sequence[str]) -> int | None:
    """Carry out a plain command line; its exit status. None: it is Typer's to read."""
    if not words or words[0] not in _COMMANDS:
        return None
    plain = _plain(words[0])
    given = _read(plain, words[1:])
    if given is None:
        return None
    from lvsctl.cli.where import WHERE_VARIABLE, Where

    where = given.pop("where", None) or _value(Where, os.environ.get(WHERE_VARIABLE) or "auto")
    if where is None:
        return None
    return plain.command.run(list(words), where, _defaults(plain) | given) or 0


def _plain(name: str) -> _Plain:
    from lvsctl.cli import labs
    from lvsctl.cli.output import Format
    from lvsctl.cli.where import Where

    where: dict[str, tuple[str, Kind]] = {"--where": ("where", Where)}
    wanted: dict[str, tuple[str, Kind]] = {"--format": ("wanted", Format), "-f": ("wanted", Format)}
    if name == "up":
        values: dict[str, tuple[str, Kind]] = {
            "--servers": ("servers", int), "-s": ("servers", int),
            "--name": ("name", str), "-n": ("name", str),
            "--scheduler": ("scheduler", _scheduler),
        }  # fmt: skip
        return _Plain(labs.up, where | wanted | values, {}, words="topology", one=True)
    if name == "down":
        flags = {"--all": "all_", "--wait": "wait"}
        return _Plain(labs.down, where, flags, words="labs")
    return _Plain(labs.ls, where | wanted, {})


_COMMANDS = frozenset({"up", "down", "ls"})


def _read(plain: _Plain, words: Sequence[str]) -> dict[str, Any] | None:
    """The parameters that ``words`` give; None where anything is not plain."""
    given: dict[str, Any] = {}
    others: list[str] = []
    found: Any
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            others.append(word)
            continue
        if word in plain.flags:
            parameter, found = plain.flags[word], True
        elif name in plain.values and (name.startswith("--") or not equals):
            parameter, kind = plain.values[name]
            found = _value(kind, value if equals else next(rest, ""))
        else:
            return None
        if found is None or parameter in given:
            return None
        given[parameter] = found
    return _with_words(plain, given, others)


def _with_words(plain: _Plain, given: dict[str, Any], others: list[str]) -> dict[str, Any] | None:
    if "" in others or (others and not plain.words) or (plain.one and len(others) != 1):
        return None
    if others:
        given[plain.words] = others[0] if plain.one else others
    return given


def _value(kind: Kind, text: str) -> Any:
    """``text`` as a value of ``kind``; None where it is none, or might be something else."""
    if not text or text.startswith("-"):
        return None
    if kind is str:
        return text
    if kind is int:
        return int(text) if text.isascii() and text.isdecimal() and 0 < int(text) < 10**9 else None
    try:
        return kind(text)
    except ValueError:
        return None


def _scheduler(text: str) -> Scheduler:
    from lvsctl.model.service import Scheduler

    return Scheduler(text)


def _defaults(plain: _Plain) -> dict[str, Any]:
    """The command's own, by parameter."""
    function: Any = plain.command.command
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    return dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
