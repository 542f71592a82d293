"""The shipped topologies, in full."""

from __future__ import annotations

from lvsctl.topology import shipped
from tools.docs.reference.markdown import block

TITLE = "# Shipped topologies"
SOURCE = "topologies/*.yaml"

_INTRODUCTION = """\
`lvsctl up NAME` creates a lab from one of them. `lvsctl topologies NAME > mine.yaml` copies one, so
that you can change it: see [Topology files](topology.md)."""


def text() -> str:
    """Return every file with its diagram."""
    return "\n\n".join(
        [
            _INTRODUCTION,
            *(
                f"## {name}\n\n{summary}.\n\n{block(shipped.text_of(name), 'yaml')}"
                for name, summary in shipped.summaries().items()
            ),
        ]
    )
