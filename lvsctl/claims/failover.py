"""The story of a failover, and what it promises: decided on frames and neighbour tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lvsctl.claims.base import join_names
from lvsctl.claims.ha import FAILBACK_TEXT, Advertisement, advertisements
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Claim, Finding, Verdict
from lvsctl.model.evidence import Evidence
from lvsctl.model.failover import HeldConnection, Moment, Step
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Lab
from lvsctl.model.masters import Holders, has_one_master
from lvsctl.model.service import Protocol
from lvsctl.model.state import NeighbourState

ONE_MASTER = Claim(
    "ha.one-master",
    "one director is master: it alone holds the VIPs and advertises itself",
    ("vrrp-filtered", "vrrp-router-id", "vrrp-password"),
)
ANNOUNCED = Claim(
    "ha.vip-announced",
    "the new master announces every address that it took over (gratuitous ARP, unsolicited "
    "neighbour advertisements)",
    ("announcements-dropped",),
)
FOLLOW = Claim(
    "ha.neighbours-follow",
    "every node that knows the address has the new master's MAC address",
    ("announcements-dropped", "announcements-ignored"),
)
SURVIVE = Claim(
    "ha.connections-survive",
    "connections that were synchronized go on at the new master",
    ("sync-daemon-missing", "sync-daemon-elsewhere"),
)
FAILBACK = Claim("ha.failback", FAILBACK_TEXT, ("equal-priorities", "preemption-off"))


DECIDED = (ANNOUNCED, FOLLOW, SURVIVE)
"""What only a failover shows: `verify` cannot decide it."""


def claims_of(lab: Lab) -> tuple[Claim, ...]:
    """Return the claims that only a failover can decide, as far as a lab makes them."""
    if not lab.floating or not any(s.endpoint.protocol is Protocol.TCP for s in lab.services):
        return ()
    synchronized = any(node.ha and node.ha.sync for node in lab.directors)
    return (ANNOUNCED, FOLLOW, *((SURVIVE,) if synchronized else ()))


@dataclass(frozen=True, slots=True)
class Moved:
    """What was captured and read while the master changed.

    ``began`` is the moment of the action, in nanoseconds since the epoch. ``holders`` and
    ``neighbours`` (by node) are as they were afterwards; ``macs`` are those of each node.
    """

    lab: Lab
    frames: tuple[Frame, ...]
    began: int
    before: str
    after: str
    holders: Holders
    neighbours: Mapping[str, tuple[NeighbourState, ...]]
    macs: Mapping[str, frozenset[str]]
    held: tuple[HeldConnection, ...] = ()
    dropped: int = 0
    receiving: bool | None = None
    """Whether the new director's synchronization daemon ran before; None: keepalived did not."""
    back: bool = False
    """Whether everything was brought back."""

    @property
    def split(self) -> bool:
        """Whether the director that was master still is, beside the new one."""
        names = {name for found in self.holders.values() for name in found}
        return self.before != self.after and self.before in names

    def at(self, frame: Frame) -> float:
        """When a frame was seen, in milliseconds since the action."""
        return (frame.time - self.began) / 1e6


def announces(frame: Frame) -> IPAddress | None:
    """Return the address that a frame announces unasked; None: it announces none.

    RFC 5227, section 3, and RFC 4861, section 7.2.6: to all nodes.
    """
    if frame.arp is not None:
        return frame.arp.sender_ip if frame.arp.is_gratuitous else None
    nd = frame.nd
    if nd is None or nd.is_solicit or frame.outer is None or not frame.outer.dst.is_multicast:
        return None
    return nd.target


def story(moved: Moved) -> Iterator[Step]:
    """Yield what frames show of a failover, in no order."""
    sent = [
        one
        for one in advertisements(Evidence(moved.lab, (), moved.frames, ()))
        if one.frame.direction is Direction.OUT
    ]
    if moved.split:
        yield from _stayed(moved, sent)
    else:
        yield from _last_of(moved, sent)
    mine = [one for one in sent if one.frame.tap.node == moved.after]
    first = next((one for one in mine if one.frame.time > moved.began), None)
    if first is None or moved.after == moved.before:
        return
    yield Step(
        moved.at(first.frame),
        Moment.TOOK_OVER,
        moved.after,
        f"{moved.after} is master: its first advertisement, priority {first.priority}",
        first.frame.number,
    )
    for address in moved.lab.floating:
        own = list(_announcements(moved, address))
        if own:
            yield Step(
                moved.at(own[0]),
                Moment.ANNOUNCED,
                moved.after,
                f"{moved.after} announces {address} ({len(own)} times in all)",
                own[0].number,
            )
    yield from _followed(moved)


def _last_of(moved: Moved, sent: Iterable[Advertisement]) -> Iterator[Step]:
    old = [one for one in sent if one.frame.tap.node == moved.before]
    alive = [one for one in old if one.priority and one.frame.time <= moved.began]
    if moved.before == moved.after or not alive:
        return
    later = [one for one in old if one.priority and one.frame.time > moved.began]
    last = (later or alive)[-1]
    yield Step(
        moved.at(last.frame),
        Moment.ADVERTISED,
        moved.before,
        f"the last advertisement of {moved.before}",
        last.frame.number,
    )
    for one in old:
        if not one.priority and one.frame.time > moved.began:
            text = f"{moved.before} resigns (priority 0): the backup need not wait for its time-out"
            yield Step(moved.at(one.frame), Moment.RESIGNED, moved.before, text, one.frame.number)
            return


def _stayed(moved: Moved, sent: Sequence[Advertisement]) -> Iterator[Step]:
    """Yield that a director goes on advertising itself beside the new master."""
    news = (o for o in sent if o.frame.tap.node == moved.after and o.frame.time > moved.began)
    since = next((one.frame.time for one in news), None)
    for one in sent:
        if since is not None and one.frame.tap.node == moved.before and one.frame.time > since:
            text = f"{moved.before} goes on advertising itself: there are two masters"
            yield Step(moved.at(one.frame), Moment.STAYED, moved.before, text, one.frame.number)
            return


def _announcements(moved: Moved, address: IPAddress) -> Iterator[Frame]:
    for frame in moved.frames:
        mine = frame.tap.node == moved.after and frame.direction is Direction.OUT
        if mine and frame.time > moved.began and announces(frame) == address:
            yield frame


def _followed(moved: Moved) -> Iterator[Step]:
    """Yield when each node first sent something for an address to the new master's MAC."""
    macs = moved.macs.get(moved.after, frozenset())
    floating = set(moved.lab.floating)
    seen: set[str] = set()
    for frame in moved.frames:
        node = frame.tap.node
        if frame.time <= moved.began or frame.direction is not Direction.OUT or node in seen:
            continue
        if node in (moved.after, moved.before) or frame.ethernet is None or frame.outer is None:
            continue
        if frame.ethernet.dst in macs and _leads_through(moved, frame, floating):
            seen.add(node)
            yield Step(
                moved.at(frame),
                Moment.FOLLOWED,
                node,
                f"{node} sends to the MAC address of {moved.after}",
                frame.number,
            )


def _leads_through(moved: Moved, frame: Frame, floating: set[IPAddress]) -> bool:
    """Whether a packet is for an address that moves, or is sent through one as a gateway."""
    if frame.outer is None or frame.outer.protocol == 1 or frame.arp is not None:
        return False
    own = {a.ip for node in moved.lab.directors for i in node.interfaces for a in i.addresses}
    return frame.outer.dst in floating or frame.outer.dst not in own


def findings(moved: Moved, service: str) -> tuple[Finding, ...]:
    """Decide what a failover promises."""
    found = [_one_master(moved, service)]
    if moved.split:  # who follows whom, and what survives, is a matter of chance
        return tuple(found)
    if moved.back:
        found.append(_failback(moved, service))
    if moved.before != moved.after:
        found += [_announced(moved, service), _follow(moved, service)]
    synchronized = any(node.ha and node.ha.sync for node in moved.lab.directors)
    stayed = moved.back and moved.before == moved.after
    if synchronized and moved.held and moved.receiving is not None and not stayed:
        found.append(_survive(moved, service))
    return tuple(found)


def _finding(
    moved: Moved, claim: Claim, service: str, verdict: Verdict, expected: str, observed: str
) -> Finding:
    if moved.dropped and claim is ANNOUNCED and verdict is Verdict.FAIL:
        verdict = Verdict.INCONCLUSIVE
        observed += f"; but the capture lost {moved.dropped} frames"
    return Finding(claim, service, verdict, expected, observed)


def _one_master(moved: Moved, service: str) -> Finding:
    holders = "; ".join(
        f"{one} at {join_names(names) if names else 'no director'}"
        for one, names in moved.holders.items()
    )
    good = has_one_master(moved.holders)
    verdict = Verdict.PASS if good else Verdict.FAIL
    return _finding(moved, ONE_MASTER, service, verdict, "all of them at one director", holders)


def _failback(moved: Moved, service: str) -> Finding:
    settings = {node.name: node.ha for node in moved.lab.directors if node.ha is not None}
    highest = max((ha.priority for ha in settings.values()), default=0)
    first = [name for name, ha in settings.items() if ha.priority == highest]
    if all(ha.preempt for ha in settings.values()):
        expected, right = f"{join_names(first)}, by priority {highest}", moved.after in first
    else:
        expected, right = f"{moved.before}, without preemption", moved.after == moved.before
    verdict = Verdict.PASS if right else Verdict.FAIL
    return _finding(moved, FAILBACK, service, verdict, expected, moved.after or "no director")


def _announced(moved: Moved, service: str) -> Finding:
    expected = f"{', '.join(map(str, moved.lab.floating))} announced by {moved.after or 'another'}"
    counts = {one: len(list(_announcements(moved, one))) for one in moved.lab.floating}
    observed = ", ".join(f"{one} {count} times" for one, count in counts.items())
    verdict = Verdict.PASS if all(counts.values()) else Verdict.FAIL
    return _finding(moved, ANNOUNCED, service, verdict, expected, observed)


def entries_of(moved: Moved) -> tuple[list[str], list[str]]:
    """Return the nodes with right entries for the addresses that moved, and the wrong entries."""
    macs = moved.macs.get(moved.after, frozenset())
    right: list[str] = []
    wrong: list[str] = []
    for node, entries in moved.neighbours.items():
        for one in entries:
            if one.address not in moved.lab.floating or not one.mac or node == moved.before:
                continue
            if one.mac in macs:
                right.append(node)
                continue
            owner = next((name for name, own in moved.macs.items() if one.mac in own), one.mac)
            wrong.append(f"{node} has {one.address} at {owner} ({one.state})")
    return right, wrong


def _follow(moved: Moved, service: str) -> Finding:
    right, wrong = entries_of(moved)
    expected = f"every entry leads to {moved.after or 'the new master'}"
    if wrong:
        return _finding(moved, FOLLOW, service, Verdict.FAIL, expected, "; ".join(wrong))
    if not right:
        observed = "no node has an entry"
        return _finding(moved, FOLLOW, service, Verdict.INCONCLUSIVE, expected, observed)
    names = join_names(tuple(dict.fromkeys(right)))
    return _finding(moved, FOLLOW, service, Verdict.PASS, expected, f"those of {names} do")


def _survive(moved: Moved, service: str) -> Finding:
    threshold = max(node.ha.sync_threshold[0] for node in moved.lab.directors if node.ha)
    due = [one for one in moved.held if one.packets >= threshold]
    lost = [one for one in due if not one.survived]
    survived = sum(one.survived for one in moved.held)
    expected = f"all connections of {threshold} packets and more"
    observed = f"{len(due) - len(lost)} of {len(due)}; {survived} of {len(moved.held)} in all"
    verdict = Verdict.FAIL if lost else Verdict.PASS if due else Verdict.INCONCLUSIVE
    if lost:
        observed += f"; {lost[0].client}: {lost[0].why}"
    return _finding(moved, SURVIVE, service, verdict, expected, observed)
