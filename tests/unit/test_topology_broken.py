"""Broken topologies and the exact text that their author gets to read.

``topology/broken/NAME.yaml`` is the file, ``NAME.txt`` the message. After a change, run with
UPDATE_GOLDEN=1 and read the difference as that author would.
"""

import os
from pathlib import Path

import pytest

from lvsctl.errors import TopologyError
from lvsctl.modes import violations
from lvsctl.topology.loading import parse_topology

BROKEN = sorted((Path(__file__).parent / "topology" / "broken").glob("*.yaml"))


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.stem)
def test_broken_topology(file: Path) -> None:
    with pytest.raises(TopologyError) as raised:
        parse_topology(file.read_bytes(), file.name, rules=violations)
    golden = file.with_suffix(".txt")
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(f"{raised.value}\n")
    assert f"{raised.value}\n" == golden.read_text()


def test_there_are_many() -> None:
    assert len(BROKEN) >= 25
