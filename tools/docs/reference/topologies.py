"""The shipped topologies, in full."""

from __future__ import annotations

from lvsctl.topology import shipped
from tools.docs.reference.markdown import block

TITLE = "# Shipped topologies"
SOURCE = "topologies/*.yaml"

_INTRODUCTION = """\
`lvsctl up NAME` brings one up. `lvsctl topologies NAME > mine.yaml` gives you a copy to
change: [Topology files](topology.md) says what there is to change."""


def text() -> str:
    """Every file as it is, with its diagram."""
    return "\n\n".join(
        [
            _INTRODUCTION,
            *(
                f"## {name}\n\n{summary}.\n\n{block(shipped.text_of(name), 'yaml')}"
                for name, summary in shipped.summaries().items()
            ),
        ]
    )
