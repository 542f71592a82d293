"""The script of ``plan --format sh``, without root: it says what is wrong, and touches nothing.

That it builds the labs is shown on real kernels (tests/kernel, tests/e2e).
"""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lvsctl import modes
from lvsctl.model.lab import Lab
from lvsctl.model.service import Protocol, TunnelKind
from lvsctl.output.shell_script import RESPONDER, WIDTH, script
from lvsctl.output.text.plan import format_plan, wrap_command
from lvsctl.output.text.style import Style
from lvsctl.plan import planner
from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel
from lvsctl.resources.user_command import UserCommand
from lvsctl.topology import shipped
from lvsctl.topology.loading import parse_topology
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
    op = UserCommand(netns="lvs-dr-rs1", node="rs1", argv=("serve", EVIL), why=EVIL)
    text = script(lab, Plan("dr", (*planner.plan_for(lab).stages, Stage("own", (op,)))))
    text = text.replace("\n# ---", "\nrun() { printf '<%s>' \"$@\"; }\n# ---", 1)
    done, _ = run(text, tools, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"<lvs-dr-rs1><serve><{EVIL}>" in done.stdout


LONG = "1'kernel.core_pattern=/tmp/x' \"$(id)\" ; \\' # " + "y" * 100 + " it's"
"""More than a line of the script, with quotes of both kinds, blanks and a backslash in it."""

signs = st.text(st.sampled_from("ab '\"\\\n\t$`;|&<>(){}[]*?!~#=-%\u00e9\u00a0\u2028"), max_size=12)
words = st.lists(signs | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))


@given(words, st.integers(1, 120))
@example(["'\"'\"'", LONG, "", "\\\n", "a\\\nb' "], 20)
@example(["nginx", "-e", "stderr", "-g", "daemon off; error_log stderr;", "-c", "x" * 80], 100)
def test_a_shell_reads_the_words_of_a_command_in_lines(argv: list[str], width: int) -> None:
    command = shlex.join(["printf", r"%s\0", "-", *argv])
    lines = wrap_command(command, width)
    continued = [line.removesuffix(" \\") for line in lines[:-1]]
    assert [line + " \\" for line in continued] == lines[:-1]
    assert shlex.split(" ".join([*continued, lines[-1]])) == ["printf", r"%s\0", "-", *argv]
    done = subprocess.run(["sh"], input="\n".join(lines).encode(), capture_output=True, check=True)
    assert done.stdout == b"".join(word.encode() + b"\0" for word in ["-", *argv])


@pytest.mark.parametrize("width", [20, 60, WIDTH, 400])
def test_what_is_the_shells_own_stays_so_in_lines(width: int) -> None:
    op = Tunnel(netns="lvs-tun-rs1", device="tunl0", index=3, kind=TunnelKind.IPIP)
    command = op.describe()[0]
    text = "\n".join(wrap_command(command, width))
    ip = "ip() { printf '%s|' \"$@\" >&3; return 1; }; exec 3>&1\n"
    runs = [
        subprocess.run(["sh", "-c", ip + one], capture_output=True, text=True, check=False)
        for one in (command, text)
    ]
    assert runs[0].stdout == runs[1].stdout
    assert [run.returncode for run in runs] == [1, 1]
    assert runs[0].stdout.count("link|") == 2


@pytest.mark.parametrize("argv", [("serve", LONG), ("serve", EVIL + LONG, "", EVIL)])
def test_a_long_command_of_the_users_is_run_as_it_is(
    tools: Path, tmp_path: Path, argv: tuple[str, ...]
) -> None:
    op = UserCommand(netns="lvs-dr-rs1", node="rs1", argv=argv)
    plan = Plan("dr", (*planner.plan_for(lab_of("dr")).stages, Stage("own", (op,))))
    done, _ = run(script(lab_of("dr"), plan), tools, tmp_path)
    assert done.returncode == 0, done.stderr
    called = "|".join(["ip", "netns", "exec", "lvs-dr-rs1", "nohup", *argv, "\n"])
    assert (tmp_path / "log").read_text().endswith("\n" + called)


def test_a_long_sysctl_of_a_topology_is_one_word(tools: Path, tmp_path: Path) -> None:
    """Torn, a part of it would be a setting of its own: of the host, and root's."""
    values = {"net.ipv4.tcp_syncookies": LONG, "net.ipv4.ip_default_ttl": LONG + LONG}
    # JSON is YAML, and quotes everything.
    rs = f"rs: {{sysctls: {json.dumps(values)}, "
    text = shipped.text_of("dr").replace("rs:       {", rs, 1)
    lab = parse_topology(text, "dr.yaml", rules=modes.violations)
    assert {key: dict(lab.node("rs1").sysctls)[key] for key in values} == values
    done, calls = run(of(lab), tools, tmp_path)
    assert done.returncode == 0, done.stderr
    settings = [f"{key}={value}" for key, value in values.items()]
    (called,) = [call for call in calls if LONG in call and "lvs-dr-rs1|" in call]
    assert called == "|".join(
        ["ip", "netns", "exec", "lvs-dr-rs1", "sysctl", "-q", "-w", *settings, ""]
    )


@pytest.mark.parametrize("width", [20, 80, WIDTH])
def test_the_plan_for_people_has_the_same_words(width: int) -> None:
    argv = ("serve", LONG, "", "nothing")
    ops = (
        Sysctl(netns="lvs-dr-rs1", name="net.ipv4.tcp_syncookies", value=LONG, why="one"),
        UserCommand(netns="lvs-dr-rs1", node="rs1", argv=argv, why="two"),
    )
    said = format_plan(
        Plan("dr", (Stage("own", ops),)), style=Style(color=False, width=width, unicode=True)
    )
    one, _, two = said.partition("   # one\n")[2].partition("   # two\n")
    setting = ["ip", "netns", "exec", "lvs-dr-rs1", "sysctl", "-q", "-w"]
    setting.append(f"net.ipv4.tcp_syncookies={LONG}")
    assert shlex.split(one.replace(" \\\n", "\n")) == setting
    assert shlex.split(two.replace(" \\\n", "\n")) == ["run", "lvs-dr-rs1", *argv]


def test_a_udp_responder_says_so() -> None:
    lab = lab_of("dr")
    op = ResponderPort(netns="lvs-dr-rs1", node="rs1", protocol=Protocol.UDP, port=53)
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


def test_control_characters_reach_the_command_and_not_the_terminal(
    tools: Path, tmp_path: Path
) -> None:
    said = "a\x1b[31m\u202eb\x9bc"
    lab = parse_topology(
        f"""
version: 1
name: dr
networks: {{lan: {{ipv4: 10.0.0.0/24}}}}
nodes:
  client: {{role: client, networks: [lan]}}
  director: {{role: director, networks: [lan]}}
  rs: {{role: real-server, networks: [lan], run: {json.dumps(["echo", said])}}}
services: [{{name: web, vip: 10.0.0.100, port: 80, forward: dr, real_servers: [rs]}}]
""".encode(),
        "t",
    )
    text = of(lab)
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    _, calls = run(text, tools, tmp_path)
    assert any(said in call for call in calls)


def test_it_does_without_ethtool(tools: Path, tmp_path: Path) -> None:
    text = of(lab_of("dr")).replace("command -v ethtool", "command -v no-such-command")
    done, calls = run(text, tools, tmp_path)
    assert done.returncode == 0
    assert done.stderr.count("no ethtool: offloads stay on") == 1
    assert not any("|ethtool|" in call for call in calls)
