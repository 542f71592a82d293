"""Firewall marks that a director gives to packets of a virtual service before IPVS sees them."""

from __future__ import annotations

import errno
from collections.abc import Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import ClassVar, Self

from lvsctl.model.lab import Lab
from lvsctl.model.packet_filter import MARK_CHAIN, MARK_TABLE, Marking
from lvsctl.model.service import PortRange, Protocol
from lvsctl.model.state import FilterState, NodeState
from lvsctl.resources.base import (
    ELSEWHERE,
    Command,
    Deviation,
    Part,
    Resource,
    States,
    link_part,
)

CLSACT = "clsact"
_FAMILIES = {4: "ip", 6: "ipv6"}
"""IP versions as tc(8) calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks(Resource):
    """What comes in is marked: by nftables where the kernel has it, else by traffic control.

    With nftables it is a table of lvsctl's own with a chain at the hook ``prerouting``, priority
    ``mangle``, as production does it (nft(8); iptables(8), table mangle). User-Mode Linux has no
    nftables: there filters at every interface in ``devices`` mark what it receives (tc-flower(8),
    tc-skbedit(8)). Requests of the director's own pass neither.

    Of the two, tc's filters stay when a host reads its rules again, which begins with `flush
    ruleset` in Debian's nftables.conf; nftables' rules are where administrators look for them.
    """

    HINTS: ClassVar[dict[int, str]] = dict.fromkeys(
        (errno.ENOENT, errno.EOPNOTSUPP),
        "this kernel marks packets neither by nftables nor by traffic control: modprobe nf_tables, "
        "or modprobe sch_ingress cls_flower act_skbedit" + ELSEWHERE,
    )

    devices: tuple[str, ...]
    markings: tuple[Marking, ...]
    program: str = field(default="", compare=False)
    """The program of its commands, ``nft`` or ``tc``; empty: tc where nft fails."""

    @property
    def key(self) -> Hashable:
        return Marks, self.netns

    def places(self, states: States) -> tuple[Hashable, ...]:
        """Also those of the disciplines with the filters, where nftables does not mark."""
        state = states.get(self.netns)
        if state is None or by_nftables(state):
            return (self.key,)
        return (self.key, *(clsact_key(self.netns, device) for device in self.devices))

    def fitted(self, states: States) -> Self:
        state = states.get(self.netns)
        if state is None or not state.whole:
            return self
        return replace(self, program="nft" if state.nftables else "tc")

    # ── commands ─────────────────────────────────────────────────────────────────────────────

    def commands(self) -> tuple[Command, ...]:
        found = [*self._either(_nft(*_EMPTY), *self._disciplines())]
        for number, one in enumerate(self.markings):
            found += self._either(_adding(one), *self._filters(number))
        return tuple(found)

    def edit_commands(self) -> tuple[Command, ...]:
        """Return what replaces all rules at once, or filters."""
        gone = tuple(("tc", "qdisc", "del", "dev", one, CLSACT) for one in self.devices)
        numbers = range(len(self.markings))
        filters = tuple(one for number in numbers for one in self._filters(number))
        return self._either(self.all_by_nft(), *gone, *self._disciplines(), *filters)

    def undo_commands(self) -> tuple[Command, ...]:
        gone = (("tc", "qdisc", "del", "dev", one, CLSACT) for one in self.devices)
        return self._either(("nft", "delete", "table", *MARK_TABLE.split()), *gone)

    def all_by_nft(self) -> tuple[str, ...]:
        """Return the words that replace the table of nftables, whether it exists or not."""
        rules = (" ".join(("add rule", *_CHAIN, *one.rule())) for one in self.markings)
        return _nft(_EMPTY[0], f"delete table {MARK_TABLE}", *_EMPTY, *rules)

    def adding(self, some: Collection[Marking], state: NodeState) -> tuple[tuple[str, ...], ...]:
        """Return the commands' words that mark ``some`` too, of a state that lacks only those.

        As the others are marked; where none is, as the kernel can.
        """
        if by_nftables(state):
            return tuple(map(_adding, some))
        if state.nftables and not self._filtered(state):
            return (self.all_by_nft(),)
        there = {one.device for one in state.qdiscs if one.parent == CLSACT}
        wanted = (n for n, one in enumerate(self.markings) if one in some)
        filters = tuple(words for number in wanted for words in self._filters(number))
        return (*(one for one in self._disciplines() if one[4] not in there), *filters)

    def _either(self, nft: tuple[str, ...], *tc: tuple[str, ...]) -> tuple[Command, ...]:
        """Return nft's command or tc's; nft's with tc's beside it where the program is not known.

        That is for a kernel without nftables.
        """
        if self.program == "tc":
            return tuple(Command(one, self.netns) for one in tc)
        return (Command(nft, self.netns, otherwise=() if self.program == "nft" else tc),)

    def _disciplines(self) -> tuple[tuple[str, ...], ...]:
        return tuple(("tc", "qdisc", "add", "dev", one, CLSACT) for one in self.devices)

    def _filters(self, number: int) -> tuple[tuple[str, ...], ...]:
        """Return tc's commands for one of the markings, by its place, at every device."""
        one = self.markings[number]
        place = f"pref {number + 1} protocol {_FAMILIES[one.vip.version]}"
        words = f"ingress {place} flower {' '.join(one.match())} action skbedit mark {one.mark}"
        return tuple(
            ("tc", "filter", "add", "dev", device, *words.split()) for device in self.devices
        )

    # ── state ────────────────────────────────────────────────────────────────────────────────

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, one) for one in self.devices}

    def holds(self, state: NodeState) -> bool:
        if not state.whole:
            return True
        if by_nftables(state):
            return sorted(_of_rules(state), key=repr) == sorted(self.markings, key=repr)
        return all(_filters_of(state, one) == self._wanted(one) for one in self.devices)

    def _wanted(self, device: str) -> list[FilterState]:
        return [
            FilterState(
                device=device,
                parent="ingress",
                kind="flower",
                preference=number,
                protocol=_FAMILIES[one.vip.version],
                actions=(f"mark {one.mark}",),
                match=one.match(),
            )
            for number, one in enumerate(self.markings, 1)
        ]

    def _filtered(self, state: NodeState) -> bool:
        """Return whether some filter is at a device."""
        return any(_filters_of(state, one) for one in self.devices)

    def only_lacks(self, state: NodeState) -> bool:
        """Return whether some markings are missing, and those that are there are right."""
        if by_nftables(state):
            found = list(_of_rules(state))
            return set(found) <= set(self.markings) and len(set(found)) == len(found)
        return all(
            one in self._wanted(device)
            for device in self.devices
            for one in _filters_of(state, device)
        )

    def missing(self, state: NodeState) -> tuple[Marking, ...]:
        """Return what is not marked, or otherwise, in a state that was read as a whole."""
        if by_nftables(state):
            found = set(_of_rules(state))
        else:
            each = (set(_of_filters(_filters_of(state, one))) for one in self.devices)
            found = set.intersection(*each) if self.devices else set()
        return tuple(one for one in self.markings if one not in found)

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        """Yield what marks as lvsctl does; another program's rules are packet filters."""
        if by_nftables(state):
            yield cls(netns=state.netns, devices=(), markings=tuple(_of_rules(state)))
        elif devices := marked_devices(state):
            filters = (each for one in devices for each in _filters_of(state, one))
            markings = tuple(dict.fromkeys(_of_filters(filters)))
            yield cls(netns=state.netns, devices=devices, markings=markings)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        missing = [f"{one.text} as {one.mark}" for one in self.missing(state)]
        text = f"it does not mark {', '.join(missing)}"
        if not missing:
            what = f"table {MARK_TABLE} has rules" if by_nftables(state) else "it has filters"
            text = f"{what} besides those that mark"
        return Deviation(text, self.why)

    def surplus(self, lab: Lab) -> Deviation | None:
        marked = [f"{one.text} as {one.mark}" for one in self.markings]
        return Deviation(f"it marks {', '.join(marked)}, not from the topology")


_CHAIN = (*MARK_TABLE.split(), MARK_CHAIN)
_HOOK = "{ type filter hook prerouting priority mangle; }"
_EMPTY = (f"add table {MARK_TABLE}", f"add chain {' '.join(_CHAIN)} {_HOOK}")
"""What makes the table, without a rule; without effect where it exists."""


def _adding(one: Marking) -> tuple[str, ...]:
    return "nft", "add", "rule", *_CHAIN, *one.rule()


def _nft(*several: str) -> tuple[str, ...]:
    """Return the call of nft(8) that does several things at once, or nothing."""
    return "nft", "; ".join(several)


def clsact_key(netns: str, device: str) -> Hashable:
    """Return the key of a device's discipline for filters."""
    return "clsact", netns, device


def by_nftables(state: NodeState) -> bool:
    """Return whether lvsctl's table of nftables marks in a state."""
    return next(_of_rules(state), None) is not None


def marked_devices(state: NodeState) -> tuple[str, ...]:
    """Return the devices with filters that mark as lvsctl's do, where nftables does not mark."""
    if by_nftables(state):
        return ()
    found = (one.device for one in state.filters if next(_of_filters([one]), None) is not None)
    return tuple(dict.fromkeys(found))


def marked_in(state: NodeState) -> Iterator[Marking]:
    """Yield all that is known to be marked in a state, by whatever."""
    yield from _of_rules(state)
    yield from _of_filters(state.filters)


def _of_rules(state: NodeState) -> Iterator[Marking]:
    return (one for rule in state.packet_filters if (one := rule.marks) is not None)


def _filters_of(state: NodeState, device: str) -> list[FilterState]:
    of_device = (one for one in state.filters if one.device == device)
    return sorted(of_device, key=lambda one: (one.parent, one.preference))


def _of_filters(filters: Iterable[FilterState]) -> Iterator[Marking]:
    """Yield what filters of flower mark, as ``Marking.match`` writes it."""
    for one in filters:
        words = dict(each.split(" ", 1) for each in one.match if " " in each)
        action, _, mark = "".join(one.actions).partition(" ")
        if (one.parent, one.kind, action) != ("ingress", "flower", "mark") or not mark.isdecimal():
            continue
        try:
            ports = PortRange.parse(words["dst_port"]) if "dst_port" in words else None
            vip = ip_address(words["dst_ip"])
            found = Marking(int(mark), vip, Protocol(words["ip_proto"]), ports)
        except (KeyError, ValueError):
            continue  # it marks something else
        if found.match() == one.match:
            yield found
