"""The exported playbooks, applied by Ansible to nodes that are hosts with ifupdown.

Without IPVS, keepalived carries the VIP only. That `verify` passes is in test_ansible.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lvsctl.model.lab import Lab
from tests.kernel.ansible_hosts import Hosts, changed
from tests.kernel.by_hand import eventually, run
from tests.kernel.labs import lab_up
from tests.kernel.natively import without_ipvs

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]
__all__ = ["without_ipvs"]


def state_of(lab: Lab, host: str) -> tuple[str, ...]:
    """What the playbooks change at a host."""
    netns = lab.netns(host)
    return (
        run(f"ip -n {netns} -br address"),
        run("sysctl -a -r '^net.ipv4.(ip_forward|conf.*.(arp_ignore|arp_announce))'", netns=netns),
    )


def test_playbooks_apply_change_nothing_again_and_are_taken_back(
    without_ipvs: None, tmp_path: Path
) -> None:
    with lab_up("dr") as lab:
        hosts = Hosts(lab, tmp_path, vrrp_only=True)
        hosts.strip()
        before = {name: state_of(lab, name) for name in hosts.names}
        try:
            said = hosts.play("apply", "--check", "--diff")
            assert "+net.ipv4.conf.all.arp_ignore = 1" in said
            assert {name: state_of(lab, name) for name in hosts.names} == before
            assert min(changed(hosts.play("apply"))) > 0
            assert "10.10.0.100/32" in run(f"ip -n {lab.netns('rs1')} -br address show dev lo")
            eventually(lambda: "10.10.0.100/24" in state_of(lab, "director")[0])
            assert changed(hosts.play("apply")) == [0, 0, 0]
            run("ip address del 10.10.0.100/32 dev lo", netns=lab.netns("rs1"))
            run("sysctl -w net.ipv4.conf.all.arp_ignore=0", netns=lab.netns("rs2"))
            assert all(changed(hosts.play("apply", "--limit", "real_servers")))
            assert "10.10.0.100/32" in run(f"ip -n {lab.netns('rs1')} -br address show dev lo")
            hosts.play("remove")
            assert {name: state_of(lab, name) for name in hosts.names} == before
            assert changed(hosts.play("remove")) == [0, 0, 0]
        finally:
            hosts.close()


def test_a_nat_director_forwards_while_the_playbooks_are_applied(
    without_ipvs: None, tmp_path: Path
) -> None:
    """And its real servers, whose gateway it is, need nothing; a second run changes nothing."""
    with lab_up("nat") as lab:
        hosts = Hosts(lab, tmp_path, vrrp_only=True)
        hosts.strip()
        before = {name: state_of(lab, name) for name in hosts.names}
        try:
            said = hosts.play("apply", "--check", "--diff")
            assert "+net.ipv4.ip_forward = 1" in said
            assert {name: state_of(lab, name) for name in hosts.names} == before
            hosts.play("apply")
            eventually(lambda: "10.20.0.100/24" in state_of(lab, "director")[0])
            forwards = run("sysctl -n net.ipv4.ip_forward", netns=lab.netns("director"))
            assert forwards.strip() == "1"
            assert set(changed(hosts.play("apply"))) == {0}
            hosts.play("remove")
            assert {name: state_of(lab, name) for name in hosts.names} == before
        finally:
            hosts.close()
