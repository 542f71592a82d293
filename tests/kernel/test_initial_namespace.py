"""A host with tables of its own, a firewall's and IPVS's: they are as they were, all the while.

The other tests hold the initial namespace before against after; here there is something in it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lvsctl.engine.faults import inject_fault, restore_faults
from lvsctl.engine.inspect import verify_lab
from lvsctl.engine.labs import running_lab, tear_down
from lvsctl.engine.up import bring_up
from lvsctl.kernel import netns
from lvsctl.model.claim import Verdict
from tests.kernel.by_hand import run
from tests.kernel.initial import initial_namespace
from tests.kernel.labs import lab_up, topology_of
from tests.kernel.natively import answers, page
from tests.kernel.natively import without_ipvs as without_ipvs  # noqa: PLC0414 (a fixture)
from tests.kernel.test_at_once import at_once
from tests.witness import witness

RULES = """
table inet theirs {
    set known { type ipv4_addr; elements = { 192.0.2.1, 10.10.0.100 } }
    chain input { type filter hook input priority 0; policy drop; ip saddr @known accept; }
    chain forward { type filter hook forward priority 0; policy drop; }
    chain output { type filter hook output priority 0; policy drop; }
}
table ip nat { chain post { type nat hook postrouting priority 100; masquerade; }; }
"""

TABLES = (
    "xtables-legacy-multi iptables -P FORWARD DROP",
    "xtables-legacy-multi iptables -N theirs",
    "ipvsadm -A -t 10.10.0.100:80 -s sh -p 300",
    "ipvsadm -a -t 10.10.0.100:80 -r 192.0.2.11:8080 -m -w 7",
    "ipvsadm -A -f 7 -s wlc",
    "ipvsadm --set 901 121 301",
)
BACK = (
    "xtables-legacy-multi iptables -P FORWARD ACCEPT",
    "xtables-legacy-multi iptables -X theirs",
    "ipvsadm -D -t 10.10.0.100:80",
    "ipvsadm -D -f 7",
    "ipvsadm --set 900 120 300",
)


def host() -> dict[str, str]:
    """With what /proc does not tell of IPVS."""
    looks = ("ipvsadm -Sn", "ipvsadm -L --timeout", "ipvsadm -L --daemon")
    return {**initial_namespace(), **{look: run(look) for look in looks}}


@pytest.mark.usefixtures("without_ipvs")
def test_nftables_stay_as_they_are(tmp_path: Path) -> None:
    """In a process whose own namespace is the initial one, so that no host's firewall closes."""
    rules = tmp_path / "rules"
    rules.write_text(RULES, encoding="ascii")
    nft = witness("nft")
    words = [witness("unshare"), "--net", nft, "add table inet probe"]
    probed = subprocess.run(words, capture_output=True, text=True, check=False)
    if "Operation not supported" in probed.stderr:
        pytest.skip("this kernel has no nf_tables, and so none that could change")

    def work() -> None:
        netns.unshare()
        run("ip link set lo up")
        run(f"{nft} -f {rules}")
        before = initial_namespace()
        assert before["nft list ruleset"].count("policy drop") == 3
        bring_up(topology_of("dr"))
        try:
            assert answers("dr")
            lab = running_lab("dr")
            (server, *_) = lab.services[0].real_servers
            assert page(lab.netns("client"), str(server.rip), server.port), "over the switch"
            assert run("nft list ruleset").strip() == before["nft list ruleset"]
        finally:
            tear_down("dr")
        assert initial_namespace() == before

    assert at_once(work) == [0]


@pytest.mark.ipvs
def test_ipvs_and_iptables_stay_as_they_are() -> None:
    """The host's virtual service has the very VIP and port of the lab's."""
    try:
        for command in TABLES:
            run(command)
        before = host()
        assert "10.10.0.100:80" in before["ipvsadm -Sn"]
        assert "901 121 301" in before["ipvsadm -L --timeout"]
        assert ":FORWARD DROP" in before["xtables-legacy-multi iptables-save"]
        with lab_up("dr") as lab:
            assert verify_lab(lab).verdict is Verdict.PASS
            inject_fault(lab, "arp-ignore-unset")
            restore_faults(lab)
            beside = host()
            ours = {"mounts", "/run/netns", "/run/lvsctl"}
            assert {k for k in before if beside[k] != before[k]} <= ours
        assert host() == before
    finally:
        for command in BACK:
            run(command)
