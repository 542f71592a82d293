"""`diagnose` on labs broken by hand: it names the cause, and its remedy repairs the lab.

Nothing here goes through lvsctl's own faults: the labs are broken with ip, sysctl, tc and
ipvsadm, as people break them, so that nothing can have been looked up.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from lvsctl.engine.findings import Diagnosis
from lvsctl.engine.inspect import diagnose_lab, verify_lab
from lvsctl.engine.up import bring_up
from lvsctl.kernel import processes
from lvsctl.model.lab import Lab
from lvsctl.topology import shipped
from tests.kernel.by_hand import eventually, run
from tests.kernel.labs import lab_up

pytestmark = pytest.mark.ipvs


class Break(NamedTuple):
    """A command at a node of a shipped topology, and the cause that it must come to."""

    topology: str
    at: str
    command: str
    fault: str
    node: str = ""

    def __str__(self) -> str:
        return f"{self.topology}:{self.fault}@{self.node or self.at}"


BREAKS = (
    # addresses and interfaces
    Break("dr", "rs1", "ip addr del 10.10.0.100/32 dev lo", "vip-missing"),
    Break("tun", "rs2", "ip addr del 10.30.1.100/32 dev tunl0", "vip-missing"),
    Break("dr", "director", "ip addr del 10.10.0.100/32 dev lan", "vip-missing-on-director"),
    Break("nat", "director", "ip addr del 10.20.0.100/32 dev public", "vip-missing-on-director"),
    Break("dr", "rs1", "ip addr del 10.10.0.100/32 dev lo; "
          "ip addr add 10.10.0.100/24 dev lo", "vip-as-subnet"),
    Break("dr", "client", "ip addr add 10.10.0.100/32 dev lo", "vip-elsewhere"),
    Break("dr", "rs1", "ip link set lan down", "real-server-down"),
    Break("nat", "rs2", "ip link set private down", "real-server-down"),
    Break("tun", "rs1", "ip link set near down", "real-server-down"),
    Break("dr", "lan", "ip link set rs1 down", "real-server-down", "rs1"),
    Break("dr", "rs2", "ip addr add 10.10.0.11/24 dev lan", "duplicate-address"),
    # the IPVS table
    Break("dr", "director", "ipvsadm -C", "service-missing"),
    Break("nat", "director", "ipvsadm -d -t "
          "10.20.0.100:80 -r 192.168.20.11:8080", "real-server-removed"),
    Break("tun", "director", "ipvsadm -e -t 10.30.1.100:80 "
          "-r 10.30.2.11:80 -i -w 0", "real-server-drained"),
    Break("dr", "director", "ipvsadm -e -t 10.10.0.100:80 "
          "-r 10.10.0.11:80 -g -w 0", "real-server-drained"),
    Break("nat", "director", "ipvsadm -d -t 10.20.0.100:80 -r 192.168.20.11:8080; "
          "ipvsadm -a -t 10.20.0.100:80 -r 192.168.20.11:80 -m", "wrong-port"),
    Break("nat", "director", "ipvsadm -d -t 10.20.0.100:80 -r 192.168.20.11:8080; "
          "ipvsadm -a -t 10.20.0.100:80 -r 192.168.20.11 -g", "wrong-forwarding-method"),
    Break("dr", "director", "ipvsadm -e -t "
          "10.10.0.100:80 -r 10.10.0.12:80 -m", "wrong-forwarding-method"),
    Break("tun", "director", "ipvsadm -e -t "
          "10.30.1.100:80 -r 10.30.2.12:80 -g", "wrong-forwarding-method"),
    Break("dr-weighted", "director", "ipvsadm -E -t 10.12.0.100:80 -s rr", "scheduler-changed"),
    Break("dr", "director", "ipvsadm -E -t 10.10.0.100:80 -s sh", "scheduler-changed"),
    Break("dr-weighted", "director", "ipvsadm -e -t 10.12.0.100:80 "
          "-r 10.12.0.11:80 -g -w 1", "weight-changed"),
    Break("nat", "director", "ipvsadm -E -t 10.20.0.100:80 -s rr -p 300", "persistence-added"),
    Break("dr", "director", "ipvsadm -a -t 10.10.0.100:80 -r 10.10.0.99 -g",
          "real-server-unknown"),
    Break("nat", "director", "ipvsadm -d -t 10.20.0.100:80 -r 192.168.20.11:8080; ipvsadm -a "
          "-t 10.20.0.100:80 -r 192.168.20.21:8080 -m", "real-server-misspelt"),
    Break("tun", "director", "for server in 2.11 2.12 3.11; do ipvsadm -e -t 10.30.1.100:80 "
          "-r 10.30.$server -i -w 0; done", "no-usable-real-server"),
    Break("dr", "director", "sysctl -w net.ipv4.vs.am_droprate=5 net.ipv4.vs.drop_packet=3",
          "drop-packet"),
    Break("tun-gre", "rs1", "ip addr del 10.40.1.100/32 dev gre0; ip link set gre0 down; ip link "
          "add g1 type gre local 10.40.2.11 remote 10.40.1.2 key 7; ip link set g1 up; "
          "ip addr add 10.40.1.100/32 dev g1", "tunnel-key"),
    # what was learnt before, and the client's ports
    Break("dr", "client", "ip neigh replace 10.10.0.100 lladdr 02:00:00:00:00:99 dev lan nud stale",
          "stale-vip-neighbour"),
    Break("nat", "director", "ip neigh replace 192.168.20.11 lladdr 02:00:00:00:00:99 "
          "dev private nud reachable", "stale-neighbour"),
    Break("dr", "client", "sysctl -w 'net.ipv4.ip_local_port_range=50000 50003'",
          "local-ports-exhausted"),
    # ARP
    Break("dr", "rs1", "sysctl -w net.ipv4.conf.all.arp_ignore=0", "arp-ignore-unset"),
    Break("dr-routed", "rs2", "sysctl -w net.ipv4.conf.all.arp_ignore=0", "arp-ignore-unset"),
    Break("dr", "rs2", "sysctl -w "
          "net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.lo.arp_ignore=1", "arp-ignore-on-lo-only"),
    Break("dr", "rs2", "sysctl -w net.ipv4.conf.all.arp_announce=0", "arp-announce-unset"),
    Break("dr-routed", "rs1", "sysctl -w net.ipv4.conf.all.arp_announce=1", "arp-announce-unset"),
    Break("dr", "rs1", "ip addr del 10.10.0.100/32 dev lo; "
          "ip addr add 10.10.0.100/32 dev lan", "vip-on-lan"),
    Break("dr", "director", "sysctl -w net.ipv4.conf.all.arp_ignore=8", "director-silent"),
    Break("dr", "client", "ip neigh replace 10.10.0.100 lladdr "
          "02:00:0a:0a:00:0b dev lan nud permanent", "stale-vip-neighbour"),
    Break("dr-routed", "router", "ip neigh replace 10.11.0.100 lladdr "
          "02:01:0a:0b:00:64 dev lan nud permanent", "stale-vip-neighbour"),
    Break("dr", "director", "ip neigh replace 10.10.0.11 lladdr "
          "02:01:0a:0a:00:0b dev lan nud permanent", "stale-neighbour"),
    Break("nat", "director", "ip neigh replace 192.168.20.11 lladdr "
          "02:01:0a:0a:00:0b dev private nud permanent", "stale-neighbour"),
    # ways
    Break("nat", "rs1", "ip route replace default via 192.168.20.12", "wrong-gateway"),
    Break("nat", "rs1", "ip route replace default via 192.168.20.99", "wrong-gateway"),
    Break("nat-one-arm", "rs1", "ip route replace default via 10.21.0.1", "wrong-gateway"),
    Break("nat", "rs2", "ip route del default", "no-default-gateway"),
    Break("tun", "rs1", "ip route del default", "no-default-gateway"),
    Break("dr-routed", "rs1", "ip route del default", "no-default-gateway"),
    Break("dr-routed", "rs1", "ip route replace default via 10.11.0.2", "gateway-is-director"),
    Break("dr", "rs1", "ip route add 10.10.0.10/32 via 10.10.0.2", "gateway-is-director"),
    Break("nat", "director", "sysctl -w net.ipv4.ip_forward=0", "ip-forward-off"),
    Break("nat-one-arm", "director", "sysctl -w net.ipv4.ip_forward=0", "ip-forward-off"),
    Break("dr-routed", "router", "sysctl -w net.ipv4.ip_forward=0", "router-not-forwarding"),
    Break("tun", "router", "sysctl -w net.ipv4.ip_forward=0", "router-not-forwarding"),
    Break("nat-one-arm", "director", "sysctl "
          "-w net.ipv4.conf.all.send_redirects=1", "redirects-sent"),
    Break("tun", "director", "ip route del default", "no-route-to-real-server"),
    Break("dr-routed", "director", "ip route add 10.11.0.11/32 via 10.11.0.1", "behind-router"),
    Break("dr-routed", "router", "ip route add 10.11.0.100/32 via 10.11.0.12", "director-bypassed"),
    Break("tun", "router", "sysctl -w net.ipv4.conf.all.rp_filter=1", "rp-filter-on-router"),
    Break("dr-routed", "client", "ip route del default", "no-route"),
    Break("dr", "rs1", "ip route add blackhole 10.10.0.10/32", "packets-refused"),
    Break("nat", "client", "ip route add unreachable 10.20.0.100/32", "packets-refused"),
    Break("tun", "router", "ip route add blackhole 10.30.2.11/32", "packets-refused"),
    # links
    Break("dr", "rs1", "ip link set lan arp off", "arp-off"),
    Break("dr", "director", "ip link set lan arp off", "arp-off"),
    Break("dr", "director", "ip link set lan mtu 500", "mtu-mismatch"),
    Break("dr", "rs1", "tc qdisc add dev lan root netem loss 100%", "link-impaired"),
    Break("dr-routed", "router", "ip link set lan down; ip link set lan name eth7; "
          "ip link set eth7 up", "interface-renamed"),
    Break("tun", "far", "ip link set router mtu 1400", "mtu-on-switch"),
    # tunnels
    Break("tun", "rs1", "ip link set tunl0 down", "tunnel-down"),
    Break("tun", "rs2", "sysctl -w net.ipv4.conf.tunl0.rp_filter=1", "rp-filter-on-tunnel"),
    Break("tun", "rs-far", "sysctl -w net.ipv4.conf.all.rp_filter=1", "rp-filter-on-tunnel"),
    Break("tun", "director", "sysctl -w net.ipv4.vs.pmtu_disc=0", "pmtu-discovery-off"),
    Break("tun", "router", "tc qdisc add dev hub clsact; "
          "tc filter add dev hub ingress protocol ip u32 match ip protocol 1 0xff action drop",
          "icmp-filtered"),
    Break("tun", "director", "sysctl -qw net.ipv4.ip_default_ttl=1", "ttl-expired"),
    Break("tun", "router", "tc qdisc add dev hub clsact; "
          "tc filter add dev hub ingress protocol ip u32 match ip protocol 4 0xff action drop",
          "tunnel-filtered"),
    Break("dr", "rs1", "tc qdisc add dev lan clsact; "
          "tc filter add dev lan ingress protocol ip u32 match ip protocol 6 0xff action drop",
          "packets-filtered"),
)  # fmt: skip

VIP_ON_DUMMY = (
    "ip addr del 10.10.0.100/32 dev lo; ip link add dummy7 type dummy;"
    " ip link set dummy7 up; ip addr add 10.10.0.100/32 dev dummy7"
)

HARMLESS = (
    ("dr", "rs1", "ip link set lan mtu 500"),
    ("dr", "rs1", "ip addr add 10.99.0.1/24 dev lan"),
    ("dr", "rs1", "ip route add 10.98.0.0/16 via 10.10.0.12"),
    ("dr", "rs1", "sysctl -w net.ipv4.conf.all.arp_ignore=2"),
    ("dr", "rs1", "sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.lan.arp_ignore=1"),
    ("dr", "rs2", "sysctl -w net.ipv4.conf.all.rp_filter=1 net.ipv4.ip_forward=1"),
    ("dr", "director", "sysctl -w net.ipv4.ip_forward=1"),
    ("dr", "rs1", VIP_ON_DUMMY),
    ("dr", "director", "ipvsadm -E -t 10.10.0.100:80 -s wrr"),
    ("dr", "director", "ipvsadm -A -t 10.10.0.100:8888 -s rr"),
    ("tun", "rs1", "sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0"),
    ("tun", "rs1", "sysctl -w net.ipv4.conf.tunl0.rp_filter=2"),
    ("nat", "rs1", "ip addr add 10.20.0.100/32 dev lo"),
    # All of the network is local to rs2 then, but neither the client nor the way to it is in it.
    ("dr-routed", "rs2", "ip addr del 10.11.0.100/32 dev lo; ip addr add 10.11.0.100/24 dev lo"),
    ("nat", "rs1", "sysctl -w net.ipv4.conf.all.arp_ignore=1"),
    ("nat", "client", "ip route add 10.77.0.0/16 via 10.20.0.2"),
)

PAIRS = (
    ("dr", (("rs1", "ip addr del 10.10.0.100/32 dev lo", "vip-missing"),
            ("rs2", "sysctl -w net.ipv4.conf.all.arp_ignore=0", "arp-ignore-unset"))),
    ("nat", (("rs1", "ip route replace default via 192.168.20.12", "wrong-gateway"),
             ("director", "sysctl -w net.ipv4.ip_forward=0", "ip-forward-off"))),
    ("tun", (("rs1", "ip link set tunl0 down", "tunnel-down"),
             ("rs2", "sysctl -w net.ipv4.conf.all.rp_filter=1", "rp-filter-on-tunnel"))),
    ("tun", (("rs1", "ip addr del 10.30.1.100/32 dev tunl0", "vip-missing"),
             ("director", "ipvsadm -e -t 10.30.1.100:80 -r 10.30.2.12:80 -i -w 0",
              "real-server-drained"))),
    ("dr-routed", (("router", "sysctl -w net.ipv4.ip_forward=0", "router-not-forwarding"),
                   ("rs1", "sysctl -w net.ipv4.conf.all.arp_announce=0", "arp-announce-unset"))),
)  # fmt: skip


def shell(command: str, netns: str) -> None:
    type_in(f"ip netns exec {netns} sh -ec {shlex.quote(command)}")


def type_in(command: str) -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        ["sh", "-ec", command],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def break_lab(lab: Lab, node: str, command: str) -> None:
    shell(command, lab.netns(node))


def follow(remedy: str, lab: Lab) -> None:
    """Type the remedy as it stands: `lvsctl exec LAB/NODE -- …` is `ip netns exec …`."""
    if remedy.startswith("lvsctl up"):
        bring_up(topology_of(lab))
    else:
        type_in(re.sub(r"lvsctl exec (\S+)/(\S+) --", r"ip netns exec lvs-\1-\2", remedy))


def topology_of(lab: Lab) -> shipped.Topology:
    return shipped.Topology(lab.name, shipped.text_of(lab.name).encode())


def told(result: Diagnosis) -> list[tuple[str, str]]:
    return [(cause.fault, cause.node) for cause in result.causes]


def some_of(rows: Sequence[Any]) -> list[Any]:
    """``rows``, seven of eight only in `make test-all`: each takes ten seconds."""
    return [
        pytest.param(*(row if type(row) is tuple else (row,)), marks=pytest.mark.exhaustive)
        if number % 8
        else row
        for number, row in enumerate(rows)
    ]


ALWAYS = ("dr", "nat-one-arm", "tun-6in4")
"""The labs of the others are brought up and verified by test_labs; the fault matrix does both."""


@pytest.mark.parametrize(
    "name",
    [n if n in ALWAYS else pytest.param(n, marks=pytest.mark.exhaustive) for n in shipped.names()],
)
def test_a_healthy_lab_has_no_cause(name: str) -> None:
    with lab_up(name) as lab:
        result = diagnose_lab(lab)
        assert result.healthy, result
        assert not result.remarks
        assert diagnose_lab(lab).healthy, "and looking at it changes nothing"


@pytest.mark.parametrize("one", some_of(BREAKS), ids=str)
def test_a_broken_lab_is_named_first_and_the_remedy_mends_it(one: Break) -> None:
    with lab_up(one.topology) as lab:
        break_lab(lab, one.at, one.command)
        result = diagnose_lab(lab)
        assert told(result)[:1] == [(one.fault, one.node or one.at)]
        assert told(result)[1:] == [], "one mistake, one cause"
        assert all(cause.evidence and cause.remedy for cause in result.causes)
        follow(result.causes[0].remedy, lab)
        repaired = diagnose_lab(lab)
        assert repaired.healthy, (told(repaired), repaired.next_steps)


@pytest.mark.parametrize(
    ("sent", "undo", "fault"),
    [
        (signal.SIGKILL, None, "service-stopped"),
        (signal.SIGSTOP, signal.SIGCONT, "process-stopped"),
    ],
)
def test_servers_that_ended_or_hang(sent: int, undo: int | None, fault: str) -> None:
    with lab_up("dr") as lab:
        pid = processes.daemons("dr")["responder"]
        os.kill(pid, sent)
        try:
            assert told(diagnose_lab(lab)) == [(fault, "rs1"), (fault, "rs2")]
        finally:
            if undo is not None:
                os.kill(pid, undo)
        bring_up(topology_of(lab))
        assert diagnose_lab(lab).healthy


SLOW = """
version: 1
name: slow
networks:
  lan: {ipv4: 10.60.0.0/24}
nodes:
  client:   {role: client,      networks: [lan]}
  director: {role: director,    networks: [lan]}
  rs1:      {role: real-server, networks: [lan]}
  rs2:
    role: real-server
    networks: [lan]
    run: |
      exec python3 -c '
      import _thread, socket, time
      def answer(taken):
          taken.recv(999)
          time.sleep(4)
          taken.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
          taken.close()
      asked = socket.create_server(("", 80), backlog=99)
      while True:
          _thread.start_new_thread(answer, (asked.accept()[0],))'
services:
  - {name: web, vip: 10.60.0.100, port: 80, forward: dr, scheduler: rr, real_servers: [rs1, rs2]}
"""


def test_a_slow_server_is_told_from_one_that_never_answers() -> None:
    with lab_up(SLOW) as lab:
        eventually(lambda: "LISTEN" in run("ss -tln sport = 80", netns=lab.netns("rs2")))
        result = diagnose_lab(lab)
        assert told(result) == [("server-slow", "rs2")]
        assert "answers after 4." in result.causes[0].text


def test_a_dead_real_server_is_noticed_however_often_one_asks() -> None:
    """Under wlc its half-open connections would keep it from being chosen again."""
    with lab_up("dr", scheduler="wlc", servers=3) as lab:
        break_lab(lab, "rs3", "tc qdisc add "
                  "dev lan clsact && tc filter add dev lan ingress protocol ip "
                  "u32 match ip protocol 6 0xff action drop")  # fmt: skip
        for _ in range(3):
            assert not verify_lab(lab).finding("all.real-servers-reached")
        assert told(diagnose_lab(lab))[0][1] == "rs3"


@pytest.mark.parametrize(("name", "node", "command"), some_of(HARMLESS), ids=lambda word: word[:60])
def test_a_difference_that_does_no_harm_is_no_cause(name: str, node: str, command: str) -> None:
    with lab_up(name) as lab:
        break_lab(lab, node, command)
        result = diagnose_lab(lab)
        assert (told(result), result.works) == ([], True), result.next_steps


@pytest.mark.parametrize(("name", "breaks"), PAIRS, ids=lambda word: str(word)[:60])
def test_two_causes_are_both_named(name: str, breaks: tuple[tuple[str, str, str], ...]) -> None:
    with lab_up(name) as lab:
        for node, command, _ in breaks:
            break_lab(lab, node, command)
        result = diagnose_lab(lab)
        assert set(told(result)) == {(fault, node) for node, _, fault in breaks}
