"""What a topology seems to be at a glance at its text, before it can be read.

Reading needs modules that take as long to import as forty namespaces take to make. So whoever
can begin something early, and loses no more than time by a wrong guess (``kernel.ahead``),
looks here first. Nothing here raises, whatever the text is.
"""

from __future__ import annotations

from collections.abc import Iterator

_SEEN = 1 << 16
"""How much of a text is looked at, in bytes."""

_LONGEST = 80
"""How far behind a key its colon and its value are looked for."""

_LETTERS = b"abcdefghijklmnopqrstuvwxyz0123456789-"
"""What names and numbers consist of."""


def name(text: bytes) -> str:
    """The lab's name, in all likelihood; empty where there seems to be none."""
    return next(_values(text, b"name"), "")


def namespaces(text: bytes, servers: int | None = None) -> int:
    """How many namespaces the lab will have, more or less: one for each node and network.

    ``servers`` is the number of real servers where the command line says it.
    """
    groups = [int(count) for count in _values(text, b"count") if count.isdecimal()]
    single = sum(1 for _ in _values(text, b"role")) - len(groups)
    networks = sum(1 for _ in _values(text, b"ipv4"))
    return single + (servers if servers and groups else sum(groups)) + networks


def _values(text: bytes, key: bytes) -> Iterator[str]:
    """The words that follow ``key`` and a colon, in YAML's or JSON's way of writing them."""
    for rest in text[:_SEEN].split(key)[1:]:
        before, colon, after = rest[:_LONGEST].partition(b":")
        if colon and not before.strip(b" \"'"):
            word = after.lstrip(b" \"'")
            yield word[: len(word) - len(word.lstrip(_LETTERS))].decode()
