"""What each scheduler's definition predicts, computed by the functions that `verify` uses."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from lvsctl.claims.distribution import Expected, expected_distribution
from lvsctl.model.service import ForwardingMethod, Protocol, Scheduler, VipPort
from lvsctl.model.service import RealServer as Server
from lvsctl.model.service import VirtualService as Service
from tools.docs.reference.markdown import code, table

TITLE = "# Schedulers"
SOURCE = "lvsctl/claims/distribution.py"

_WEIGHTS = (1, 2, 3, 4)
_CONNECTIONS = 12

_INTRODUCTION = f"""\
The director chooses a real server for each new connection; all packets of the connection go
there. `scheduler:` in a topology selects the scheduler, and `lvsctl up dr --scheduler sh` overrides
it. [Schedulers, seen](../schedulers.md) is a tutorial.

The last two columns are the predicted distribution of {_CONNECTIONS} open connections of one
client over four real servers. The same function decides
[all.distribution](claims.md#all.distribution). Sources: ipvsadm(8), and
`net/netfilter/ipvs/ip_vs_*.c` in the kernel."""


def text() -> str:
    """Return a table of all schedulers, with equal and with different weights."""
    rows = []
    for scheduler in Scheduler:
        alike, differing = (_predicted(scheduler, weights) for weights in ((1,) * 4, _WEIGHTS))
        rows.append((code(scheduler), differing.text, _shares(alike), _shares(differing)))
    return "\n\n".join(
        [
            _INTRODUCTION,
            table(
                ("scheduler", "chooses", "weights 1 1 1 1", "weights 1 2 3 4"),
                rows,
            ),
            "With `persistence:` all connections of one client go to one real server.",
        ]
    )


def _predicted(scheduler: Scheduler, weights: tuple[int, ...]) -> Expected:
    key = VipPort(Protocol.TCP, ip_address("10.10.0.100"), 80)
    first = ip_address("10.10.0.11")
    servers = tuple(
        Server(
            node=f"rs{number + 1}",
            rip=first + number,
            port=80,
            weight=weight,
            forward=ForwardingMethod.DR,
        )
        for number, weight in enumerate(weights)
    )
    service = Service(
        name="web",
        match=key,
        forward=ForwardingMethod.DR,
        scheduler=scheduler,
        real_servers=servers,
    )
    return expected_distribution(replace(service), None, _CONNECTIONS)


def _shares(expected: Expected) -> str:
    if expected.shares:
        return " ".join(str(expected.shares[place]) for place in sorted(expected.shares))
    return "all on one" if expected.one else "unpredictable"
