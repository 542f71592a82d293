"""Find topologies: shipped ones by name, others by path or on standard input."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import BinaryIO, NamedTuple

import lvsctl
from lvsctl.errors import UsageError, choice_hint, quoted

MAX_BYTES = 1 << 20
"""The maximum size of a topology."""

_SUFFIX = ".yaml"
_SUFFIXES = (_SUFFIX, ".yml", ".json")


_STDIN = "standard input"


class FileKind(NamedTuple):
    """What a file must be: with its article, and what to name in its place."""

    noun: str
    right: str


TOPOLOGY = FileKind("a topology", "a YAML or JSON file")


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
    if "/" not in argument and argument in names():
        return Topology(f"{argument}{_SUFFIX}", path_of(argument).read_bytes(), argument)
    if not argument:
        raise _missing(argument)
    return read_file(argument, stdin, TOPOLOGY)


def read_file(argument: str, stdin: BinaryIO, kind: FileKind) -> Topology:
    """Read a file, or standard input if ``argument`` is ``-``, that must be of a ``kind``.

    Raises UsageError if it cannot be read.
    """
    if argument == "-":
        return Topology(_STDIN, _checked(stdin.read(MAX_BYTES + 1), _STDIN, kind), argument)
    path = Path(argument)
    try:
        if path.is_dir():
            inside = _inside(path) if kind is TOPOLOGY else ""
            raise UsageError(
                f"{quoted(argument)} is a directory", hint=inside or "name a file in it"
            )
        with path.open("rb") as file:
            text = _checked(file.read(MAX_BYTES + 1), argument, kind)
            return Topology(argument, text, str(path.absolute()))
    except (FileNotFoundError, NotADirectoryError):
        if kind is TOPOLOGY:
            raise _missing(argument) from None
        hint = f"{argument} is a shipped topology" if argument in names() else ""
        raise UsageError(f"the file {quoted(argument)} does not exist", hint=hint) from None
    except PermissionError:
        raise UsageError(
            f"{quoted(argument)} may not be read", hint=f"check it with: ls -l {argument}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{quoted(argument)} cannot be read: {reason}") from None


def _checked(text: bytes, source: str, kind: FileKind) -> bytes:
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        hint = f"convert it: iconv -f utf-16 -t utf-8 {source if source != _STDIN else ''}".rstrip()
        raise UsageError(f"{quoted(source)} is text in UTF-16, not UTF-8", hint=hint)
    if b"\0" in text:
        message = f"{quoted(source)} is binary, not {kind.noun}"
        raise UsageError(message, hint=f"name {kind.right}")
    if len(text) > MAX_BYTES and kind is not TOPOLOGY:  # a topology's reader has its own words
        message = f"{quoted(source)} is larger than {MAX_BYTES} bytes"
        raise UsageError(message, hint=f"name {kind.right}")
    return text


def _missing(argument: str) -> UsageError:
    known = names()
    if "/" in argument or "." in argument:  # no topology is called so
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
