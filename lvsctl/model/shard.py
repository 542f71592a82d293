"""A part of a campaign, which one of several machines does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Self, TypeVar

from lvsctl.errors import UsageError

T = TypeVar("T")


class Shard(NamedTuple):
    """Part ``number`` of ``parts``, counted from 1."""

    number: int
    parts: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``3/8``. Raises UsageError."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(
                f"{text!r} is not a part of a whole", hint="3/8 is the third of eight parts"
            )
        return cls(int(found[1]), int(found[2]))

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Return this part of ``items``: neighbours stay together, each item is in one part."""
        count = len(items)
        return items[count * (self.number - 1) // self.parts : count * self.number // self.parts]
