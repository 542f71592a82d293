"""lvsctl on a distribution's own kernel: provisioned as README.md says, then everything there.

`make test-vm` runs these, and nothing else does: it needs root and the distribution's archive, and
takes an hour or two for each system where the CPU is emulated. SUITES="bookworm trixie" says which.

The virtual machine has no network but the way in by ssh, so that two addresses are replaced: apt
and pip find in directories of the image what they would find in the archives.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping

import pytest

from lvsctl.topology import shipped
from tests.e2e.test_ci_verify import BROKEN, FAILED
from tests.provision.runner import run_action
from tests.vm import image
from tests.vm.image import CHECKOUT
from tests.vm.vm import Vm, running

pytestmark = pytest.mark.vm

SUITES = os.environ.get("SUITES", "bookworm trixie").split()
PATIENCE = {"kvm": 1, "tcg": 10}
"""LVSCTL_TEST_PATIENCE, by how the CPU runs."""

FAULTS = (
    ("dr", "arp-ignore-unset", "arp-ignore-unset"),
    ("dr", "input-dropped", "packet-filter"),
    ("nat", "ip-forward-off", "IP_INADDRERRORS"),
    ("tun", "rp-filter-on-tunnel", "IP_RPFILTER"),
)
"""A topology, a fault, and what ``diagnose`` then names: a cause, or the kernel's drop reason."""

LOOK = """
for look in 'ip -d -o link' 'ip -o addr' 'ip route show table all' 'ip -6 route show table all' \
    'ip rule' 'ip -6 rule' 'ip netns' 'tc qdisc' 'nft list ruleset' 'ipvsadm -Sn' \
    'ipvsadm -L --timeout' 'sysctl -a -r ^net'
do
    echo "== $look"
    sudo $look 2>&1 | sed -E 's/(valid|preferred)_lft [0-9]+sec//g; s/ expires [0-9]+sec//g' |
        sed -E '/nf_conntrack_count|tcp_fastopen_key|bpf_jit_limit|max_dgram_qlen/d'
done
"""
"""The initial namespace as the system's own tools show it, less what changes by itself."""

FIREWALL = """
table inet theirs {
    chain input {
        type filter hook input priority 0; policy drop;
        iif lo accept
        tcp dport 22 accept
        udp sport 67 accept
    }
    chain forward { type filter hook forward priority 0; policy drop; }
    chain output {
        type filter hook output priority 0; policy drop;
        tcp sport 22 accept
        udp dport 67 accept
    }
}
"""
IN_USE = """
ipvsadm -A -t 10.10.0.100:80 -s sh -p 300
ipvsadm -a -t 10.10.0.100:80 -r 192.0.2.11:8080 -m -w 7
ipvsadm --set 901 121 301
"""
"""A director's table with the very VIP of the topology dr."""


@pytest.fixture(scope="module", params=SUITES)
def vm(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Iterator[Vm]:
    """A virtual machine as it is delivered, with the checkout in its user's home."""
    if os.geteuid() != 0:
        pytest.fail("making an image needs root: sudo make test-vm")
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    assert capture is not None

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{request.param}: {text}", flush=True)  # noqa: T201

    begun = time.monotonic()
    made = image.ensure(request.param)
    say(f"the image is ready after {time.monotonic() - begun:.0f} s")
    begun = time.monotonic()
    with running(made) as machine:
        seconds = f"{time.monotonic() - begun:.0f} s"
        say(f"the virtual machine has started after {seconds} ({machine.accelerator})")
        machine.copy_checkout("lvsctl")
        yield machine


@pytest.fixture(scope="module")
def provisioned(vm: Vm) -> subprocess.CompletedProcess[str]:
    """How tools/provision went."""
    return vm.run("cd lvsctl && sudo tools/provision --host")


@pytest.fixture
def host(vm: Vm, provisioned: subprocess.CompletedProcess[str]) -> Vm:
    """The virtual machine, where that went well."""
    assert provisioned.returncode == 0, provisioned.stderr
    return vm


def as_typed(vm: Vm, script: str) -> str:
    """Run lines in a login shell, as a person does, and return what they print."""
    done = vm.run(f"bash -lc {shlex.quote(f'set -e{chr(10)}{script}')}")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "starting the throwaway kernel" not in said
    return done.stdout


def test_provisioning(provisioned: subprocess.CompletedProcess[str]) -> None:
    said = provisioned.stderr
    assert provisioned.returncode == 0, said
    assert "Installing packages:" in said
    assert "In the kernel now: ip_vs" in said


def test_doctor_finds_all_that_labs_need(host: Vm) -> None:
    """As an ordinary user, who is told what sudo would find out, and as root."""
    as_typed(host, "lvsctl doctor || test $? = 69")
    said = as_typed(host, "sudo lvsctl doctor")
    assert "  missing" not in said, said
    absent = [line.split()[1] for line in said.splitlines() if line.startswith("  absent")]
    assert set(absent) <= {"scheduler", "tshark"}, said
    assert "  ok      drop reasons" in said
    assert "  ok      nf_tables" in said


def changed(before: str, after: str) -> list[str]:
    """Lines that came or went. A kernel module that a lab has loaded may bring sysctls."""
    old, new = before.splitlines(), after.splitlines()
    known = {line.split(" = ")[0] for line in old}
    gone = [f"-{line}" for line in old if line not in new]
    come = [line for line in new if line not in old]
    brought = (line.startswith("net.") and line.split(" = ")[0] not in known for line in come)
    return gone + [f"+{line}" for line, its in zip(come, brought, strict=True) if not its]


@pytest.mark.parametrize("topology", shipped.names())
def test_topology(host: Vm, topology: str) -> None:
    """Up, every claim proved, nothing to diagnose, down; the host is as it was."""
    before = as_typed(host, LOOK)
    said = as_typed(
        host,
        f"""
        sudo lvsctl up {topology}
        sudo lvsctl verify {topology}
        sudo lvsctl diagnose {topology}
        sudo ip netns exec lvs-{topology}-client ping -c 1 -W 30 127.0.0.1
        sudo lvsctl down {topology}
        """,
    )
    assert f"{topology}: pass" in said
    assert f"{topology}: healthy" in said
    assert changed(before, as_typed(host, LOOK)) == []


@pytest.mark.parametrize(("topology", "fault", "named"), FAULTS)
def test_a_broken_lab_is_diagnosed(host: Vm, topology: str, fault: str, named: str) -> None:
    said = as_typed(
        host,
        f"""
        sudo lvsctl up {topology}
        sudo lvsctl fault inject {fault} --lab {topology}
        sudo lvsctl verify {topology} || test $? = 1
        sudo lvsctl diagnose {topology} || test $? = 1
        sudo lvsctl up {topology}
        sudo lvsctl verify {topology}
        sudo lvsctl down {topology}
        """,
    )
    assert f"{topology}: fail" in said
    assert f"{topology}: pass" in said
    assert named in said


def test_a_host_with_a_firewall_and_ipvs_in_use(host: Vm) -> None:
    """Both stay as they are, and the lab works in spite of them."""
    host.write("firewall", FIREWALL)
    as_typed(host, f"sudo nft -f firewall; sudo sh -c {shlex.quote(IN_USE)}")
    before = as_typed(host, LOOK)
    assert before.count("policy drop") == 3
    assert "-A -t 10.10.0.100:80 -s sh -p 300" in before
    said = as_typed(host, "sudo lvsctl up dr; sudo lvsctl verify dr")
    assert "dr: pass" in said
    as_typed(host, "sudo lvsctl down dr")
    assert as_typed(host, LOOK) == before
    as_typed(host, "sudo nft flush ruleset; sudo ipvsadm -C; sudo ipvsadm --set 900 120 300")


@pytest.mark.parametrize("where", ["host", "auto"])
def test_the_action(host: Vm, where: str) -> None:
    """As a job of a user with sudo, on this kernel: one lab works and one does not."""
    host.write("mine.yaml", BROKEN)

    def execute(script: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        words = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
        return host.run(f"env {' '.join(words)} sh -c {shlex.quote(script)}")

    home = host.run("pwd").stdout.strip()
    inputs = {"topology": "dr mine.yaml", "where": where}
    job = run_action(CHECKOUT / "action.yml", inputs, {"action_path": f"{home}/lvsctl"}, execute)
    assert job.status == FAILED, job.log
    assert "starting the throwaway kernel" not in job.log
    assert "dr: pass" in job.summary
    (shown,) = job.annotations
    assert shown.properties["file"] == "mine.yaml"
    assert "arp_ignore is not set on a real server" in shown.text
    assert host.run("find lvsctl-reports -not -user $USER").stdout == ""


def test_make_test_host(host: Vm) -> None:
    """The kernel tests, by the checkout's own environment and programs."""
    patience = PATIENCE[host.accelerator]
    said = as_typed(host, f"cd lvsctl && sudo env LVSCTL_TEST_PATIENCE={patience} make test-host")
    assert " passed" in said
