"""The exit statuses."""

from __future__ import annotations

from lvsctl.cli.failure import MEANINGS
from tools.docs.reference.markdown import code, table

TITLE = "# Exit statuses"
SOURCE = "lvsctl/cli/failure.py"

_OF_OTHERS = """\
`lvsctl exec`, `shell` and `machine run` end with the status of the command that they ran;
126 and 127 mean, as in a shell, that it could not be run or was not found. 65, 69 and 70
are those of sysexits(3)."""


def text() -> str:
    """The table of `lvsctl --help`."""
    return "\n\n".join(
        [
            "The exit status is a stable interface: scripts and CI jobs rest on it.",
            table(
                ("status", "meaning"),
                ((code(str(int(status))), meaning) for status, meaning in MEANINGS),
            ),
            _OF_OTHERS,
        ]
    )
