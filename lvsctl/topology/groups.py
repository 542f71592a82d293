"""Which nodes a name stands for: one node, a numbered group, or a group of groups."""

from __future__ import annotations

from dataclasses import dataclass

from lvsctl.topology.drafts import TopologyDraft
from lvsctl.topology.layout import Layout
from lvsctl.topology.report import Report, choice_hint
from lvsctl.topology.tree import quoted

Nodes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Directory:
    """Every name that a service or a group can mention.

    The value is None where the name is declared but wrong, which has been reported.
    ``uncounted`` are entries of ``nodes`` whose count is wrong: whatever looks like
    one of their nodes may exist.
    """

    names: dict[str, Nodes | None]
    uncounted: tuple[str, ...]

    def knows(self, name: str) -> bool:
        """Whether the name is declared, or may be once the file is mended."""
        return name in self.names or name.rstrip("0123456789") in self.uncounted

    def nodes(self, name: str) -> Nodes:
        """The nodes behind a name; empty where it is not known."""
        return self.names.get(name) or ()


def directory_of(draft: TopologyDraft, layout: Layout, report: Report) -> Directory:
    """The directory of a draft; loops and unknown members of groups are reported."""
    names: dict[str, Nodes | None] = dict.fromkeys(draft.nodes or {})
    for name in layout.drafts:
        names[name] = layout.of_group(name)
    names |= {name: (name,) for name in layout.members}
    uncounted = tuple(name for name in layout.drafts if report.touches("nodes", name, "count"))
    directory = Directory(names, uncounted)
    groups = draft.groups or {}
    for name in groups:
        if name in names:
            message = f"{name} is a node already"
            report.add(("groups", name), message, "choose another name", key=True)
    own = {name: members for name, members in groups.items() if name not in names}
    _Resolver(own, directory, report).resolve_all()
    return directory


class _Resolver:
    """Replaces groups by their nodes, depth first; a group's depth is bounded by their number."""

    def __init__(
        self,
        groups: dict[str, tuple[str | None, ...] | None],
        directory: Directory,
        report: Report,
    ) -> None:
        self._groups = groups
        self._directory = directory
        self._report = report
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
                self._report.add(path, f"there is no node or group {quoted(member)}", hint)
                broken = True
        self._open.pop()
        names[name] = None if broken else tuple(nodes)
