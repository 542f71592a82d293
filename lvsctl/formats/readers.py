"""The formats that lvsctl imports, and which one a file is in."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from lvsctl.errors import UsageError, quoted
from lvsctl.formats import ipvsadm, ldirectord
from lvsctl.formats.configuration import Configuration
from lvsctl.formats.keepalived import reader as keepalived
from lvsctl.formats.keepalived.keywords import ROOT
from lvsctl.formats.to_topology import Imported, label, to_topology
from lvsctl.topology.shipped import Topology


class Source(StrEnum):
    """The formats that can be imported."""

    KEEPALIVED = "keepalived"
    IPVSADM = "ipvsadm"
    LDIRECTORD = "ldirectord"


_KEEPALIVED = re.compile(
    rf"(@\S+\s+)?({'|'.join(sorted(ROOT))}|include[rmwba]?|\$\w+=.*)(\s+[^:\s]|\s*\{{|$)"
)


def detect(text: str) -> Source | None:
    """Return the format of a text, by its first line that is in one of them; None: a topology."""
    for raw in text.split("\n"):
        line = raw.strip()
        if not line or line[0] in "#!":
            continue
        if ipvsadm.is_rule(line):
            return Source.IPVSADM
        if re.match(r"virtual6?\s*=", line):
            return Source.LDIRECTORD
        if _KEEPALIVED.match(line):
            return Source.KEEPALIVED
        if re.match(r"(version|name|networks|nodes|services)\s*:|\{", line):
            return None
    return None


def read(found: Topology, source: Source, config_id: str = "") -> Configuration:
    """Return what a file says. Raises TopologyError with all its mistakes."""
    text = found.text.decode(errors="replace")
    match source:
        case Source.KEEPALIVED:
            directory = None if found.argument == "-" else Path(found.argument).parent
            return keepalived.read(text, found.source, directory, config_id)
        case Source.IPVSADM:
            return ipvsadm.read(text, found.source)
        case Source.LDIRECTORD:
            return ldirectord.read(text, found.source)


def import_file(
    found: Topology, source: Source | None = None, name: str | None = None, config_id: str = ""
) -> Imported:
    """Return the topology of a file in one of the formats (``source``; by its content if None).

    Raises UsageError if it is in none, TopologyError with all its mistakes.
    """
    chosen = source or detect(found.text.decode(errors="replace"))
    if chosen is None:
        raise UsageError(
            f"{quoted(found.source)} is in none of the formats that can be imported",
            hint=f"formats: {', '.join(Source)}; --from says which",
        )
    stem = Path(found.source).stem if found.argument != "-" else "imported"
    return to_topology(read(found, chosen, config_id), name or label(stem))


def as_topology(found: Topology) -> tuple[Topology, Imported | None]:
    """Return a topology as it is, and a file in another format as the topology of it."""
    source = detect(found.text.decode(errors="replace"))
    if source is None:
        return found, None
    imported = import_file(found, source)
    return found._replace(text=imported.text.encode()), imported
