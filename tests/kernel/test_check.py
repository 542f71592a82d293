"""Real hosts, asked by real ssh: a deployment that plain ip(8) made, with names of its own.

admin ─┬─ eth0 of each, 172.16.0.0/24 (sshd)
       │  svc0 10.10.0.10: a client
lb     │  svc0 10.10.0.2, VIP 10.10.0.100 on svc0
web1   │  svc0 10.10.0.11, VIP on vip0
web2   ┘  svc0 10.10.0.12, VIP on vip0
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lvsctl.engine.ask_hosts import Asked
from lvsctl.engine.check import check
from lvsctl.engine.findings import Check
from lvsctl.formats.hosts import document, reader
from lvsctl.kernel.probe import which
from lvsctl.plan import planner
from tests.kernel.by_hand import eventually, namespaces, process, run
from tests.kernel.labs import topology_of
from tests.witness import witness

pytestmark = pytest.mark.ipvs

SERVICE = {"lb": "10.10.0.2", "web1": "10.10.0.11", "web2": "10.10.0.12"}
MANAGEMENT = {"admin": 1, "lb": 2, "web1": 3, "web2": 4}


Done = subprocess.CompletedProcess[str]


class Site(NamedTuple):
    """The hosts' namespaces by name."""

    netns: Mapping[str, str]

    def type(self, host: str, command: str) -> None:
        """Type a command in a shell on a host."""
        words = ["ip", "netns", "exec", self.netns[host], "sh", "-ec", command]
        subprocess.run(words, check=True, capture_output=True, env=environment())

    def collected(self, *hosts: str) -> tuple[Asked, ...]:
        """What the hosts' scripts print, with no pause between readings of counters."""
        script = document.script().replace("sleep 2", ":")
        children = {
            host: subprocess.Popen(
                ["ip", "netns", "exec", self.netns[host], "sh", "-c", script],
                stdout=subprocess.PIPE,
                env=environment(),
            )
            for host in hosts or SERVICE
        }
        printed = {host: child.communicate()[0] for host, child in children.items()}
        return tuple(Asked(host, reader.read_host(text, host)) for host, text in printed.items())

    def check(self, *hosts: str) -> Check:
        """Compare the hosts with the topology that they were made after."""
        return check(planner.load_lab(topology_of("dr")), self.collected(*hosts))


def environment() -> dict[str, str]:
    """With the programs that `tools/setup witnesses` unpacked."""
    return {**os.environ, "PATH": f"{Path(witness('ipvsadm')).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def site(iptables: None) -> Iterator[Site]:
    with namespaces("switch", *MANAGEMENT) as (switch, *names), contextlib.ExitStack() as running:
        netns = dict(zip(MANAGEMENT, names, strict=True))
        for bridge in ("br0", "br1"):
            run(f"ip -n {switch} link add name {bridge} type bridge")
            run(f"ip -n {switch} link set dev {bridge} up")
        for host, number in MANAGEMENT.items():
            devices = {"eth0": f"172.16.0.{number}"}
            devices["svc0"] = SERVICE.get(host, "10.10.0.10")
            for place, (device, address) in enumerate(devices.items()):
                port, index = f"{host}-{place}", 10 * number + place
                run(
                    f"ip -n {netns[host]} link add name {device} index {index} type veth"
                    f" peer name {port} index {index + 500} netns {switch}"
                )
                run(f"ip -n {netns[host]} link set dev {device} up")
                run(f"ip -n {netns[host]} addr add {address}/24 dev {device}")
                run(f"ip -n {switch} link set dev {port} master br{place} up")
        found = Site(netns)
        found.type(
            "lb",
            "ip addr add 10.10.0.100/32 dev svc0; ipvsadm -A -t 10.10.0.100:80 -s rr;"
            "ipvsadm -a -t 10.10.0.100:80 -r 10.10.0.11 -g;"
            "ipvsadm -a -t 10.10.0.100:80 -r 10.10.0.12 -g;"
            "ipvsadm -A -t 10.10.0.100:8443 -s wlc",
        )
        for host in ("web1", "web2"):
            found.type(
                host,
                "ip link add vip0 type dummy; ip link set vip0 up;"
                "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2;"
                "ip addr add 10.10.0.100/32 dev vip0; ip addr add 203.0.113.9/32 dev lo",
            )
            server = f"{sys.executable} -u -m http.server 80"
            running.enter_context(process(server, netns=netns[host]))
        yield found


_SSHD = """\
HostKey HERE/key
AuthorizedKeysFile HERE/key.pub
StrictModes no
UsePAM no
PidFile none
SetEnv PATH=PATH_
"""


@contextlib.contextmanager
def sshd(site: Site, host: str, directory: Path) -> Iterator[None]:
    """An SSH server on a host, with a user `sshd` and a /run of its own, as an installed one has.

    It takes no notice of what else the machine has in /etc/ssh.
    """
    start = (
        f"mount --bind {directory}/passwd /etc/passwd; mount -t tmpfs tmpfs /run; mkdir /run/sshd;"
        f"exec {witness('sshd')} -D -f {directory}/sshd_config"
    )
    words = ["ip", "netns", "exec", site.netns[host], "sh", "-ec", start]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as child:
        try:
            eventually(lambda: ":22 " in run("ss -Hlnt", netns=site.netns[host]))
            yield
        finally:
            child.terminate()


@contextlib.contextmanager
def asked_by_ssh(site: Site, *hosts: str, directory: Path) -> Iterator[Callable[..., Done]]:
    """SSH servers on hosts, and what runs `lvsctl check` on the machine `admin`."""
    run(f"{which('ssh-keygen')} -q -t ed25519 -N '' -f {directory}/key")
    path = environment()["PATH"]
    (directory / "sshd_config").write_text(
        _SSHD.replace("HERE", str(directory)).replace("PATH_", path)
    )
    (directory / "passwd").write_text(
        "root:x:0:0::/:/bin/sh\nsshd:x:65533:65534::/run/sshd:/bin/false\n"
    )
    client = directory / "bin/ssh"
    client.parent.mkdir()
    client.write_text(
        f"#!/bin/sh\nexec {which('ssh')} -F none -i {directory}/key -o StrictHostKeyChecking=no"
        f' -o UserKnownHostsFile={directory}/known "$@"\n'
    )
    client.chmod(0o755)
    inventory = directory / "hosts.ini"
    inventory.write_text(
        "[directors]\nlb ansible_host=172.16.0.2\n"
        "[real_servers]\nweb1 ansible_host=172.16.0.3\nrs2 ansible_host=172.16.0.4\n"
        "[all:vars]\nansible_user=root\n"
    )

    def check_there(*options: str) -> Done:
        words = [sys.executable, "-m", "lvsctl", "check", "dr", "-i", str(inventory), "-f", "json"]
        return subprocess.run(
            ["ip", "netns", "exec", site.netns["admin"], *words, *options],
            env={**environment(), "PATH": f"{client.parent}:{path}"},
            capture_output=True,
            text=True,
            check=False,
        )

    with contextlib.ExitStack() as running:
        for host in hosts:
            running.enter_context(sshd(site, host, directory))
        yield check_there


def test_hosts_are_judged_by_ssh_and_one_that_refuses_is_said(site: Site, tmp_path: Path) -> None:
    """And the remedy, typed on the host that is named, repairs it."""
    site.type("web1", "ip addr del 10.10.0.100/32 dev vip0")
    with asked_by_ssh(site, "lb", "web1", directory=tmp_path) as check_there:
        done = check_there()
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    hosts = {host["name"]: host for host in found["hosts"]}
    assert {
        name: (h["node"], h["interfaces"]) for name, h in hosts.items() if not h["problem"]
    } == {
        "lb": ("director", {"lan": "svc0"}),
        "web1": ("rs1", {"lan": "svc0"}),
    }
    assert "Connection refused" in hosts["rs2"]["problem"]
    assert not found["healthy"]
    (cause,) = found["causes"]
    assert (cause["fault"], cause["node"]) == ("vip-missing", "rs1")
    site.type("web1", cause["remedy"])
    assert not site.check("web1").causes


@pytest.mark.exhaustive
def test_frames_of_hosts_decide_the_claims_of_verify(site: Site, tmp_path: Path) -> None:
    """All pass; and where ARP is answered by a real server too, the claim about it fails."""
    with asked_by_ssh(site, *SERVICE, directory=tmp_path) as check_there:
        done = check_there("--capture")
        assert not done.returncode, done.stdout + done.stderr
        found = json.loads(done.stdout)
        assert {one["verdict"] for one in found["findings"]} == {"pass"}
        site.type("web2", "sysctl -qw net.ipv4.conf.all.arp_ignore=0")
        try:
            broken = json.loads(check_there("--capture").stdout)
        finally:
            site.type("web2", "sysctl -qw net.ipv4.conf.all.arp_ignore=1")
    failed = {one["id"] for one in broken["findings"] if one["verdict"] == "fail"}
    assert "dr.only-director-answers-arp" in failed
    assert {cause["fault"] for cause in broken["causes"]} == {"arp-ignore-unset"}
    left = run("find /tmp -maxdepth 1 -name 'tmp.*'")
    assert not left


class Break(NamedTuple):
    """What is typed on a host, and what must be found at which node."""

    host: str
    command: str
    fault: str
    node: str


BREAKS = {
    "table": Break(
        "lb", "ipvsadm -e -t 10.10.0.100:80 -r 10.10.0.12 -m",
        "wrong-forwarding-method", "director",
    ),
    "arp": Break("web2", "sysctl -qw net.ipv4.conf.all.arp_ignore=0", "arp-ignore-unset", "rs2"),
    "announce": Break(
        "web2", "sysctl -qw net.ipv4.conf.all.arp_announce=0", "arp-announce-unset", "rs2"
    ),
    "director": Break(
        "lb", "ip addr del 10.10.0.100/32 dev svc0", "vip-missing-on-director", "director"
    ),
    "service": Break("lb", "ipvsadm -D -t 10.10.0.100:80", "service-missing", "director"),
    "down": Break("web1", "ip link set svc0 down", "real-server-down", "rs1"),
    "neighbour": Break(
        "lb", "ip neigh replace 10.10.0.11 lladdr 02:00:00:00:00:99 dev svc0 nud permanent",
        "stale-neighbour", "director",
    ),
    "filter": Break("lb", "iptables -P INPUT DROP", "packet-filter", "director"),
    "masquerading": Break(
        "lb",
        "sysctl -qw net.ipv4.vs.conntrack=1; iptables -t nat -A POSTROUTING -o svc0 -j MASQUERADE",
        "packet-rewriting", "director",
    ),
    "tc": Break(
        "web1",
        "tc qdisc add dev svc0 clsact; tc filter add dev svc0 ingress protocol ip u32"
        " match ip protocol 6 0xff action drop",
        "packet-filter", "rs1",
    ),
    "mtu": Break("web2", "ip link set svc0 mtu 1400", "mtu-mismatch", "rs2"),
    "stopped": Break(
        "web1",
        "kill -STOP $(ss -Hlntp 'sport = :80' | sed 's/.*pid=\\([0-9]*\\).*/\\1/')",
        "process-stopped", "rs1",
    ),
}  # fmt: skip


@pytest.mark.exhaustive
@pytest.mark.parametrize("title", BREAKS)
def test_what_is_broken_is_named_and_the_remedy_typed_there_repairs_it(
    site: Site, title: str
) -> None:
    broken = BREAKS[title]
    nodes = {"director": "lb", "rs1": "web1", "rs2": "web2"}
    site.type(broken.host, broken.command)
    found = site.check()
    assert [(cause.fault, cause.node) for cause in found.causes] == [(broken.fault, broken.node)]
    site.type(nodes[broken.node], found.causes[0].remedy)
    assert site.check()


@pytest.mark.exhaustive
def test_collecting_changes_nothing(site: Site) -> None:
    """The same before and after: settings, addresses, the table, loaded modules but sockets'."""

    def whole() -> str:
        said = "ip -d addr show; ip route show table all; ipvsadm -S -n; sysctl -a 2>/dev/null"
        words = ["ip", "netns", "exec", site.netns["lb"], "sh", "-c", said]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment())
        changing = ("nf_conntrack_count", "dentry-state", "inode", "random", "file-nr", "aio-nr",
                    "ns_last_pid", "quota", "cap_last")  # fmt: skip
        lines = done.stdout.split("\n")
        return "\n".join(line for line in lines if not any(word in line for word in changing))

    before = whole()
    site.collected()
    assert whole() == before
