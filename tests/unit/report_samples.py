"""A DR lab as it is when all is well, and what commands say of it: for the reports' tests.

client ── lan ── director (VIP 10.10.0.100), rs1, rs2
"""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from ipaddress import IPv4Address, ip_interface
from pathlib import Path

from lvsctl import modes
from lvsctl.capture.decode import decode
from lvsctl.engine.findings import Inspection, Verification
from lvsctl.engine.inspect import inspection_of
from lvsctl.engine.labs import Listed
from lvsctl.kernel.probe import Feature
from lvsctl.kernel.registry import Entry, State
from lvsctl.machine.client import MachineStatus
from lvsctl.machine.kinds import KindStatus
from lvsctl.model.claim import Claim, Finding, Verdict
from lvsctl.model.evidence import Evidence
from lvsctl.model.frame import Direction, LinkType, RawFrame, Tap
from lvsctl.model.lab import Impairment, Lab
from lvsctl.model.service import Protocol, ServiceMatch
from lvsctl.model.state import (
    AddressState,
    Connection,
    Counters,
    LinkState,
    ListenerState,
    NeighbourState,
    NodeState,
    RealServerState,
    RouteState,
    ServiceState,
)
from lvsctl.plan import planner
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.netem import Netem
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel
from lvsctl.resources.veth_link import VethLink
from lvsctl.topology import shipped
from lvsctl.topology.loading import parse_topology
from lvsctl.topology.overrides import Overrides


def lab_of(name: str, servers: int | None = None) -> Lab:
    found = shipped.find(name, BytesIO())
    overrides = Overrides(servers=servers)
    return parse_topology(found.text, found.source, overrides=overrides, rules=modes.violations)


def healthy(lab: Lab) -> Inspection:
    """The lab as its plan makes it."""
    ops = planner.plan_for(lab).resources
    return inspection_of(lab, {node.name: _state(lab.netns(node.name), ops) for node in lab.nodes})


def changed(inspection: Inspection, node: str, **changes: object) -> Inspection:
    state = replace(inspection.states[node], **changes)  # type: ignore[arg-type]
    return inspection_of(inspection.lab, {**inspection.states, node: state})


def _state(netns: str, ops: tuple[Resource, ...]) -> NodeState:
    mine = [op for op in ops if op.netns == netns]
    added = [op for op in mine if isinstance(op, Address)]
    impairments = {op.device: op.impairment for op in mine if isinstance(op, Netem)}
    links = [LinkState("lo", 1, "", "00:00:00:00:00:00", 65536, True, True)]
    links += [
        LinkState(op.device, op.device_index, "veth", op.mac, 1500, True, True)
        for op in ops
        if isinstance(op, VethLink) and op.node_netns == netns
    ]
    links += [
        LinkState(op.device, op.index, str(op.kind), "", 1480, True, True)
        for op in mine
        if isinstance(op, Tunnel)
    ]
    return NodeState(
        netns=netns,
        links=tuple(
            replace(
                link,
                addresses=tuple(op.address for op in added if op.device == link.name),
                unusual_addresses=tuple(
                    AddressState(op.address, ("deprecated",))
                    for op in added
                    if op.device == link.name and op.deprecated
                ),
                impairment=impairments.get(link.name, Impairment()),
            )
            for link in links
        ),
        routes=tuple(
            RouteState(op.to, via, links[1].name, kernel=False, hops=max(1, len(op.next_hops)))
            for op in mine
            if isinstance(op, StaticRoute)
            for via in ([hop.via for hop in op.next_hops] or [op.via])
        ),
        neighbours=(
            NeighbourState(IPv4Address("10.10.0.100"), "lan", "02:00:0a:0a:00:02", "REACHABLE"),
        ),
        sysctls={op.name: op.value for op in mine if isinstance(op, Sysctl)},
        services=tuple(
            ServiceState(
                op.service,
                str(op.scheduler),
                op.persistence,
                _real_servers(mine, op.service),
                Counters(12, 72),
                flags=op.flags,
                netmask=op.netmask,
                engine=op.engine,
            )
            for op in mine
            if isinstance(op, IpvsService)
        ),
        connections=_connections(mine),
        listeners=tuple(
            ListenerState(
                op.protocol, next(iter(op.addresses), IPv4Address(0)), op.port, "lvsctl", 4711
            )
            for op in mine
            if isinstance(op, ResponderPort)
        ),
        gue_ports=tuple(op.port for op in mine if isinstance(op, GuePort)),
    )


def _real_servers(ops: list[Resource], key: ServiceMatch) -> tuple[RealServerState, ...]:
    return tuple(
        RealServerState(
            op.real_server.rip, op.real_server.port, op.real_server.forward, op.real_server.weight,
            op.real_server.upper, op.real_server.lower, 1, 2, Counters(6, 36, 0, 2412, 0),
            op.real_server.encapsulation, op.real_server.tunnel_port,
        )
        for op in ops
        if isinstance(op, IpvsRealServer) and op.service == key
    )  # fmt: skip


def _connections(ops: list[Resource]) -> tuple[Connection, ...]:
    return tuple(
        Connection(
            Protocol.TCP, IPv4Address("10.10.0.10"), 40000, op.service.endpoints[0].vip,
            op.service.endpoints[0].port,
            op.real_server.rip, op.real_server.port, "ESTABLISHED", 900,
        )
        for op in ops
        if isinstance(op, IpvsRealServer)
    )  # fmt: skip


def verification(lab: Lab, *verdicts: Verdict) -> Verification:
    findings = tuple(
        Finding(
            Claim(f"all.claim-{number}", "what LVS says", ("some-fault",)),
            lab.services[0].name,
            verdict,
            f"what should be {number}",
            f"what was seen {number}",
            (FRAME,),
        )
        for number, verdict in enumerate(verdicts)
    )
    return Verification(lab, findings, Evidence(lab, ()))


def listed(lab: Lab) -> tuple[Listed, ...]:
    entry = Entry(lab=lab.name, source=f"{lab.name}.yaml", started=1_700_000_000.0, state=State.UP)
    broken = Entry(lab="old", state=State.BROKEN, problem="its entry cannot be read\033[2J")
    return (
        Listed(entry, lab, answering=True),
        Listed(replace(entry, lab="mute"), lab, answering=False),
        Listed(replace(entry, lab="late", state=State.COMING_UP), lab, answering=True),
        Listed(broken, None, answering=False),
    )


FRAME = decode(
    RawFrame(
        time=0,
        tap=Tap("director", "lan"),
        direction=Direction.IN,
        link=LinkType.ETHERNET,
        length=42,
        data=bytes.fromhex(
            "ffffffffffff 02000a0a000a 0806 0001 0800 06 04 0001"
            "02000a0a000a 0a0a000a 000000000000 0a0a0064"
        ),
    ),
    number=7,
)
"""The client asks by ARP for the VIP, at the director's tap."""

FEATURES = (
    Feature("root", "CAP_NET_ADMIN and CAP_SYS_ADMIN", True, "every mode", "use sudo"),
    Feature("ipip", "no module ipip", False, "tun", "use --where machine"),
    Feature("scheduler rr", "works", True, "services with scheduler: rr", "sudo modprobe ip_vs_rr"),
    Feature("scheduler wrr", "works", True, "services …", "sudo modprobe ip_vs_wrr", True),
    Feature("scheduler mh", "absent", False, "services …", "sudo modprobe ip_vs_mh", True),
    Feature("scheduler twos", "absent", False, "services …", "sudo modprobe ip_vs_twos", True),
    Feature("tshark", "not installed", False, "reading", "sudo apt-get install tshark", True),
)

MACHINE = MachineStatus(
    name="default", pid=1234, release="6.1.176", uptime=3700.0, memory=512, memory_available=400,
    kind="qemu", title="QEMU", kernel=Path("/boot/vmlinuz"), accelerator="tcg", cpus=2,
    commands=1, socket=Path("/run/user/0/lvsctl/default.sock"), writable=("/home/me",),
    complaints=("no /lib/modules",), failed_modules={"sctp": "unknown symbol"},
)  # fmt: skip

KINDS = (
    KindStatus("uml", "User-Mode Linux", "", "one CPU", {"linux.uml": "6.1.176"}),
    KindStatus("qemu", "QEMU", "qemu-system-x86_64 is not installed", "", {}),
)

ADDRESS = ip_interface("10.10.0.100/32")
"""The VIP as it is added to a device."""
