"""What needs a kernel with IPVS, ipip and netem; ipvsadm, ip and tc are the witnesses."""

from __future__ import annotations

import errno
import json
import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from lvsctl.errors import KernelError
from lvsctl.kernel import features, undo
from lvsctl.kernel.apply import apply_plan
from lvsctl.model.event import ignore
from lvsctl.model.lab import Impairment
from lvsctl.model.service import (
    ForwardingMethod,
    Protocol,
    RealServer,
    Scheduler,
    TunnelKind,
    VipPort,
)
from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.netem import Netem
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel
from tests.kernel.by_hand import run
from tests.kernel.dr_shape import VIP, dr_plan
from tests.kernel.test_execute import ip, up
from tests.kernel.test_execute import lab as lab  # noqa: PLC0414 (a fixture)

pytestmark = pytest.mark.ipvs

WEB = VipPort(Protocol.TCP, VIP.ip, 80)
FALLBACK = Path("/proc/sys/net/core/fb_tunnels_only_for_init_net")


def with_stages(plan: Plan, *stages: tuple[Resource, ...]) -> Plan:
    return replace(plan, stages=(*plan.stages, *(Stage("more", ops) for ops in stages)))


def table(lab: str) -> list[str]:
    words = ["ip", "netns", "exec", f"lvs-{lab}-director", "ipvsadm", "-Sn"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()


def qdisc(lab: str, node: str) -> dict[str, Any]:
    """What tc(8) shows, but for what each has of its own: a number, dice of its own."""
    words = ["tc", "-j", "-n", f"lvs-{lab}-{node}", "qdisc", "show", "dev", "lan"]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = {**json.loads(said)[0], "handle": ""}
    options = found.get("options", {})
    options.pop("seed", None)  # newer kernels tell it
    if "delay" in options:  # newer tc(8) counts in ns, older in ticks of 64 ns, as we do
        options["delay"]["delay"] = round(options["delay"]["delay"], 6)
    return found


def service(lab: str, scheduler: Scheduler = Scheduler.WRR) -> IpvsService:
    return IpvsService(netns=f"lvs-{lab}-director", service=WEB, scheduler=scheduler)


def server(lab: str, number: int, weight: int = 1) -> IpvsRealServer:
    return IpvsRealServer(
        netns=f"lvs-{lab}-director",
        service=WEB,
        real_server=RealServer(
            f"rs{number}",
            ip_address(f"10.10.0.{11 + number}"),
            80,
            weight,
            forward=ForwardingMethod.DR,
        ),
    )


def test_a_service_and_its_real_servers(lab: str) -> None:
    more = (service(lab), server(lab, 1, 3), server(lab, 2))
    up(with_stages(dr_plan(lab), more))
    assert table(lab) == [
        "-A -t 10.10.255.1:80 -s wrr",
        "-a -t 10.10.255.1:80 -r 10.10.0.12:80 -g -w 3",
        "-a -t 10.10.255.1:80 -r 10.10.0.13:80 -g -w 1",
    ]
    changed = Stage("change", (service(lab, Scheduler.WLC), server(lab, 2, 7)))
    apply_plan([changed], lab, ignore, reconciling=True)
    assert table(lab)[0] == "-A -t 10.10.255.1:80 -s wlc"
    assert "-a -t 10.10.255.1:80 -r 10.10.0.13:80 -g -w 7" in table(lab)
    undo.undo([server(lab, 1)], lab)
    undo.undo([server(lab, 1)], lab)
    assert len(table(lab)) == 2
    undo.undo([service(lab), server(lab, 2)], lab)
    undo.undo([service(lab)], lab)
    assert table(lab) == []


def test_an_error_among_many_is_that_of_its_operation(lab: str) -> None:
    many = [server(lab, number) for number in range(1, 200)]
    with pytest.raises(KernelError) as caught:
        up(with_stages(dr_plan(lab), (service(lab), *many[:150], many[70], *many[150:])))
    assert (caught.value.node, caught.value.errno) == ("director", errno.EEXIST)
    assert "-r 10.10.0.82:80" in caught.value.command
    # The kernel goes on after it, which is why a failed `up` has something to take back.
    assert len(table(lab)) == 200
    assert table(lab)[-1] == "-a -t 10.10.255.1:80 -r 10.10.0.210:80 -g -w 1"


def test_a_scheduler_that_the_kernel_lacks(lab: str) -> None:
    """Where it has all of them (Debian 13's), none is refused."""
    has = {one.id: one.present for one in features.kernel_features(try_them=True)}
    if has[f"scheduler {Scheduler.TWOS}"]:
        up(with_stages(dr_plan(lab), (service(lab, Scheduler.TWOS),)))
        assert "twos" in " ".join(table(lab))
        return
    with pytest.raises(KernelError) as caught:
        up(with_stages(dr_plan(lab), (service(lab, Scheduler.TWOS),)))
    assert caught.value.errno == errno.ENOENT
    assert caught.value.hint.startswith("modprobe ip_vs_twos")


@pytest.mark.parametrize(
    ("kind", "fallback"),
    [
        *product((TunnelKind.IPIP, TunnelKind.GRE), "01"),
        (TunnelKind.IP6TNL, "0"),  # the kernel's own takes IPv6 only, unless it is changed
        (TunnelKind.SIT, "1"),
        pytest.param(TunnelKind.IP6TNL, "1", marks=pytest.mark.exhaustive),
        pytest.param(TunnelKind.SIT, "0", marks=pytest.mark.exhaustive),
        *(pytest.param(TunnelKind.IP6GRE, n, marks=pytest.mark.exhaustive) for n in "01"),
    ],
)
def test_a_tunnel_device_with_and_without_the_kernels_own(
    lab: str, kind: TunnelKind, fallback: str
) -> None:
    name, device = f"lvs-{lab}-rs1", kind.device
    tunnel = Tunnel(netns=name, device=device, index=60, kind=kind)
    more: tuple[Resource, ...] = (
        tunnel,
        Address(netns=name, device=device, address=ip_interface("10.10.255.9/32")),
        Sysctl(netns=name, name=f"net.ipv4.conf.{device}.rp_filter", value="0"),
    )
    was = FALLBACK.read_text()
    FALLBACK.write_text(fallback)
    try:
        up(with_stages(dr_plan(lab), more))
    finally:
        FALLBACK.write_text(was)
    (link,) = ip("-d", "-n", name, "addr", "show", "dev", device)
    assert "UP" in link["flags"]
    assert link["linkinfo"]["info_kind"] == kind
    found = [a["local"] for a in link["addr_info"] if a["family"] == "inet"]  # gre takes IPv6 too
    assert found == ["10.10.255.9"]
    if fallback == "1":
        by_ip = ["ip", "-n", f"lvs-{lab}-rs2", "link", "add", device, "index", "60"]
        subprocess.run([*by_ip, "type", kind], check=True)
        subprocess.run(["ip", "-n", f"lvs-{lab}-rs2", "link", "set", device, "up"], check=True)
        (mine,) = ip("-d", "-n", name, "link", "show", "dev", device)
        (theirs,) = ip("-d", "-n", f"lvs-{lab}-rs2", "link", "show", "dev", device)
        for one in (mine, theirs):  # what ip sends with: a random address, and limits of its own
            one.pop("permaddr", None)
            if kind.startswith("ip6"):
                one["linkinfo"].pop("info_data")
        assert mine == theirs
    if kind is TunnelKind.IP6TNL:  # also the kernel's own, which takes IPv6 alone
        assert "ip6tnl any" in run("ip -d link show dev ip6tnl0", netns=name)
    undo.undo([tunnel], lab)
    assert device not in [link.get("ifname") for link in ip("-n", name, "link", "show", "up")]


@pytest.mark.parametrize(
    "impairment",
    [
        Impairment(delay=20.5),
        Impairment(delay=0.05, loss=1.5),
        Impairment(rate=10_000_000),
        Impairment(delay=100, loss=100, rate=64_000),
        Impairment(delay=20, jitter=5, reorder=25, duplicate=1.5, corrupt=0.1),
    ],
)
def test_impairments_are_what_tc_makes_of_the_same_words(lab: str, impairment: Impairment) -> None:
    mine = Netem(netns=f"lvs-{lab}-rs1", device="lan", impairment=impairment)
    up(with_stages(dr_plan(lab), (mine,)))
    theirs = replace(mine, netns=f"lvs-{lab}-rs2")
    (command,) = theirs.describe()
    subprocess.run(command.split(), check=True)
    assert qdisc(lab, "rs1") == qdisc(lab, "rs2")
    assert qdisc(lab, "rs1")["kind"] == "netem"
    apply_plan([Stage("again", (mine,))], lab, ignore, reconciling=True)
    undo.undo([mine], lab)
    undo.undo([mine], lab)
    assert '"netem"' not in str(ip("-n", f"lvs-{lab}-rs1", "link", "show", "lan"))
