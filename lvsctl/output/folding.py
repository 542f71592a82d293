"""Long enumerations in few words: ``rs1 1, rs2 1, … rs300 1`` becomes ``rs1–rs300 1 each``.

For people only: JSON and ``-v`` have everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

FOLDED_FROM = 7
"""So many numbered names are folded; fewer are listed one by one."""

MOST = 12
"""Items of an enumeration that are shown after folding, at most."""

_NAME = re.compile(r"(?P<stem>[A-Za-z](?:[\w.-]*[A-Za-z_.-])?)(?P<number>\d+)")
_ITEM = re.compile(rf"(?P<lead>[^,;]*(?::| from| of| at) )?{_NAME.pattern}(?P<rest>(?: [^,;]*)?)")
_COUNT = re.compile(r" \d+")


def folded(text: str) -> str:
    """Fold the enumerations of numbered names in a text; what fewest names have comes first."""
    return "; ".join(_folded(part) for part in text.split("; "))


def _folded(part: str) -> str:
    items = part.split(", ")
    lead, first = "", 0
    names: dict[str, list[str]] = {}
    """What is said of a name: the names."""
    others: list[str] = []
    for place, item in enumerate(items):
        found = _ITEM.fullmatch(item)
        if found is None or (found["lead"] and names):
            others.append(item)
            continue
        if not names:
            lead, first = found["lead"] or "", place
        names.setdefault(found["rest"], []).append(found["stem"] + found["number"])
    if sum(map(len, names.values())) < FOLDED_FROM:
        return part
    groups = [
        name_ranges(own) + rest + (" each" if len(own) > 1 and _COUNT.fullmatch(rest) else "")
        for rest, own in sorted(names.items(), key=lambda group: len(group[1]))
    ]
    if len(groups) > MOST:
        left = sum(len(own) for own in sorted(names.values(), key=len)[MOST:])
        groups = [*groups[:MOST], f"and {left} more"]
    return ", ".join([*others[:first], lead + ", ".join(groups), *others[first:]])


def name_ranges(names: Iterable[str]) -> str:
    """Join names; three or more with consecutive numbers as a range: ``director, rs1–rs6``."""
    numbers: dict[str, list[int]] = {}
    for name in names:
        found = _NAME.fullmatch(name)
        if found is None or found["number"] != str(int(found["number"])):
            numbers.setdefault(name, [])
        else:
            numbers.setdefault(found["stem"], []).append(int(found["number"]))
    return ", ".join(word for stem, own in numbers.items() for word in _ranges(stem, own))


def _ranges(stem: str, numbers: list[int]) -> list[str]:
    ordered = sorted(set(numbers))
    if not ordered:
        return [stem]
    ends = [one for one, after in pairwise(ordered) if after != one + 1] + [ordered[-1]]
    words = []
    begin = ordered[0]
    for end in ends:
        if end - begin >= 2:
            words.append(f"{stem}{begin}–{stem}{end}")
        else:
            words += [f"{stem}{one}" for one in range(begin, end + 1)]
        begin = next((one for one in ordered if one > end), end)
    return words


def value_range(values: Iterable[int]) -> str:
    """A number that several have, or the least and the greatest: ``26``, ``26–27``."""
    least, greatest = min(found := list(values)), max(found)
    return str(least) if least == greatest else f"{least}–{greatest}"
