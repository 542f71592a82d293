"""The documentation's own tool: runs the pages' commands, and writes the reference pages.

    python -m tools.docs run [--check] [PAGE…]       commands of pages, for real
    python -m tools.docs reference [--check]         docs/reference, from lvsctl itself

It knows lvsctl from outside (the command line) and, for the reference, its tables.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""

DOCS = ROOT / "docs"
"""Where the pages are."""
