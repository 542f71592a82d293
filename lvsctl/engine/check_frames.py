"""Frames of real hosts: send requests from this machine, capture on every host, decide claims.

This machine is the topology's client. The hosts' interfaces are called after their networks in the
evidence, as in a lab, so that the very claims of ``verify`` are decided on it.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface
from time import time_ns
from typing import NamedTuple

from lvsctl.capture.capture import Capture
from lvsctl.capture.decode import decode_all
from lvsctl.claims.distribution import requests_needed
from lvsctl.engine.ask_hosts import CaptureSession, by_ssh
from lvsctl.engine.ask_services import answer_timeout, connect_timeout
from lvsctl.engine.check import judged
from lvsctl.engine.clocks import clock_offsets
from lvsctl.engine.findings import Check, Verification
from lvsctl.engine.inspect import recompute
from lvsctl.engine.matching import needed
from lvsctl.errors import DamagedFile, HostError, UsageError
from lvsctl.formats.hosts.frames import (
    HostFrames,
    capture_script,
    expression_for,
    read_frames,
    with_counters,
)
from lvsctl.formats.hosts.inventory import InventoryHost
from lvsctl.kernel.state import node_state, parse_connections
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Finding, Verdict
from lvsctl.model.evidence import Evidence, Exchange, Run, gue_ports
from lvsctl.model.frame import Frame, RawFrame, Tap
from lvsctl.model.lab import Lab
from lvsctl.model.masters import master_in
from lvsctl.model.service import ForwardingMethod, Protocol, TunnelKind, VirtualService
from lvsctl.model.state import Connection, NodeState, ServiceState
from lvsctl.traffic import client
from lvsctl.traffic.neighbours import ask_neighbours

_HERE = "/proc/self/ns/net"
"""This process's own network namespace, by a path."""

_SSH = 22
_ASKING = 0.5
"""Seconds to wait for a neighbour's reply."""

_WORTH_SAYING = 1_000_000
"""Nanoseconds by which a clock must differ to be mentioned."""

_COUNTED = ("all.counters-agree", "all.frames-agree", "all.reply-path-counted", "all.distribution")
"""Claims that are about counters or turns, which other clients' connections change too."""


@dataclass(frozen=True, slots=True)
class Place:
    """A host of the topology: where ssh finds it, its state, its interface on each network."""

    host: InventoryHost
    state: NodeState
    devices: Mapping[str, str]


class FramesChecked(NamedTuple):
    """What was decided on frames; ``problems`` of hosts, by node, where nothing was captured."""

    verification: Verification | None
    problems: Mapping[str, str]
    remarks: tuple[str, ...]


def check_by_ssh(
    lab: Lab,
    hosts: Iterable[InventoryHost],
    seconds: float,
    *,
    sudo: bool,
) -> Check:
    """Ask hosts by ssh for their state and judge it; then the same with frames.

    Frames are captured only where every director and every real server has answered. Raises as
    ``check`` and ``check_frames``.
    """
    known = {one.name: one for one in hosts}
    check, deployment, matched = judged(lab, by_ssh(known.values(), seconds, sudo=sudo))
    missing = [node.name for node in needed(lab) if node.name not in deployment.hosts]
    if missing:
        text = f"frames were not captured: {', '.join(missing)} did not answer"
        return replace(check, remarks=(*check.remarks, text))
    places = {
        node: Place(known[matched[node].name], host.state, deployment.interfaces(node))
        for node, host in deployment.hosts.items()
        if node != lab.default_client.name
    }
    found = check_frames(deployment.lab, places, seconds, sudo=sudo)
    verified = found.verification
    notes = verified.notes if verified is not None else ()
    return replace(
        check,
        remarks=(*check.remarks, *found.remarks, *notes),
        hosts=tuple(
            replace(one, problem=found.problems[one.node])
            if one.node in found.problems and not one.problem
            else one
            for one in check.hosts
        ),
        findings=verified.findings if verified is not None else (),
    )


class LocalClient(NamedTuple):
    """This machine: the node that it stands for, and its address and device for each VIP."""

    node: str
    own: Mapping[IPAddress, IPAddress]
    devices: Mapping[IPAddress, str]
    state: NodeState


def check_frames(
    lab: Lab, places: Mapping[str, Place], seconds: float, *, sudo: bool
) -> FramesChecked:
    """Send requests to every TCP service and capture them on the hosts of ``places``, by node.

    Each host has ``seconds`` to begin and to end. Raises HostError without root here, UsageError
    if this machine has no route to a VIP.
    """
    asked = tuple(one for one in lab.services if one.endpoint.protocol is Protocol.TCP)
    remarks = tuple(
        f"{one.name}: no request was sent: only services over TCP are asked, by HTTP"
        for one in lab.services
        if one not in asked
    )
    if not asked:
        return FramesChecked(None, {}, remarks)
    this = _this_machine(lab, asked)
    lab = _with_client(lab, this)
    with ExitStack() as stack:
        sessions = {
            node: stack.enter_context(_session(lab, node, place, this, seconds, sudo))
            for node, place in places.items()
        }
        with ThreadPoolExecutor(max(1, len(sessions))) as pool:
            started = pool.map(CaptureSession.start, sessions.values())
            problems = {node: said for node, said in zip(sessions, started, strict=True) if said}
            if problems:
                return FramesChecked(None, _told(problems), remarks)
            began = time_ns()
            with Capture({_HERE: this.node}) as own:
                _ask_for_vips(this)
                exchanges = _requests(lab, asked, places, stack)
                ended = dict(
                    zip(
                        sessions,
                        pool.map(CaptureSession.finish, sessions.values()),
                        strict=True,
                    )
                )
    found: dict[str, HostFrames] = {}
    for node, (data, problem) in ended.items():
        try:
            if problem:
                raise DamagedFile(problem)
            found[node] = read_frames(data, node, node, _devices(lab, places[node]))
        except DamagedFile as error:
            problems[node] = error.message
    if problems:
        return FramesChecked(None, _told(problems), remarks)
    ports = {place.host.port or _SSH for place in places.values()}
    mine = _renamed_frames(
        (one for one in own.recording.frames if not _is_of_port(one, ports)),
        {device: _network(lab, this) for device in this.devices.values()},
    )
    evidence, clocks = host_evidence(lab, this, places, found, mine, exchanges, (began, time_ns()))
    verified = recompute(evidence)
    findings = tuple(_disturbed(one, evidence) for one in verified.findings)
    return FramesChecked(replace(verified, findings=findings), {}, (*remarks, *clocks))


def _told(problems: Mapping[str, str]) -> dict[str, str]:
    return {node: f"frames were not captured: {said}" for node, said in problems.items()}


# ── this machine ─────────────────────────────────────────────────────────────────────────────


def _this_machine(lab: Lab, asked: Iterable[VirtualService]) -> LocalClient:
    state = node_state(_HERE, sysctls=())
    own: dict[IPAddress, IPAddress] = {}
    devices: dict[IPAddress, str] = {}
    for service in asked:
        vip = service.endpoint.vip
        own[vip] = _source(vip)
        held = (link.name for link in state.links if any(a.ip == own[vip] for a in link.addresses))
        devices[vip] = next(held, "")
        if vip == own[vip]:
            raise UsageError(
                f"this machine holds the VIP {vip}: it cannot be the client",
                hint="run it on a machine that is no director and no real server",
            )
    return LocalClient(lab.default_client.name, own, devices, state)


def _source(vip: IPAddress) -> IPAddress:
    """The address from which this machine sends to a VIP. Raises UsageError without a route."""
    family = socket.AF_INET if vip.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((str(vip), 9))  # sends nothing
        except OSError as error:
            raise UsageError(
                f"this machine has no route to the VIP {vip}: {error.strerror}",
                hint="run it on a machine that is a client of the service",
            ) from None
        return ip_address(str(sock.getsockname()[0]).partition("%")[0])


def _with_client(lab: Lab, this: LocalClient) -> Lab:
    """The topology with this machine's addresses for those of its client."""
    node = lab.node(this.node)
    of_version = {one.version: one for one in this.own.values()}
    lengths = {a.ip: a.network.prefixlen for link in this.state.links for a in link.addresses}
    interfaces = tuple(
        replace(
            one,
            addresses=tuple(
                ip_interface(f"{address}/{lengths.get(address, address.max_prefixlen)}")
                if (address := of_version.get(held.version)) is not None
                else held
                for held in one.addresses
            ),
        )
        for one in node.interfaces
    )
    moved = replace(node, interfaces=interfaces)
    return replace(lab, nodes=tuple(moved if one == node else one for one in lab.nodes))


def _network(lab: Lab, this: LocalClient) -> str:
    return lab.node(this.node).networks[0]


def _ask_for_vips(this: LocalClient) -> None:
    """Ask all neighbours for each VIP that is on a network of this machine."""
    for vip, device in this.devices.items():
        link = this.state.link(device)
        if link is None or not any(vip in address.network for address in link.addresses):
            continue
        with suppress(OSError):
            ask_neighbours(_HERE, device, this.own[vip], vip, _ASKING)


def _requests(
    lab: Lab, asked: Iterable[VirtualService], places: Mapping[str, Place], held: ExitStack
) -> dict[str, tuple[Exchange, ...]]:
    """The requests to each service; their connections stay open in ``held``."""
    return {
        service.name: held.enter_context(
            client.held(
                _HERE,
                service.endpoint.vip,
                service.endpoint.port,
                count=requests_needed(service, _table(lab, places, service)),
                timeout=answer_timeout(lab),
                connect=connect_timeout(lab),
            )
        )
        for service in asked
    }


def _is_of_port(frame: RawFrame, ports: Collection[int]) -> bool:
    """Whether it is of a connection to one of ``ports``, by its bytes: IPv4 or IPv6 in Ethernet."""
    data = frame.data
    at = 14 + (4 * (data[14] & 15) if data[12:14] == b"\x08\x00" and len(data) > 14 else 40)
    ends = (data[at : at + 2], data[at + 2 : at + 4])
    return any(int.from_bytes(end, "big") in ports for end in ends)


# ── hosts ────────────────────────────────────────────────────────────────────────────────────


def _devices(lab: Lab, place: Place) -> tuple[str, ...]:
    """The host's devices to capture at: those on the topology's networks, and its tunnels."""
    names = {link.name for link in place.state.links if link.up}
    own = [device for device in place.devices.values() if device in names]
    uses_tunnels = any(one.by(ForwardingMethod.TUN) for one in lab.services)
    tunnels = [
        link.name
        for link in place.state.links
        if uses_tunnels and link.up and link.kind in list(TunnelKind)
    ]
    return tuple(dict.fromkeys((*own, *tunnels)))


def _session(
    lab: Lab, node: str, place: Place, this: LocalClient, seconds: float, sudo: bool
) -> CaptureSession:
    clients = tuple(dict.fromkeys(this.own.values()))
    translated = [
        server.rip for service in lab.services if service.snat for server in service.real_servers
    ]
    expression = expression_for(
        clients,
        tuple(this.own) if node in {one.name for one in lab.directors} else (),
        tunnels=_tunnel_filters(lab),
        translated=translated,
        without=place.host.port or _SSH,
    )
    script = capture_script(_devices(lab, place), expression, clients)
    return CaptureSession(place.host, script, seconds, sudo=sudo)


def _tunnel_filters(lab: Lab) -> Iterator[str]:
    if any(one.by(ForwardingMethod.TUN) for one in lab.services):
        yield "ip proto 4 or ip proto 41 or ip proto 47 or ip6 proto 4 or ip6 proto 41"
        yield "ip6 proto 47"
        yield from (f"udp port {port}" for port in sorted(gue_ports(lab, ())))


def _table(lab: Lab, places: Mapping[str, Place], service: VirtualService) -> ServiceState | None:
    links = {node: place.state.links for node, place in places.items()}
    director = places.get(master_in(lab, links))
    if director is None:
        return None
    return next((one for one in director.state.services if one.match == service.match), None)


# ── evidence ─────────────────────────────────────────────────────────────────────────────────


def host_evidence(
    lab: Lab,
    this: LocalClient,
    places: Mapping[str, Place],
    found: Mapping[str, HostFrames],
    mine: Iterable[RawFrame],
    exchanges: Mapping[str, tuple[Exchange, ...]],
    window: tuple[int, int],
) -> tuple[Evidence, tuple[str, ...]]:
    """Return what was captured and read as a lab's evidence, and remarks on clocks.

    ``mine`` are frames of this machine, ``exchanges`` its requests by service, ``window`` when the
    counters were read: nanoseconds since the epoch by this machine's clock.
    """
    names = {
        node: {device: network for network, device in place.devices.items()}
        for node, place in places.items()
    }
    raw = [*mine]
    for node, captured in found.items():
        raw += _renamed_frames(captured.frames, names[node])
    ports = gue_ports(lab, ())
    offsets = clock_offsets(decode_all(raw, gue_ports=ports), this.node)
    timed = sorted(
        (replace(one, time=one.time - offsets.get(one.tap.node, 0)) for one in raw),
        key=lambda one: one.time,
    )
    clients = frozenset(this.own.values())
    frames = tuple(
        one for one in decode_all(timed, gue_ports=ports) if _concerns(one, clients, this.own)
    )
    states = {node: renamed(place.state, names[node]) for node, place in places.items()}
    device = next(iter(this.devices.values()), "")
    states[this.node] = renamed(this.state, {device: _network(lab, this)})
    master = master_in(lab, {node: state.links for node, state in states.items()})
    counted = found.get(master)
    runs = []
    for service in lab.services:
        if service.name not in exchanges:
            continue
        table = _table(lab, places, service)
        known = table is not None and counted is not None and bool(counted.before)
        runs.append(
            Run(
                service,
                this.node,
                exchanges[service.name],
                with_counters(table, counted.before) if known and table and counted else None,
                with_counters(table, counted.after) if known and table and counted else None,
                _connections(counted),
                began=window[0],
                ended=window[1],
            )
        )
    taps = {
        Tap(tap.node, names[tap.node].get(tap.device, tap.device))
        for one in found.values()
        for tap in one.taps
    }
    evidence = Evidence(
        lab,
        tuple(runs),
        frames,
        tuple(sorted({*taps, Tap(this.node, _network(lab, this))})),
        drops={node: one.dropped for node, one in found.items() if one.dropped},
        states=states,
        before={node: states[node] for node in places},
    )
    clocks = tuple(
        f"{node}: its clock is {abs(offset) / 1e6:.1f} ms {'ahead of' if offset > 0 else 'behind'} "
        "this machine's; its frames were put in order by those that both captured"
        for node, offset in sorted(offsets.items())
        if abs(offset) >= _WORTH_SAYING
    )
    return evidence, clocks


def _connections(counted: HostFrames | None) -> tuple[Connection, ...]:
    try:
        return parse_connections(counted.connections if counted is not None else ())
    except ValueError as error:
        raise HostError(f"the connection table of a director cannot be read: {error}") from None


def _concerns(frame: Frame, clients: frozenset[IPAddress], vips: Iterable[IPAddress]) -> bool:
    """Whether a frame may be evidence: of encapsulated packets, only those of this machine."""
    if len(frame.ips) < 2:
        return True
    inner = frame.ips[-1]
    return bool({inner.src, inner.dst} & clients) or (inner.protocol == 1 and inner.dst in {*vips})


def _renamed_frames(frames: Iterable[RawFrame], networks: Mapping[str, str]) -> Iterator[RawFrame]:
    for one in frames:
        device = networks.get(one.tap.device)
        yield one if device is None else replace(one, tap=Tap(one.tap.node, device))


def renamed(state: NodeState, networks: Mapping[str, str]) -> NodeState:
    """Return a host's state with its interfaces called after their networks."""

    def new(name: str) -> str:
        return networks.get(name, name)

    def setting(name: str) -> str:
        words = name.split(".")
        at = words.index("conf") + 1 if "conf" in words else len(words)
        return ".".join(
            new(word.replace("/", ".")) if number == at else word
            for number, word in enumerate(words)
        )

    return replace(
        state,
        links=tuple(replace(one, name=new(one.name)) for one in state.links),
        routes=tuple(one._replace(device=new(one.device)) for one in state.routes),
        other_routes=tuple(one._replace(device=new(one.device)) for one in state.other_routes),
        neighbours=tuple(one._replace(device=new(one.device)) for one in state.neighbours),
        sysctls={setting(name): value for name, value in state.sysctls.items()},
    )


def _disturbed(finding: Finding, evidence: Evidence) -> Finding:
    """Where other clients use the service, their packets are counted too: nothing is decided."""
    if finding.verdict is not Verdict.FAIL or finding.claim.id not in _COUNTED:
        return finding
    run = next(one for one in evidence.runs if one.service.name == finding.service)
    before = run.before.real_servers if run.before is not None else ()
    others = sum(one.active + one.inactive for one in before)
    if not others:
        return finding
    observed = f"{finding.observed}; {others} connections of other clients"
    return replace(finding, verdict=Verdict.INCONCLUSIVE, observed=observed)
