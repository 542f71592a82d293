"""The misconfigurations that lvsctl can inject, by subject."""

from __future__ import annotations

import difflib

from lvsctl.errors import UsageError
from lvsctl.faults import (
    arp,
    ecmp,
    ha,
    ipvs,
    links,
    packet_filter,
    real_server,
    routing,
    tunnel,
    vip,
)
from lvsctl.faults.base import Fault

FAULTS: dict[str, Fault] = {
    fault.id: fault
    for subject in (vip, arp, routing, tunnel, links, packet_filter, real_server, ipvs, ha, ecmp)
    for fault in subject.FAULTS
}
"""Every fault by its id, in the order in which they are listed and injected."""


def find_fault(name: str) -> Fault:
    """The fault called ``name``. Raises UsageError that suggests a similar name."""
    if name not in FAULTS:
        near = difflib.get_close_matches(name, FAULTS, n=1)
        hint = f"did you mean {near[0]}?" if near else "lvsctl fault list"
        raise UsageError(f"fault {name!r} does not exist", hint=hint)
    return FAULTS[name]
