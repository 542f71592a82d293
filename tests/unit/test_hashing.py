"""Hashing schedulers against what Linux 6.1's IPVS chose: rs1 and rs2 by weight 1, rs3 by its own.

rs1 to rs3 have the addresses .12 to .14 (in IPv6 ::12 to ::14), added in that order.
"""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from lvsctl.claims.hashing import Hashed, changed_entries, chosen
from lvsctl.model.service import Scheduler, SchedulerFlag

PORT, FALLBACK = SchedulerFlag.PORT, SchedulerFlag.FALLBACK


def servers(prefix: str, weight: int) -> tuple[Hashed, ...]:
    """As the kernel lists them: the latest added first."""
    weights = {"14": weight, "13": 1, "12": 1}
    return tuple(Hashed((ip_address(f"{prefix}{host}"), 80), w) for host, w in weights.items())


OBSERVED = [
    (
        *(Scheduler.SH, (PORT, FALLBACK), "10.10.0.", 0),
        {41345: 2, 41847: 1, 37503: 2, 38793: 2, 35129: 1, 56205: 2},
    ),
    (
        *(Scheduler.SH, (PORT,), "fd00:10::", 7),
        {44787: 1, 53593: 2, 45533: 3, 53871: 3, 49119: 3, 47925: 3},
    ),
    (
        *(Scheduler.MH, (PORT, FALLBACK), "10.10.0.", 5),
        {42705: 3, 38929: 3, 36603: 1, 43417: 2, 55201: 2, 48403: 3},
    ),
    (
        *(Scheduler.MH, (PORT,), "fd00:10::", 100),
        {43955: 3, 39181: 3, 55543: 3, 43443: 3, 44415: 2, 48561: 3},
    ),
    (Scheduler.SH, (), "10.10.0.", 1, {36129: 2, 43459: 2}),
    (Scheduler.MH, (), "10.10.0.", 1, {47569: 3, 57593: 3}),
]


@pytest.mark.parametrize(("scheduler", "flags", "prefix", "weight", "given"), OBSERVED)
def test_each_connection_of_a_client(
    scheduler: Scheduler,
    flags: tuple[SchedulerFlag, ...],
    prefix: str,
    weight: int,
    given: dict[int, int],
) -> None:
    table = servers(prefix, weight)
    client = ip_address(f"{prefix}10")
    found = {port: chosen(scheduler, flags, table, client, port) for port in given}
    assert {port: one and str(one.place[0])[-1] for port, one in found.items()} == {
        port: str(number + 1) for port, number in given.items()
    }


@pytest.mark.parametrize("vip", ["10.10.0.104", "fd00:10::104"])
def test_dh_goes_by_the_vip(vip: str) -> None:
    table = servers(vip[:-3], 1)
    found = chosen(Scheduler.DH, (), table, ip_address(vip), 0)
    assert found is not None
    assert str(found.place[0]).endswith("13")


def test_without_fallback_a_drained_real_server_is_a_refusal() -> None:
    table = servers("10.10.0.", 0)
    client = ip_address("10.10.0.10")
    ports = range(30000, 30100)
    refused = [p for p in ports if chosen(Scheduler.SH, (PORT,), table, client, p) is None]
    assert refused
    assert all(chosen(Scheduler.SH, (PORT, FALLBACK), table, client, p) for p in refused)
    assert chosen(Scheduler.MH, (), (), client, 1) is None


def test_the_maglev_hash_depends_a_little_on_the_order_of_the_real_servers() -> None:
    """Where two of them want the same entry, the one whose turn it is gets it (ip_vs_mh.c)."""
    added = [((ip_address(f"10.66.2.{11 + number}"), 80), 1) for number in range(8)]
    changed, total = changed_entries(added, [*added[1:], added[0]])
    assert 0 < changed < total / 100
    assert changed_entries(added, added) == (0, total)
    assert changed_entries(added, added[:-1])[0] > total / 10
