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
from lvsctl.topology.shipped import MAX_BYTES, FileKind, Topology

CONFIGURATION = FileKind(
    "a configuration", "a text file: keepalived.conf, rules of ipvsadm-save, or ldirectord.cf"
)
"""The files that are imported."""


class Source(StrEnum):
    """The formats that can be imported."""

    KEEPALIVED = "keepalived"
    IPVSADM = "ipvsadm"
    LDIRECTORD = "ldirectord"


_KEEPALIVED = re.compile(
    rf"(@\S+\s+)?({'|'.join(sorted(ROOT))}|include[rmwba]?|\$\w+=.*)(\s+[^:\s]|\s*\{{|$)"
)


_TOPOLOGY = re.compile(r"(version|name|networks|nodes|services)\s*:|\{")


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
        if _TOPOLOGY.match(line):
            return None
    return None


def is_topology(text: str) -> bool:
    """Return whether the first line that means something is a topology's."""
    lines = (line.strip() for line in text.split("\n"))
    first = next((line for line in lines if line and line[0] != "#" and line != "---"), "")
    return _TOPOLOGY.match(first) is not None


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
    text = found.text.decode(errors="replace")
    chosen = source or detect(text)
    if chosen is None:
        if not text.strip():
            raise UsageError(f"{quoted(found.source)} is empty", hint=f"name {CONFIGURATION.right}")
        raise UsageError(
            f"{quoted(found.source)} is in none of the formats that can be imported",
            hint="it is a topology: lvsctl up starts it"
            if is_topology(text)
            else f"formats: {', '.join(Source)}; --from says which",
        )
    stem = Path(found.source).stem if found.argument != "-" else "imported"
    return to_topology(read(found, chosen, config_id), name or label(stem))


def as_topology(found: Topology) -> tuple[Topology, Imported | None]:
    """Return a topology as it is, and a file in another format as the topology of it.

    Raises UsageError if that is too large, TopologyError with all its mistakes.
    """
    source = detect(found.text.decode(errors="replace"))
    if source is None:
        return found, None
    if len(found.text) > MAX_BYTES:
        message = f"{quoted(found.source)} is larger than {MAX_BYTES} bytes"
        raise UsageError(message, hint=f"name {CONFIGURATION.right}")
    imported = import_file(found, source)
    return found._replace(text=imported.text.encode()), imported
