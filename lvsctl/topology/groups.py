"""Resolve names to nodes: a single node, a numbered group, or a group of groups."""

from __future__ import annotations

from typing import NamedTuple

from lvsctl.errors import choice_hint, quoted
from lvsctl.topology.config import TopologyConfig
from lvsctl.topology.layout import Layout
from lvsctl.topology.problems import ProblemCollector

Nodes = tuple[str, ...]


class NodeNames(NamedTuple):
    """Every name that a service or a group can refer to, with its nodes.

    The nodes are None if the name is declared but wrong, which has been reported.
    ``uncounted`` are entries of ``nodes`` whose count is wrong: any name that looks like
    one of their nodes may be right.
    """

    names: dict[str, Nodes | None]
    uncounted: tuple[str, ...]

    def knows(self, name: str) -> bool:
        """Whether the name is declared, or may be once the reported problems are fixed."""
        return name in self.names or name.rstrip("0123456789") in self.uncounted

    def nodes(self, name: str) -> Nodes:
        """Return the nodes of a name; empty if it is unknown."""
        return self.names.get(name) or ()


def resolve_names(config: TopologyConfig, layout: Layout, problems: ProblemCollector) -> NodeNames:
    """Resolve all names of a topology; report loops and unknown members of groups."""
    names: dict[str, Nodes | None] = dict.fromkeys(config.nodes or {})
    for name in layout.configs:
        names[name] = layout.members_of(name)
    names |= {name: (name,) for name in layout.members}
    uncounted = tuple(name for name in layout.configs if problems.touches("nodes", name, "count"))
    node_names = NodeNames(names, uncounted)
    groups = config.groups or {}
    for name in groups:
        if name in names:
            message = f"{name} is a node already"
            problems.add(("groups", name), message, "choose another name", key=True)
    own = {name: members for name, members in groups.items() if name not in names}
    _Resolver(own, node_names, problems).resolve_all()
    return node_names


class _Resolver:
    """Replaces groups by their nodes, depth first; the number of groups limits the depth."""

    def __init__(
        self,
        groups: dict[str, tuple[str | None, ...] | None],
        node_names: NodeNames,
        problems: ProblemCollector,
    ) -> None:
        self._groups = groups
        self._directory = node_names
        self._report = problems
        self._open: list[str] = []

    def resolve_all(self) -> None:
        known = [*self._directory.names, *self._groups]
        for name in self._groups:
            self._resolve(name, known)

    def _resolve(self, name: str, known: list[str]) -> None:
        names = self._directory.names
        if name in names:
            return
        self._open.append(name)
        members = self._groups[name]
        nodes: dict[str, None] = {}
        broken = members is None
        for index, member in enumerate(members or ()):
            path = ("groups", name, index)
            if member is None:
                broken = True
            elif member in self._open:
                loop = [*self._open[self._open.index(member) :], member]
                message = f"the groups contain each other: {' → '.join(loop)}"
                self._report.add(path, message, f"remove {member} here")
                broken = True
            elif member in self._groups or self._directory.knows(member):
                if member in self._groups:
                    self._resolve(member, known)
                broken = broken or names.get(member) is None
                nodes |= dict.fromkeys(self._directory.nodes(member))
            else:
                hint = choice_hint(member, known, "nodes and groups")
                self._report.add(path, f"the node or group {quoted(member)} does not exist", hint)
                broken = True
        self._open.pop()
        names[name] = None if broken else tuple(nodes)
