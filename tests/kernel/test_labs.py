"""Whole labs on real IPVS: up, asked by curl, looked at by ipvsadm and ip, down."""

from __future__ import annotations

import os
import re
import shlex
import socket
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from lvsctl.engine.inspect import diagnose_lab, inspect_lab, verify_lab
from lvsctl.engine.labs import list_labs, running_lab, tear_down
from lvsctl.engine.up import bring_up
from lvsctl.errors import KernelError, LabError
from lvsctl.kernel import netns, processes
from lvsctl.model.addresses import Endpoint
from lvsctl.model.claim import Verdict
from lvsctl.model.event import Event, StageStarted
from lvsctl.model.service import Protocol, Scheduler
from lvsctl.plan.planner import plan_for
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.topology import shipped
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology
from tests.kernel.by_hand import kill, process, run
from tests.kernel.initial import initial_namespace
from tests.kernel.labs import curl, lab_up, topology_of, url_of

pytestmark = pytest.mark.ipvs

SHIPPED = shipped.names()
_HASHING = (Scheduler.SH, Scheduler.MH)
LONG = dict.fromkeys(
    (
        *("tun-gre", "dr-limits", "dr-weighted", "dr-routed"),
        *("nat-ipv6", "tun-ipv6", "tun-4in6", "dr-ha", "nat-ha", "tun-ha", "tun"),
    ),
    pytest.mark.exhaustive,
)
"""Alike others that run always: tun-gue, whose real servers need more; ecmp; test_schedulers;
nat-one-arm, which has a router; dr-ipv6 and tun-6in4, which have what is new in IPv6;
test_two_directors."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=LONG.get(n, ())) for n in SHIPPED])
def test_a_shipped_topology_answers_passes_and_leaves_nothing(name: str) -> None:
    if name == "sctp":  # its module, loaded by the first socket, brings settings of its own
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, Protocol.SCTP.number).close()
    before = initial_namespace()
    with lab_up(name) as lab:
        service = lab.services[0]
        total = sum(server.weight for server in service.real_servers)
        tcp = service.endpoint.protocol is Protocol.TCP  # which curl speaks
        answers = Counter(curl(lab, url_of(lab)).split()[0] for _ in range(2 * total * tcp))
        if not tcp:
            pass
        elif any(s.upper for s in service.real_servers) or service.scheduler in _HASHING:
            # How many in detail: test_schedulers and test_hashing.
            assert set(answers) <= {s.node for s in service.real_servers if s.weight}
        elif service.persistence:
            assert len(answers) == 1
        else:
            assert answers == {s.node: 2 * s.weight for s in service.real_servers}

        director = lab.netns(lab.directors[0].name)
        saved = run("ipvsadm -Sn", netns=director)
        # The defaults, spelled out.
        rules = re.sub(" --tun-type ipip| --tun-nocsum", "", saved).splitlines()
        planned = [
            " ".join(shlex.split(command.split(" ipvsadm ")[1]))
            for op in plan_for(lab).resources
            if isinstance(op, IpvsService | IpvsRealServer) and op.netns == director
            for command in op.describe()
        ]
        # What is saved says nothing of thresholds; the list does.
        assert sorted(rules) == sorted(re.sub(" -x .*", "", rule) for rule in planned)
        listed = run("ipvsadm -Ln --thresholds", netns=director)
        assert sorted(re.findall(r"-> (\S+:\d+) +(\d+) +(\d+) ", listed)) == sorted(
            (str(Endpoint(server.rip, server.port)), str(server.upper), str(server.lower))
            for service in lab.services
            for server in service.real_servers
        )

        verification = verify_lab(lab)
        assert verification.verdict is Verdict.PASS, verification.findings
    assert initial_namespace() == before


def failed_claims(lab_name: str) -> set[str]:
    findings = verify_lab(running_lab(lab_name)).findings
    return {finding.claim.id for finding in findings if finding.verdict is not Verdict.PASS}


BROKEN = {
    "VIP missing on a real server": (
        "dr",
        "ip -n lvs-dr-rs1 addr del 10.10.0.100/32 dev lo",
        {"all.requests-answered", "all.real-servers-reached", "all.counters-agree"},
    ),
    "a real server drained by hand": (
        "dr",
        "ip netns exec lvs-dr-director ipvsadm -e -t 10.10.0.100:80 -r 10.10.0.11:80 -g -w 0",
        {"all.real-servers-reached", "all.distribution"},
    ),
    "another scheduler": (
        "dr-weighted",
        "ip netns exec lvs-dr-weighted-director ipvsadm -E -t 10.12.0.100:80 -s rr",
        {"all.distribution"},
    ),
    "VIP missing on the director": (
        "dr",
        "ip -n lvs-dr-director addr del 10.10.0.100/32 dev lan",
        {"all.requests-answered"},
    ),
    "service missing": (
        "dr",
        "ip netns exec lvs-dr-director ipvsadm -D -t 10.10.0.100:80",
        {"all.requests-answered", "all.counters-agree", "all.reply-path-counted"},
    ),
    "real servers' replies pass the director by": (
        "nat-one-arm",
        "ip -n lvs-nat-one-arm-rs1 route replace default via 10.21.0.1",
        {"all.requests-answered", "all.real-servers-reached"},
    ),
    "director does not forward": (
        "nat",
        "ip netns exec lvs-nat-director sysctl -qw net.ipv4.ip_forward=0",
        {"all.requests-answered", "all.real-servers-reached", "all.reply-path-counted"},
    ),
    "tunnel device down": (
        "tun",
        "ip -n lvs-tun-rs1 link set tunl0 down",
        {"all.requests-answered", "all.real-servers-reached"},
    ),
    "reverse path filter on the tunnel": (
        "tun",
        "ip netns exec lvs-tun-rs2 sysctl -qw net.ipv4.conf.tunl0.rp_filter=1",
        {"all.requests-answered", "all.real-servers-reached"},
    ),
    "somebody else answers on the VIP": (
        "dr",
        "ip -n lvs-dr-client addr add 10.10.0.100/32 dev lo",
        {"all.requests-answered", "all.real-servers-reached"},
    ),
    "requests pass the director by": (
        "dr",
        "ip -n lvs-dr-client neigh replace 10.10.0.100 lladdr 02:00:0a:0a:00:0b dev lan",
        {"all.distribution", "all.counters-agree", "all.connection-table-agrees"},
    ),
}


@pytest.mark.parametrize(("name", "command", "broken"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_lab_fails_the_claims_it_breaks(name: str, command: str, broken: set[str]) -> None:
    with lab_up(name) as lab:
        run(command)
        assert broken <= failed_claims(lab.name)
        again = bring_up(topology_of(name))
        assert not again.created
        if "neigh" not in command:  # what a client has learnt is not the topology's
            assert failed_claims(lab.name) == set()


def with_encapsulation(kind: str) -> Topology:
    """The topology tun-gue, with another encapsulation."""
    found = topology_of("tun-gue")
    changed = found.text.replace(b"encapsulation: gue", f"encapsulation: {kind}".encode())
    return Topology(found.source, changed)


def test_another_encapsulation_is_applied_in_place() -> None:
    """ip, ip fou and ipvsadm say what is there; the claims, that it works."""
    devices = {"ipip": {"tunl0"}, "gre": {"gre0"}, "gue": {"tunl0"}}
    with lab_up("tun-gue") as lab:
        for kind in ("gre", "ipip", "gue"):
            bring_up(with_encapsulation(kind))
            addresses = run(f"ip -n {lab.netns('rs1')} -o addr show up")
            assert {line.split()[1] for line in addresses.splitlines() if "50.1.100" in line} == (
                devices[kind]
            )
            told = run(f"ip -n {lab.netns('rs1')} fou show")
            assert ("port 6080 gue" in told) is (kind == "gue"), told
            assert f"--tun-type {kind}" in run("ipvsadm -Sn", netns=lab.netns("director"))
            assert failed_claims(lab.name) == set(), kind
            assert bring_up(with_encapsulation(kind)).added == ()


def test_up_twice_changes_nothing() -> None:
    with lab_up("tun"):
        again = bring_up(topology_of("tun"))
        assert (again.created, again.added, again.removed) == (False, (), ())


def test_up_takes_away_what_was_added_by_hand() -> None:
    with lab_up("dr") as lab:
        run("ip -n lvs-dr-rs1 addr add 10.10.0.77/24 dev lan")
        run("ip -n lvs-dr-rs1 route add 10.99.0.0/16 via 10.10.0.1")
        director = lab.netns("director")
        run("ipvsadm -A -t 10.10.0.100:81 -s rr", netns=director)
        run("ipvsadm -a -t 10.10.0.100:80 -r 10.10.0.77:80 -g", netns=director)
        again = bring_up(topology_of("dr"))
        assert len(again.removed) == 4, again.removed
        assert "10.10.0.77" not in run("ip -n lvs-dr-rs1 -o addr")
        assert "10.99" not in run("ip -n lvs-dr-rs1 route")
        rules = run("ipvsadm -Sn", netns=director)
        assert ":81" not in rules
        assert "10.10.0.77" not in rules


def test_a_changed_topology_is_applied_in_place() -> None:
    with lab_up("dr") as lab:
        responder = processes.daemons("dr")["responder"]
        more = bring_up(topology_of("dr"), Overrides(servers=4, scheduler=Scheduler.WLC))
        assert not more.created
        assert ["ipvsadm -E" in more.commands(op)[0] for op in more.edited] == [True]
        assert processes.daemons("dr")["responder"] != responder
        rules = run("ipvsadm -Sn", netns=lab.netns("director"))
        assert "-s wlc" in rules
        assert rules.count("-r ") == 4
        assert failed_claims("dr") == set()
        bring_up(topology_of("dr"), Overrides(servers=1))
        assert run("ipvsadm -Sn", netns=lab.netns("director")).count("-r ") == 1
        assert not Path("/run/netns/lvs-dr-rs2").exists()
        assert failed_claims("dr") == set()


def test_what_cannot_be_changed_in_place_is_refused_and_nothing_happens() -> None:
    text = shipped.text_of("dr")
    with lab_up("dr") as lab:
        with pytest.raises(LabError, match="cannot be changed"):
            bring_up(topology_of(text.replace("10.10.0.10}", "10.10.0.20}")))
        assert bring_up(topology_of("dr")).added == ()
        assert curl(lab, url_of(lab)).startswith("rs")


class Interrupt:
    """Raises at the beginning of the n-th stage, as Ctrl-C would."""

    def __init__(self, stage: int) -> None:
        self.stage = stage

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageStarted) and event.number == self.stage:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stage", [1, 2, 3, 4, 5, 6])
def test_up_interrupted_leaves_nothing(stage: int) -> None:
    before = initial_namespace()
    with pytest.raises(KeyboardInterrupt):
        bring_up(topology_of("dr"), emit=Interrupt(stage))
    assert initial_namespace() == before


def test_up_that_fails_leaves_nothing() -> None:
    text = shipped.text_of("dr").replace(
        "count: 2}", "count: 2, sysctls: {net.ipv4.no_such_thing: 1}}"
    )
    before = initial_namespace()
    with pytest.raises(KernelError, match="no_such_thing"):
        bring_up(topology_of(text))
    assert initial_namespace() == before


def test_a_foreign_namespace_of_the_same_name_is_not_touched() -> None:
    run("ip netns add lvs-dr-rs1")
    try:
        run("ip -n lvs-dr-rs1 link add dummy7 type dummy")
        with pytest.raises(LabError, match="lvs-dr-rs1"):
            bring_up(topology_of("dr"))
        assert "dummy7" in run("ip -n lvs-dr-rs1 -o link")
        with pytest.raises(LabError, match="not running"):
            tear_down("dr")
        assert "dummy7" in run("ip -n lvs-dr-rs1 -o link")
    finally:
        run("ip netns del lvs-dr-rs1")


def test_down_after_the_responder_was_killed() -> None:
    before = initial_namespace()
    with lab_up("dr"):
        kill(processes.daemons("dr")["responder"])
        (listed,) = list_labs()
        assert not listed.answering
        assert not bring_up(topology_of("dr")).created
        assert list_labs()[0].answering
        kill(processes.daemons("dr")["responder"])
    assert initial_namespace() == before


def test_several_labs_of_one_topology() -> None:
    with lab_up("dr", name="one") as one, lab_up("dr", name="two") as two:
        assert [listed.entry.lab for listed in list_labs()] == ["one", "two"]
        assert curl(one, url_of(one)).startswith("rs")
        tear_down("one")
        assert curl(two, url_of(two)).startswith("rs")


@pytest.mark.parametrize("scheduler", [s for s in Scheduler if s is not Scheduler.TWOS])
def test_every_scheduler_does_what_its_definition_says(scheduler: Scheduler) -> None:
    text = shipped.text_of("dr").replace("count: 2", "count: 4")
    text = text.replace(
        "real_servers: [rs]",
        "real_servers: [rs1, {node: rs2, weight: 2}, {node: rs3, weight: 3},"
        " {node: rs4, weight: 4}]",
    )
    with lab_up(text, scheduler=scheduler):
        assert failed_claims("dr") == set()


def test_persistence_weights_and_thresholds_hold() -> None:
    text = shipped.text_of("dr")
    with lab_up(text.replace("scheduler: rr", "scheduler: rr\n    persistence: 300")) as lab:
        assert "-p 300" in run("ipvsadm -Sn", netns=lab.netns("director"))
        assert failed_claims("dr") == set()
    drained = text.replace("real_servers: [rs]", "real_servers: [{node: rs1, weight: 0}, rs2]")
    with lab_up(drained):
        assert failed_claims("dr") == set()
    limited = text.replace("real_servers: [rs]", "real_servers: [{node: rs1, upper: 3}, rs2]")
    with lab_up(limited):
        assert failed_claims("dr") == set()


LATE = """
import socket, struct, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
ack = struct.pack("!HHIIBBHHH", 5, int(sys.argv[2]), 1, 1, 5 << 4, 0x10, 1000, 0, 0)
sock.sendto(ack, (sys.argv[1], 0))
print("ready", flush=True)
while True:
    time.sleep(0.02)  # nothing is waited for: a packet now and then, for as long as it runs
    sock.sendto(ack, (sys.argv[1], 0))
"""


def test_late_packets_of_a_connection_that_ipvs_does_not_know() -> None:
    """IPVS lets them pass uncounted, as it drops those whose real server is no more."""
    with lab_up("dr") as lab:
        service = lab.services[0]
        words = [sys.executable, "-c", LATE, str(service.endpoint.vip), str(service.endpoint.port)]
        with process(shlex.join(words), netns=lab.netns("client")):
            found = {f.claim.id: f for f in verify_lab(running_lab("dr")).findings}
            assert {c for c, f in found.items() if f.verdict is not Verdict.PASS} == set()
            assert "late packets of earlier connections" in found["all.frames-agree"].expected


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        pytest.param("nat", "udp", marks=pytest.mark.exhaustive),
        ("nat", "sctp"),
        pytest.param("tun", "udp", marks=pytest.mark.exhaustive),
        pytest.param("tun", "sctp", marks=pytest.mark.exhaustive),
    ],
)
def test_another_protocol_by_another_method(name: str, protocol: str) -> None:
    text = shipped.text_of(name).replace("port: 80\n", f"port: 80\n    protocol: {protocol}\n")
    with lab_up(text):
        verified = verify_lab(running_lab(name))
        assert [f for f in verified.findings if f.verdict is not Verdict.PASS] == []
    came = [
        frame.raw.data
        for frame in verified.evidence.frames
        if frame.sctp is not None and frame.tap.node == "client" and frame.direction.inward
    ]
    # IPVS has rewritten the checksum with the port (sctp_nat_csum): both are right at the client.
    assert [data for data in came if not _sctp_checksum_ok(data[34:])] == []
    assert bool(came) is (protocol == "sctp")


@pytest.mark.exhaustive
def test_a_tunnel_costs_nothing_where_its_networks_carry_more() -> None:
    text = re.sub(r"(hub|near|far)(: +\{ipv4: [^,}]+)", r"\1\2, mtu: 1600", shipped.text_of("tun"))
    with lab_up(text):
        found = {f.claim.id: f for f in verify_lab(running_lab("tun")).findings}
        assert [f for f in found.values() if f.verdict is not Verdict.PASS] == []
        assert "the path carries packets of 1520 bytes" in found["tun.costs-20-bytes"].observed
        assert inspect_lab(running_lab("tun")).deviations == ()


MARKED_NAT = """
version: 1
name: natmark
networks:
  wan: {ipv4: 10.20.0.0/24, ipv6: 'fd00:20::/64'}
  lan: {ipv4: 10.30.0.0/24, ipv6: 'fd00:30::/64'}
nodes:
  client: {role: client, networks: [wan]}
  director: {role: director, networks: [wan, lan]}
  rs: {role: real-server, networks: [lan], count: 2}
services:
  - {name: a, vip: 10.20.0.100, ports: [80, 443],
     forward: nat, scheduler: rr, persistence: {timeout: 30, netmask: 24}, real_servers: [rs]}
  - {name: b, vips: [10.20.0.101, 10.20.0.102], port: 8080,
     forward: nat, scheduler: rr, real_servers: [{node: rs1, port: 9000}, {node: rs2, port: 9001}]}
  - {name: c, vip: 'fd00:20::100', ports: any,
     forward: nat, scheduler: wrr, real_servers: [rs1, {node: rs2, weight: 2}]}
  - {name: d, vip: 10.20.0.103, port: any, persistence: 1m,
     forward: nat, scheduler: rr, real_servers: [rs]}
"""
MARKED_TUN = """
version: 1
name: tunmark
networks:
  lan: {ipv4: 10.30.0.0/24, ipv6: 'fd00:30::/64'}
nodes:
  client: {role: client, networks: [lan]}
  director: {role: director, networks: [lan], timeouts: {tcp: 1m}}
  rs: {role: real-server, networks: [lan], count: 3}
services:
  - {name: a, vip: 10.30.0.100, ports: [53, 5353], protocol: udp,
     forward: tun, scheduler: rr, real_servers: [rs]}
  - {name: b, vip: 10.30.0.101, port: 80,
     forward: tun, scheduler: rr,
     real_servers: [rs1, {node: rs2, forward: dr}, {node: rs3, encapsulation: gue}]}
  - {name: c, vip: 10.30.0.102, port: 80,
     forward: dr, scheduler: sh, real_servers: [{node: rs1, upper: 5, lower: 2}, rs2]}
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("text", [MARKED_NAT, MARKED_TUN], ids=["nat", "tun"])
def test_several_ports_and_several_methods_in_one_lab(text: str) -> None:
    with lab_up(text) as lab:
        findings = verify_lab(lab).findings
        assert [f for f in findings if f.verdict is not Verdict.PASS] == []
        assert any(f.claim.id == "joined.every-port-answered" for f in findings)
        assert inspect_lab(lab).deviations == ()


@pytest.mark.exhaustive
def test_segments_that_leave_room_for_the_tunnel_need_no_icmp() -> None:
    text = shipped.text_of("tun").replace(
        "networks: [near], count: 2}",
        "networks: [near], count: 2, routes: [{to: default, via: 10.30.2.1, mss: 1440}]}",
    ).replace(
        "networks: [far]}", "networks: [far], routes: [{to: default, via: 10.30.3.1, mss: 1440}]}"
    )  # fmt: skip
    with lab_up(text):
        lab = running_lab("tun")
        assert verify_lab(lab).passed
        assert inspect_lab(lab).deviations == ()
        run("ip route replace default via 10.30.2.1", netns="lvs-tun-rs1")
        assert [one.text for one in inspect_lab(lab).deviations] != []


LOCAL_NODE = """
    # client ── lan ── director (a real server too), rs1
    version: 1
    name: local
    networks:
      lan: {ipv4: 10.10.0.0/24, ipv6: 'fd00:10::/64'}
    nodes:
      client: {role: client, networks: [lan]}
      director: {role: director, networks: [lan]}
      rs1: {role: real-server, networks: [lan]}
    services:
      - {name: six, vip: 'fd00:10::100', port: 80, forward: dr, scheduler: rr,
         real_servers: [director, rs1]}
      - {name: web, vip: 10.10.0.100, port: 80, forward: dr, scheduler: rr,
         real_servers: [director, rs1]}
      - {name: far, vip: 10.10.0.101, port: 80, forward: tun, scheduler: rr,
         real_servers: [director, rs1]}
"""


def test_a_director_may_be_a_real_server_too() -> None:
    with lab_up(textwrap.dedent(LOCAL_NODE)):
        lab = running_lab("local")
        found = verify_lab(lab)
        assert found.passed, found
        assert "0 forwarded" in found.finding("local.delivered-at-director", "far").observed
        assert inspect_lab(lab).deviations == ()
        run("ipvsadm -D -t 10.10.0.100:80", netns="lvs-local-director")
        assert [cause.fault for cause in diagnose_lab(lab).causes] == ["service-missing"]
        director = netns.open_namespace("lvs-local-director")
    try:  # IPVS's route to its own IPv6 address would have kept the kernel waiting for `lan`
        assert netns.in_thread(lambda: _loopback_addresses(director)) == []
    finally:
        os.close(director)


def _loopback_addresses(namespace: int) -> list[str]:
    """The IPv6 addresses of a namespace's ``lo``: none where it is down."""
    with netns.enter(namespace):
        lines = Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
    return [line for line in lines if line.split()[-1] == "lo"]


def _sctp_checksum_ok(packet: bytes) -> bool:
    """Whether the CRC32c of an SCTP packet (RFC 9260, appendix A), padded by none, is right."""
    crc = 0xFFFFFFFF
    for byte in packet[:8] + bytes(4) + packet[12:]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF == int.from_bytes(packet[8:12], "little")


def test_run_starts_the_users_own_command() -> None:
    config = (
        "daemon off; pid /run/lvsctl-nginx.pid; error_log stderr; events {} "
        "http { access_log off; client_body_temp_path /tmp/nb; proxy_temp_path /tmp/np; "
        "fastcgi_temp_path /tmp/nf; uwsgi_temp_path /tmp/nu; scgi_temp_path /tmp/ns; "
        'server { listen 80; return 200 "nginx\\n"; } }'
    )
    Path("/tmp/lvsctl-nginx.conf").write_text(config, encoding="ascii")
    text = shipped.text_of("dr").replace(
        "count: 2}", "count: 1, run: [nginx, -e, stderr, -c, /tmp/lvsctl-nginx.conf]}"
    )
    before = initial_namespace()
    with lab_up(text) as lab:
        assert curl(lab, f"--retry-connrefused --retry 20 --retry-max-time 10 {url_of(lab)}") == (
            "nginx\n"
        )
        (listener,) = inspect_lab(lab, ["rs1"]).states["rs1"].listeners
        assert (listener.port, listener.process) == (80, "nginx")
    assert initial_namespace() == before


def test_the_responder_is_nobody() -> None:
    """It speaks with anybody's packets, and needs no right for it any more."""
    with lab_up("dr") as lab:
        responder = Path(f"/proc/{processes.daemons('dr')['responder']}")
        assert curl(lab, url_of(lab)).startswith("rs"), "from the first answer on"
        lines = (responder / "status").read_text().splitlines()
        status = {line.split(":")[0]: line.split(":")[1].split() for line in lines}
        assert set(status["Uid"]) == set(status["Gid"]) == {"65534"}
        assert status.get("Groups", []) == []
        assert {status[f"Cap{kind}"][0] for kind in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
        assert status["NoNewPrivs"] == ["1"]
