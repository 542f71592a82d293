"""A network namespace: a node, or the switch of a network."""

from __future__ import annotations

from dataclasses import dataclass

from lvsctl.resources.base import Command, Part, Resource, namespace_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace(Resource):
    """A network namespace. It takes everything in it along when it goes."""

    def commands(self) -> tuple[Command, ...]:
        return (Command(("ip", "netns", "add", self.netns)),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (Command(("ip", "netns", "del", self.netns)),)

    def provides(self) -> frozenset[Part]:
        return frozenset({namespace_part(self.netns)})

    def rests_on(self) -> frozenset[Part]:
        return frozenset()
