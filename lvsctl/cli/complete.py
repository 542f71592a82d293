"""Names for shell completion: topologies, labs, nodes. They never start or change anything."""

from __future__ import annotations

from collections.abc import Iterable

from typer import Context

from lvsctl.errors import LvsctlError


def topologies(incomplete: str) -> list[str]:
    """Names of shipped topologies."""
    from lvsctl.topology import shipped

    return _beginning_with(incomplete, shipped.names())


def labs(incomplete: str) -> list[str]:
    """Names of running labs."""
    return _beginning_with(incomplete, _labs())


def nodes(ctx: Context, incomplete: str) -> list[str]:
    """Names of the nodes of one lab: the only one, or the one that the words before name."""
    return _beginning_with(incomplete, _nodes(ctx.params.get("lab")))


def nodes_anywhere(ctx: Context, incomplete: str) -> list[str]:
    """Nodes of the only lab by name, those of others as LAB/NODE."""
    lab = ctx.params.get("lab")
    if lab is not None or "/" not in incomplete:
        found = _beginning_with(incomplete, _nodes(lab))
        if found:
            return found
    return _beginning_with(
        incomplete, [f"{name}/{node}" for name in _labs() for node in _nodes(name)]
    )


def schedulers(incomplete: str) -> list[str]:
    """Names of IPVS's schedulers."""
    from lvsctl.model.service import Scheduler

    return _beginning_with(incomplete, list(Scheduler))


def _labs() -> list[str]:
    from lvsctl.kernel import registry

    try:
        return [entry.lab for entry in registry.labs()]
    except LvsctlError:
        return []


def _nodes(lab: str | None) -> list[str]:
    from lvsctl.engine.labs import running_lab

    try:
        return [node.name for node in running_lab(lab).nodes]
    except LvsctlError:
        return []


def _beginning_with(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
