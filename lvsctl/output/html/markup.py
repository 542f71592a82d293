"""HTML with automatic escaping: a str is text unless ``tag`` made it.

Our own and no template library: thirty lines, and every name in a lab is anybody's.
"""

from __future__ import annotations

import html

from lvsctl.output.text.style import printable

_VOID = frozenset({"meta", "br"})


class Html(str):
    """Markup: what ``tag`` made. Any other str is text."""

    __slots__ = ()


Child = str | None


def tag(name: str, /, *children: Child, **attributes: str | float | None) -> Html:
    """An element. Text among ``children`` is escaped; None is left out, as child and as value.

    In names of attributes ``_`` stands for ``-``, and one at the end is dropped (``class_``).
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Html:
    """Several in a row."""
    return Html("".join(escaped(child) for child in children if child is not None))


def escaped(text: str) -> str:
    """Text as HTML shows it; markup as it is."""
    return text if isinstance(text, Html) else html.escape(printable(text))


def number(value: float) -> str:
    """A coordinate without insignificant digits."""
    return f"{value:.1f}".removesuffix(".0")
