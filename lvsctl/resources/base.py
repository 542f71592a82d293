"""What every kind of resource is: one thing that the kernel must hold for a lab.

A resource is a frozen value. It can describe itself as the commands that a person would type,
knows the commands that undo it, and compares itself with the state of its namespace. Applying it
is ``kernel.apply``'s part.

To add a kind: a module here, a row in ``resources.kinds``, a handler in ``kernel.apply``, the
topology's key and the planner. tests/unit/test_resources.py walks all kinds.
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self

from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState

States = Mapping[str, NodeState]
"""The state of each namespace that exists, by its name."""

ELSEWHERE = ", or use the throwaway kernel with --where machine"

_TAKES_NAMESPACE = frozenset({"ip", "tc", "bridge"})
"""Programs with an option for the namespace to work in; others run under `ip netns exec`."""


class Command(NamedTuple):
    """A command that a person would type: its words, and the namespace to run it in.

    ``netns`` empty: it runs where it is typed. Where the command fails, it is enough that the
    commands of ``otherwise``, in the same namespace, succeed. With a ``comment`` there is no
    command, but something to do by other means.
    """

    argv: tuple[str, ...]
    netns: str = ""
    otherwise: tuple[tuple[str, ...], ...] = ()
    comment: str = ""

    def __str__(self) -> str:
        """Return the command as it is typed in a shell."""
        if self.comment:
            return f"# {self.comment}"
        return self.shell(lambda argv: shlex.join(in_namespace(self.netns, argv)))

    def shell(self, write: Callable[[tuple[str, ...]], str]) -> str:
        """Return the command for a shell; ``write`` quotes the words of one program's call."""
        if not self.otherwise:
            return write(self.argv)
        others = " && ".join(map(write, self.otherwise))
        if len(self.otherwise) > 1:
            others = f"{{ {others}; }}"
        return f"{write(self.argv)} 2>/dev/null || {others} >/dev/null"


def in_namespace(netns: str, argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words that run ``argv`` in the namespace ``netns``."""
    if not netns:
        return argv
    if argv[0] in _TAKES_NAMESPACE:
        return (argv[0], "-n", netns, *argv[1:])
    return ("ip", "netns", "exec", netns, *argv)


@dataclass(frozen=True, slots=True)
class Deviation:
    """A difference from the topology, and why the topology needs it (empty if unknown).

    ``left``: what differs is left alone by `up`; ``command`` would remove it (empty: unknown).
    """

    text: str
    why: str = ""
    left: bool = False
    command: str = ""


Part = tuple[str, ...] | tuple[str, str, Hashable]
"""Something that a resource provides and others rest on: a namespace, a link, a service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One thing that must be so in the namespace ``netns`` (its name, as `ip netns` lists it).

    ``why`` is the reason, for people. Two resources are equal where they ask for the same
    thing, whatever the reason.
    """

    HINTS: ClassVar[dict[int, str]] = {
        errno.EPERM: "run it as root" + ELSEWHERE,
        errno.ENODEV: "the device is missing: was it removed by hand?",
    }
    """What helps where the kernel answers with an errno; of a kind: besides these."""

    UNDOABLE: ClassVar[bool] = True
    """Whether it can be undone while the lab runs."""

    PLANNED: ClassVar[bool] = True
    """Whether a plan may contain it. Otherwise it is only found in a state, and undone."""

    netns: str
    why: str = field(default="", compare=False)

    @property
    def key(self) -> Hashable:
        """What the resource is about: of two with one key, the later replaces the other."""
        return self

    def places(self, states: States) -> tuple[Hashable, ...]:
        """Return its key, and the keys of what it replaces in ``states`` when it is applied."""
        return (self.key,)

    @property
    def is_setting(self) -> bool:
        """Whether it has a value at any time, so that undoing it is setting another one."""
        return False

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces that must exist for it."""
        return (self.netns,)

    def commands(self) -> tuple[Command, ...]:
        """Return the commands that make it so."""
        raise NotImplementedError

    def edit_commands(self) -> tuple[Command, ...]:
        """Return the commands that put it in the place of another one with its key."""
        return self.commands()

    def undo_commands(self) -> tuple[Command, ...]:
        """Return the commands that undo it; none where nothing has to be done, or nothing can."""
        return ()

    def fitted(self, states: States) -> Self:
        """Return it with the commands for the kernel of ``states``, where kernels differ."""
        return self

    def describe(self) -> tuple[str, ...]:
        """Return ``commands`` as they are typed in a shell."""
        return tuple(map(str, self.commands()))

    def provides(self) -> frozenset[Part]:
        """Return the parts that others rest on: when they go, so do the others."""
        return frozenset()

    def rests_on(self) -> frozenset[Part]:
        """Return the parts that it goes away with."""
        return frozenset({namespace_part(self.netns)})

    def modules(self) -> tuple[str, ...]:
        """Return the kernel modules that it needs."""
        return ()

    def satisfied_by(self, states: States) -> bool:
        """Return whether it is so in ``states``. What no state shows counts as so."""
        state = states.get(self.netns)
        return state is not None and self.holds(state)

    def holds(self, state: NodeState) -> bool:
        """Return whether it is so in the state of its namespace."""
        return True

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        """Yield the resources of this kind in a namespace, which ``diff`` looks for extra ones."""
        return iter(())

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        """Say how the state of its (or its node's) namespace differs; None: it does not."""
        return None

    def in_the_way(self, states: States) -> tuple[Resource, ...]:
        """Return what has its place and must be undone before it can be applied."""
        return ()

    def left_because(self, states: States) -> str:
        """Return why it is not undone though no plan contains it; empty: it is undone."""
        return ""

    def surplus(self, lab: Lab) -> Deviation | None:
        """Say that it exists though the topology has no such thing; None: no matter."""
        return None

    def hint(self, number: int) -> str:
        """Return what helps where the kernel answers with the errno; empty: nothing known."""
        sentence = self.HINTS.get(number) or Resource.HINTS.get(number, "")
        return sentence.format(self=self)

    def command(self, *words: object) -> Command:
        """Return a command to run in the resource's namespace."""
        return Command(tuple(map(str, words)), self.netns)


def namespace_part(netns: str) -> Part:
    """Return a namespace as a part that resources rest on."""
    return "namespace", netns


def link_part(netns: str, device: str) -> Part:
    """Return a link as a part that resources rest on."""
    return "link", netns, device


def nexthop_part(netns: str, number: int) -> Part:
    """Return a next hop object as a part that routes rest on."""
    return "nexthop", netns, number


def vip_or_address(address: object, lab: Lab) -> str:
    """Return an address, said to be a VIP where it is one."""
    vip = any(address in service.vips for service in lab.services)
    return f"VIP {address}" if vip else str(address)
