"""Reports recorded on the real kernel, one for each shipped topology: the verifier's goldens.

To record one anew, where what a lab does or what is captured of it has changed:

    lvsctl up dr && lvsctl verify dr --report out
    tar -C out -cJf tests/unit/recorded/dr.tar.xz evidence.json capture.pcapng report.json
"""

from __future__ import annotations

import json
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

from lvsctl.model.evidence import Evidence
from lvsctl.output.evidence import evidence_from

HERE = Path(__file__).parent
NAMES = tuple(sorted(path.name.removesuffix(".tar.xz") for path in HERE.glob("*.tar.xz")))


@cache
def files_of(name: str) -> dict[str, bytes]:
    """The files of a recorded report."""
    with tarfile.open(HERE / f"{name}.tar.xz") as archive:
        return {
            member.name: found.read()
            for member in archive
            if (found := archive.extractfile(member)) is not None
        }


@cache
def evidence_of(name: str) -> Evidence:
    """Its evidence."""
    files = files_of(name)
    return evidence_from(files["evidence.json"], files["capture.pcapng"])


def report_of(name: str) -> dict[str, Any]:
    """Its report.json."""
    found: dict[str, Any] = json.loads(files_of(name)["report.json"])
    return found
