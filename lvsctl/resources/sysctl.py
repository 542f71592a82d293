"""A sysctl of a namespace."""

from __future__ import annotations

import errno
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState
from lvsctl.resources.base import Command, Deviation, Part, Resource, link_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Sysctl(Resource):
    """A sysctl; ``name`` has dots, as for sysctl(8).

    ``optional``: kernels without it do without (IPv6 compiled out).
    """

    HINTS: ClassVar[dict[int, str]] = {
        errno.EINVAL: "{self.value!r} is no value for it",
        errno.ENOENT: "this kernel has no such sysctl; is its module loaded?",
    }
    UNDOABLE: ClassVar[bool] = False  # its earlier value is not known

    name: str
    value: str
    optional: bool = False

    @property
    def key(self) -> Hashable:
        return Sysctl, self.netns, self.name

    @property
    def setting(self) -> str:
        """``NAME=VALUE``, as sysctl(8) takes it."""
        return f"{self.name}={self.value}"

    def commands(self) -> tuple[Command, ...]:
        return (self.command("sysctl", "-qe" if self.optional else "-q", "-w", self.setting),)

    def rests_on(self) -> frozenset[Part]:
        """Settings of a link (net.ipv4.conf.LINK.…) go with it."""
        words = self.name.split(".")
        own = Resource.rests_on(self)
        if words[2:3] in (["conf"], ["neigh"]) and len(words) > 4:
            return own | {link_part(self.netns, words[3].replace("/", "."))}
        return own

    def holds(self, state: NodeState) -> bool:
        value = state.sysctls.get(self.name)
        return value == self.value or (value is None and self.optional)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        found = state.sysctls.get(self.name, "missing")
        return Deviation(f"{self.name} is {found}, not {self.value}", self.why)
