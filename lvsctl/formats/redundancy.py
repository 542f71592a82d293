"""Directors that take over from each other, as keepalived.conf has one of them: ``ha:``.

The file is one director's. The others are assumed to have the same one, with a lower priority (or a
higher one, if this one is a backup). All addresses move together in a topology; what differs from
that is noted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lvsctl.formats.configuration import Configuration, Instance, Notes, Place, Service, Setting
from lvsctl.formats.keepalived.numbers import number
from lvsctl.formats.routes import is_on
from lvsctl.formats.surroundings import Surroundings, vips_of
from lvsctl.model.addresses import IPAddress
from lvsctl.model.service import ForwardingMethod
from lvsctl.topology.parsers import InvalidValue, parse_interval

STEP = 50
"""By how much the priorities of a topology's directors differ."""

_HIGHEST = 254
_PRIORITY = 100
"""keepalived's, where the file has none."""


class Redundant(NamedTuple):
    """The directors: each with its name and, by network, its own address (None: chosen).

    Without names there are ``number`` alike. ``ha`` are the entries of the topology's key, without
    the ``priority`` of the first director; each further one has ``STEP`` less.
    """

    ha: tuple[str, ...]
    priority: int
    number: int
    named: tuple[tuple[str, dict[str, IPAddress | None]], ...]
    assumptions: tuple[str, ...]


def redundant(
    configuration: Configuration, services: Iterable[Service], around: Surroundings, notes: Notes
) -> Redundant | None:
    """Return the directors of a file with VRRP; None without a VIP that VRRP moves."""
    found = tuple(services)
    vips = [vip for service in found for vip in vips_of(service, around.marked_vips)]
    holder = {address.ip: one for one in configuration.instances for address, _ in one.addresses}
    first = next((holder[vip] for vip in vips if vip in holder), None)
    if first is None:
        for one in configuration.instances:
            notes.remark(one.place, f"vrrp_instance {one.name}: it has no virtual server's address")
        return None
    for vip in dict.fromkeys(vips):
        if vip not in holder:
            service = next(one for one in found if vip in vips_of(one, around.marked_vips))
            text = f"{vip} is in no vrrp_instance: in the topology it moves with the others"
            notes.remark(service.place, text)
    gateways = tuple(_gateways(configuration, found, around, vips, notes))
    _compare(configuration, first, [*vips, *gateways], holder, around, notes)
    _note_groups(configuration, notes)
    return _Directors(configuration, first, gateways, around, notes).described()


class _Directors:
    """What one instance says about all directors."""

    def __init__(
        self,
        configuration: Configuration,
        first: Instance,
        gateways: tuple[IPAddress, ...],
        around: Surroundings,
        notes: Notes,
    ) -> None:
        self._configuration, self._first, self._gateways = configuration, first, gateways
        self._around, self._notes = around, notes

    def described(self) -> Redundant:
        """Return them."""
        first = self._first
        own = _whole(first, "priority", _PRIORITY, (1, 255), self._notes)
        state = first.settings.get("state")
        is_backup = state is not None and state.text.upper() == "BACKUP"
        preempts = "nopreempt" not in first.settings
        # With nopreempt every director is BACKUP at first: that says nothing about the others.
        second = is_backup and preempts and own + STEP <= _HIGHEST
        highest = min(own + STEP if second else own, _HIGHEST)
        count = 1 + max(1, len(first.peers))
        ha = tuple(self._settings(preempts=preempts))
        others = [max(1, highest - STEP * n) for n in range(count)]
        others.remove(own if own in others else highest)
        priorities = " and ".join(map(str, others))
        what = "a second director" if count == 2 else f"{count - 1} more directors"
        named = tuple(self._named(second=second))
        chosen = "" if named else "; their own addresses are chosen"
        same = f"{what} with the same configuration, priority {priorities}{chosen}"
        return Redundant(ha, highest, count, named, (same,))

    def _settings(self, *, preempts: bool) -> Iterator[str]:
        first, notes = self._first, self._notes
        router = _whole(first, "virtual_router_id", 0, (1, 255), notes)
        if not router:
            notes.wrong(
                first.place,
                f"vrrp_instance {first.name} has no virtual_router_id",
                "virtual_router_id 51",
            )
        yield f"virtual_router_id: {router or 1}"
        if (interval := first.settings.get("advert_int")) is not None:
            try:
                seconds = parse_interval(interval.text)
                yield f"advert_int: {f'{seconds:g}s' if seconds >= 1 else f'{seconds * 1000:g}ms'}"
            except InvalidValue:
                text = f"advert_int {interval.text!r:.40} is not a time"
                notes.wrong(interval.place, text, "seconds, from 0.01 to 40")
        if not preempts:
            yield "preempt: false"
        if first.peers:
            yield "unicast: true"
        if (daemon := self._configuration.daemon) is not None:
            names = [one.name for one in self._configuration.instances]
            if daemon.instance not in names:
                hint = f"one of {', '.join(names)}"
                text = f"lvs_sync_daemon names {daemon.instance!r:.40}, which is no vrrp_instance"
                notes.wrong(daemon.place, text, hint)
            yield "sync: true"
        if self._gateways:
            yield f"gateways: [{', '.join(_quoted(one) for one in self._gateways)}]"

    def _named(self, *, second: bool) -> Iterator[tuple[str, dict[str, IPAddress | None]]]:
        """Yield each director by its address, if the file has those of all (unicast)."""
        source = self._first.source
        segment = next((s for s in self._around.director if source and is_on(s, source)), None)
        if source is None or segment is None or not self._first.peers:
            return
        addresses = [source, *self._first.peers]
        if len(set(addresses)) < len(addresses) or not all(is_on(segment, a) for a in addresses):
            return
        if second:
            addresses[:2] = reversed(addresses[:2])
        for position, address in enumerate(addresses, 1):
            networks: dict[str, IPAddress | None] = {s.name: None for s in self._around.director}
            yield f"director{position}", networks | {segment.name: address}


def _whole(one: Instance, key: str, usual: int, bounds: tuple[int, int], notes: Notes) -> int:
    setting = one.settings.get(key)
    if setting is None:
        return usual
    found = number(setting.text, *bounds)
    if found is None:
        hint = f"{bounds[0]} to {bounds[1]}"
        notes.wrong(setting.place, f"{key} {setting.text!r:.40} is not a number in range", hint)
        return bounds[0]
    return found


def _gateways(
    configuration: Configuration,
    services: tuple[Service, ...],
    around: Surroundings,
    vips: list[IPAddress],
    notes: Notes,
) -> Iterator[IPAddress]:
    """Yield the virtual addresses that are real servers' gateways in NAT, one on each network."""
    behind = [
        around.server_segments[one.rip]
        for service in services
        for one in service.servers
        if one.forward is ForwardingMethod.NAT
    ]
    served: set[tuple[int, int]] = set()
    for instance in configuration.instances:
        for address, _ in instance.addresses:
            ip = address.ip
            if ip in vips:
                continue
            segment = next((s for s in behind if is_on(s, ip)), None)
            place = (id(segment), ip.version)
            if segment is None or place in served:
                text = f"{ip} of vrrp_instance {instance.name}: no virtual server needs it"
                notes.remark(instance.place, text)
            else:
                served.add(place)
                yield ip


def _compare(
    configuration: Configuration,
    first: Instance,
    addresses: list[IPAddress],
    holder: dict[IPAddress, Instance],
    around: Surroundings,
    notes: Notes,
) -> None:
    """Note where the file's instances are not those that a topology makes of the addresses.

    That is one for each network and IP version, with ids in their order and the rest alike.
    """
    places: dict[tuple[int, int], list[Instance]] = {}
    for address in dict.fromkeys(addresses):
        segment = next((s for s in around.director if is_on(s, address)), None)
        if segment is not None and address in holder:
            places.setdefault((id(segment), address.version), []).append(holder[address])
    start = _number(first.settings.get("virtual_router_id"))
    seen: set[str] = set()
    for position, several in enumerate(places.values()):
        main, *others = dict.fromkeys(several, None)
        expected = (start + position - 1) % 255 + 1
        if main.name not in seen and _number(main.settings.get("virtual_router_id")) != expected:
            text = f"vrrp_instance {main.name} has virtual_router_id {expected} in the topology"
            notes.remark(_place_of(main, "virtual_router_id"), text)
        seen.add(main.name)
        for other in others:
            text = (
                f"vrrp_instance {other.name}: its addresses move with those of {main.name} in the "
                "topology"
            )
            notes.remark(other.place, text)
    for other in configuration.instances:
        for key in ("advert_int", "priority", "nopreempt", "state"):
            mine, its = first.settings.get(key), other.settings.get(key)
            if (mine and mine.text) != (its and its.text):
                text = f"{key} of vrrp_instance {other.name}: in the topology it is {first.name}'s"
                notes.remark(_place_of(other, key), text)


def _number(setting: Setting | None) -> int:
    return (number(setting.text, 1, 255) if setting is not None else None) or 0


def _place_of(instance: Instance, key: str) -> Place:
    setting = instance.settings.get(key)
    return setting.place if setting is not None else instance.place


def _note_groups(configuration: Configuration, notes: Notes) -> None:
    """Note instances that no sync group keeps together: in a topology all move together."""
    names = {one.name for one in configuration.instances}
    if len(names) < 2 or any(names <= set(group.members) for group in configuration.sync_groups):
        return
    for group in configuration.sync_groups:
        text = f"vrrp_sync_group {group.name}: in the topology all instances are in one"
        notes.remark(group.place, text)
    if not configuration.sync_groups:
        last = configuration.instances[-1]
        text = f"vrrp_instance {last.name}: no vrrp_sync_group; in the topology all move together"
        notes.remark(last.place, text)


def _quoted(address: IPAddress) -> str:
    return f"'{address}'" if address.version == 6 else str(address)
