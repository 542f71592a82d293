"""A sysctl of a namespace."""

from __future__ import annotations

import errno
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState
from lvsctl.resources.base import Command, Deviation, Part, Resource, link_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Sysctl(Resource):
    """A sysctl; ``name`` has dots, as for sysctl(8).

    ``optional``: kernels without it do without (IPv6 compiled out). ``base``: no forwarding method
    needs it; it is set because a new namespace copies what the host has.
    """

    HINTS: ClassVar[dict[int, str]] = {
        errno.EINVAL: "{self.value!r} is no value for it",
        errno.ENOENT: "this kernel has no such sysctl; is its module loaded?",
    }
    UNDOABLE: ClassVar[bool] = False  # its earlier value is not known

    name: str
    value: str
    optional: bool = False
    base: bool = field(default=False, compare=False)

    @property
    def key(self) -> Hashable:
        return Sysctl, self.netns, self.name

    @property
    def is_setting(self) -> bool:
        return True

    @property
    def setting(self) -> str:
        """``NAME=VALUE``, as sysctl(8) takes it."""
        return f"{self.name}={self.value}"

    def commands(self) -> tuple[Command, ...]:
        return (self.command("sysctl", "-qe" if self.optional else "-q", "-w", self.setting),)

    def of_links(self, devices: Iterable[str]) -> tuple[Self, ...]:
        """A default for new links as settings of ``devices``, which exist; else nothing.

        A link takes its settings from ``default`` when it is created (ip-sysctl.rst).
        """
        before, default, setting = self.name.rpartition(".default.")
        if not default:
            return ()
        return tuple(replace(self, name=f"{before}.{one}.{setting}") for one in devices)

    def rests_on(self) -> frozenset[Part]:
        """Settings of a link (net.ipv4.conf.LINK.…) go with it."""
        return Resource.rests_on(self) | _link_of(self.netns, self.name)

    def holds(self, state: NodeState) -> bool:
        value = state.sysctls.get(self.name)
        if value is None:
            return self.optional
        # Several numbers are written with blanks and read with tabs between them.
        return value.split() == self.value.split()

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        found = " ".join(state.sysctls.get(self.name, "missing").split())
        return Deviation(f"{self.name} is {found}, not {self.value}", self.why)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedSysctl(Resource):
    """A sysctl that no plan sets, and that differs from a fresh namespace's (``usual``)."""

    PLANNED: ClassVar[bool] = False

    name: str
    value: str
    usual: str = field(default="", compare=False)

    @property
    def key(self) -> Hashable:
        return Sysctl, self.netns, self.name

    @property
    def is_setting(self) -> bool:
        return True

    def commands(self) -> tuple[Command, ...]:
        return (self.command("sysctl", "-q", "-w", f"{self.name}={self.value}"),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("sysctl", "-q", "-w", f"{self.name}={self.usual}"),)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | _link_of(self.netns, self.name)

    def holds(self, state: NodeState) -> bool:
        return self in self.from_state(state)

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for one in state.changed_sysctls or ():
            yield cls(netns=state.netns, name=one.name, value=one.value, usual=one.usual)

    def surplus(self, lab: Lab) -> Deviation | None:
        found, usual = " ".join(self.value.split()), " ".join(self.usual.split())
        return Deviation(f"{self.name} is {found}, not {usual} as in a fresh namespace")


def _link_of(netns: str, name: str) -> frozenset[Part]:
    """Return the link that a setting goes with (net.ipv4.conf.LINK.…)."""
    words = name.split(".")
    if words[2:3] in (["conf"], ["neigh"]) and len(words) > 4:
        return frozenset({link_part(netns, words[3].replace("/", "."))})
    return frozenset()
