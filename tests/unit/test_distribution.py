"""Each scheduler's prediction against what was measured on the real kernel.

The measured shares are those of shared/KERNEL-NOTES.md, "What works in UML": weights
1:2:3:4, twelve held connections, a fresh VIP. That the real kernel still does so is
tests/kernel/test_schedulers.py's business.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.claims.distribution import (
    AT_MOST,
    expected_distribution,
    requests_for_each,
    requests_needed,
    room_for,
)
from lvsctl.claims.schedulers import Place, within_a_round
from lvsctl.model.service import (
    ForwardingMethod,
    Protocol,
    RealServer,
    Scheduler,
    VipPort,
    VirtualService,
)
from lvsctl.model.state import RealServerState, ServiceState


def service(scheduler: Scheduler, *weights: int, upper: int = 0) -> VirtualService:
    return VirtualService(
        name="web",
        match=VipPort(Protocol.TCP, ip_address("10.0.0.100"), 80),
        forward=ForwardingMethod.DR,
        scheduler=scheduler,
        real_servers=tuple(
            RealServer(
                f"rs{n}",
                ip_address(f"10.0.0.{n}"),
                80,
                weight,
                upper=upper,
                forward=ForwardingMethod.DR,
            )
            for n, weight in enumerate(weights, 1)
        ),
    )


def shares(of: VirtualService, total: int, before: ServiceState | None = None) -> list[int]:
    predicted = expected_distribution(of, before, total).shares
    return [predicted[server.rip, server.port] for server in of.real_servers]


@pytest.mark.parametrize(
    ("scheduler", "measured"),
    [
        (Scheduler.RR, [3, 3, 3, 3]),
        (Scheduler.LC, [3, 3, 3, 3]),
        (Scheduler.WLC, [1, 2, 4, 5]),
        (Scheduler.SED, [1, 2, 4, 5]),
        (Scheduler.NQ, [1, 2, 4, 5]),
        (Scheduler.FO, [0, 0, 0, 12]),
        (Scheduler.OVF, [0, 3, 4, 5]),
        (Scheduler.LBLC, [0, 3, 4, 5]),
        (Scheduler.LBLCR, [0, 3, 4, 5]),
    ],
)
def test_twelve_held_connections(scheduler: Scheduler, measured: list[int]) -> None:
    assert shares(service(scheduler, 1, 2, 3, 4), 12) == measured


@pytest.mark.parametrize(
    ("scheduler", "measured"),
    [
        (Scheduler.RR, [3, 3, 3, 3]),
        (Scheduler.WLC, [0, 0, 0, 12]),
        (Scheduler.SED, [0, 0, 0, 12]),
        (Scheduler.LC, [0, 0, 0, 12]),
    ],
)
def test_twelve_packets_that_are_scheduled_one_by_one(
    scheduler: Scheduler, measured: list[int]
) -> None:
    of = replace(service(scheduler, 1, 2, 3, 4), one_packet=True)
    assert shares(of, 12) == measured


@pytest.mark.parametrize(
    ("scheduler", "measured"),
    [
        (Scheduler.SED, [0, 0, 0, 12]),
        (Scheduler.NQ, [0, 0, 0, 12]),
        (Scheduler.OVF, [0, 0, 0, 12]),
        (Scheduler.LC, [3, 3, 3, 3]),
    ],
)
def test_connections_over_udp_are_never_active(scheduler: Scheduler, measured: list[int]) -> None:
    of = service(scheduler, 1, 2, 3, 4)
    of = replace(of, match=VipPort(Protocol.UDP, ip_address("10.0.0.100"), 53))
    assert requests_needed(of, None) == 12
    assert shares(of, 12) == measured
    assert room_for(of, None) is None


def test_wrr_over_whole_rounds_is_exactly_the_weights() -> None:
    of = service(Scheduler.WRR, 1, 2, 3, 4)
    assert requests_needed(of, None) == 20
    assert shares(of, 20) == [2, 4, 6, 8]


def test_rounds_are_of_the_weights_without_their_common_divisor() -> None:
    assert requests_needed(service(Scheduler.WRR, 100, 300), None) == 12


def test_of_a_round_that_is_too_long_a_part_is_predicted() -> None:
    of = service(Scheduler.WRR, 4, 65535)
    assert requests_needed(of, None) == AT_MOST
    predicted = expected_distribution(of, None, AT_MOST)
    assert "of 2000 connections in a round of 65539: rs1 0 to 4, rs2 1995 to 2000" in predicted.text
    first, second = ((s.rip, s.port) for s in of.real_servers)
    assert predicted.fitting({first: 4, second: 1996}) == {first: 4, second: 1996}
    assert predicted.fitting({second: 2000}) is not None
    assert predicted.fitting({first: 1000, second: 1000}) is None


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 60))
def test_any_part_of_a_round_is_within_what_is_predicted(weights: list[int], count: int) -> None:
    unit = gcd(*weights)
    levels = range(max(weights), 0, -unit)
    whole = [i for level in levels for i, weight in enumerate(weights) if weight >= level]
    part = count % len(whole)
    bounds = within_a_round(weights, part)
    for start in range(len(whole)):
        given = Counter((whole + whole)[start : start + part])
        for index, (least, most) in enumerate(bounds):
            assert least <= given[index] <= most


@pytest.mark.parametrize("scheduler", [Scheduler.SH, Scheduler.DH, Scheduler.MH])
def test_hashing_sends_one_client_to_one_real_server(scheduler: Scheduler) -> None:
    predicted = expected_distribution(service(scheduler, 1, 1), None, 12)
    assert predicted.one
    assert not predicted.exact


def test_persistence_goes_before_the_scheduler() -> None:
    predicted = expected_distribution(
        replace(service(Scheduler.RR, 1, 1), persistence=300), None, 4
    )
    assert predicted.one


def test_weight_0_gets_nothing() -> None:
    for scheduler in (Scheduler.RR, Scheduler.WRR, Scheduler.WLC, Scheduler.SED):
        assert shares(service(scheduler, 1, 0), 4) == [4, 0]


def test_a_full_real_server_gets_nothing_more() -> None:
    of = service(Scheduler.RR, 1, 1, upper=3)
    assert requests_needed(of, None) == 6
    assert shares(of, 6) == [3, 3]


def holding(of: VirtualService, *inactive: int) -> ServiceState:
    """The service with so many idle connections at each real server."""
    held = [
        RealServerState(s.rip, s.port, ForwardingMethod.DR, s.weight, s.upper, s.lower, 0, idle)
        for s, idle in zip(of.real_servers, inactive, strict=True)
    ]
    return ServiceState(of.match, str(of.scheduler), 0, tuple(held))


def seen(of: VirtualService, *shares: int) -> dict[Place, int]:
    return {(s.rip, s.port): n for s, n in zip(of.real_servers, shares, strict=True)}


def test_between_the_thresholds_the_past_decides() -> None:
    """Full it was until it fell below three quarters of 8; the table does not say which."""
    of = service(Scheduler.RR, 1, 1, upper=8)
    before = holding(of, 7, 0)
    assert room_for(of, before) == 8
    predicted = expected_distribution(of, before, 8)
    assert predicted.fitting(seen(of, 1, 7))
    assert predicted.fitting(seen(of, 0, 8))
    assert not predicted.fitting(seen(of, 4, 4))
    assert expected_distribution(of, holding(of, 5, 0), 8).others == ()  # below: open again


def test_lblcr_remembers_a_set_of_real_servers_for_a_day() -> None:
    """Measured: weights 3 and 1, connections of an earlier scheduler, twelve more."""
    of = service(Scheduler.LBLCR, 3, 1)
    predicted = expected_distribution(of, holding(of, 9, 3), 12)
    assert predicted.fitting(seen(of, 9, 3))
    assert not predicted.fitting(seen(of, 12, 0))


def test_ovf_takes_one_more_than_the_weights() -> None:
    """Measured: of twelve connections to weights 3 and 1, six were refused."""
    of = service(Scheduler.OVF, 3, 1)
    assert requests_needed(of, None) == 6
    assert shares(of, 12) == [4, 2]


def test_where_nobody_has_room_one_request_shows_it() -> None:
    of = service(Scheduler.RR, 1, 1, upper=2)
    assert room_for(of, holding(of, 2, 2)) == 0
    assert requests_needed(of, holding(of, 2, 2)) == 1


def test_connections_held_before_count() -> None:
    of = service(Scheduler.LC, 1, 1)
    held = [
        RealServerState(s.rip, s.port, ForwardingMethod.DR, 1, 0, 0, active=busy, inactive=0)
        for s, busy in zip(of.real_servers, (4, 0), strict=True)
    ]
    before = ServiceState(of.match, "lc", 0, tuple(held))
    assert shares(of, 4, before) == [0, 4]


@pytest.mark.parametrize("scheduler", [Scheduler.WLC, Scheduler.LC, Scheduler.SED, Scheduler.NQ])
@pytest.mark.parametrize("stuck", [0, 6, 30])
def test_a_real_server_with_stuck_connections_is_asked_all_the_same(
    scheduler: Scheduler, stuck: int
) -> None:
    """Half-open connections keep a dead real server from being chosen, not from being judged."""
    of = service(scheduler, 1, 1, 1)
    full = holding(of, 0, 0, 0)
    first, second, third = full.real_servers
    before = full._replace(real_servers=(first, second, third._replace(active=stuck)))
    total = requests_needed(of, before)

    assert all(shares(of, total, before))
    assert total >= 12


@pytest.mark.parametrize(
    ("scheduler", "weights", "expected"),
    [
        (Scheduler.RR, (1, 1, 1), 3),
        (Scheduler.WRR, (1, 2, 3), 6),
        (Scheduler.WLC, (1, 1), 2),
        (Scheduler.SH, (1, 1, 1), 1),
        (Scheduler.RR, (1, 0, 1), 2),
    ],
)
def test_a_large_request_for_each_real_server(
    scheduler: Scheduler, weights: tuple[int, ...], expected: int
) -> None:
    assert requests_for_each(service(scheduler, *weights)) == expected
