"""The kernel's IPVS, configured and read by us, held against ipvsadm.

client 10.1.0.2 ── 10.1.0.1 director 10.2.0.1 ── 10.2.0.2 server
                    VIP 10.1.0.100 (nat)
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lvsctl.errors import KernelError
from lvsctl.kernel import netns, state
from lvsctl.model.ipvs_sysctls import IPVS_SYSCTLS, normal
from lvsctl.model.service import (
    GUE_PORT,
    Encapsulation,
    ForwardingMethod,
    FwMark,
    IpvsTimeouts,
    Protocol,
    RealServer,
    Scheduler,
    TunnelChecksum,
    VipPort,
)
from lvsctl.model.state import Connection, Counters
from lvsctl.netlink import ipvs, ipvs_config, sockets
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from tests.kernel.by_hand import cable, eventually, namespaces, process, run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.ipvs

WEB = VipPort(Protocol.TCP, ip_address("10.1.0.100"), 80)
DNS = VipPort(Protocol.UDP, ip_address("10.1.0.100"), 53)
SIP = VipPort(Protocol.SCTP, ip_address("10.1.0.100"), 5060)
WEB6 = VipPort(Protocol.TCP, ip_address("fd01::64"), 80)

ECHO = """
import socket, sys
servers = socket.create_server(("10.2.0.2", 8080))
print("ready", flush=True)
while True:
    one, _ = servers.accept()
    while data := one.recv(65536):
        one.sendall(data)
    one.close()
"""


@contextlib.contextmanager
def inside(name: str) -> Iterator[socket.socket]:
    """A generic netlink socket of the namespace."""
    sock = netns.run_inside(name, lambda: sockets.open_socket(sockets.GENERIC))
    with sock:
        yield sock


@pytest.fixture
def director() -> Iterator[str]:
    with namespaces("director") as (name,):
        yield name


def add_service(key: VipPort, scheduler: Scheduler, persistence: int = 0) -> IpvsService:
    return IpvsService(netns="", service=key, scheduler=scheduler, persistence=persistence)


def add_server(
    key: VipPort,
    rip: str,
    port: int,
    forward: ForwardingMethod,
    weight: int = 1,
    upper: int = 0,
    lower: int = 0,
) -> IpvsRealServer:
    server = RealServer("rs", ip_address(rip), port, weight, upper, lower, forward=forward)
    return IpvsRealServer(netns="", service=key, real_server=server)


NAT, TUN, DR = ForwardingMethod.NAT, ForwardingMethod.TUN, ForwardingMethod.DR
OPS: tuple[IpvsService | IpvsRealServer, ...] = (
    add_service(WEB, Scheduler.WRR, persistence=300),
    add_server(WEB, "10.2.0.9", 8080, NAT, weight=3, upper=20, lower=10),
    add_server(WEB, "10.2.0.3", 80, TUN, weight=0),
    add_server(WEB, "10.2.0.5", 80, DR),
    add_service(DNS, Scheduler.SH),
    add_service(SIP, Scheduler.LC),
    add_server(SIP, "10.2.0.2", 5060, DR),
    add_service(WEB6, Scheduler.WLC, persistence=60),
    add_server(WEB6, "fd02::2", 80, DR, weight=65535),
)


def configure(sock: socket.socket, *ops: IpvsService | IpvsRealServer) -> None:
    family = ipvs.family_id(sock)
    for op in ops:
        sockets.request(sock, ipvs.add_message(op, family))


def rules(name: str) -> list[str]:
    """`ipvsadm -Sn`: one line for each service and real server, tunnel types left out."""
    text = run("ipvsadm -Sn", netns=name)
    return sorted(re.sub(r" --tun-type ipip$", "", line) for line in text.splitlines())


def expected_rules(ops: tuple[IpvsService | IpvsRealServer, ...]) -> list[str]:
    """The words of the commands of ``ops``, without what -S does not print (thresholds)."""
    lines = [" ".join(command.argv[1:]) for op in ops for command in op.commands()]
    return sorted(re.sub(r" -[xy] \d+", "", line) for line in lines)


def test_what_we_configure_is_what_ipvsadm_saves(director: str) -> None:
    with inside(director) as sock:
        configure(sock, *OPS)
    assert rules(director) == expected_rules(OPS)
    assert re.search(r"10\.2\.0\.9:8080 +20 +10 ", run("ipvsadm -Ln --thresholds", netns=director))


def test_what_we_read_is_what_was_configured(director: str) -> None:
    """Services by VIP and port; real servers in the order in which they were added."""
    with inside(director) as sock:
        configure(sock, *OPS)
        found = ipvs.services(sock)
    assert [one.match for one in found] == [DNS, WEB, SIP, WEB6]
    assert [one.scheduler for one in found] == ["sh", "wrr", "lc", "wlc"]
    assert [one.persistence for one in found] == [0, 300, 0, 60]
    web = [(s.rip, s.port, s.forward, s.weight, s.upper, s.lower) for s in found[1].real_servers]
    assert web == [
        (ip_address("10.2.0.9"), 8080, NAT, 3, 20, 10),
        (ip_address("10.2.0.3"), 80, TUN, 0, 0, 0),
        (ip_address("10.2.0.5"), 80, DR, 1, 0, 0),
    ]
    assert found[0].real_servers == ()
    assert found[3].real_servers[0].weight == 65535


def test_what_ipvsadm_configures_is_read(director: str) -> None:
    """Services by firewall mark too."""
    run("ipvsadm -A -t 10.1.0.100:80 -s rr", netns=director)
    run("ipvsadm -a -t 10.1.0.100:80 -r 10.2.0.2:80 -i -w 5", netns=director)
    run("ipvsadm -A -f 7 -s rr", netns=director)
    with inside(director) as sock:
        by_match = {found.match: found for found in ipvs.services(sock)}
    assert set(by_match) == {WEB, FwMark(7, 4)}
    servers = by_match[WEB].real_servers
    assert [(server.forward, server.weight) for server in servers] == [(TUN, 5)]


def test_replacing_changes_and_does_not_delete(director: str) -> None:
    changed = (
        add_service(WEB, Scheduler.RR),
        add_server(WEB, "10.2.0.9", 8080, NAT, weight=7),
        add_server(WEB, "10.2.0.3", 80, DR, weight=2),
    )
    with inside(director) as sock:
        configure(sock, *OPS[:3])
        family = ipvs.family_id(sock)
        for op in changed:
            sockets.request(sock, ipvs.add_message(op, family, replace=True))
    assert rules(director) == expected_rules(changed)


def test_deleting(director: str) -> None:
    with inside(director) as sock:
        configure(sock, *OPS)
        family = ipvs.family_id(sock)
        for op in (OPS[1], OPS[7], OPS[5]):
            sockets.request(sock, ipvs.delete_message(op, family))
    left = (OPS[0], OPS[2], OPS[3], OPS[4])
    assert rules(director) == expected_rules(left)


@pytest.mark.parametrize(
    ("encapsulation", "checksum", "typed"),
    [
        (Encapsulation.IPIP, TunnelChecksum.NONE, "--tun-type ipip"),
        (Encapsulation.GRE, TunnelChecksum.NONE, "--tun-type gre"),
        (Encapsulation.GRE, TunnelChecksum.FULL, "--tun-type gre --tun-csum"),
        (Encapsulation.GUE, TunnelChecksum.NONE, "--tun-type gue --tun-port 6080"),
        (Encapsulation.GUE, TunnelChecksum.REMOTE, "--tun-type gue --tun-port 6080 --tun-remcsum"),
    ],
)
def test_encapsulations(
    director: str, encapsulation: Encapsulation, checksum: TunnelChecksum, typed: str
) -> None:
    port = GUE_PORT if encapsulation is Encapsulation.GUE else 0
    server = RealServer(
        "rs",
        ip_address("10.2.0.2"),
        80,
        forward=TUN,
        encapsulation=encapsulation,
        tunnel_port=port,
        checksum=checksum,
    )
    op = IpvsRealServer(
        netns="",
        service=WEB,
        real_server=server,
    )
    with inside(director) as sock:
        configure(sock, add_service(WEB, Scheduler.RR), op)
        ((found,),) = (service.real_servers for service in ipvs.services(sock))
    assert f"-i -w 1 {typed}" in run("ipvsadm -Sn", netns=director)
    assert (found.encapsulation, found.tunnel_port) == (encapsulation, port)
    assert found.tunnel_flags == checksum.flags


def test_refusals_carry_the_errno(director: str) -> None:
    with inside(director) as sock:
        configure(sock, OPS[0])
        with pytest.raises(KernelError, match="File exists") as refused:
            configure(sock, OPS[0])
        assert refused.value.errno == 17
        with pytest.raises(KernelError):
            configure(sock, OPS[6])  # its service is not there
        assert len(ipvs.services(sock)) == 1  # the socket still works


def test_timeouts(director: str) -> None:
    with inside(director) as sock:
        ipvs_config.set_timeouts(sock, IpvsTimeouts(tcp=100, tcp_fin=0, udp=50))
        found = ipvs_config.timeouts(sock)
    assert (found.tcp, found.udp) == (100, 50)
    printed = run("ipvsadm -L --timeout", netns=director)
    assert printed.split(":")[1].split() == [str(t) for t in (found.tcp, found.tcp_fin, found.udp)]


def test_many_real_servers_come_in_order(director: str) -> None:
    """A dump that takes several reads."""
    addresses = [f"10.3.{i // 250}.{i % 250 + 1}" for i in range(1000)]
    with inside(director) as sock:
        configure(sock, add_service(WEB, Scheduler.RR))
        configure(sock, *(add_server(WEB, rip, 80, DR) for rip in addresses))
        (found,) = ipvs.services(sock)
    assert [str(server.rip) for server in found.real_servers] == addresses


@pytest.fixture
def nat() -> Iterator[tuple[str, str]]:
    """The drawing above, the server echoing: the client's and the director's namespace."""
    with namespaces("client", "director", "server") as (client, director, server):
        cable(client, "front", director, "front")
        cable(director, "back", server, "back", index=20)
        run(f"ip -n {client} addr add 10.1.0.2/24 dev front")
        run(f"ip -n {director} addr add 10.1.0.1/24 dev front")
        run(f"ip -n {director} addr add 10.1.0.100/32 dev front")
        run(f"ip -n {director} addr add 10.2.0.1/24 dev back")
        run(f"ip -n {server} addr add 10.2.0.2/24 dev back")
        run(f"ip -n {server} route add default via 10.2.0.1")
        run("sysctl -qw net.ipv4.ip_forward=1", netns=director)
        with inside(director) as sock:
            configure(sock, add_service(WEB, Scheduler.RR), add_server(WEB, "10.2.0.2", 8080, NAT))
        with process(f"{sys.executable} -c '{ECHO}'", netns=server):
            yield client, director


def connected(client: str) -> socket.socket:
    def connect() -> socket.socket:
        return socket.create_connection((str(WEB.vip), WEB.port), timeout=10)

    return netns.run_inside(client, connect)


def test_counters_and_connections(nat: tuple[str, str]) -> None:
    """While one connection is open and after another was closed, as ipvsadm counts them."""
    client, director = nat
    with connected(client) as one:
        one.sendall(b"closed")
        assert one.recv(100) == b"closed"
    with connected(client) as held:
        held.sendall(b"x" * 5000)
        received = 0
        while received < 5000:
            received += len(held.recv(65536))
        port = held.getsockname()[1]
        eventually(lambda: total(director).bytes_out > 5000)  # added up every two seconds
        found = state.node_state(director, director=True)
        stats = run("ipvsadm -Ln --stats --exact", netns=director)
        table = run("ipvsadm -Lnc", netns=director)
        listed = run("ipvsadm -Ln", netns=director)

    (web,) = found.services
    (server,) = web.real_servers
    assert web.counters.connections == 2
    assert web.counters.bytes_in > 5000
    assert web.counters.bytes_out > 5000
    assert counters_in(stats, "TCP") == web.counters
    assert counters_in(stats, "->") == server.counters
    active, inactive = listed.splitlines()[-1].split()[-2:]
    assert (server.active, server.inactive) == (int(active), int(inactive)) == (1, 1)

    assert len(found.connections) == 2
    (live,) = [one for one in found.connections if one.client_port == port]
    assert live == Connection(
        protocol=Protocol.TCP,
        client=ip_address("10.1.0.2"),
        client_port=port,
        vip=WEB.vip,
        vport=80,
        rip=ip_address("10.2.0.2"),
        rport=8080,
        state="ESTABLISHED",
        expires=live.expires,
    )
    assert 0 < live.expires <= 900
    theirs = [line.split() for line in table.splitlines()[2:]]
    ours = [
        ["TCP", c.state, f"{c.client}:{c.client_port}", f"{c.vip}:{c.vport}", f"{c.rip}:{c.rport}"]
        for c in found.connections
    ]
    assert sorted(ours) == sorted([words[0], *words[2:]] for words in theirs)
    assert "net.ipv4.vs.conntrack" in found.sysctls


def test_zero(nat: tuple[str, str]) -> None:
    client, director = nat
    with connected(client) as one:
        one.sendall(b"x")
        one.recv(1)
    eventually(lambda: total(director).connections == 1)
    with inside(director) as sock:
        ipvs.zero(sock, WEB)
        (web,) = ipvs.services(sock)
        assert web.counters.connections == 0
        assert web.real_servers[0].counters.connections == 0
        ipvs.zero(sock)


def total(director: str) -> Counters:
    with inside(director) as sock:
        return ipvs.services(sock)[0].counters


def counters_in(stats: str, first: str) -> Counters:
    """The last line of `ipvsadm -Ln --stats --exact` that begins with ``first``."""
    line = [words for words in map(str.split, stats.splitlines()) if words[:1] == [first]][-1]
    return Counters(*map(int, line[-5:]))


def test_every_sysctl_of_this_kernels_ipvs_has_a_meaning() -> None:
    with namespaces("director") as (director,):
        found = run("grep -r . /proc/sys/net/ipv4/vs", netns=director).splitlines()
    values = dict(line.rpartition("/")[2].split(":", 1) for line in found)
    assert "conntrack" in values
    assert values.keys() <= IPVS_SYSCTLS.keys()
    wrong = {n: v for n, v in values.items() if IPVS_SYSCTLS[n].default not in ("", normal(v))}
    assert not wrong


def test_every_option_of_ipvsadm_is_on_its_page() -> None:
    with namespaces("director") as (director,):
        told = run("ipvsadm --help", netns=director)
    options = set(re.findall(r"(?<![\w-])--?[a-zA-Z0-9][\w-]*", told.partition("Commands:")[2]))
    assert "--scheduler" in options
    page = Path(__file__).parents[2] / "docs" / "ipvs-options.md"
    known = set(re.findall(r"`(--?[a-zA-Z0-9][\w-]*)`", page.read_text()))
    assert options - known == set()
