"""By how much hosts' clocks differ, from frames that two of them captured. Pure.

A frame leaves one host before it arrives at another. Where the timestamps say otherwise, the clocks
differ: the smallest delays of both directions are taken for equal, as NTP does (RFC 5905, 8).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from lvsctl.claims.trace import identity
from lvsctl.model.frame import Direction, Frame

_TOO_LONG = 500_000_000
"""Nanoseconds that no frame needs from one host to another."""


def clock_offsets(frames: Iterable[Frame], reference: str) -> Mapping[str, int]:
    """Return by how many nanoseconds each node's clock is ahead of the ``reference`` node's.

    All are 0 where no frame contradicts that the clocks agree.
    """
    every = tuple(frames)
    nodes = {frame.tap.node for frame in every} | {reference}
    shortest = _shortest(every, reference)
    none = dict.fromkeys(nodes, 0)
    if all(0 <= delay < _TOO_LONG for delay in shortest.values()):
        return none
    offsets = {reference: 0}
    # First by links that frames crossed both ways, which tell exactly.
    while further := _both_ways(shortest, offsets) or _one_way(shortest, offsets):
        offsets |= further
    return none | offsets


Delays = Mapping[tuple[str, str], int]


def _both_ways(shortest: Delays, known: Mapping[str, int]) -> dict[str, int]:
    return {
        there: known[here] + (delay - shortest[there, here]) // 2
        for (here, there), delay in shortest.items()
        if here in known and there not in known and (there, here) in shortest
    }


def _one_way(shortest: Delays, known: Mapping[str, int]) -> dict[str, int]:
    """One node more, as far as a delay that cannot be shows it: the one with the shortest."""
    there = [
        (_impossible(delay) != 0, delay, new, known[old] + _impossible(delay))
        for (old, new), delay in shortest.items()
        if old in known and new not in known
    ]
    back = [
        (_impossible(delay) != 0, delay, new, known[old] - _impossible(delay))
        for (new, old), delay in shortest.items()
        if old in known and new not in known
    ]
    return {node: offset for _, _, node, offset in sorted(there + back)[:1]}


def _impossible(delay: int) -> int:
    return 0 if 0 <= delay < _TOO_LONG else delay


def _shortest(frames: Iterable[Frame], reference: str) -> dict[tuple[str, str], int]:
    """The shortest time from a frame's leaving one node until its arrival at another."""
    left: dict[object, list[Frame]] = {}
    came: dict[object, list[Frame]] = {}
    for frame in frames:
        if frame.ips or frame.arp is not None:
            there = left if frame.direction is Direction.OUT else came
            there.setdefault(_key(frame), []).append(frame)
    found: dict[tuple[str, str], int] = {}
    for key, sent in left.items():
        for out in _once(sent):
            for into in _once(came.get(key, ())):
                pair = out.tap.node, into.tap.node
                if pair[0] == pair[1] or not (_same_link(out, into) or reference in pair):
                    continue
                delay = into.time - out.time
                found[pair] = min(found.get(pair, delay), delay)
    return found


def _once(frames: Iterable[Frame]) -> list[Frame]:
    """Those whose node has no other copy: which of several is which is not known."""
    every = list(frames)
    counts = Counter(frame.tap.node for frame in every)
    return [frame for frame in every if counts[frame.tap.node] == 1]


def _key(frame: Frame) -> object:
    if frame.arp is not None:
        return frame.raw.data[:42]
    return identity(frame), frame.flow


def _same_link(out: Frame, into: Frame) -> bool:
    return out.ethernet is not None and out.ethernet == into.ethernet
