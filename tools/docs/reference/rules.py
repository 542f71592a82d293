"""How the pages are kept true, and the rules for what may differ between runs."""

from __future__ import annotations

from tools.docs.alike import RULES
from tools.docs.reference.markdown import table

TITLE = "# About these pages"
SOURCE = "tools/docs/alike.py"

_INTRODUCTION = """\
No output on these pages was typed by a person. `make docs-refresh` runs every command of
every page, in order, in a fresh machine, and writes down what it prints. A test runs them
again and compares.

Some values cannot be the same in two runs. When outputs are compared, they are replaced by
placeholders, on both sides, by these rules and no others. No line is left out. What you see
on a page is what was printed; only spaces at the end of a line are removed."""

_REFERENCE = """\
The pages under *Reference* are written from lvsctl's own tables (the schema, the command
line, the claims, the faults). A test compares them to the byte."""


def text() -> str:
    """The table of rules."""
    return "\n\n".join(
        [
            _INTRODUCTION,
            table(("what varies", "why"), ((rule.varies, rule.why) for rule in RULES)),
            _REFERENCE,
        ]
    )
