"""Remove a lab and everything it owns."""

from __future__ import annotations

import difflib
from contextlib import nullcontext

from lvsctl.errors import LabError
from lvsctl.kernel import netns_cleanup, registry


def tear_down(lab: str, *, wait: bool = False) -> registry.Removed:
    """Remove everything that ``lab`` owns. Raises LabError where the lab does not exist.

    The kernel destroys namespaces in the background; ``wait`` until it has done so.
    """
    with registry.lock(lab), netns_cleanup.wait_for_cleanup(lab) if wait else nullcontext():
        removed = registry.remove(lab)
    if not removed.existed:
        raise not_running(lab)
    return removed


def not_running(name: str) -> LabError:
    """Return the error about a lab that does not run, with what may have been meant."""
    names = [entry.lab for entry in registry.labs()]
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        hint = f"did you mean {near[0]}?"
    elif names:
        hint = f"running: {', '.join(names)}"
    else:
        hint = f"start it: lvsctl up {name}"
    return LabError(f"lab {name} is not running", hint=hint)
