"""What annotations are written with, without ``typing``: to import that takes 3 ms, of 70.

Type checkers see typing's own. While a command runs nobody asks what an annotation says, so it
is enough that the names are there, and that generic classes can be written as such. It is for
the modules that `lvsctl up`, `down` and `ls` import (test_cli_imports.py, test_cost.py). All
others import typing, and whoever asks (Typer: ``cli.where``) puts typing's in its place.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated, Any, BinaryIO, Generic, NoReturn, Protocol, Self, TextIO, TypeVar
else:

    class Generic:
        """``Generic[T]`` is itself."""

        __slots__ = ()

        def __class_getitem__(cls, _of: object) -> type:
            return cls

    class Protocol(Generic):
        """A class like any other: nobody asks whether a value has its methods."""

        __slots__ = ()

    def TypeVar(name: str, **_about: object) -> str:  # noqa: N802 (typing's word)
        """Something to put between brackets."""
        return name

    Annotated = Any = BinaryIO = NoReturn = Self = TextIO = object

__all__ = [
    "TYPE_CHECKING",
    "Annotated",
    "Any",
    "BinaryIO",
    "Generic",
    "NoReturn",
    "Protocol",
    "Self",
    "TextIO",
    "TypeVar",
]
