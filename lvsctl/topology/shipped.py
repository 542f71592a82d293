"""Finding topologies: shipped ones by name, others by path, or standard input."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import lvsctl
from lvsctl.errors import UsageError
from lvsctl.topology.reading import MAX_BYTES
from lvsctl.topology.report import choice_hint
from lvsctl.topology.tree import quoted

_SUFFIX = ".yaml"
_SUFFIXES = (_SUFFIX, ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Topology:
    """A topology's text, and what to call the place it came from in messages."""

    source: str
    text: bytes


def names() -> tuple[str, ...]:
    """The names of the shipped topologies, in alphabetical order."""
    return tuple(sorted(path.stem for path in _directory().glob(f"*{_SUFFIX}")))


def summaries() -> dict[str, str]:
    """Each shipped topology's description, by its name."""
    return {name: _description(text_of(name)) for name in names()}


def text_of(name: str) -> str:
    """The file of a shipped topology. Raises UsageError where there is none."""
    if name not in names():
        raise _missing(name)
    return path_of(name).read_text(encoding="utf-8")


def path_of(name: str) -> Path:
    """Where the file of a shipped topology lies."""
    return _directory() / f"{name}{_SUFFIX}"


def find(argument: str, stdin: BinaryIO) -> Topology:
    """The topology that a command's argument means: a shipped name, a path, or ``-``.

    A bare word is a shipped name first and a file in the current directory second;
    whatever contains a slash is a path. Raises UsageError where there is nothing to read.
    """
    if argument == "-":
        return Topology("standard input", _checked(stdin.read(MAX_BYTES + 1), "standard input"))
    if "/" not in argument and argument in names():
        return Topology(f"{argument}{_SUFFIX}", path_of(argument).read_bytes())
    if not argument:
        raise _missing(argument)
    path = Path(argument)
    try:
        if path.is_dir():
            raise UsageError(
                f"{quoted(argument)} is a directory", hint=_inside(path) or "name a file in it"
            )
        with path.open("rb") as file:
            return Topology(argument, _checked(file.read(MAX_BYTES + 1), argument))
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
        return UsageError(f"there is no file {quoted(argument)}", hint=near)
    return UsageError(
        f"there is no topology {quoted(argument)}",
        hint=f"{choice_hint(argument, known, 'shipped topologies')}; or a file, ./mine.yaml",
    )


def _inside(directory: Path) -> str:
    files = sorted(path.name for path in directory.iterdir() if path.suffix in _SUFFIXES)
    return f"it contains {', '.join(files[:8])}" if files else ""


def _directory() -> Path:
    """In an installed package ``lvsctl/topologies``, in a checkout ``topologies`` beside it."""
    package = Path(lvsctl.__file__).parent
    packaged = package / "topologies"
    return packaged if packaged.is_dir() else package.parent / "topologies"


def _description(text: str) -> str:
    # Not worth importing yaml for a list of topologies: our own files have it on one line.
    found = re.search(r"^description: *(.+)$", text, re.MULTILINE)
    return found[1] if found else ""
