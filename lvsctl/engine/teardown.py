"""Labs go: what `lvsctl down` does, without what only topologies and plans need to import."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from lvsctl.errors import LabError
from lvsctl.kernel import registry


def down(lab: str, *, wait: bool = False) -> registry.Removed:
    """Remove everything that ``lab`` owns. Raises LabError where there is no such lab.

    The kernel takes namespaces apart in the background; ``wait``: until it has done so.
    """
    with registry.lock(lab), _letting_go(lab) if wait else nullcontext():
        removed = registry.remove(lab)
    if not removed.existed:
        raise not_running(lab)
    return removed


def _letting_go(lab: str) -> AbstractContextManager[None]:
    from lvsctl.kernel import letting_go

    return letting_go.watched(lab)


def not_running(name: str) -> LabError:
    """The error about a lab that does not run, with what may have been meant."""
    import difflib

    names = [entry.lab for entry in registry.labs()]
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        hint = f"did you mean {near[0]}?"
    elif names:
        hint = f"running: {', '.join(names)}"
    else:
        hint = f"start it: lvsctl up {name}"
    return LabError(f"lab {name} is not running", hint=hint)
