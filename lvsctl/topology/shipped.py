"""Find topologies: shipped ones by name, others by path or on standard input."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO, NamedTuple

import lvsctl
from lvsctl.errors import UsageError, choice_hint, quoted

MAX_BYTES = 1 << 20
"""The maximum size of a topology."""

_SUFFIX = ".yaml"
_SUFFIXES = (_SUFFIX, ".yml", ".json")


class Topology(NamedTuple):
    """A topology's text and the name of its source in messages.

    ``argument`` is what names it on the command line: a shipped name, an absolute path, or ``-``.
    """

    source: str
    text: bytes
    argument: str = ""

    @property
    def directory(self) -> Path | None:
        """The directory of the file; None if it is not from one."""
        return Path(self.argument).parent if "/" in self.argument else None


def names() -> tuple[str, ...]:
    """Return the names of the shipped topologies in alphabetical order."""
    return tuple(sorted(path.stem for path in _directory().glob(f"*{_SUFFIX}")))


def summaries() -> dict[str, str]:
    """Return the description of each shipped topology."""
    return {name: _description(text_of(name)) for name in names()}


def text_of(name: str) -> str:
    """Return the text of a shipped topology. Raises UsageError if it does not exist."""
    if name not in names():
        raise _missing(name)
    return path_of(name).read_text(encoding="utf-8")


def path_of(name: str) -> Path:
    """Return the path of a shipped topology."""
    return _directory() / f"{name}{_SUFFIX}"


def find(argument: str, stdin: BinaryIO) -> Topology:
    """Find a command's topology by its argument: a shipped name, a path, or ``-``.

    A word without a slash is a shipped name or else a file in the current directory.
    Raises UsageError if it cannot be read.
    """
    if argument == "-":
        text = _checked(stdin.read(MAX_BYTES + 1), "standard input")
        return Topology("standard input", text, argument)
    if "/" not in argument and argument in names():
        return Topology(f"{argument}{_SUFFIX}", path_of(argument).read_bytes(), argument)
    if not argument:
        raise _missing(argument)
    path = Path(argument)
    try:
        if path.is_dir():
            raise UsageError(
                f"{quoted(argument)} is a directory", hint=_inside(path) or "name a file in it"
            )
        with path.open("rb") as file:
            text = _checked(file.read(MAX_BYTES + 1), argument)
            return Topology(argument, text, str(path.absolute()))
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(argument) from None
    except PermissionError:
        raise UsageError(
            f"{quoted(argument)} may not be read", hint=f"check it with: ls -l {argument}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{quoted(argument)} cannot be read: {reason}") from None


def _checked(text: bytes, source: str) -> bytes:
    if b"\0" in text:
        raise UsageError(
            f"{quoted(source)} is binary, not a topology", hint="name a YAML or JSON file"
        )
    return text


def _missing(argument: str) -> UsageError:
    known = names()
    if "/" in argument or argument.endswith(_SUFFIXES):
        stem = Path(argument).stem
        near = choice_hint(stem, known, "shipped topologies") if known else ""
        return UsageError(f"the file {quoted(argument)} does not exist", hint=near)
    return UsageError(
        f"the topology {quoted(argument)} does not exist",
        hint=f"{choice_hint(argument, known, 'shipped topologies')}; or a file, ./mine.yaml",
    )


def _inside(node_names: Path) -> str:
    files = sorted(path.name for path in node_names.iterdir() if path.suffix in _SUFFIXES)
    return f"it contains {', '.join(files[:8])}" if files else ""


def _directory() -> Path:
    """Return ``lvsctl/topologies`` of an installed package or ``topologies`` of a checkout."""
    package = Path(lvsctl.__file__).parent
    packaged = package / "topologies"
    return packaged if packaged.is_dir() else package.parent / "topologies"


def _description(text: str) -> str:
    # Parsing every file as YAML would be slow; the shipped files have it on one line.
    found = re.search(r"^description: *(.+)$", text, re.MULTILINE)
    return found[1] if found else ""
