"""How the endurance run judges: what stays is told, what does not is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lvsctl.topology import shipped
from tools import soak

CYCLES = 300
NAMESPACE_KIB = 345


def nothing(_cycle: int) -> int:
    return 0


def every_tenth(cycle: int) -> int:
    return cycle // 10


def samples(leaked: Callable[[int], int], cycles: int = CYCLES) -> list[soak.Sample]:
    """A run after which so many namespaces have stayed; memory goes up and down by itself.

    Until every topology has been up, memory grows, as caches and modules do.
    """
    found = []
    for cycle in range(1, cycles + 1):
        noise = 7919 * cycle % 601 - 300
        filling = 3000 * min(cycle, len(shipped.names()))
        stayed = leaked(cycle)
        held = dict.fromkeys(soak.MEASURES, 20)
        held |= {
            "memory_used_kib": 60_000 + filling + noise + stayed * NAMESPACE_KIB,
            "slab_kib": 14_000 + filling // 10 + noise // 4,
            "namespaces_kernel": 8 + stayed,
        }
        found.append(soak.Sample(cycle=cycle, seconds=10.0 * cycle, topology="dr", **held))
    return found


def grew(found: list[soak.Sample]) -> set[str]:
    return {name for name, (*_, flat) in soak.grown(found).items() if not flat}


@pytest.mark.parametrize("cycles", [soak.WARM_UP + 8, CYCLES])
def test_flat_is_flat(cycles: int, capsys: pytest.CaptureFixture[str]) -> None:
    flat = samples(nothing, cycles)
    assert grew(flat) == set()
    assert soak.judge(flat)
    assert "GREW" not in capsys.readouterr().out


def test_a_namespace_that_stays_every_tenth_cycle_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    leaking = samples(every_tenth)
    assert grew(leaking) == {"namespaces_kernel", "memory_used_kib"}
    assert not soak.judge(leaking)
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if "GREW" in line} == grew(leaking)


def test_memory_alone_tells_it_after_as_many_cycles_as_are_said() -> None:
    """As soak.SLACK tells it: of what nobody counts as a namespace any more."""
    leaking = samples(every_tenth, cycles=190)
    assert "memory_used_kib" in grew(leaking)


def test_too_few_cycles_judge_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert not soak.judge(samples(nothing, cycles=soak.WARM_UP + 5))
    assert "too few" in capsys.readouterr().out


def test_every_topology_has_been_up_before_anything_counts() -> None:
    assert len(shipped.names()) <= soak.WARM_UP
