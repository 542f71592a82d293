"""The exported playbooks make a lab that passes every claim, of nodes that had nothing of LVS."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvsctl.engine.inspect import verify_lab
from lvsctl.engine.preview import preview
from lvsctl.model.claim import Verdict
from tests.kernel.ansible_hosts import Hosts, changed
from tests.kernel.labs import lab_up

pytestmark = [pytest.mark.ipvs, pytest.mark.slow, pytest.mark.exhaustive]
"""Ansible starts a Python for each task of each host: minutes in the throwaway kernel."""


@pytest.mark.parametrize(
    "name",
    ["dr", "nat", "nat-one-arm", "nat-ipv6", "nat-ha", "nat-snat", "tun", "tun-gue", "tun-ipv6"],
)
def test_hosts_that_ansible_configured_pass_and_are_taken_back(name: str, tmp_path: Path) -> None:
    with lab_up(name) as lab:
        hosts = Hosts(lab, tmp_path)
        hosts.strip()
        before = preview(lab).added
        assert before
        try:
            assert "\n+++ " in hosts.play("apply", "--check", "--diff")
            assert preview(lab).added == before
            hosts.play("apply")
            assert {finding.verdict for finding in verify_lab(lab).findings} == {Verdict.PASS}
            assert set(changed(hosts.play("apply"))) == {0}
            hosts.play("remove")
            assert preview(lab).added == before
        finally:
            hosts.close()
