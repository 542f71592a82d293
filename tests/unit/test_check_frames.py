"""Frames of real hosts: what a host printed is read, clocks are compared. Pure.

client ── lb (eth1, 10.10.0.2, VIP 10.10.0.100) ── web1 (eth1, 10.10.0.11)
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from lvsctl.capture.decode import decode_all
from lvsctl.cli.main import main
from lvsctl.engine.check_frames import LocalClient, Place, host_evidence, renamed
from lvsctl.engine.clocks import clock_offsets
from lvsctl.engine.inspect import recompute
from lvsctl.errors import DamagedFile
from lvsctl.formats.hosts.frames import (
    capture_script,
    expression_for,
    read_frames,
    with_counters,
)
from lvsctl.formats.hosts.inventory import InventoryHost
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Verdict
from lvsctl.model.evidence import Evidence
from lvsctl.model.frame import Direction, LinkType, RawFrame, Tap
from lvsctl.model.service import ForwardingMethod, Protocol, ServiceMatch, VipPort
from lvsctl.model.state import Counters, LinkState, NodeState, RealServerState, ServiceState
from tests.unit.recorded.reports import evidence_of

CLIENT, VIP, RIP = IPv4Address("10.10.0.10"), IPv4Address("10.10.0.100"), IPv4Address("10.10.0.11")
MACS = {"client": "02:00:00:00:00:10", "lb": "02:00:00:00:00:02", "web1": "02:00:00:00:00:11"}


def syn(port: int, src: str, dst: str, ttl: int = 64) -> Packet:
    """A SYN of the client, on the link from one host to another."""
    ip = IP(src=str(CLIENT), dst=str(VIP), id=port, ttl=ttl)
    return Ether(src=MACS[src], dst=MACS[dst]) / ip / TCP(sport=port, dport=80, flags="S", seq=port)


def pcap(*frames: tuple[int, bytes], order: str = "<", magic: int = 0xA1B23C4D) -> bytes:
    """A file of tcpdump; times in units of its own."""
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, 1)
    return head + b"".join(
        struct.pack(f"{order}IIII", time // 10**9, time % 10**9, len(data), len(data)) + data
        for time, data in frames
    )


def document(**sections: str) -> bytes:
    """What the script prints; of names that are not given, empty sections."""
    every = {f"frames-{n}-{way}": pcap().hex() for n in (0,) for way in ("in", "out")}
    every |= {name.replace("_", "-"): text for name, text in sections.items()}
    lines = ["lvsctl-collect 1"]
    for name, text in every.items():
        lines += [f"section {name}", *(f"|{line}" for line in text.split("\n")), f"end {name} 0"]
    return "\n".join([*lines, "end of lvsctl-collect"]).encode()


STATS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  10.10.0.100:80                     12       72        0     4000        0
  -> 10.10.0.11:80                       6       36        0     2000        0
TCP  [fd00:10::100]:80                   1        2        3        4        5
  -> [fd00:10::11]:80                    1        2        3        4        5"""


@pytest.mark.parametrize(("order", "magic"), [("<", 0xA1B23C4D), (">", 0xA1B23C4D)])
def test_frames_counters_and_connections_of_a_host_are_read(order: str, magic: int) -> None:
    frame = bytes(syn(5000, "client", "lb"))
    found = read_frames(
        document(
            frames_0_in=pcap((1_000_000_007, frame), order=order, magic=magic).hex(" "),
            lost_0_out="3 packets dropped by kernel",
            counters_before=STATS,
            counters_after=STATS,
        ),
        "lb",
        "director",
        ["eth1"],
    )
    tap = Tap("director", "eth1")
    wanted = RawFrame(1_000_000_007, tap, Direction.IN, LinkType.ETHERNET, len(frame), frame, True)
    assert found.frames == (wanted,)
    assert found.taps == {tap: LinkType.ETHERNET}
    assert found.dropped == 3
    web = VipPort(Protocol.TCP, VIP, 80)
    assert found.before[web, RIP, 80] == Counters(6, 36, 0, 2000, 0)
    assert found.after[
        VipPort(Protocol.TCP, IPv6Address("fd00:10::100"), 80), IPv6Address("fd00:10::11"), 80
    ] == Counters(1, 2, 3, 4, 5)
    server = RealServerState(RIP, 80, ForwardingMethod.DR, 1, 0, 0, 0, 0)
    counted = with_counters(ServiceState(web, "rr", 0, (server,)), found.before)
    assert counted.real_servers == (server._replace(counters=Counters(6, 36, 0, 2000, 0)),)


@pytest.mark.parametrize(
    "text",
    ["", "zz", "00 11 22", pcap().hex()[:-8] + "71000000", "a1b2c3d4" * 6],
    ids=["empty", "no numbers", "short", "another link type", "nonsense"],
)
def test_what_is_no_file_of_tcpdump_is_an_error_that_names_the_host(text: str) -> None:
    with pytest.raises(DamagedFile, match="lb: the capture cannot be read"):
        read_frames(document(frames_0_in=text), "lb", "director", ["eth1"])


def test_a_frame_that_tcpdump_did_not_finish_is_left_out() -> None:
    whole = pcap((1, b"a" * 60), (2, b"b" * 60))
    found = read_frames(document(frames_0_in=whole[:-1].hex()), "lb", "director", ["eth1"])
    assert [one.data[:1] for one in found.frames] == [b"a"]


def test_nothing_of_an_inventory_or_a_host_is_run_by_the_script() -> None:
    """Names of devices come from the host; they are data, whatever they are."""
    script = capture_script(["eth1", "x'; touch /tmp/here; '"], "arp", [CLIENT])
    assert script.startswith("devices='eth1 x'\"'\"'; touch /tmp/here; '\"'\"''\n")
    assert "clients=' 0A0A000A '\n" in script


def test_only_the_clients_own_packets_and_first_ones_of_others_are_captured() -> None:
    assert expression_for([CLIENT], [VIP]) == (
        "arp or icmp or icmp6 or ((host 10.10.0.10) and not tcp port 22)"
        " or (dst host 10.10.0.100 and tcp[13] & 2 != 0)"
    )


def captured(ahead: int) -> Iterable[RawFrame]:
    """Two hosts and the client; the clock of web1 is ``ahead``."""
    hops = (
        ("client", Direction.OUT, 0, syn(5000, "client", "lb")),
        ("lb", Direction.IN, 10_000, syn(5000, "client", "lb")),
        ("lb", Direction.OUT, 20_000, syn(5000, "lb", "web1", 63)),
        ("web1", Direction.IN, 30_000 + ahead, syn(5000, "lb", "web1", 63)),
        ("web1", Direction.OUT, 40_000 + ahead, who_has("web1")),
        ("lb", Direction.BROADCAST, 50_000, who_has("web1")),
    )
    for node, direction, time, packet in hops:
        data = bytes(packet)
        yield RawFrame(time, Tap(node, "lan"), direction, LinkType.ETHERNET, len(data), data)


def who_has(src: str) -> Packet:
    broadcast = Ether(src=MACS[src], dst="ff:ff:ff:ff:ff:ff")
    return broadcast / ARP(hwsrc=MACS[src], psrc=str(RIP), pdst="10.10.0.2")


@pytest.mark.parametrize("ahead", [0, 5_000_000, -5_000_000, 3_600 * 10**9])
def test_clocks_that_differ_are_found_by_frames_of_both_directions(ahead: int) -> None:
    found = clock_offsets(decode_all(captured(ahead)), "client")
    assert found == {"client": 0, "lb": 0, "web1": ahead}


def test_interfaces_are_called_after_their_networks_everywhere_in_a_state() -> None:
    link = LinkState("eth1.7", 2, "", MACS["lb"], 1500, True, True)
    state = NodeState(
        "lb", links=(link,), sysctls={"net.ipv4.conf.eth1/7.rp_filter": "1", "net.ipv4.x": "2"}
    )
    found = renamed(state, {"eth1.7": "lan"})
    assert found.link("lan") == replace(link, name="lan")
    assert found.sysctls == {"net.ipv4.conf.lan.rp_filter": "1", "net.ipv4.x": "2"}


def host_document(evidence: Evidence, node: str, ahead: int) -> bytes:
    """What a node's host would have printed, with its clock ``ahead``."""
    frames: dict[str, list[tuple[int, bytes]]] = {"in": [], "out": []}
    for frame in evidence.frames:
        if frame.tap == Tap(node, "lan"):
            way = "out" if frame.direction is Direction.OUT else "in"
            frames[way].append((frame.time + ahead, frame.raw.data))
    return document(**{f"frames_0_{way}": pcap(*found).hex() for way, found in frames.items()})


def counters_of(service: ServiceState) -> dict[tuple[ServiceMatch, IPAddress, int], Counters]:
    return {(service.match, one.rip, one.port): one.counters for one in service.real_servers}


@pytest.mark.parametrize("ahead", [0, 3 * 10**9])
def test_hosts_of_a_healthy_site_pass_the_claims_of_a_lab(ahead: int) -> None:
    """A recorded lab as if it were a site: other names of interfaces, a clock that is wrong."""
    lab_evidence = evidence_of("dr")
    lab, run = lab_evidence.lab, lab_evidence.runs[0]
    assert run.before is not None
    assert run.after is not None
    lines = tuple(
        f"TCP {int(one.client):08X} {one.client_port:04X} {int(one.vip):08X} {one.vport:04X}"
        f" {int(one.rip):08X} {one.rport:04X} {one.state} {one.expires}"
        for one in run.connections
    )
    places, found = {}, {}
    for node in ("director", "rs1", "rs2"):
        state = renamed(lab_evidence.states[node], {"lan": "svc0"})
        places[node] = Place(InventoryHost(node, node), state, {"lan": "svc0"})
        data = host_document(lab_evidence, node, ahead if node == "rs1" else 0)
        found[node] = replace(
            read_frames(data, node, node, ["svc0"]),
            before=counters_of(run.before),
            after=counters_of(run.after),
            connections=lines,
        )
    vip = run.endpoint.vip
    client = LocalClient(
        "client",
        {vip: lab.node("client").addresses[0]},
        {vip: "eth9"},
        renamed(lab_evidence.states["client"], {"lan": "eth9"}),
    )
    mine = [one.raw for one in lab_evidence.frames if one.tap.node == "client"]
    # nginx does not say who it is: the frames do.
    nameless = tuple(replace(one, node="", peer_seen=None) for one in run.exchanges)
    evidence, remarks = host_evidence(
        lab, client, places, found, mine, {"web": nameless}, (run.began, run.ended)
    )
    verdicts = {one.claim.id: one.verdict for one in recompute(evidence).findings}
    assert set(verdicts.values()) == {Verdict.PASS}, verdicts
    assert "all.counters-agree" in verdicts
    assert "dr.only-director-answers-arp" in verdicts
    said = "rs1: its clock is 3000.0 ms ahead of this machine's"
    assert [text.partition(";")[0] for text in remarks] == ([said] if ahead else [])


def test_files_have_no_frames(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "dr", "--from", "/nowhere", "--capture"]) == 2
    assert "--capture is for --inventory" in capsys.readouterr().err
