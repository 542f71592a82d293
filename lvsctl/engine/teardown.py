"""Remove a lab and everything it owns."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from lvsctl.engine.labs import not_running
from lvsctl.kernel import registry


def tear_down(lab: str, *, wait: bool = False) -> registry.Removed:
    """Remove everything that ``lab`` owns. Raises LabError where the lab does not exist.

    The kernel destroys namespaces in the background; ``wait`` until it has done so.
    """
    with registry.lock(lab), _wait_for_cleanup(lab) if wait else nullcontext():
        removed = registry.remove(lab)
    if not removed.existed:
        raise not_running(lab)
    return removed


def _wait_for_cleanup(lab: str) -> AbstractContextManager[None]:
    from lvsctl.kernel import netns_cleanup  # with pyroute2: heavy, and only for --wait

    return netns_cleanup.wait_for_cleanup(lab)
