"""Test the shop's load balancing on the kernel's real IPVS before it goes to production.

The pytest plugin with the fixture ``lvs`` is part of lvsctl. Run: ``pytest``
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
    """One lab for all tests of this file; each test leaves it unchanged."""
    return lvs_module.up("shop.yaml")


@pytest.fixture(scope="module")
def proof(shop: Lab) -> Verification:
    """Requests through the shop's VIP, captured on every interface."""
    return shop.verify()


def test_every_claim_passes(proof: Verification) -> None:
    assert proof


def test_requests_reach_both_real_servers(shop: Lab) -> None:
    client = shop.node("client")

    pages = [client.run(["curl", "-sf", URL], check=True).stdout for _ in range(4)]

    assert Counter(page.split()[0] for page in pages) == {"rs1": 2, "rs2": 2}


def test_customers_never_see_a_private_address(proof: Verification) -> None:
    """A check of our own, on the frames captured at the client."""
    at_the_client = [frame for frame in proof.frames if frame.tap.node == "client"]

    assert at_the_client
    assert not [frame for frame in at_the_client if "10.20.0." in frame.summary()]


def test_missing_default_gateway_is_diagnosed(shop: Lab) -> None:
    """Break the lab, diagnose it, and check that it works again afterwards."""
    with shop.broken("no-default-gateway", node="rs2"):
        cause = shop.diagnose().causes[0]

    assert (cause.node, cause.fault) == ("rs2", "no-default-gateway")
    assert shop.walk().answered
