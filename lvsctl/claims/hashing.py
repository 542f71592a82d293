"""Which real server a hashing scheduler chooses: sh, dh and mh, as the kernel computes it.

The choice depends on nothing but the table of real servers and the packet, so every single
connection is predicted. Sources: net/netfilter/ipvs/ip_vs_sh.c, ip_vs_dh.c and ip_vs_mh.c, and for
mh's hash include/linux/siphash.h; compared with Linux 6.1. (Old kernels took the lowest bits of
sh's and dh's product, not the highest: they are predicted wrongly.)
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from math import gcd
from typing import NamedTuple

from lvsctl.claims.schedulers import Place
from lvsctl.model.addresses import IPAddress
from lvsctl.model.service import Scheduler, SchedulerFlag

BUCKETS_BITS = 8
"""sh and dh: 256 buckets (CONFIG_IP_VS_SH_TAB_BITS and CONFIG_IP_VS_DH_TAB_BITS's default)."""
MAGLEV_SIZE = 4093
"""mh: entries of its table, a prime (CONFIG_IP_VS_MH_TAB_INDEX's default, 12)."""
_MAGLEV_BITS = 6
_GOLDEN_RATIO_32 = 0x61C88647
_MAGLEV_KEYS = (2654435761, 2654446892)
_MASK = 0xFFFFFFFF


class Hashed(NamedTuple):
    """A real server as a hash finds it, in the kernel's order: the latest added first.

    ``full``: its upper threshold keeps it from new connections.
    """

    place: Place
    weight: int
    full: bool = False

    @property
    def usable(self) -> bool:
        """Whether it takes new connections."""
        return self.weight > 0 and not self.full


def chosen(
    scheduler: Scheduler,
    flags: Sequence[SchedulerFlag],
    servers: Sequence[Hashed],
    address: IPAddress,
    port: int,
) -> Hashed | None:
    """Return the real server that a connection is given; None: it is refused.

    ``address`` and ``port`` are the client's; for dh ``address`` is the VIP.
    """
    if not servers:
        return None
    weights = tuple((one.place, one.weight) for one in servers)
    value = _folded(address) + (port if SchedulerFlag.PORT in flags else 0)
    if scheduler is Scheduler.MH:
        table, place_of = _maglev_table(weights), _maglev_place
    else:
        table, place_of = _buckets(weights, by_weight=scheduler is Scheduler.SH), _bucket
    if not table:
        return None
    first = place_of(value, 0)
    found = servers[table[first]]
    if found.usable or SchedulerFlag.FALLBACK not in flags:
        return found if found.usable else None
    for offset in range(len(table)):
        found = servers[table[place_of(value, (offset + first) % len(table))]]
        if found.usable:
            return found
    return None


def _folded(address: IPAddress) -> int:
    """An address in 32 bits: IPv6's four words combined by exclusive or."""
    folded = 0
    for (word,) in struct.iter_unpack("!I", address.packed):
        folded ^= word
    return folded


# ── sh and dh ────────────────────────────────────────────────────────────────────────────────


def _bucket(value: int, offset: int) -> int:
    hashed = (value * _GOLDEN_RATIO_32 & _MASK) >> (32 - BUCKETS_BITS)
    return (hashed + offset) % (1 << BUCKETS_BITS)


@functools.lru_cache(64)
def _buckets(servers: tuple[tuple[Place, int], ...], *, by_weight: bool) -> tuple[int, ...]:
    """The index of the server in each bucket: in turn, of sh as often as its weight says."""
    found: list[int] = []
    while len(found) < 1 << BUCKETS_BITS:
        for index, (_, weight) in enumerate(servers):
            found += [index] * (max(1, weight) if by_weight else 1)
    return tuple(found[: 1 << BUCKETS_BITS])


def changed_entries(
    right: Sequence[tuple[Place, int]], other: Sequence[tuple[Place, int]]
) -> tuple[int, int]:
    """Return how many entries of mh's table two lists of real servers fill differently; of all.

    Each lists places and weights in the order in which they were added. Every hash of a client is
    an entry, so it is also the share of flows that they send to different real servers.
    """
    first, second = tuple(reversed(right)), tuple(reversed(other))
    pairs = zip(_maglev_table(first), _maglev_table(second), strict=False)
    return sum(first[a][0] != second[b][0] for a, b in pairs), MAGLEV_SIZE


# ── mh ───────────────────────────────────────────────────────────────────────────────────────


def _maglev_place(value: int, offset: int) -> int:
    return _hsiphash(value + offset & _MASK, _MAGLEV_KEYS[0]) % MAGLEV_SIZE


@functools.lru_cache(64)
def _maglev_table(servers: tuple[tuple[Place, int], ...]) -> tuple[int, ...]:
    """The index of the server in each entry; empty where every weight is 0."""
    weights = [weight for _, weight in servers if weight > 0]
    common = functools.reduce(gcd, weights, 0)
    if not common:
        return ()
    shift = max(0, (max(weights) // common).bit_length() - _MAGLEV_BITS)
    turns, places, skips = [], [], []
    for (address, port), weight in servers:
        value = _folded(address) + port & _MASK
        turns.append((weight // common >> shift) or int(weight > 0))
        places.append(_hsiphash(value, _MAGLEV_KEYS[0]) % MAGLEV_SIZE)
        skips.append(_hsiphash(value, _MAGLEV_KEYS[1]) % (MAGLEV_SIZE - 1) + 1)
    table = [-1] * MAGLEV_SIZE
    left = MAGLEV_SIZE
    while left:
        for index, count in enumerate(turns):
            for _ in range(min(count, left)):
                while table[places[index]] >= 0:
                    places[index] = (places[index] + skips[index]) % MAGLEV_SIZE
                table[places[index]] = index
                left -= 1
    return tuple(table)


def _hsiphash(value: int, key: int) -> int:
    """HalfSipHash of four bytes as a 64-bit kernel computes it: SipHash-1-3's lower 32 bits."""
    v0 = key ^ 0x736F6D6570736575
    v1 = key ^ 0x646F72616E646F6D
    v2 = key ^ 0x6C7967656E657261
    v3 = key ^ 0x7465646279746573
    word = 4 << 56 | value
    v3 ^= word
    v0, v1, v2, v3 = _sipround(v0, v1, v2, v3)
    v0 ^= word
    v2 ^= 0xFF
    for _ in range(3):
        v0, v1, v2, v3 = _sipround(v0, v1, v2, v3)
    return (v0 ^ v1 ^ v2 ^ v3) & _MASK


_WORD = (1 << 64) - 1


def _sipround(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0 = v0 + v1 & _WORD
    v1 = _rotated(v1, 13) ^ v0
    v0 = _rotated(v0, 32)
    v2 = v2 + v3 & _WORD
    v3 = _rotated(v3, 16) ^ v2
    v0 = v0 + v3 & _WORD
    v3 = _rotated(v3, 21) ^ v0
    v2 = v2 + v1 & _WORD
    v1 = _rotated(v1, 17) ^ v2
    v2 = _rotated(v2, 32)
    return v0, v1, v2, v3


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _WORD
