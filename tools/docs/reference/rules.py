"""How the pages are tested, and the rules for what may differ between runs."""

from __future__ import annotations

from tools.docs.alike import RULES
from tools.docs.reference.markdown import table

TITLE = "# About these pages"
SOURCE = "tools/docs/alike.py"

_INTRODUCTION = """\
`make docs-refresh` runs every command of every page, in order, in a fresh machine, and writes its
output to the page. A test runs the commands again and compares the outputs.

Some values differ in every run. For the comparison they are replaced by placeholders, by these
rules and no others. No line is omitted. A page shows exactly what was printed, except spaces at
the end of a line."""

_REFERENCE = """\
The pages under *Reference* are generated from lvsctl's own tables (the schema, the command
line, the claims, the faults). A test compares them byte by byte."""


def text() -> str:
    """Return the table of rules."""
    return "\n\n".join(
        [
            _INTRODUCTION,
            table(("what varies", "why"), ((rule.varies, rule.why) for rule in RULES)),
            _REFERENCE,
        ]
    )
