"""Read keepalived.conf."""

from __future__ import annotations

from pathlib import Path

from lvsctl.formats.configuration import Configuration, Notes
from lvsctl.formats.keepalived.lines import read_lines
from lvsctl.formats.keepalived.routes import read_routes
from lvsctl.formats.keepalived.services import read_virtual_servers
from lvsctl.formats.keepalived.tree import Block, build_tree
from lvsctl.formats.keepalived.vrrp import (
    read_addresses,
    read_daemon,
    read_instances,
    read_sync_groups,
    read_timeouts,
    remark_others,
)


def read(text: str, source: str, directory: Path | None, config_id: str = "") -> Configuration:
    """Return what a keepalived.conf says. Raises TopologyError with all its mistakes."""
    notes = Notes(source)
    root = build_tree(read_lines(text, notes, directory, config_id), notes)
    configuration = _meaning(root, notes)
    notes.raise_any()
    return configuration


def _meaning(root: Block, notes: Notes) -> Configuration:
    remark_others(root, notes)
    services = tuple(read_virtual_servers(root, notes))
    instances = tuple(read_instances(root, notes))
    addresses = read_addresses(root, notes)
    timeouts, daemon = read_timeouts(root, notes), read_daemon(root, notes)
    routes = tuple(read_routes(root, notes))
    if not services:
        first = next(iter(root.children or ()), root)
        hint = "virtual_server 10.0.0.100 80 { … real_server 10.0.0.11 80 { } }"
        notes.wrong(first.place, "the file has no virtual server with real servers", hint)
    return Configuration(
        notes.source,
        "keepalived",
        services,
        instances,
        addresses,
        timeouts,
        daemon,
        tuple(read_sync_groups(root, notes)),
        notes.remarks,
        tuple(notes.files),
        routes,
    )
