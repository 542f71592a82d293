"""What LVS promises, mode by mode, as `verify` states and decides it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from lvsctl.claims import BY_MODE, every
from lvsctl.claims.every import Judge
from lvsctl.model.claim import Claim
from tools.docs.reference.markdown import fault_link, prose

TITLE = "# Claims"
SOURCE = "lvsctl/modes and lvsctl/verify"

_HEADINGS = {"nat": "NAT", "tun": "TUN (IP tunnelling)", "dr": "DR (direct routing)"}

_INTRODUCTION = """\
A claim is a statement that a forwarding method makes. `lvsctl verify` decides each on
captured frames, IPVS's counters and connection table, and the kernel's state:
[verify](../verify.md) shows how to read that. `lvsctl verify --prove` injects every fault
and watches the claims break."""


def text() -> str:
    """Every claim: what it says, what is looked at, which fault must break it."""
    parts = [
        _INTRODUCTION,
    ]
    for method, judges in BY_MODE.items():
        parts.append(_section(_HEADINGS.get(method, method.upper()), judges))
    parts.append(_section("In every mode", every.JUDGES))
    return "\n\n".join(parts)


def _section(heading: str, judges: Mapping[Claim, Judge]) -> str:
    return "\n\n".join([f"## {heading}", *(_claim(*row) for row in judges.items())])


def _claim(claim: Claim, judge: Judge) -> str:
    parts = [f"### {claim.id} {{ #{claim.id} }}", f"**{claim.says[0].upper()}{claim.says[1:]}.**"]
    how = inspect.cleandoc(judge.__doc__ or "")
    if how:
        parts.append(f"How it is decided: {prose(how)}")
    if claim.broken_by:
        parts.append(f"Must be broken by: {', '.join(map(fault_link, claim.broken_by))}.")
    if claim.unbroken:
        where = ", where none of these applies" if claim.broken_by else ""
        parts.append(f"No fault breaks it{where}: {claim.unbroken}.")
    return "\n\n".join(parts)
