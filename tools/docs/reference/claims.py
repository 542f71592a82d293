"""The claims of each forwarding method, and how `verify` decides them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from lvsctl.claims import (
    BY_MODE,
    ecmp,
    every,
    failover,
    ha,
    joined,
    links,
    local_node,
    segments,
    udp,
)
from lvsctl.claims.base import CheckedClaim
from lvsctl.model.claim import Claim
from tools.docs.reference.markdown import fault_link, prose

TITLE = "# Claims"
SOURCE = "lvsctl/claims"

_HEADINGS = {"nat": "NAT", "tun": "TUN (IP tunnelling)", "dr": "DR (direct routing)"}

_INTRODUCTION = """\
A claim is a statement that a forwarding method makes. `lvsctl verify` decides each claim from
captured frames, IPVS's counters and connection table, and the kernel's state:
[verify](../verify.md) explains its output. `lvsctl verify --prove` injects every fault
and checks that the claims fail."""


def text() -> str:
    """Return every claim: its text, how it is decided, which faults must break it."""
    parts = [
        _INTRODUCTION,
    ]
    for method, claims in BY_MODE.items():
        parts.append(_section(_HEADINGS.get(method, method.upper()), claims))
    parts.append(_section("UDP, in every mode", udp.CLAIMS))
    parts.append(_section("Claims of services of several ports", joined.CLAIMS))
    parts.append(_section("A director that is a real server too", local_node.CLAIMS))
    parts.append(_section("Nodes that limit the segment size", segments.CLAIMS))
    parts.append(_section("Claims of several directors", ha.CLAIMS))
    parts.append(_section("Claims of several active directors", ecmp.CLAIMS))
    parts.append("## Claims of a failover\n\n`lvsctl failover` decides these.")
    parts += map(_statement, failover.DECIDED)
    parts.append(_section("Claims for every mode", (*links.CLAIMS, *every.CLAIMS)))
    return "\n\n".join(parts)


def _section(heading: str, claims: Iterable[CheckedClaim]) -> str:
    return "\n\n".join([f"## {heading}", *map(_claim, claims)])


def _claim(row: CheckedClaim) -> str:
    return _statement(row.claim, inspect.cleandoc(row.check.__doc__ or ""))


def _statement(claim: Claim, how: str = "") -> str:
    parts = [f"### {claim.id} {{ #{claim.id} }}", f"**{claim.text[0].upper()}{claim.text[1:]}.**"]
    if how:
        parts.append(f"How it is decided: {prose(how)}")
    if claim.broken_by:
        parts.append(f"Must be broken by: {', '.join(map(fault_link, claim.broken_by))}.")
    if claim.unbroken:
        where = " in a lab to which none of these applies" if claim.broken_by else ""
        parts.append(f"No fault breaks it{where}: {claim.unbroken}.")
    return "\n\n".join(parts)
