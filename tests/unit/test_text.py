"""What people read: the facts that must be in it, whatever the layout."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lvsctl.engine.inspect import typeable_outside
from lvsctl.model.claim import Verdict
from lvsctl.model.packet_filter import FilterProgram, FilterRule
from lvsctl.model.service import IpvsTimeouts, TunnelKind
from lvsctl.model.state import FilterState, RouteState, Setting, SyncDaemonState
from lvsctl.output.text import demo
from lvsctl.output.text.hosts import (
    format_features,
    format_machine,
    format_machine_kinds,
    format_topologies,
    format_verdict,
)
from lvsctl.output.text.inspection import format_inspection
from lvsctl.output.text.labs import format_labs
from lvsctl.output.text.plan import format_plan, format_up
from lvsctl.output.text.style import Style
from lvsctl.output.text.verification import format_verification
from lvsctl.plan import planner
from lvsctl.plan.stages import Plan, Stage, Up
from lvsctl.resources.address import Address
from lvsctl.resources.base import Deviation
from lvsctl.resources.ipvs_config import ConnectionTimeouts
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.sysctl import ChangedSysctl, Sysctl
from lvsctl.resources.tunnel import Tunnel
from lvsctl.resources.user_command import UserCommand
from lvsctl.topology import shipped
from tests.unit.report_samples import (
    ADDRESS,
    FEATURES,
    KINDS,
    MACHINE,
    changed,
    healthy,
    lab_of,
    listed,
    verification,
)

PLAIN = Style(color=False, width=100)
COLOR = Style(color=True, width=100)


def test_a_new_lab_is_told_with_what_to_type_next() -> None:
    said = format_up(Up(lab_of("dr"), created=True), style=PLAIN)
    assert "rs1       real server  10.10.0.11  (VIP 10.10.0.100)" in said
    assert "lvsctl exec dr/client -- curl -s http://10.10.0.100/" in said
    assert "lvsctl down dr" in said


def test_many_real_servers_take_one_line() -> None:
    said = format_up(Up(lab_of("dr", servers=40), created=True), style=PLAIN)
    assert "rs1 … rs40" in said
    assert "10.10.0.11 … 10.10.0.50" in said
    assert len(said.splitlines()) < 20


def test_up_of_a_running_lab_says_unchanged_or_what_changed() -> None:
    lab = lab_of("dr")
    vip = Address(netns="lvs-dr-rs1", device="lo", address=ADDRESS)
    other = replace(vip, device="lan")
    assert format_up(Up(lab, created=False), style=PLAIN) == "lab dr: unchanged\n"
    said = format_up(Up(lab, created=False, added=(vip,), removed=(other,)), style=PLAIN)
    assert "+ ip -n lvs-dr-rs1 addr add 10.10.0.100/32 dev lo" in said
    assert "- ip -n lvs-dr-rs1 addr del 10.10.0.100/32 dev lan" in said


def test_up_tells_a_change_by_the_command_that_changes_and_not_by_one_that_adds() -> None:
    lab = lab_of("dr")
    ops = planner.plan_for(lab).resources
    service = next(op for op in ops if isinstance(op, IpvsService))
    server = next(op for op in ops if isinstance(op, IpvsRealServer))
    up = Up(lab, created=False, added=(service, server), edited=(service,))
    said = format_up(up, style=PLAIN)
    assert "~ ip netns exec lvs-dr-director ipvsadm -E -t 10.10.0.100:80 -s rr" in said
    assert "+ ip netns exec lvs-dr-director ipvsadm -a -t 10.10.0.100:80 -r 10.10.0.11:80" in said


def test_what_is_set_back_is_told_as_a_change() -> None:
    """A sysctl of the plan, one of no plan, and timeouts: each has a value before and after."""
    lab = lab_of("dr")
    vip = Address(netns="lvs-dr-rs1", device="lo", address=ADDRESS)
    ignore = Sysctl(netns="lvs-dr-rs1", name="net.ipv4.conf.all.arp_ignore", value="1")
    ttl = ChangedSysctl(netns="lvs-dr-rs2", name="net.ipv4.ip_default_ttl", value="9", usual="64")
    timeouts = ConnectionTimeouts(netns="lvs-dr-director", timeouts=IpvsTimeouts(tcp=100))
    up = Up(lab, created=False, added=(ignore,), removed=(ttl, timeouts, vip))
    assert format_up(up, style=PLAIN).splitlines()[1:] == [
        "- ip -n lvs-dr-rs1 addr del 10.10.0.100/32 dev lo",
        "~ ip netns exec lvs-dr-rs2 sysctl -q -w net.ipv4.ip_default_ttl=64",
        "~ ip netns exec lvs-dr-director ipvsadm --set 900 120 300",
        "~ ip netns exec lvs-dr-rs1 sysctl -q -w net.ipv4.conf.all.arp_ignore=1",
    ]


def test_a_setting_of_what_is_added_is_added_with_it() -> None:
    tunnel = Tunnel(netns="lvs-tun-rs2", device="tunl0", index=9, kind=TunnelKind.IPIP)
    strict = Sysctl(netns="lvs-tun-rs2", name="net.ipv4.conf.tunl0.rp_filter", value="0")
    up = Up(lab_of("tun"), created=False, added=(tunnel, strict))
    shown = "ip netns exec lvs-tun-rs2 sysctl -q -w net.ipv4.conf.tunl0.rp_filter=0"
    assert f"+ {shown}" in format_up(up, style=PLAIN)
    assert f"~ {shown}" in format_up(replace(up, added=(strict,)), style=PLAIN)


def test_labs_are_listed_with_what_is_wrong_and_what_to_type() -> None:
    said = format_labs(listed(lab_of("dr")), style=PLAIN)
    assert "web 10.10.0.100:80 dr" in said
    assert "2023-11-14 22:13 UTC" in said
    assert "not answering" in said
    assert "its entry cannot be read?[2J; remove it: lvsctl down old" in said


def test_an_empty_list_says_how_to_start_one() -> None:
    assert "lvsctl up dr" in format_labs((), style=PLAIN)


@pytest.mark.parametrize("name", shipped.names())
def test_a_healthy_lab_has_no_deviation(name: str) -> None:
    inspection = healthy(lab_of(name))
    assert inspection
    assert "!" not in format_inspection(inspection, style=PLAIN)


def test_inspection_shows_what_an_lvs_user_looks_for() -> None:
    said = format_inspection(healthy(lab_of("dr")), style=PLAIN)
    assert "lan  arp_ignore  1  arp_announce  2  rp_filter  0" in said
    assert "10.10.0.100/32 (VIP)" in said
    assert "TCP  10.10.0.100:80 rr" in said
    assert "-> 10.10.0.11:80  rs1" in said
    assert "02:00:0a:0a:00:02  director" in said
    assert "lvsctl (4711)" in said
    assert "2 ESTABLISHED" in said


def test_inspection_shows_limits_timeouts_and_what_a_node_changes_in_packets() -> None:
    inspection = healthy(lab_of("dr"))
    director = inspection.states["director"]
    service = director.services[0]
    limited = (service.real_servers[0]._replace(upper=10, lower=5), *service.real_servers[1:])
    snat = "-A POSTROUTING -d 10.10.0.11/32 -p tcp -m multiport --dports 80 -m comment --comment"
    mss = "-A POSTROUTING -p tcp -m tcp --tcp-flags SYN,RST SYN -m comment --comment"
    found = changed(
        inspection,
        "director",
        services=(service._replace(real_servers=limited),),
        routes=(RouteState(None, None, "lan", kernel=False, details=("mtu 1480", "advmss 1400")),),
        filters=(
            FilterState("lan", "ingress", "flower", 1, "ip", ("mark 7",), ("dst_ip 10.10.0.100",)),
        ),
        packet_filters=(
            FilterRule(
                *(FilterProgram.IPTABLES, "nat", "POSTROUTING", 1),
                *(f'{snat} "lvsctl" -j MASQUERADE', "MASQUERADE"),
            ),
            FilterRule(
                *(FilterProgram.IPTABLES, "mangle", "POSTROUTING", 1),
                *(f'{mss} "lvsctl" -j TCPMSS --set-mss 1440', "TCPMSS"),
            ),
        ),
        ipvs_timeouts=IpvsTimeouts(udp=60),
        sync_daemons=(SyncDaemonState("master", "lan", 7),),
    )
    said = " ".join(format_inspection(found, style=PLAIN).split())
    assert "default dev lan mtu 1480 advmss 1400" in said
    assert "lan ingress dst_ip 10.10.0.100 mark 7" in said
    assert "dst_ip 10.10.0.11 tcp dst_port 80 masquerade" in said
    assert "TCP SYN segment size at most 1440 bytes in IPv4" in said
    assert "Uthreshold Lthreshold TCP 10.10.0.100:80 rr -> 10.10.0.11:80 rs1 10 5" in said
    assert "timeouts: tcp 900 s, tcpfin 120 s, udp 60 s (default 300 s)" in said
    assert "synchronization daemon: master on lan, syncid 7" in said


def test_commands_of_what_is_left_alone_can_be_typed_outside_the_machine() -> None:
    found = healthy(lab_of("dr"))
    one = Deviation("…", left=True, command="ip netns exec lvs-dr-director ipvsadm -C")
    nodes = {"director": replace(found.nodes["director"], deviations=(one,))}
    said = format_inspection(typeable_outside(replace(found, nodes=nodes)), style=PLAIN)
    assert "lvsctl exec dr/director -- ipvsadm -C" in said


def test_inspection_explains_the_settings_of_ipvs_that_are_not_the_usual_ones() -> None:
    inspection = healthy(lab_of("dr"))
    director = inspection.nodes["director"]
    sysctls = {**director.state.sysctls, "net.ipv4.vs.sync_threshold": "0\t1"}
    reuse = Setting("net.ipv4.vs.conn_reuse_mode", "0", "1")
    state = replace(director.state, sysctls=sysctls, changed_sysctls=(reuse,))
    nodes = {"director": replace(director, state=state)}
    said = " ".join(format_inspection(replace(inspection, nodes=nodes), style=PLAIN).split())
    assert "conn_reuse_mode 0 a client port that is used again stays with its real server" in said
    assert "every B packets (default 3 50)" in said


def test_a_part_of_a_lab_can_be_inspected() -> None:
    inspection = healthy(lab_of("dr"))
    only = replace(inspection, nodes={"rs1": inspection.nodes["rs1"]})
    said = format_inspection(only, style=PLAIN)
    assert said.startswith("rs1  real server of web by dr")
    assert "!" not in said


def test_of_many_nodes_alike_one_stands_for_all() -> None:
    inspection = healthy(lab_of("dr", servers=40))
    said = format_inspection(inspection, style=PLAIN)
    assert "rs2–rs40  like rs1: as the topology says (-v shows each)" in said
    assert "  -> 40 real servers, each  rs1–rs40" in said
    assert len(said.splitlines()) < 80
    sysctls = {**inspection.states["rs7"].sysctls, "net.ipv4.conf.all.arp_ignore": "0"}
    said = format_inspection(changed(inspection, "rs7", sysctls=sysctls), style=PLAIN)
    assert "rs2–rs6, rs8–rs40  like rs1" in said
    assert said.index("rs7  real server of web by dr") < said.index("net.ipv4.conf.all.arp_ignore")
    full = format_inspection(inspection, style=PLAIN, verbose=True)
    assert "rs40  real server of web by dr" in full
    assert "-> 10.10.0.50:80  rs40" in full


def test_unsuppressed_arp_is_marked() -> None:
    inspection = healthy(lab_of("dr"))
    sysctls = {**inspection.states["rs1"].sysctls, "net.ipv4.conf.all.arp_ignore": "0"}
    wrong = changed(inspection, "rs1", sysctls=sysctls)
    said = format_inspection(wrong, style=COLOR)
    assert "\033[31m0\033[0m" in said
    assert "net.ipv4.conf.all.arp_ignore is 0, not 1" in said
    assert [name for name, node in wrong.nodes.items() if node.deviations] == ["rs1"]


def test_a_vip_on_the_wrong_device_is_marked_twice() -> None:
    inspection = healthy(lab_of("dr"))
    links = tuple(
        replace(
            link,
            addresses=(
                (*link.addresses, ADDRESS)
                if link.name == "lan"
                else tuple(address for address in link.addresses if address != ADDRESS)
            ),
        )
        for link in inspection.states["rs1"].links
    )
    found = [one.text for one in changed(inspection, "rs1", links=links).nodes["rs1"].deviations]
    assert found == [
        "VIP 10.10.0.100 is missing on lo",
        "VIP 10.10.0.100 is on lan, which the topology does not say",
    ]


def test_a_changed_weight_and_a_silent_server_are_marked() -> None:
    inspection = healthy(lab_of("dr"))
    service = inspection.states["director"].services[0]
    heavier = service.real_servers[0]._replace(weight=5)
    wrong = changed(
        inspection,
        "director",
        services=(service._replace(real_servers=(heavier, *service.real_servers[1:])),),
    )
    wrong = changed(wrong, "rs2", listeners=())
    assert [one.text for one in wrong.nodes["director"].deviations] == [
        "rs1 (10.10.0.11:80) has weight 5, not 1"
    ]
    assert [one.text for one in wrong.nodes["rs2"].deviations] == ["nothing listens on tcp port 80"]


def test_a_missing_tunnel_is_marked() -> None:
    inspection = healthy(lab_of("tun"))
    links = tuple(link for link in inspection.states["rs1"].links if link.name != "tunl0")
    found = [one.text for one in changed(inspection, "rs1", links=links).nodes["rs1"].deviations]
    assert found[0] == "tunl0 is missing"


def test_verification_is_a_table_and_what_failed_in_full() -> None:
    found = verification(lab_of("dr"), Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE)
    said = format_verification(found, verbose=False, style=PLAIN)
    assert "all.claim-0  pass          what was seen 0" in said
    assert "what should be 0" not in said
    assert "what should be 1" in said
    assert "what should be 2" in said  # undecided, and there is a frame to look at
    assert said.endswith("dr: fail (1 pass, 1 fail, 1 inconclusive)\n")


def test_verbose_tells_all_of_every_claim() -> None:
    found = verification(lab_of("dr"), Verdict.PASS)
    said = format_verification(found, verbose=True, style=PLAIN)
    assert "what should be 0" in said
    assert "#7  director:lan  " in said
    assert "10.10.0.100" in said
    assert "broken by some-fault" in said


def test_nothing_judged_is_no_pass() -> None:
    found = verification(lab_of("dr"))
    assert "inconclusive" in format_verification(found, verbose=False, style=PLAIN)


def test_features_are_told_with_remedies_and_what_it_comes_to() -> None:
    said = format_features(FEATURES, "host", style=PLAIN)
    assert "scheduler rr wrr" in said
    assert "sudo modprobe -a ip_vs_mh ip_vs_twos" in said
    assert said.startswith("host: labs can run here, but not tun\n")
    assert said.index("ok       root") < said.index("missing  ipip")
    unknown = replace(FEATURES[1], known=False, text="cannot be told without root")
    said = format_features([FEATURES[0], unknown], "host", style=PLAIN)
    assert "unknown  ipip" in said
    assert "missing" not in said
    assert said.startswith("host: labs can run here\n")


def test_doctor_begins_with_what_works() -> None:
    for host, machine, said in (
        (True, True, "on the host's kernel: lvsctl up dr"),
        (False, True, "in the throwaway kernel: lvsctl up dr"),
        (False, False, "cannot run here yet"),
    ):
        text = format_verdict(host=host, machine=machine, remark="ready", style=PLAIN)
        assert said in text.splitlines()[0]
        assert text.endswith("throwaway kernel: ready")


def test_the_machine_is_told() -> None:
    said = format_machine(MACHINE, {"ip_vs": True, "scheduler twos": False}, style=PLAIN)
    assert "1 h 1 min" in said
    assert "112 of 512 MiB" in said
    assert "sctp (unknown symbol)" in said
    assert "QEMU 6.1.176" in said
    assert "missing   scheduler twos\n" in said
    assert "emulation (TCG), 2 cores" in said
    assert "lvsctl machine start" in format_machine(None, {}, style=PLAIN)


def test_kinds_of_machine_are_listed_with_what_is_in_the_way() -> None:
    said = format_machine_kinds(KINDS, style=PLAIN)
    assert "uml   User-Mode Linux  yes   one CPU" in said
    assert "linux.uml: 6.1.176" in said
    assert "qemu  QEMU             no    qemu-system-x86_64 is not installed" in said


def test_topologies_are_listed_by_name() -> None:
    said = format_topologies({"dr": "Direct routing"}, style=PLAIN)
    assert "dr  Direct routing" in said


def test_a_command_cannot_steer_the_terminal_of_who_reads_it() -> None:
    """Whoever was sent a topology looks at its plan first."""
    lab = lab_of("dr")
    argv = ("sh", "-c", "\033]0;title\a\033[2Kone\r\n\ttwo \u202e\x9b3J")
    op = UserCommand(netns="lvs-dr-rs1", node="rs1", argv=argv)
    legible = "run lvs-dr-rs1 sh -c '?]0;title??[2Kone?\n\ttwo ??3J'"
    up = Up(lab, created=False, added=(op,), removed=(op,))
    assert f"   {legible}\n" in format_plan(Plan("dr", (Stage("own", (op,)),)), style=PLAIN)
    assert f"- {legible}\n+ {legible}\n" in format_up(up, style=PLAIN)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_report_needs_a_width(width: int) -> None:
    style = Style(color=True, width=width, unicode=False)
    lab = lab_of("tun")
    reports = [
        format_up(Up(lab, created=True), style=style),
        format_plan(planner.plan_for(lab), style=style),
        format_inspection(healthy(lab), style=style),
        format_labs(listed(lab), style=style),
        format_features(FEATURES, "host", style=style),
        format_machine(MACHINE, {"ip_vs": True, "scheduler twos": False}, style=style),
        format_machine_kinds(KINDS, style=style),
        format_verification(verification(lab, *Verdict), verbose=True, style=style),
    ]
    for report in reports:
        assert report.endswith("\n")
        assert report.isascii()
        assert not any(line.endswith(" ") for line in report.splitlines())


def test_a_report_names_its_page() -> None:
    found = verification(lab_of("dr"))
    said = format_verification(found, verbose=False, report="out/report.html", style=PLAIN)
    assert said.endswith("report: out/report.html  (open it in a browser)\n")


def test_the_demo_ends_with_what_can_be_typed() -> None:
    said = demo.closing(activate=". .venv/bin/activate", machine=True, style=PLAIN)
    lines = [line.strip() for line in said.splitlines()]
    assert lines[1].startswith(". .venv/bin/activate ")
    assert any(line.startswith("lvsctl exec client -- curl -s http://") for line in lines)
    assert lines[-1].startswith("lvsctl machine stop ")
    assert "machine stop" not in demo.closing(style=PLAIN)
