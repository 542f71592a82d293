"""A rule of a forwarding method that a topology violates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """Where the topology violates a rule, and what would be right.

    ``path`` leads to the key in the topology file: ``("services", 0, "real_servers", 1)``.
    """

    path: tuple[str | int, ...]
    message: str
    hint: str = ""
