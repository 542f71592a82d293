"""Run the commands of the documentation's pages, and generate the reference pages.

python -m tools.docs run [--check] [PAGE…]       run the commands of pages
python -m tools.docs reference [--check]         generate docs/reference from lvsctl's tables
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""

DOCS = ROOT / "docs"
"""Where the pages are."""
