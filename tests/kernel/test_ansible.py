"""The exported playbooks make a lab that passes every claim, of nodes that had nothing of LVS."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvsctl.engine.inspect import verify_lab
from lvsctl.engine.preview import preview
from lvsctl.model.claim import Verdict
from lvsctl.model.lab import Lab
from lvsctl.resources.base import Resource
from lvsctl.resources.sysctl import Sysctl
from tests.kernel.ansible_hosts import Hosts, changed
from tests.kernel.by_hand import FALLBACK_DEVICES
from tests.kernel.labs import lab_up

pytestmark = [
    *(pytest.mark.ipvs, pytest.mark.slow, pytest.mark.exhaustive),
    pytest.mark.usefixtures("iptables"),
]
"""Ansible starts a Python for each task of each host: minutes in the throwaway kernel."""


def lacking(lab: Lab) -> list[Resource]:
    """What the nodes lack, but for settings of tunnels: a device that was made stays, down."""
    return [
        one
        for one in preview(lab).added
        if not (isinstance(one, Sysctl) and set(one.name.split(".")) & FALLBACK_DEVICES)
    ]


@pytest.mark.parametrize(
    "name",
    ["dr", "nat", "nat-one-arm", "nat-ipv6", "nat-ha", "nat-snat", "tun", "tun-gue", "tun-ipv6"],
)
def test_hosts_that_ansible_configured_pass_and_are_taken_back(name: str, tmp_path: Path) -> None:
    with lab_up(name) as lab:
        hosts = Hosts(lab, tmp_path)
        hosts.strip()
        before = lacking(lab)
        assert before
        try:
            assert "\n+++ " in hosts.play("apply", "--check", "--diff")
            assert lacking(lab) == before
            hosts.play("apply")
            assert {finding.verdict for finding in verify_lab(lab).findings} == {Verdict.PASS}
            assert set(changed(hosts.play("apply"))) == {0}
            hosts.play("remove")
            assert lacking(lab) == before
        finally:
            hosts.close()
