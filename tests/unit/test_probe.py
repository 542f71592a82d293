"""What is asked of the host before every command, and what `doctor` says without root."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lvsctl.engine.up import rare_features
from lvsctl.errors import HostError
from lvsctl.kernel import features, netns, probe
from lvsctl.model.service import Scheduler
from tests.unit.report_samples import lab_of

if TYPE_CHECKING:
    from collections.abc import Callable

NET_ADMIN, SYS_ADMIN = 1 << 12, 1 << 21


@pytest.mark.parametrize(
    ("capabilities", "root"),
    [
        (0, False),
        (NET_ADMIN, False),
        (SYS_ADMIN, False),
        (NET_ADMIN | SYS_ADMIN, True),
        (0x1FFFFFFFFFF, True),
    ],
)
def test_root_is_two_capabilities(
    monkeypatch: pytest.MonkeyPatch, capabilities: int, root: bool
) -> None:
    """And not a user id: containers have uid 0 without them."""
    monkeypatch.setattr(probe, "_capabilities", lambda: capabilities)
    assert probe.has_root() is root


def test_capabilities_are_read() -> None:
    status = Path("/proc/self/status").read_text()
    theirs = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    assert probe._capabilities() == int(theirs, 16)


@pytest.mark.parametrize(
    ("loaded", "module", "may_load", "ipvs"),
    [
        (True, False, False, True),
        (False, True, True, True),
        (False, True, False, False),
        (False, False, True, False),
    ],
)
def test_ipvs_is_there_or_can_be_loaded(
    monkeypatch: pytest.MonkeyPatch, loaded: bool, module: bool, may_load: bool, ipvs: bool
) -> None:
    monkeypatch.setattr(probe, "ipvs_loaded", lambda: loaded)
    monkeypatch.setattr(probe, "has_module", lambda name: module and name == "ip_vs")
    monkeypatch.setattr(probe, "_may_load_modules", lambda: may_load)
    assert probe.has_ipvs() is ipvs


def test_modules_are_looked_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "modules.builtin").write_text("kernel/net/a/built_in.ko\n")
    (tmp_path / "modules.dep").write_text("kernel/net/b/ip_vs_rr.ko.xz: kernel/net/b/ip_vs.ko.xz\n")
    monkeypatch.setattr(probe, "_modules", lambda: str(tmp_path))
    found = [name for name in ("built_in", "ip_vs_rr", "ip_vs", "vs", "rr") if has(name)]
    assert found == ["built_in", "ip_vs_rr", "ip_vs"]
    assert probe.modules_are_listed()


def has(name: str) -> bool:
    return probe.has_module(name)


def test_a_kernel_without_ipvs_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "ipvs_loaded", lambda: False)
    monkeypatch.setattr(probe, "has_module", lambda _: False)
    with pytest.raises(HostError, match="has no IPVS") as refused:
        probe.load_ipvs()
    assert "--where machine" in refused.value.hint


def test_modprobe_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    modprobe = tmp_path / "modprobe"
    modprobe.write_text("#!/bin/sh\necho 'modprobe: FATAL: not today' >&2; exit 1\n")
    modprobe.chmod(0o755)
    monkeypatch.setattr(probe, "ipvs_loaded", lambda: False)
    monkeypatch.setattr(probe, "has_module", lambda _: True)
    monkeypatch.setattr(probe, "which", lambda _: str(modprobe))
    with pytest.raises(HostError, match="not today") as refused:
        probe.load_ipvs()
    assert "sudo modprobe ip_vs" in refused.value.hint


def test_in_the_machine_another_kernel_helps_and_not_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "has_module", lambda name: name == "nf_tables")
    by_module = {one.module: one for one in features._PROBES}
    twos, tables = by_module["ip_vs_twos"], by_module["nf_tables"]
    monkeypatch.delenv("LVSCTL_IN_MACHINE", raising=False)
    assert twos.not_tried("so").remedy == "use the throwaway kernel: --where machine"
    assert tables.not_tried("so").remedy == "sudo modprobe nf_tables"
    monkeypatch.setenv("LVSCTL_IN_MACHINE", "1")
    for one in (twos, tables):
        assert one.not_tried("so").remedy.endswith("lvsctl machine start --kernel 6.12")


@pytest.mark.parametrize(
    ("topology", "needs"),
    [
        ("dr", set()),
        ("dr-fwmark", {"marks"}),
        ("dr-hash", {"scheduler sh"}),
        ("dr-ipv6", {"ipv6"}),
        ("nat-snat", {"masquerade"}),
        ("sctp", {"sctp"}),
        ("sip", {"persistence engine sip"}),
        ("tun-6in4", {"ipv6", "sit"}),
        ("tun-gue", {"gue"}),
        ("tun-mss", {"mss clamp"}),
        ("ecmp", {"scheduler mh", "multipath routes"}),
    ],
)
def test_what_some_kernels_lack_is_tried_before_a_lab_is_created(
    topology: str, needs: set[str]
) -> None:
    lab = lab_of(topology)
    assert rare_features(lab) == needs
    assert needs <= features.names()


def test_asking_costs_next_to_nothing() -> None:
    """Every command asks: neither pyroute2 nor two milliseconds."""
    script = (
        "import json, sys; from lvsctl.kernel import probe; probe.has_root(); probe.has_ipvs();"
        "print(json.dumps([name for name in ('pyroute2', 'asyncio', 'ctypes')"
        " if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert json.loads(done.stdout) == []
    assert best(lambda: (probe.has_root(), probe.has_ipvs())) < 0.002


def best(work: Callable[[], object], times: int = 20) -> float:
    """The shortest of several runs, in seconds: what it costs when nothing else runs."""
    costs = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        costs.append(time.perf_counter() - begin)
    return min(costs)


def test_without_root_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("tried something without root")

    monkeypatch.setattr(probe, "_capabilities", lambda: 0)
    monkeypatch.setattr(netns, "in_thread", never)
    monkeypatch.setattr(probe, "has_module", lambda name: name == "veth")
    monkeypatch.setattr(probe, "modules_are_listed", lambda: True)
    found = {feature.id: feature for feature in features.host_features()}
    assert not found["root"].present
    assert "sudo" in found["root"].remedy
    assert (found["veth"].present, found["veth"].text) == (
        True, "module veth, not tried: no root"
    )  # fmt: skip
    assert (found["ipip"].present, found["ipip"].text) == (False, "no module ipip")
    monkeypatch.setattr(probe, "modules_are_listed", lambda: False)
    found = {feature.id: feature for feature in features.host_features()}
    assert found["ipip"].text == "cannot be told without root"


def test_every_scheduler_is_probed() -> None:
    found = {feature.id: feature for feature in features.kernel_features(try_them=False)}
    for scheduler in Scheduler:
        assert found[f"scheduler {scheduler}"].needed_for == f"services with scheduler: {scheduler}"
    assert all(feature.needed_for and feature.remedy for feature in found.values())


def test_tools_tell_their_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On standard output or error, with whatever exit status; not at all; or they hang."""
    scripts = {
        "ip": "echo 'ip utility, iproute2-6.1.0, libbpf 1.1.0'",
        "ipvsadm": "echo 'ipvsadm v1.31 2019/12/24' >&2; exit 2",
        "sysctl": "echo 'modprobe: FATAL: Module ip_vs not found in directory /lib/modules/6.1.2'",
        "curl": "echo none of your business",
        "tcpdump": "exec sleep 60",
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "ethtool").write_text("not a program")
    (tmp_path / "ethtool").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(probe, "_SYSTEM_PATHS", "")
    monkeypatch.setattr(features, "_VERSION_TIMEOUT", 0.5)
    found = {feature.id: feature for feature in features.programs()}
    assert (found["ip"].text, found["ip"].present) == ("6.1.0", True)
    assert (found["ipvsadm"].text, found["ipvsadm"].present) == ("1.31", True)
    assert found["sysctl"].text == "installed"  # 6.1.2 is the kernel's
    assert found["curl"].text == "installed"
    assert found["tcpdump"].text == "installed, but does not answer"
    assert not found["ethtool"].present
    assert found["ethtool"].remedy == "sudo apt-get install ethtool"
    assert all(feature.optional for feature in found.values())
