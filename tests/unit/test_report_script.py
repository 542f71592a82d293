"""The script of ``plan --format sh``, without root: it says what is wrong, and touches nothing.

That it builds the labs is shown on real kernels (tests/kernel, tests/e2e).
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from lvsctl import planner
from lvsctl.model.lab import Lab
from lvsctl.model.service import Protocol
from lvsctl.ops import Listen, Plan, RunCommand, Stage
from lvsctl.report.script import script
from lvsctl.report.script_parts import RESPONDER
from tests.unit.report_samples import lab_of


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with pretended commands that write down how they were called."""
    directory = tmp_path / "bin"
    directory.mkdir()
    log = tmp_path / "log"
    pretended = f'#!/bin/sh\nprintf \'%s|\' "${{0##*/}}" "$@" >>{log}\necho >>{log}\n'
    for name in ("ip", "sysctl", "ethtool", "tc", "ipvsadm", "modprobe", "python3"):
        (directory / name).write_text(pretended)
        (directory / name).chmod(0o755)
    (directory / "id").write_text("#!/bin/sh\necho 0\n")
    (directory / "id").chmod(0o755)
    return directory


def run(
    text: str, tools: Path, tmp_path: Path, *words: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the script with pretended tools; its state lies in ``tmp_path``."""
    log = tmp_path / "log"
    log.write_text("")
    text = text.replace("/run/lvs-", f"{tmp_path}/lvs-").replace("/var/run/netns", f"{tmp_path}/ns")
    text = text.replace("/proc/net/ip_vs", str(log))
    text = text.replace("PATH=$PATH:", f"PATH={tools}:$PATH:")
    file = tmp_path / "lab.sh"
    file.write_text(text)
    done = subprocess.run(
        ["sh", str(file), *words], capture_output=True, text=True, check=False, timeout=30
    )
    return done, log.read_text().splitlines()


def of(lab: Lab) -> str:
    return script(lab, planner.plan_for(lab))


def test_it_runs_the_plan_in_order(tools: Path, tmp_path: Path) -> None:
    done, calls = run(of(lab_of("dr")), tools, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ip|netns|add|lvs-dr-lan|" in calls
    assert calls.index("ip|-n|lvs-dr-director|addr|add|10.10.0.100/32|dev|lan|") < calls.index(
        "ip|netns|exec|lvs-dr-director|ipvsadm|-A|-t|10.10.0.100:80|-s|rr|"
    )
    assert "curl -s http://10.10.0.100/" in done.stderr


def test_it_wants_root(tools: Path, tmp_path: Path) -> None:
    (tools / "id").write_text("#!/bin/sh\necho 1000\n")
    done, calls = run(of(lab_of("dr")), tools, tmp_path)
    assert (done.returncode, calls) == (69, [])
    assert "only root" in done.stderr


def test_it_names_the_package_of_a_missing_command(tools: Path, tmp_path: Path) -> None:
    text = of(lab_of("dr")).replace("need ipvsadm ipvsadm", "need no-such-command ipvsadm")
    done, calls = run(text, tools, tmp_path)
    assert (done.returncode, calls) == (69, [])
    assert "no-such-command is missing (Debian and Ubuntu: apt-get install ipvsadm)" in done.stderr


def test_it_refuses_where_a_namespace_exists(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "ns").mkdir()
    (tmp_path / "ns" / "lvs-dr-rs2").touch()
    for words in ((), ("down",)):
        done, calls = run(of(lab_of("dr")), tools, tmp_path, *words)
        assert done.returncode != 0
        assert "lvs-dr-rs2" in done.stderr
        assert [call for call in calls if call.startswith("ip|")] == []


def test_a_failure_half_way_undoes_everything(tools: Path, tmp_path: Path) -> None:
    text = of(lab_of("dr")).replace("ip -n lvs-dr-director link set dev lo up", "false")
    done, _ = run(text, tools, tmp_path)
    assert done.returncode == 1
    assert "removing what was made" in done.stderr
    assert not (tmp_path / "lvs-dr.script").exists()


def test_it_does_not_know_other_words(tools: Path, tmp_path: Path) -> None:
    done, calls = run(of(lab_of("dr")), tools, tmp_path, "restart")
    assert (done.returncode, calls) == (2, [])
    assert "usage" in done.stderr


def test_only_what_is_used_is_needed() -> None:
    assert "need tc" not in of(lab_of("dr"))
    assert "need tc iproute2" in of(lab_of("tun"))


EVIL = "x\n$(touch /tmp/evil) `id` '\"; exit 3 #"


def test_a_description_cannot_leave_its_comment(tools: Path, tmp_path: Path) -> None:
    lab = replace(lab_of("dr"), description=EVIL)
    done, _ = run(of(lab), tools, tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("#") for line in of(lab).splitlines() if "evil" in line)


def test_a_command_of_the_users_reaches_run_as_it_is(tools: Path, tmp_path: Path) -> None:
    lab = lab_of("dr")
    op = RunCommand(netns="lvs-dr-rs1", node="rs1", argv=("serve", EVIL), why=EVIL)
    text = script(lab, Plan("dr", (*planner.plan_for(lab).stages, Stage("own", (op,)))))
    text = text.replace("\n# ---", "\nrun() { printf '<%s>' \"$@\"; }\n# ---", 1)
    done, _ = run(text, tools, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"<lvs-dr-rs1><serve><{EVIL}>" in done.stdout


def test_a_udp_responder_says_so() -> None:
    lab = lab_of("dr")
    op = Listen(netns="lvs-dr-rs1", node="rs1", protocol=Protocol.UDP, port=53)
    text = script(lab, Plan("dr", (Stage("servers", (op,)),)))
    assert "\nrespond lvs-dr-rs1 rs1 53 udp\n" in text


def test_the_responder_is_python() -> None:
    compile(RESPONDER, "respond.py", "exec")


def test_an_ipv6_lab_answers_over_ipv6() -> None:
    lab = lab_of("dr")
    network = replace(lab.networks[0], subnets=(ip_network("fd00::/64"),))
    both = replace(network, subnets=(*lab.networks[0].subnets, *network.subnets))
    assert "\nfamily=inet6\n" in of(replace(lab, networks=(both,)))
    assert "\nfamily=inet\n" in of(lab)
