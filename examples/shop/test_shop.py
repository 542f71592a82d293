"""The shop's load balancing, tested on the kernel's real IPVS before a director is touched.

The plugin that gives the fixture ``lvs`` is installed with lvsctl. Run it with ``pytest``.
"""

from __future__ import annotations

from collections import Counter

import pytest

from lvsctl import Lab
from lvsctl.api import Verification
from lvsctl.testing.labs import Labs

URL = "http://192.0.2.80/"


@pytest.fixture(scope="module")
def shop(lvs_module: Labs) -> Lab:
    """One lab for the tests of this file: none of them leaves it changed."""
    return lvs_module.up("shop.yaml")


@pytest.fixture(scope="module")
def proof(shop: Lab) -> Verification:
    """Requests through the shop's VIP, captured on every interface."""
    return shop.verify()


def test_it_does_what_lvs_promises(proof: Verification) -> None:
    assert proof


def test_both_real_servers_get_customers(shop: Lab) -> None:
    client = shop.node("client")

    pages = [client.run(["curl", "-sf", URL], check=True).stdout for _ in range(4)]

    assert Counter(page.split()[0] for page in pages) == {"rs1": 2, "rs2": 2}


def test_customers_never_see_a_private_address(proof: Verification) -> None:
    """A claim of our own, on the frames that were captured at the client."""
    at_the_client = [frame for frame in proof.frames if frame.tap.node == "client"]

    assert at_the_client
    assert not [frame for frame in at_the_client if "10.20.0." in frame.summary()]


def test_a_lost_gateway_is_found(shop: Lab) -> None:
    """What it looks like when it breaks; and that it is whole again afterwards."""
    with shop.broken("no-default-gateway", node="rs2"):
        cause = shop.diagnose().causes[0]

    assert (cause.node, cause.fault) == ("rs2", "no-default-gateway")
    assert shop.walk().answered
