"""Which tests of a campaign xdist keeps together: the faults of a topology, which share a lab.

xdist's ``--dist loadgroup`` reads the marker ``xdist_group`` from ids that it changes, which pytest
9.2 no longer lets it do (pytest-xdist 3.8).
"""

from __future__ import annotations

from xdist.scheduler import LoadGroupScheduling

from lvsctl.topology import shipped


class GroupScheduling(LoadGroupScheduling):  # type: ignore[misc]  # xdist has no types
    """xdist's own, for all tests but those of a campaign."""

    def _split_scope(self, nodeid: str) -> str:
        return topology_of(nodeid) or str(super()._split_scope(nodeid))


def topology_of(nodeid: str) -> str:
    """The topology that a test of a campaign tries a fault in; empty for another test."""
    _, _, parameters = nodeid.partition("::test_fault[")
    names = (name for name in shipped.names() if parameters.startswith(f"{name}-"))
    return max(names, key=len, default="")
