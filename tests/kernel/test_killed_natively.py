"""Ended at every moment, on any kernel: the whole plan but what a kernel without IPVS lacks.

The same checks as in ``test_killed``, much quicker than in the throwaway kernel, so that every
moment of every shipped topology is tried, always for SIGKILL in the dr lab.
"""

from __future__ import annotations

import signal

import pytest

from lvsctl.topology import shipped
from tests.kernel.labs import OVER_TCP
from tests.kernel.moments import NEVER
from tests.kernel.natively import answers
from tests.kernel.natively import without_ipvs as without_ipvs  # noqa: PLC0414 (a fixture)
from tests.kernel.test_killed import (
    BY_SIGNAL,
    FEW,
    RARELY,
    check_down_ended,
    check_up_interrupted,
    check_up_killed,
    every_moment,
)

pytestmark = pytest.mark.usefixtures("without_ipvs")

OTHERWISE = {"snat:", "ha:", "mss_clamp:"}
NAMES = [n for n in OVER_TCP if not OTHERWISE & set(shipped.text_of(n).split())]
"""Those of which everything but the IPVS table is there without IPVS, and no packet filter."""
VARIED = {"dr", "nat", "tun", "tun-gue", "tun-ipv6", "dr-routed", "methods"}
"""Killed always; the others by `make test-all`."""

some_names = pytest.mark.parametrize(
    "name",
    [n if n in {"dr", "tun"} else pytest.param(n, marks=RARELY) for n in NAMES],
)
SERVERS = 20
"""Enough for several sends of messages."""


@every_moment
@pytest.mark.parametrize(
    "name", [n if n in VARIED else pytest.param(n, marks=RARELY) for n in NAMES]
)
def test_up_killed(name: str, wanted: int) -> None:
    """`down` leaves nothing; and after the same again, `up` over what is left makes it whole."""
    assert check_up_killed(name, NEVER if name == "dr" else wanted, answers) >= FEW


@every_moment
def test_up_of_many_killed(wanted: int) -> None:
    assert check_up_killed("dr", wanted, answers, servers=SERVERS) >= FEW


@every_moment
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@some_names
def test_up_interrupted(name: str, sign: signal.Signals, wanted: int) -> None:
    """It undoes what it has done, says so by its status, and leaves nothing for `down`."""
    assert check_up_interrupted(name, sign, wanted, answers) >= FEW


@every_moment
@pytest.mark.parametrize("sign", BY_SIGNAL)
@some_names
def test_down_ended(name: str, sign: signal.Signals, wanted: int) -> None:
    """The next `down` goes on from there, where there is anything left; and so does `up`."""
    assert check_down_ended(name, sign, wanted, answers) >= FEW
