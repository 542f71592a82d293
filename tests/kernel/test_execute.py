"""Plans carried out natively (no IPVS needed), with iproute2 and ethtool as witnesses.

client ── lan ── director (VIP), rs1, rs2 (VIP on lo)
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from lvsctl.errors import HostError, KernelError, LabError
from lvsctl.kernel import netns, paths, processes, registry, undo
from lvsctl.kernel.apply import apply_plan
from lvsctl.model.event import Event, OpsDone, StageStarted, ignore
from lvsctl.model.service import Protocol
from lvsctl.plan import diff
from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.link_up import LinkUp
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink
from tests.kernel.by_hand import descriptors, eventually
from tests.kernel.dr_shape import DEVICE, VIP, dr_plan
from tests.kernel.initial import COUNTING, neighbours

OFFLOADS_OFF = ("tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off")

MANY = 32
"""Real servers of a lab that is not small."""

HOST = (
    ("ip", "link"), ("ip", "addr"), ("ip", "route", "show", "table", "all"),
    ("ip", "-6", "route", "show", "table", "all"), ("ip", "rule"),
)  # fmt: skip
"""What of the initial namespace must be the same before and after."""


def ip(*words: str) -> Any:
    said = subprocess.run(["ip", "-j", *words], check=True, capture_output=True, text=True).stdout
    return json.loads(said or "[]")


def host_state() -> list[str]:
    seen = [subprocess.run(c, check=True, capture_output=True, text=True).stdout for c in HOST]
    return [*(COUNTING.sub("", one) for one in seen), neighbours()]


def host_sysctls() -> dict[str, str]:
    """The network's sysctls of the initial namespace, as far as they can be read."""
    found: dict[str, str] = {}
    for file in Path("/proc/sys/net").rglob("*"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found[str(file)] = file.read_text()
    return found


@pytest.fixture(scope="module", autouse=True)
def sysctls_stay() -> Iterator[None]:
    """The host's sysctls are the same after all these tests as before."""
    before = host_sysctls()
    yield
    after = host_sysctls()
    assert {key: after.get(key) for key in before if after.get(key) != before[key]} == {}


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a lab of this test alone; afterwards nothing is left, host and process alike."""
    name = f"t{os.getpid()}-{abs(hash(request.node.name)) % 10**6}"
    here = Path("/proc/thread-self/ns/net").readlink()
    before = host_state()
    descriptors, threads = open_files(), threading.active_count()
    yield name
    with registry.lock(name):
        registry.remove(name)
    assert not paths.of(name).directory.exists()
    assert not [p for p in paths.NETNS.iterdir() if name in p.name]
    assert name not in Path("/proc/self/mountinfo").read_text()
    assert host_state() == before
    assert Path("/proc/thread-self/ns/net").readlink() == here
    assert open_files() == descriptors
    assert threading.active_count() == threads


def reaches(lab: str, sender: str, receiver: str, address: str) -> bool:
    """Whether one datagram, sent once, arrives within half a second."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def opened() -> socket.socket:
        return socket.socket(family, socket.SOCK_DGRAM)

    with (
        netns.run_inside(f"lvs-{lab}-{sender}", opened) as here,
        netns.run_inside(f"lvs-{lab}-{receiver}", opened) as there,
    ):
        there.bind((address, 0))
        there.settimeout(0.5)
        here.sendto(b"one", there.getsockname())
        try:
            return there.recv(16) == b"one"
        except TimeoutError:
            return False


def open_files() -> list[str]:
    """What this process has open, without the listing itself."""
    return sorted(str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink())


def alive(pid: int) -> bool:
    """Whether a process runs: init may take its time to reap those that have ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def up(plan: Plan, emit: Callable[[Event], None] = ignore, **options: Any) -> None:
    registry.begin(registry.Entry(lab=plan.lab, namespaces=plan.namespaces))
    apply_plan(plan, plan.lab, emit, **options)


def test_the_dr_shape(lab: str) -> None:
    events: list[Event] = []
    plan = dr_plan(lab)
    up(plan, events.append)

    switch = {link["ifname"]: link for link in ip("-d", "-n", f"lvs-{lab}-lan", "link")}
    assert sorted(switch) == ["client", "director", "lan", "lo", "rs1", "rs2"]
    bridge = switch["lan"]["linkinfo"]["info_data"]
    assert bridge["mcast_snooping"] == 0
    assert bridge.get("vlan_default_pvid", 0) == 0  # not in every kernel
    ports = switch.keys() - {"lo", "lan"}
    assert {switch[port]["operstate"] for port in ports} == {"UP"}
    assert switch["rs1"]["master"] == "lan"
    assert switch["rs1"]["num_tx_queues"] == 1
    assert switch["rs1"].get("num_rx_queues", 1) == 1  # not in every kernel

    rs1 = {link["ifname"]: link for link in ip("-n", f"lvs-{lab}-rs1", "addr")}
    assert sorted(rs1) == ["lan", "lo"]
    assert rs1["lan"]["address"] == "02:00:0a:0a:00:0c"
    assert rs1["lan"]["ifindex"] == DEVICE
    ipv4 = {(name, a["local"], a["prefixlen"]) for name, link in rs1.items()
            for a in link["addr_info"] if a["family"] == "inet"}  # fmt: skip
    assert ipv4 == {("lan", "10.10.0.12", 16), ("lo", "10.10.255.1", 32), ("lo", "127.0.0.1", 8)}
    (default,) = ip("-n", f"lvs-{lab}-rs1", "route", "show", "default")
    assert (default["gateway"], default["dev"]) == ("10.10.0.1", "lan")

    def sysctl(node: str, key: str) -> str:
        words = ["ip", "netns", "exec", f"lvs-{lab}-{node}", "sysctl", "-n", key]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    assert sysctl("rs1", "net.ipv4.conf.all.arp_ignore") == "1"
    assert sysctl("rs2", "net.ipv4.conf.all.arp_announce") == "2"
    assert sysctl("director", "net.ipv4.ip_forward") == "1"

    assert reaches(lab, "client", "rs2", "10.10.0.13"), "the first frame was lost"

    titles = [event.title for event in events if isinstance(event, StageStarted)]
    assert titles == [stage.title for stage in plan.stages]
    assert sum(event.number for event in events if isinstance(event, OpsDone)) == len(
        plan.resources
    )


def test_offloads_are_off_at_both_ends(lab: str) -> None:
    up(dr_plan(lab, 1))
    for namespace, device in ((f"lvs-{lab}-rs1", "lan"), (f"lvs-{lab}-lan", "rs1")):
        words = ["ip", "netns", "exec", namespace, "ethtool", "-k", device]
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        features = dict(line.split(":", 1) for line in said.splitlines()[1:] if ":" in line)
        for feature in ("tx-checksumming", "scatter-gather", "tcp-segmentation-offload",
                        "generic-segmentation-offload", "generic-receive-offload"):  # fmt: skip
            assert features[feature].startswith(" off"), (device, feature)
        by_ethtool = ["ethtool", "-K", device, *OFFLOADS_OFF]
        words = ["ip", "netns", "exec", namespace, *by_ethtool]
        again = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        assert "Actual changes" not in again


def test_ipv6_addresses_are_usable_at_once(lab: str) -> None:
    plan = dr_plan(lab, 1)
    more: list[Resource] = [
        Address(netns=f"lvs-{lab}-{node}", device="lan", address=ip_interface(text))
        for node, text in (("client", "2001:db8::10/64"), ("rs1", "2001:db8::12/64"))
    ]
    more.append(StaticRoute(netns=f"lvs-{lab}-client", to=ip_network("2001:db8:1::/48"),
                         via=ip_address("2001:db8::12")))  # fmt: skip
    up(replace(plan, stages=(*plan.stages, Stage("ipv6", tuple(more)))))
    words = ("-6", "addr", "show", "dev", "lan", "to", "2001:db8::/32")
    addresses = ip("-n", f"lvs-{lab}-rs1", *words)
    assert not addresses[0]["addr_info"][0].get("tentative")
    assert reaches(lab, "client", "rs1", "2001:db8::12")
    routes = ip("-n", f"lvs-{lab}-client", "-6", "route")
    assert {"dst": "2001:db8:1::/48", "gateway": "2001:db8::12", "dev": "lan"}.items() <= next(
        route for route in routes if route["dst"] == "2001:db8:1::/48"
    ).items()


def test_an_error_names_node_command_errno_and_help(lab: str) -> None:
    plan = dr_plan(lab, 1)
    wrong = StaticRoute(netns=f"lvs-{lab}-rs1", to=ip_network("10.99.0.0/16"),
                     via=ip_address("192.0.2.1"))  # fmt: skip
    stage = plan.stages[-1]
    ops = (*stage.resources[:-1], wrong, *stage.resources[-1:])
    with pytest.raises(KernelError) as caught:
        up(replace(plan, stages=(*plan.stages[:-1], replace(stage, resources=ops))))
    error = caught.value
    assert (error.node, error.errno) == ("rs1", errno.ENETUNREACH)
    assert error.command == f"ip -n lvs-{lab}-rs1 route add 10.99.0.0/16 via 192.0.2.1"
    assert error.message.startswith("rs1: Network is unreachable (Nexthop has invalid gateway)")
    assert error.hint == "192.0.2.1 must be on a network of the node, and no address of its own"


@pytest.mark.parametrize(
    ("op", "number"),
    [
        (Sysctl(netns="", name="net.ipv4.no_such_thing", value="1"), errno.ENOENT),
        (Sysctl(netns="", name="net.ipv4.ip_forward", value="no number"), errno.EINVAL),
        (Sysctl(netns="", name="vm.swappiness", value="1"), errno.EINVAL),
        (LinkUp(netns="", device="missing"), errno.ENODEV),
        (Address(netns="", device="lo", address=ip_interface("127.0.0.1/8")), errno.EEXIST),
    ],
)
def test_errors_of_each_way_to_the_kernel(lab: str, op: Resource, number: int) -> None:
    name = f"lvs-{lab}-a"
    ops = (Namespace(netns=name), LinkUp(netns=name, device="lo"), replace(op, netns=name))
    with pytest.raises(KernelError) as caught:
        up(Plan(lab, (Stage("all", ops),)))
    assert (caught.value.node, caught.value.errno) == ("a", number)
    assert caught.value.command == "; ".join(replace(op, netns=name).describe())


def test_an_optional_sysctl_may_be_missing(lab: str) -> None:
    name = f"lvs-{lab}-a"
    optional = Sysctl(netns=name, name="net.none.such", value="1", optional=True)
    up(Plan(lab, (Stage("all", (Namespace(netns=name), optional)),)))


def test_order_holds_within_a_namespace(lab: str) -> None:
    """Netlink messages wait for each other, but not past a sysctl that needs them."""
    plan = dr_plan(lab, 1)
    name = f"lvs-{lab}-rs1"
    mixed: tuple[Resource, ...] = (
        Sysctl(netns=name, name="net.ipv4.ip_forward", value="1"),  # resets the next one
        Sysctl(netns=name, name="net.ipv4.conf.all.accept_redirects", value="1"),
        Address(netns=name, device="lan", address=ip_interface("10.77.0.1/24")),
        Sysctl(netns=name, name="net.ipv4.conf.lan.rp_filter", value="2"),
        StaticRoute(netns=name, to=ip_network("10.78.0.0/24"), via=ip_address("10.77.0.2")),
    )
    up(replace(plan, stages=(*plan.stages, Stage("mixed", mixed))))
    keys = ("net.ipv4.conf.all.accept_redirects", "net.ipv4.conf.lan.rp_filter")
    words = ["ip", "netns", "exec", name, "sysctl", "-n", *keys]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "1\n2\n"
    assert ip("-n", name, "route", "show", "10.78.0.0/24")


def as_seen(lab: str, node: str) -> tuple[list[dict[str, Any]], Any, list[str]]:
    """What ip(8) and sysctl(8) say of a node, but for numbers that the kernel chooses."""
    name = f"lvs-{lab}-{node}"
    links = [
        {k: v for k, v in link.items() if k != "link_netnsid"} for link in ip("-n", name, "addr")
    ]
    words = ["ip", "netns", "exec", name, "sysctl", "net.ipv4.conf", "net.ipv6.conf"]
    sysctls = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    kept = [line for line in sysctls.splitlines() if "stable_secret" not in line]
    return links, ip("-n", name, "route", "show", "table", "all"), kept


def test_many_nodes_are_like_few(lab: str) -> None:
    """Also where the messages for the switch take several sends."""
    plan, events = dr_plan(lab, MANY), list[Event]()
    up(plan, events.append)
    assert sum(event.number for event in events if isinstance(event, OpsDone)) == len(
        plan.resources
    )
    many = as_seen(lab, "rs1")
    registry.remove(lab)
    up(dr_plan(lab))
    assert as_seen(lab, "rs1") == many


@pytest.mark.parametrize("after", [0, 3])
def test_a_namespace_that_cannot_be_created_is_reported(
    lab: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, created = descriptors(), list[str]()
    create = netns.unshare

    def refused(*flags: int) -> None:
        if len(created) >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        created.append("one")
        create(*flags)

    monkeypatch.setattr(netns, "unshare", refused)
    with pytest.raises(HostError, match="namespace"):
        up(dr_plan(lab))
    assert descriptors() == before


def test_a_running_lab_grows_by_many(lab: str) -> None:
    """Links to a switch that exists already."""
    few, many = dr_plan(lab), dr_plan(lab, MANY)
    up(few)
    stages = [
        replace(stage, resources=tuple(op for op in stage.resources if op not in few.resources))
        for stage in many.stages
    ]
    apply_plan(stages, lab, ignore, reconciling=True)
    assert len(ip("-n", f"lvs-{lab}-lan", "link", "show", "master", "lan")) == MANY + 2


@pytest.mark.parametrize("node", ["client", "rs2"])
def test_a_link_that_cannot_be_created_is_reported(lab: str, node: str) -> None:
    plan = dr_plan(lab)
    wrong = tuple(
        replace(
            stage,
            resources=tuple(
                replace(op, bridge_index=9999)
                if isinstance(op, VethLink) and op.port == node
                else op
                for op in stage.resources
            ),
        )
        for stage in plan.stages
    )
    with pytest.raises(KernelError) as caught:
        up(replace(plan, stages=wrong))
    assert caught.value.node == "lan"
    assert node in str(caught.value.command)


def test_a_foreign_namespace_stops_it_before_any_effect(lab: str) -> None:
    name = f"lvs-{lab}-rs2"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with pytest.raises(LabError, match=f"{name} exists already"):
            up(dr_plan(lab))
        assert not paths.of(lab).directory.exists()
        with pytest.raises(LabError, match=f"{name} exists already"):
            apply_plan(dr_plan(lab), lab, ignore)
        assert not netns.mounted(lab)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


class Stopped(BaseException):
    """What a test interrupts with."""


@pytest.mark.parametrize(
    ("servers", "after"), [*((2, n) for n in range(0, 41, 4)), (MANY, 1), (MANY, 60), (MANY, 200)]
)
def test_interrupted_anywhere_it_can_be_removed(lab: str, servers: int, after: int) -> None:
    plan = dr_plan(lab, servers)
    ops = 0

    def emit(event: Event) -> None:
        nonlocal ops
        ops += event.number if isinstance(event, OpsDone) else 0
        if ops >= after:
            raise Stopped

    with pytest.raises(Stopped):
        up(plan, emit)
    registry.remove(lab)
    assert not paths.of(lab).directory.exists()
    up(plan)  # and the next one works


@pytest.mark.parametrize("after", range(0, 12, 3))
def test_killed_anywhere_it_can_be_removed(lab: str, after: int) -> None:
    plan = dr_plan(lab)
    child = os.fork()
    if child == 0:
        seen = 0

        def emit(event: Event) -> None:
            nonlocal seen
            seen += 1
            if seen > after:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            up(plan, emit, respond=None)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    entry = registry.read(lab)
    assert entry is not None
    assert entry.namespaces == plan.namespaces
    assert registry.remove(lab).existed
    up(plan)


def test_planted_things_with_our_names_survive(lab: str) -> None:
    theirs = f"lvs-{lab}-theirs"
    subprocess.run(["ip", "netns", "add", theirs], check=True)
    with subprocess.Popen(["ip", "netns", "exec", theirs, "sleep", "60"]) as process:
        try:
            up(dr_plan(lab))
            registry.remove(lab)
            assert process.poll() is None
            assert ip("-n", theirs, "link")
        finally:
            process.kill()
            process.wait()
            subprocess.run(["ip", "netns", "del", theirs], check=True)


def test_a_namespace_removed_by_hand_is_no_obstacle(lab: str) -> None:
    up(dr_plan(lab))
    subprocess.run(["ip", "netns", "del", f"lvs-{lab}-rs1"], check=True)
    assert len(registry.remove(lab).namespaces) == 4


def test_a_namespace_removed_by_hand_is_made_again(lab: str) -> None:
    plan = dr_plan(lab)
    up(plan)
    name = f"lvs-{lab}-rs1"
    subprocess.run(["ip", "netns", "del", name], check=True)
    assert name not in netns.existing(lab, plan.namespaces)
    deadline = time.monotonic() + 10
    while any(link["ifname"] == "rs1" for link in ip("-n", f"lvs-{lab}-lan", "link")):
        assert time.monotonic() < deadline  # the kernel takes it apart in the background

    def concerns(op: Resource) -> bool:
        return name in (op.netns, getattr(op, "node_netns", ""))

    stages = [replace(s, resources=tuple(filter(concerns, s.resources))) for s in plan.stages]
    apply_plan(stages, lab, ignore, reconciling=True)
    assert reaches(lab, "client", "rs1", "10.10.0.12")


def test_processes_inside_end_with_the_lab(lab: str) -> None:
    up(dr_plan(lab))
    stubborn = "trap '' TERM; echo on; while :; do sleep 60; done"
    words = ["ip", "netns", "exec", f"lvs-{lab}-rs1", "sh", "-c", stubborn]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while processes.terminate(lambda: processes.of_lab(lab), 0.2):
            pass  # its sleep may only now begin
        assert process.wait() == -signal.SIGKILL


def test_the_responder_is_a_daemon_that_ends_with_the_lab(lab: str) -> None:
    plan = dr_plan(lab, 1)
    served: tuple[Resource, ...] = (
        ResponderPort(netns=f"lvs-{lab}-rs1", node="rs1", protocol=Protocol.TCP, port=80),
    )

    def respond(listens: tuple[ResponderPort, ...], ready: processes.Ready) -> None:
        os.write(1, b"serving 80\n")
        ready(None)
        signal.pause()

    up(replace(plan, stages=(*plan.stages, Stage("serve", served))), respond=respond)
    (pid,) = processes.daemons(lab).values()
    assert os.getsid(pid) != os.getsid(0)
    assert {Path(f"/proc/{pid}/fd/{fd}").readlink().name for fd in (1, 2)} == {"responder.log"}
    assert (paths.of(lab).logs / "responder.log").read_text() == "serving 80\n"
    apply_plan([Stage("again", served)], lab, ignore, respond=respond, reconciling=True)
    (second,) = processes.daemons(lab).values()
    assert second != pid
    assert registry.remove(lab).processes == 1
    assert not alive(second)


@pytest.mark.parametrize("how", ["says", "raises", "dies", "oserror"])
def test_a_responder_that_cannot_says_why(lab: str, how: str) -> None:
    def respond(listens: tuple[ResponderPort, ...], ready: processes.Ready) -> None:
        os.write(1, b"about to fail\n")
        match how:
            case "says":
                ready("port 80 is taken by nginx (pid 7)")
            case "raises":
                raise LabError("port 80 is taken by nginx (pid 7)", hint="stop it")
            case "oserror":
                raise OSError(errno.EADDRINUSE, "port 80 is taken by nginx (pid 7)")
            case "dies":
                os.write(2, b"port 80 is taken by nginx (pid 7)\n")
                os._exit(3)

    name = f"lvs-{lab}-a"
    listen = ResponderPort(netns=name, node="a", protocol=Protocol.TCP, port=80)
    with pytest.raises((KernelError, LabError), match=r"port 80 is taken by nginx \(pid 7\)"):
        up(Plan(lab, (Stage("all", (Namespace(netns=name), listen)),)), respond=respond)
    registry.remove(lab)


def test_a_users_command_runs_in_its_node_and_logs(lab: str) -> None:
    name = f"lvs-{lab}-a"
    run = UserCommand(
        netns=name, node="a", argv=("sh", "-c", "ls -d /sys/class/net/l*; exec sleep 60")
    )
    up(Plan(lab, (Stage("all", (Namespace(netns=name), run)),)))

    def sleeps() -> bool:  # ls, and the shell before it, may take longer than a command's grace
        found = [Path(f"/proc/{pid}/cmdline") for pid in processes.of_lab(lab)]
        return [file.read_bytes() for file in found if file.exists()] == [b"sleep\x0060\0"]

    eventually(sleeps)
    (pid,) = processes.of_lab(lab)
    assert (paths.of(lab).logs / "a.log").read_text() == "/sys/class/net/lo\n"
    assert {fd.name for fd in Path(f"/proc/{pid}/fd").iterdir()} == {"0", "1", "2"}
    assert registry.remove(lab).processes == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("no-such-command-here",), "a: no-such-command-here: no such command"),
        (("sh", "-c", "echo broken configuration >&2; exit 3"),
         ("a: sh -c 'echo broken configuration >&2; exit 3': ended at once with status 3\n"
          "    broken configuration")),
    ],
)  # fmt: skip
def test_a_users_command_that_fails_at_once_says_why(
    lab: str, argv: tuple[str, ...], message: str
) -> None:
    name = f"lvs-{lab}-a"
    run = UserCommand(netns=name, node="a", argv=argv)
    with pytest.raises(KernelError) as caught:
        up(Plan(lab, (Stage("all", (Namespace(netns=name), run)),)))
    assert caught.value.message == message
    assert caught.value.node == "a"


def test_a_running_lab_grows_and_shrinks(lab: str) -> None:
    """From two real servers to three and back, with what is obsolete undone."""
    two, three = dr_plan(lab, 2), dr_plan(lab, 3)
    up(two)
    added = set(three.resources) - set(two.resources)
    stages = [
        replace(s, resources=tuple(op for op in s.resources if op in added)) for s in three.stages
    ]
    assert diff.obsolete(two.resources, three.resources) == ()
    apply_plan(stages, lab, ignore, reconciling=True)
    assert reaches(lab, "client", "rs3", "10.10.0.14")
    undo.undo(diff.obsolete(three.resources, two.resources), lab)
    names = {link["ifname"] for link in ip("-n", f"lvs-{lab}-lan", "link")}
    assert names == {"lo", "lan", "client", "director", "rs1", "rs2"}
    assert not (paths.NETNS / f"lvs-{lab}-rs3").is_symlink()
    assert not (paths.of(lab).namespaces / f"lvs-{lab}-rs3").exists()


def test_single_operations_are_taken_back(lab: str) -> None:
    plan = dr_plan(lab, 1)
    up(plan)
    name = f"lvs-{lab}-rs1"
    mine = [op for op in plan.resources
            if op.netns == name and isinstance(op, (Address, StaticRoute))]  # fmt: skip
    undo.undo(mine, lab)
    undo.undo(mine, lab)  # gone already: no error
    left = [a["local"] for link in ip("-n", name, "-4", "addr") for a in link["addr_info"]]
    assert left == ["127.0.0.1"]
    assert ip("-n", name, "route") == []
    assert ip("-n", f"lvs-{lab}-director", "addr", "show", "to", str(VIP.ip))


def test_what_cannot_be_taken_back_is_refused_before_any_effect(lab: str) -> None:
    plan = dr_plan(lab, 1)
    up(plan)
    name = f"lvs-{lab}-rs1"
    mine = [op for op in plan.resources if op.netns == name and isinstance(op, (Address, Sysctl))]
    before = ip("-n", name, "addr")
    with pytest.raises(LabError, match=r"cannot be taken back meanwhile:\n .*arp_"):
        undo.undo(mine, lab)
    assert ip("-n", name, "addr") == before


def test_a_changed_route_or_sysctl_is_replaced_in_place(lab: str) -> None:
    plan = dr_plan(lab, 1)
    up(plan)
    name = f"lvs-{lab}-rs1"
    new: tuple[Resource, ...] = (
        StaticRoute(netns=name, to=None, via=ip_address("10.10.0.11")),
        Sysctl(netns=name, name="net.ipv4.conf.all.arp_ignore", value="0"),
    )
    others = [op for op in plan.resources if op.key not in {n.key for n in new}]
    assert diff.obsolete(plan.resources, (*others, *new)) == ()
    apply_plan([Stage("change", new)], lab, ignore, reconciling=True)
    assert [r["gateway"] for r in ip("-n", name, "route", "show", "default")] == ["10.10.0.11"]


def test_cables_are_between_the_right_namespaces(lab: str) -> None:
    plan = dr_plan(lab, 1)
    up(plan)
    for cable in (op for op in plan.resources if isinstance(op, VethLink)):
        (end,) = ip("-n", cable.node_netns, "link", "show", cable.device)
        assert end["link_index"] == cable.port_index
        assert end["link_netnsid"] >= 0
