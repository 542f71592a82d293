"""The files with which lvsctl's reading of keepalived.conf is compared with keepalived's."""

from __future__ import annotations

from pathlib import Path

from lvsctl.formats import readers
from lvsctl.formats.configuration import Configuration
from lvsctl.topology.shipped import Topology

DIRECTORY = Path(__file__).parent / "corpus"
FILES = tuple(sorted(DIRECTORY.glob("*.conf")))
RULES = tuple(sorted(DIRECTORY.glob("*.rules")))
"""Rules for ``ipvsadm -R``."""
LDIRECTORD = tuple(sorted(DIRECTORY.glob("*.cf")))
"""Files of ldirectord."""
OTHERS = (*LDIRECTORD, *RULES)
"""Those that keepalived has nothing to say about."""
CONFIG_ID = "spare"
"""The host for which lines with ``@`` are read."""


def topology_of(path: Path) -> Topology:
    """A file as the command line finds it."""
    return Topology(path.name, path.read_bytes(), str(path))


def configuration_of(path: Path) -> Configuration:
    """What lvsctl reads in a file."""
    source = readers.detect(path.read_text(encoding="utf-8"))
    assert source is not None
    return readers.read(topology_of(path), source, CONFIG_ID)
