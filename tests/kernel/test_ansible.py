"""The exported playbooks make a lab that passes every claim, of nodes that had nothing of LVS."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvsctl.engine.inspect import verify_lab
from lvsctl.engine.preview import preview
from lvsctl.model.claim import Verdict
from tests.kernel.ansible_hosts import Hosts
from tests.kernel.labs import lab_up

pytestmark = [pytest.mark.ipvs, pytest.mark.slow, pytest.mark.exhaustive]
"""Ansible starts a Python for each task of each host: minutes in the throwaway kernel."""


@pytest.mark.parametrize("name", ["dr", "tun-gue"])
def test_verify_passes_on_hosts_that_ansible_configured(name: str, tmp_path: Path) -> None:
    with lab_up(name) as lab:
        hosts = Hosts(lab, tmp_path)
        hosts.strip()
        assert preview(lab).changed
        try:
            hosts.play("apply")
            verified = verify_lab(lab)
        finally:
            hosts.close()
        assert {finding.verdict for finding in verified.findings} == {Verdict.PASS}
