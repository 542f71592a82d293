"""The order in which frames happened.

Kernel timestamps order hops across namespaces as far as the clock is fine enough. In
User-Mode Linux it moves on by 256 ns, so that two hops of one packet may have the same
time: then what one node sent came in at another only afterwards, and what one node saw
stays in the order in which it saw it.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter

from lvsctl.capture.listener import RawRecord

_OUT = 4
"""packet(7), PACKET_OUTGOING."""


def in_order(seen: list[RawRecord]) -> list[RawRecord]:
    """``seen`` by time; those of the same time by what must have come first.

    The frames of one node must be in the order in which its socket had them.
    """
    seen.sort(key=itemgetter(0))
    ordered: list[RawRecord] = []
    for _, group in groupby(seen, key=itemgetter(0)):
        same = list(group)
        while len(same) > 1:
            ordered.append(same.pop(_first(same)))
        ordered += same
    return ordered


def _first(same: list[RawRecord]) -> int:
    """The position of a frame that nothing else in ``same`` must precede; 0 where all wait."""
    waiting: set[str] = set()
    for position, (_, tap, kind, _, _, data, _) in enumerate(same):
        if tap.node not in waiting:
            comes_from_there = kind != _OUT and any(
                other[2] == _OUT and other[5] == data and other[1].node != tap.node
                for other in same
            )
            if not comes_from_there:
                return position
            waiting.add(tap.node)
    return 0
