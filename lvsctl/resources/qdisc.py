"""A queueing discipline that is not from the topology, with the filters in it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Self

from lvsctl.model.lab import Lab
from lvsctl.model.state import FilterState, NodeState, QdiscState
from lvsctl.resources.base import Command, Deviation, Part, Resource, link_part
from lvsctl.resources.marks import CLSACT, clsact_key, marked_devices

_TOP = frozenset({"root", "ingress", "clsact"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Qdisc(Resource):
    """A discipline of any kind. Only found in a state: a plan has ``Netem``."""

    PLANNED: ClassVar[bool] = False

    device: str
    kind: str
    parent: str
    options: tuple[str, ...] = ()
    filters: tuple[FilterState, ...] = field(default=(), compare=False)

    @property
    def key(self) -> Hashable:
        if (self.kind, self.parent) == ("netem", "root"):
            return netem_key(self.netns, self.device)
        if self.parent == CLSACT:
            return clsact_key(self.netns, self.device)
        return Qdisc, self.netns, self.device, self.parent

    def commands(self) -> tuple[Command, ...]:
        place = (self.kind,) if self.parent != "root" else ("root", self.kind, *self.options)
        return (Command((), self.netns, comment=f"qdisc dev {self.device} {' '.join(place)}"),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("tc", "qdisc", "del", "dev", self.device, self.parent),)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}

    def holds(self, state: NodeState) -> bool:
        return self in self.from_state(state)

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        marking = marked_devices(state)
        for one in state.qdiscs:
            if one.parent in _TOP and not (one.parent == CLSACT and one.device in marking):
                yield cls._found(state, one)

    @classmethod
    def _found(cls, state: NodeState, one: QdiscState) -> Self:
        inside = tuple(
            each
            for each in state.filters
            if each.device == one.device and (each.parent in _WITHIN) == (one.parent != "root")
        )
        return cls(
            netns=state.netns,
            device=one.device,
            kind=one.kind,
            parent=one.parent,
            options=one.options,
            filters=inside,
        )

    def surplus(self, lab: Lab) -> Deviation | None:
        words = " ".join((self.kind, *self.options))
        inside = ", ".join(filter_words(one) for one in self.filters)
        more = f", with {inside}" if inside else ""
        return Deviation(f"{self.device}: queueing discipline {words}{more}")


_WITHIN = frozenset({"ingress", "egress"})


def filter_words(one: FilterState) -> str:
    """Return a filter as a phrase."""
    does = f" ({', '.join(one.actions)})" if one.actions else ""
    article = "an" if one.parent[:1] in "aei" else "a"
    return f"{article} {one.parent} filter {one.kind} of {one.protocol}{does}"


def netem_key(netns: str, device: str) -> Hashable:
    """Return the key of the netem of a device, planned or not."""
    return "netem", netns, device
