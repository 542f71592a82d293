"""The exit statuses."""

from __future__ import annotations

from lvsctl.cli.failure import MEANINGS
from tools.docs.reference.markdown import code, table

TITLE = "# Exit statuses"
SOURCE = "lvsctl/cli/failure.py"

_OF_OTHERS = """\
`lvsctl exec`, `shell` and `machine run` end with the status of the command that they ran;
126 and 127 mean, as in a shell, that it could not be executed or was not found. 65, 69 and 70
are from sysexits(3)."""


def text() -> str:
    """Return the table of `lvsctl --help`."""
    return "\n\n".join(
        [
            "The exit status is a stable interface for scripts and CI jobs.",
            table(
                ("status", "meaning"),
                ((code(str(int(status))), meaning) for status, meaning in MEANINGS),
            ),
            _OF_OTHERS,
        ]
    )
