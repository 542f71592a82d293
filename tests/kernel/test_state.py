"""Snapshots of namespaces, held against ip, tc, ss and sysctl."""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import suppress
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lvsctl.errors import LabError
from lvsctl.kernel import fresh, netns, state
from lvsctl.model.lab import Impairment
from lvsctl.model.service import Protocol
from lvsctl.model.state import ListenerState, NeighbourState, RouteState
from lvsctl.netlink import devconf, tcp_metrics
from tests.kernel.by_hand import (
    FALLBACK_DEVICES,
    cable,
    descriptors,
    eventually,
    ip_json,
    namespaces,
    process,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = """
import os, socket, sys, time
held = []
for family, kind, address in (
    (socket.AF_INET, socket.SOCK_STREAM, ("10.1.0.1", 80)),
    (socket.AF_INET, socket.SOCK_STREAM, ("0.0.0.0", 8080)),
    (socket.AF_INET6, socket.SOCK_STREAM, ("::", 8081)),
    (socket.AF_INET, socket.SOCK_DGRAM, ("10.1.0.1", 53)),
):
    one = socket.socket(family, kind)
    one.bind(address)
    if kind == socket.SOCK_STREAM:
        one.listen()
    held.append(one)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    """One namespace with a bit of everything.

    far ── lan (10.1.0.1/24, fd01::1/64) node
           br ── port ── elsewhere
    """
    with namespaces("node", "far") as (one, far):
        run(f"ip netns exec {one} sysctl -qw net.ipv6.conf.all.forwarding=1")
        cable(one, "lan", far, "lan")
        run(f"ip -n {one} link set lan mtu 1400")
        for address in ("10.1.0.1/24", "10.1.0.7/32", "fd01::1/64 nodad"):
            run(f"ip -n {one} addr add {address} dev lan")
        run(f"ip -n {far} addr add 10.1.0.2/24 dev lan")
        run(f"ip -n {one} link add name br type bridge")
        cable(one, "port", far, "elsewhere", index=20)
        run(f"ip -n {one} link set port master br")
        for route in (
            "default via 10.1.0.2",
            "10.2.0.0/16 via 10.1.0.2",
            "10.3.0.0/16 nexthop via 10.1.0.2 nexthop via 10.1.0.3",
            "10.4.0.0/16 dev lan",
            "10.5.0.0/16 via inet6 fd01::2 dev lan",
            "blackhole 10.6.0.0/16",
            "10.7.0.0/16 via 10.1.0.2 table 100",
        ):
            run(f"ip -n {one} route add {route}")
        run(f"ip -n {one} -6 route add default via fd01::2")
        run(f"ip -n {one} -6 route add fd02::/64 nexthop via fd01::2 nexthop via fd01::3")
        run(f"ip -n {one} neigh add 10.1.0.2 lladdr 02:00:0a:01:00:02 dev lan nud permanent")
        run(f"ip -n {one} neigh add 10.1.0.3 lladdr 02:00:0a:01:00:03 dev lan nud stale")
        run(f"ip -n {one} neigh add fd01::2 lladdr 02:00:0a:01:00:04 dev lan nud permanent")
        yield one


def test_links_are_those_of_ip(node: str) -> None:
    found = state.node_state(node)
    theirs = {link["ifname"]: link for link in ip_json(node, "-d address show")}
    assert [link.name for link in found.links] == list(theirs)
    for link in found.links:
        their = theirs[link.name]
        assert link.index == their["ifindex"]
        assert link.kind == their.get("linkinfo", {}).get("info_kind", "")
        has_mac = their["link_type"] in {"ether", "loopback"}  # others' addresses are no MACs
        assert link.mac == (their["address"] if has_mac else "")
        assert link.mtu == their["mtu"]
        assert link.up == ("UP" in their["flags"])
        if link.up:  # ip says nothing about the carrier of a device that is down
            assert link.carrier == ("LOWER_UP" in their["flags"])
        assert link.master == their.get("master", "")
        assert link.impairment == Impairment()
        assert sorted(map(str, link.addresses)) == sorted(
            str(ip_interface(f"{one['local']}/{one['prefixlen']}")) for one in their["addr_info"]
        )
    lan = found.link("lan")
    assert lan is not None
    assert lan.mtu == 1400
    assert ip_interface("10.1.0.7/32") in lan.addresses


def test_routes_are_those_of_ip(node: str) -> None:
    found = [one._replace(details=()) for one in state.node_state(node).routes]
    theirs = [
        route
        for version in (4, 6)
        for entry in ip_json(node, f"-{version} route show table main")
        for route in routes_of(entry, version)
    ]
    assert sorted(map(repr, found)) == sorted(map(repr, theirs))
    via = ip_address("10.1.0.2")
    assert RouteState(to=None, via=via, device="lan", kernel=False) in found
    assert sum(route.to == ip_network("10.3.0.0/16") for route in found) == 2
    assert not any(route.to == ip_network("10.7.0.0/16") for route in found)


def routes_of(entry: dict[str, Any], version: int) -> Iterator[RouteState]:
    """An entry of `ip -j route`, one for each next hop."""
    to = None if entry["dst"] == "default" else ip_network(entry["dst"])
    kernel = entry.get("protocol") == "kernel"
    hops = entry.get("nexthops", [entry])
    for hop in hops:
        gateway = hop.get("gateway") or hop.get("via", {}).get("host")
        via = ip_address(gateway) if gateway else None
        yield RouteState(
            to=to,
            via=via,
            device=hop.get("dev", ""),
            kernel=kernel,
            type=entry.get("type", "unicast"),
            metric=entry.get("metric", 0),
            version=version,
            hops=len(hops),
            weight=hop.get("weight", 1),
        )


def test_neighbours_are_those_of_ip(node: str) -> None:
    """Retried: entries age while we look."""
    eventually(lambda: neighbours_by_ip(node) == set(state.node_state(node).neighbours))
    found = {(str(one.address), one.mac) for one in state.node_state(node).neighbours}
    assert ("10.1.0.2", "02:00:0a:01:00:02") in found
    assert ("10.1.0.3", "02:00:0a:01:00:03") in found
    assert ("fd01::2", "02:00:0a:01:00:04") in found


def neighbours_by_ip(node: str) -> set[NeighbourState]:
    return {
        NeighbourState(
            address=ip_address(entry["dst"]),
            device=entry["dev"],
            mac=entry.get("lladdr", ""),
            state=entry["state"][0].lower(),
        )
        for entry in ip_json(node, "neigh show")
    }


def test_sysctls_are_those_of_sysctl(node: str) -> None:
    run(f"ip netns exec {node} sysctl -qw net.ipv4.conf.lan.arp_ignore=1")
    found = state.node_state(node, sysctls=(*state.INSPECTED_SYSCTLS, "net.ipv4.no_such_key"))
    assert found.sysctls["net.ipv4.conf.lan.arp_ignore"] == "1"
    assert found.sysctls["net.ipv4.conf.all.arp_ignore"] == "0"
    assert "net.ipv4.no_such_key" not in found.sysctls
    assert "net.ipv4.conf.port.rp_filter" not in found.sysctls  # a bridge's port has no IP
    for key, value in found.sysctls.items():
        assert run(f"sysctl -n {key}", netns=node).strip() == value


@pytest.mark.parametrize("kind", ["ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"])
@pytest.mark.parametrize("device", ["all", "default", "lan"])
def test_netlink_has_what_the_files_show(kind: str, device: str) -> None:
    """Each setting is changed in turn, so that none can be taken for another."""
    directory = Path("/proc/sys/net", kind, device)
    known = set()
    with namespaces("node", "far") as (node, far):
        cable(node, "lan", far, "lan")

        def compare() -> None:
            found = fresh.read_device_settings()
            for file in directory.iterdir():
                one = devconf.Setting(f"net.{kind.replace('/', '.')}", device, file.name)
                value = found.get(one)
                if value is not None:
                    assert value == file.read_text().strip(), file
                    known.add(file.name)

        def change_each() -> None:
            for file in sorted(directory.iterdir()) if directory.exists() else ():
                with suppress(OSError, ValueError):  # one that is only read, or no number
                    before = int(file.read_text())
                    file.write_text("0" if before == 1 else f"{before + 1}")
                    compare()
                    file.write_text(f"{before}")

        netns.run_inside(node, change_each)
    assert known >= KNOWN_TO_NETLINK.get((kind, device), set())


KNOWN_TO_NETLINK = {
    ("ipv4/conf", "lan"): {"arp_ignore", "arp_announce", "rp_filter", "forwarding", "proxy_arp"},
    ("ipv6/conf", "lan"): {"disable_ipv6", "forwarding", "mtu"},
    ("ipv4/neigh", "lan"): {"gc_stale_time", "locktime", "retrans_time_ms", "mcast_solicit"},
    ("ipv6/neigh", "lan"): {"gc_stale_time", "locktime", "retrans_time_ms", "mcast_solicit"},
    **{("ipv4/conf", device): {"forwarding", "rp_filter"} for device in ("all", "default")},
    **{("ipv6/conf", device): {"forwarding"} for device in ("all", "default")},
}


def test_a_dot_in_a_device_name() -> None:
    with namespaces("node") as (node,):
        run(f"ip -n {node} link add name eth0.5 type bridge")
        run("sysctl -qw net.ipv4.conf.eth0/5.rp_filter=2", netns=node)
        found = state.node_state(node, sysctls=["net.ipv4.conf.<dev>.rp_filter"]).sysctls
        assert found["net.ipv4.conf.eth0/5.rp_filter"] == "2"


@pytest.mark.parametrize("key", ["//.net.ipv4.ip_forward", "net.//.//.etc.passwd", ".etc.passwd"])
def test_a_sysctl_is_no_path(key: str) -> None:
    with pytest.raises(LabError, match="cannot be a sysctl's name"):
        state.sysctl_file(key)


def test_listeners_are_those_of_ss(node: str) -> None:
    """With the process that holds them, whether it is known beforehand or looked for."""
    with process(f"{sys.executable} -c '{SERVER}'", netns=node) as server:
        found = state.node_state(node).listeners
        likely = state.node_state(node, pids=[server.pid]).listeners
        theirs = run("ss -Hltnp", netns=node) + run("ss -Hlunp", netns=node)
    assert found == likely
    plain = [one._replace(queued=0, backlog=0, state="") for one in found]
    assert sorted(map(repr, plain)) == sorted(map(repr, map(listener_of, theirs.splitlines())))
    held = [one for one in found if one.pid]  # a kernel's own sockets are listed as well
    assert {(one.process[:6], one.pid) for one in held} == {("python", server.pid)}
    assert len(held) == 4


def listener_of(line: str) -> ListenerState:
    """A line of `ss -Hlnp`."""
    status, _, _, local, *_ = line.split()
    address, _, port = local.rpartition(":")
    name, pid = re.findall(r'"([^"]+)",pid=(\d+)', line)[0] if "pid=" in line else ("", 0)
    plain = address.strip("[]").partition("%")[0]
    return ListenerState(
        protocol=Protocol.TCP if status == "LISTEN" else Protocol.UDP,
        address=ip_address("::" if plain == "*" else plain),
        port=int(port),
        process=name,
        pid=int(pid),
    )


def test_the_whole_lab_at_once() -> None:
    """Every namespace in the order given, each with its own; nothing stays open."""
    before, home = descriptors(), Path("/proc/thread-self/ns/net").readlink()
    with namespaces(*(f"n{i}" for i in range(5))) as names:
        for i, name in enumerate(names):
            run(f"ip -n {name} addr add 10.9.0.{i + 1}/32 dev lo")
        found = state.lab_state(names)
    assert list(found) == list(names)
    for i, name in enumerate(names):
        lo = found[name].link("lo")
        assert lo is not None
        assert ip_interface(f"10.9.0.{i + 1}/32") in lo.addresses
    assert Path("/proc/thread-self/ns/net").readlink() == home
    assert descriptors() == before


def test_nothing_to_see() -> None:
    assert state.lab_state([]) == {}
    with namespaces("node") as (node,):
        found = state.node_state(node, sysctls=())
    assert {link.name for link in found.links} - FALLBACK_DEVICES == {"lo"}
    assert (found.neighbours, found.sysctls, found.services) == ((), {}, ())
    assert not any(listener.pid for listener in found.listeners)


def test_a_namespace_that_is_gone() -> None:
    before = descriptors()
    with namespaces("node") as (node,), pytest.raises(LabError, match="no-such-one"):
        state.lab_state([node, "no-such-one"])
    assert descriptors() == before


@pytest.mark.ipvs  # the development machines' own kernels lack netem and ipip, like IPVS
def test_impairments_and_tunnels() -> None:
    with namespaces("node", "far") as (node, far):
        wanted = {
            "a": ("delay 20ms", Impairment(delay=20)),
            "b": ("loss 1%", Impairment(loss=1)),
            "c": ("rate 10mbit", Impairment(rate=10_000_000)),
            "d": ("delay 0.25ms loss 0.1% rate 5gbit", Impairment(0.25, 0.1, 5_000_000_000)),
            "e": ("delay 5000ms loss 100%", Impairment(delay=5000, loss=100)),
            "f": (
                "delay 20ms 5ms reorder 25% duplicate 1.5% corrupt 0.1%",
                Impairment(20, jitter=5, reorder=25, duplicate=1.5, corrupt=0.1),
            ),
        }
        for i, (device, (words, _)) in enumerate(wanted.items()):
            cable(node, device, far, device, index=10 + i)
            run(f"tc -n {node} qdisc add dev {device} root netem {words}")
        cable(node, "z", far, "z", index=30)
        run(f"tc -n {node} qdisc add dev z root tbf rate 1mbit burst 32kbit latency 400ms")
        run(f"ip -n {node} link add tun9 type ipip local 10.0.0.1 remote 10.0.0.2")
        links = {link.name: link for link in state.node_state(node).links}
    for device, (_, impairment) in wanted.items():
        assert links[device].impairment == impairment
    assert links["z"].impairment == Impairment()
    assert (links["tun9"].kind, links["tun9"].mac, links["tun9"].up) == ("ipip", "", False)


CONNECT = """
import socket, sys
listening = socket.create_server(("10.1.0.1", 80)) if sys.argv[1:] == ["listen"] else None
print("ready", flush=True)
one = listening.accept()[0] if listening else socket.create_connection(("10.1.0.1", 80))
one.shutdown(socket.SHUT_WR)
one.recv(1)
one.close()
"""


@pytest.mark.ipvs  # netem, as above
def test_what_tcp_has_learnt_is_what_ip_prints() -> None:
    with namespaces("node", "far") as (node, far):
        cable(node, "lan", far, "lan")
        run(f"ip -n {node} addr add 10.1.0.1/24 dev lan")
        run(f"ip -n {far} addr add 10.1.0.2/24 dev lan")
        run(f"tc -n {node} qdisc add dev lan root netem delay 120ms")
        command = shlex.join([sys.executable, "-c", CONNECT])
        with process(f"{command} listen", netns=node):
            run(command, netns=far)
        (by_ip,) = re.findall(r"rtt (\d+)us", run(f"ip -n {far} tcp_metrics show"))
        (found,) = netns.run_inside(far, tcp_metrics.dump_tcp_metrics)
    assert (str(found.address), str(found.source)) == ("10.1.0.1", "10.1.0.2")
    assert found.rtt == int(by_ip) // 1000 >= 120
