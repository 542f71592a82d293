"""Apply a plan to the kernel, and roll single resources back on a running lab.

Stage by stage, and within a stage namespace by namespace, in a thread of its own that may
change its namespace. The netlink messages of a namespace are collected and go out in one send
(``netlink.sockets``); everything else (a sysctl, an ioctl) first sends what is waiting, so that
the order within a namespace holds.

Whatever fails raises; the caller removes the whole lab (``registry.remove``).
"""

from __future__ import annotations

import errno
import functools
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from lvsctl.errors import LabError
from lvsctl.kernel import commands, netns, packet_filters, processes, sysctl
from lvsctl.kernel.session import OpenNamespace, Session
from lvsctl.kernel.worker import in_worker
from lvsctl.model.event import Emit, Notice, OpsDone, StageStarted
from lvsctl.model.service import TunnelKind
from lvsctl.netlink import devices, ethtool, fou, ipvs, ipvs_config, rules, sockets
from lvsctl.netlink.addresses import add_address
from lvsctl.netlink.links import (
    add_bridge,
    add_link,
    add_veth,
    set_link_state,
    set_link_up,
    wait_until_operational,
)
from lvsctl.netlink.neighbours import set_neighbour, set_proxy
from lvsctl.netlink.routes import add_route
from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.address import Address
from lvsctl.resources.announcement_filter import AnnouncementFilter
from lvsctl.resources.base import Resource
from lvsctl.resources.bridge import Bridge
from lvsctl.resources.drop_filter import DropFilter
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_config import ConnectionTimeouts, SyncDaemon
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.keepalived import Keepalived
from lvsctl.resources.link_setting import LinkSetting
from lvsctl.resources.link_up import LinkUp
from lvsctl.resources.marks import Marks
from lvsctl.resources.masquerade import Masquerade
from lvsctl.resources.mss_clamp import MssClamp
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.neighbour import Neighbour, ProxyNeighbour
from lvsctl.resources.netem import Netem
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.resources.packet_filter import PacketFilter
from lvsctl.resources.policy_rule import PolicyRule
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import GRE_CHECKSUM_FLAG, Tunnel
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink

Respond = Callable[[tuple[ResponderPort, ...], processes.Ready], None]
"""The real servers' responder: serves until killed; calls Ready once its sockets listen."""

PROCESSES = (ResponderPort, UserCommand, Keepalived)
"""Resources that are processes, started by this process's main thread."""

OPERATIONAL_SECONDS = 5.0
"""How long a link may take to come up before the user gets a notice."""

EXISTS = frozenset({errno.EEXIST})


def apply_plan(
    plan: Plan | Sequence[Stage],
    lab: str,
    emit: Emit,
    *,
    respond: Respond | None = None,
    reconciling: bool = False,
) -> None:
    """Apply every resource of ``plan`` to ``lab``, whose registry entry exists.

    ``respond`` serves the Listen resources, all of them in one daemon that replaces an earlier
    one: they are always the complete set. ``reconciling``: the lab is running, so that what
    exists already is no error and virtual services are changed in place.

    Raises KernelError for what the kernel rejects, HostError and LabError. On any exception,
    KeyboardInterrupt included, no thread and no descriptor of its own stays.
    """
    stages = plan.stages if isinstance(plan, Plan) else tuple(plan)
    resources = [resource for stage in stages for resource in stage.resources]
    created = [one.netns for one in resources if isinstance(one, Namespace)]
    if created:
        netns.check_free(lab, created)
        netns.mount_store(lab)
    with ExitStack() as held:
        session = held.enter_context(Session(lab))
        session.raise_file_limit(len({one.netns for one in resources}))
        applier = PlanApplier(session, reconciling=reconciling)
        responders: list[processes.DaemonStart] = []
        for group in _until_processes_start(stages):
            _apply_stages(applier, group, len(stages), emit)
            responders += _start_processes(lab, group[-1][1].resources, respond, emit, held)
        links = [one for one in resources if isinstance(one, VethLink)]
        if links:
            applier.finish()
            in_worker(lambda say, _: _wait_until_operational(session, links, say), emit)
        for responder in responders:  # which became ready while the links came up
            responder.ready()


def _until_processes_start(stages: Sequence[Stage]) -> Iterator[list[tuple[int, Stage]]]:
    """Yield groups of stages with their numbers, from 1; only a group's last has processes."""
    group: list[tuple[int, Stage]] = []
    for number, stage in enumerate(stages, 1):
        group.append((number, stage))
        if number == len(stages) or any(isinstance(one, PROCESSES) for one in stage.resources):
            yield group
            group = []


def _apply_stages(
    applier: PlanApplier, group: Sequence[tuple[int, Stage]], count: int, emit: Emit
) -> None:
    """Apply a group of the ``count`` stages without its processes, which need all of it."""

    def work(say: Emit, stop: threading.Event) -> None:
        for number, stage in group:
            say(StageStarted(stage.title, number, count, len(stage.resources)))
            mine = [one for one in stage.resources if not isinstance(one, PROCESSES)]
            applier.apply(mine, say, stop)
            if stop.is_set():
                return
        if len(mine) < len(stage.resources):
            applier.finish()

    in_worker(work, emit)


def _start_processes(
    lab: str, resources: Iterable[Resource], respond: Respond | None, emit: Emit, held: ExitStack
) -> list[processes.DaemonStart]:
    """Start the processes of a stage; return the responder, which is not ready yet, if any.

    They are forked here, where no other thread runs.
    """
    started: list[processes.DaemonStart] = []
    listens = tuple(one for one in resources if isinstance(one, ResponderPort))
    runs = [one for one in resources if isinstance(one, (UserCommand, Keepalived))]
    if listens:
        if respond is None:
            raise LabError(f"lab {lab}: no responder was given for port {listens[0].port}")
        processes.stop_daemon(lab, processes.RESPONDER)
        responder = processes.DaemonStart(
            lab, processes.RESPONDER, lambda ready: respond(listens, ready)
        )
        started.append(held.enter_context(responder))
    if runs:
        commands.start_commands(lab, runs)
    if listens or runs:
        emit(OpsDone(len(listens) + len(runs)))
    return started


def _wait_until_operational(session: Session, links: Iterable[VethLink], say: Emit) -> None:
    """Wait until ``links`` carry frames: otherwise the first ones are lost."""
    ports: dict[str, dict[int, str]] = {}
    for link in links:
        ports.setdefault(link.netns, {})[link.port_index] = link.port
    for name, wanted in ports.items():
        with netns.enter(session.open(name).fd):
            down = wait_until_operational(set(wanted), OPERATIONAL_SECONDS)
        if down:
            names = ", ".join(wanted[index] for index in sorted(down)[:5])
            say(Notice(f"{name}: {names} did not come up within {OPERATIONAL_SECONDS:g} s"))


@dataclass(slots=True)
class _Message:
    """A netlink message that waits to be sent, and the resource that it is part of.

    An error with an errno in ``harmless`` is ignored; EEXIST is answered by sending
    ``instead``, if there is one.
    """

    resource: Resource
    data: bytearray
    harmless: frozenset[int] = frozenset()
    instead: Callable[[], bytearray] | None = None


class PlanApplier:
    """Applies resources; in one namespace at a time, by one thread.

    A node's end of a veth pair can only be set up once the pair exists: these messages are
    deferred until there is more to send to the node, or ``finish``.
    """

    def __init__(self, session: Session, *, reconciling: bool) -> None:
        self.session = session
        self.reconciling = reconciling
        self.ignored = EXISTS if reconciling else frozenset[int]()
        """The errors of resources that exist already, where that is no error."""
        self._peer_links: list[VethLink] = []
        self._deferred: dict[str, list[_Message]] = {}
        self._new: set[str] = set()
        self._defaults: dict[str, str | None] = {}
        self._procfs = sysctl.Procfs()
        self._inside: OpenNamespace | None = None
        self._route: list[_Message] = []
        self._generic: list[_Message] = []
        self._links_waiting = False

    def apply(self, resources: Iterable[Resource], say: Emit, stop: threading.Event) -> None:
        """Apply the resources of a stage, one namespace after the other, until ``stop``."""
        self._new.clear()
        self._inside = None  # each call may be in another thread
        try:
            for name, mine in _by_namespace(resources).items():
                for resource in mine:
                    with self.session.wrap_errors(resource):
                        self._apply(resource)
                self.flush(name)
                if stop.is_set():
                    return
                say(OpsDone(len(mine)))
        finally:
            self._procfs.close()
        for link in self._peer_links:
            message = _Message(link, set_link_up(link.device_index))
            self._deferred.setdefault(link.node_netns, []).append(message)
        self._peer_links.clear()

    def _apply(self, resource: Resource) -> None:
        if isinstance(resource, Namespace):
            self._inside = self.session.create(resource.netns)
            self._procfs.next_namespace()
            self._new.add(resource.netns)
        else:
            HANDLERS[type(resource)](self, resource, self.session.open(resource.netns))

    def finish(self) -> None:
        """Send what is deferred. Needed before anything relies on the links being up."""
        for name in list(self._deferred):
            self.flush(name)

    def send(
        self,
        resource: Resource,
        data: bytearray,
        harmless: frozenset[int] = frozenset(),
        instead: Callable[[], bytearray] | None = None,
    ) -> None:
        """Queue an rtnetlink message for the namespace of ``resource``."""
        self._route.append(_Message(resource, data, harmless, instead))

    def send_generic(
        self,
        resource: Resource,
        data: bytearray,
        harmless: frozenset[int] = frozenset(),
        instead: Callable[[], bytearray] | None = None,
    ) -> None:
        """Queue a generic netlink message for the namespace of ``resource``."""
        self._generic.append(_Message(resource, data, harmless, instead))

    def flush(self, name: str) -> None:
        """Send what waits, all of it for the namespace ``name``, after what was deferred for it."""
        messages = self._deferred.pop(name, [])
        if messages or self._route:
            messages += self._route
            self._route, self._links_waiting = [], False
            self._send(self.session.open(name).route, messages)
        if self._generic:
            messages, self._generic = self._generic, []
            self._send(self.session.generic(self.session.open(name)), messages)

    def _send(self, sock: socket.socket, messages: Sequence[_Message]) -> None:
        again: list[_Message] = []
        for error in sockets.send_all(sock, [message.data for message in messages]):
            message = messages[error.index]
            if error.errno in message.harmless:
                continue
            if error.errno == errno.EEXIST and message.instead:
                again.append(_Message(message.resource, message.instead()))
                continue
            raise self.session.failure(message.resource, error.errno or 0, str(error))
        if again:
            self._send(sock, again)

    def index(self, namespace: OpenNamespace, device: str) -> int:
        """Return the ifindex of a device, which may be among what waits to be sent."""
        if device not in namespace.indexes:
            self.flush(namespace.name)
        return namespace.index(device)

    def add_link(self, link: VethLink, namespace: OpenNamespace) -> None:
        """Queue a veth pair, and its peer's set-up for later."""
        peer = self.session.open(link.node_netns)
        data = add_veth(
            link.port, link.port_index, link.bridge_index,
            link.device, link.device_index, link.mac, peer.fd,
        )  # fmt: skip
        if self.reconciling:  # the pair exists, and one of its ends was set down
            self.send(link, data, instead=lambda: set_link_state(link.port, up=True))
        else:
            self.send(link, data)
        self._links_waiting = True
        namespace.indexes[link.port] = link.port_index
        peer.indexes[link.device] = link.device_index
        self._peer_links.append(link)

    def set_sysctl(self, setting: Sysctl, namespace: OpenNamespace) -> None:
        """Write a sysctl, unless it is what every new namespace starts with."""
        self._enter(namespace)
        if setting.netns in self._new:
            if setting.name not in self._defaults:
                self._defaults[setting.name] = sysctl.read(setting.name)
            if self._defaults[setting.name] == setting.value:
                return
            if setting.name.endswith(("ip_forward", "forwarding")):  # which resets others
                self._new.discard(setting.netns)
        sysctl.write(setting.name, setting.value, optional=setting.optional, through=self._procfs)

    def disable_offloads(self, resource: OffloadsOff, namespace: OpenNamespace) -> None:
        """Disable the offloads of a device, which may be among what waits to be sent."""
        if self._links_waiting:
            self.flush(resource.netns)
        ethtool.disable_offloads(namespace.route, resource.device)

    def _enter(self, namespace: OpenNamespace) -> None:
        self.flush(namespace.name)
        if self._inside is not namespace:
            netns.enter_for_good(namespace.fd)
            self._inside = namespace
            self._procfs.next_namespace()


def _by_namespace(resources: Iterable[Resource]) -> dict[str, list[Resource]]:
    found: dict[str, list[Resource]] = {}
    for resource in resources:
        found.setdefault(resource.netns, []).append(resource)
    return found


def _link_up(to: PlanApplier, resource: LinkUp, namespace: OpenNamespace) -> None:
    to.send(resource, set_link_up(to.index(namespace, resource.device)))


def _bridge(to: PlanApplier, resource: Bridge, namespace: OpenNamespace) -> None:
    data = add_bridge(resource.device, resource.index)
    if to.reconciling:  # it exists, and was set down
        to.send(resource, data, instead=lambda: set_link_state(resource.device, up=True))
    else:
        to.send(resource, data)
    namespace.indexes[resource.device] = resource.index


def _tunnel(to: PlanApplier, resource: Tunnel, namespace: OpenNamespace) -> None:
    options = b""
    if resource.checked_at is not None:
        options = devices.checked_gre(resource.checked_at, GRE_CHECKSUM_FLAG)
    data = add_link(resource.device, resource.kind, resource.index, options)
    to.send(resource, data, EXISTS)
    if resource.kind is TunnelKind.IP6TNL:
        to.flush(namespace.name)
        with netns.enter(namespace.fd):
            ethtool.set_any_mode(resource.device)
    to.send(resource, set_link_state(resource.device, up=True))


def _gue_port(to: PlanApplier, resource: GuePort, namespace: OpenNamespace) -> None:
    family = fou.family_id(to.session.generic(namespace))
    to.send_generic(resource, fou.add_port(resource.port, family, resource.version), to.ignored)


def _address(to: PlanApplier, resource: Address, namespace: OpenNamespace) -> None:
    index = to.index(namespace, resource.device)
    add = functools.partial(
        add_address, resource.address, index, deprecated=resource.deprecated, dad=resource.dad
    )
    if to.reconciling:
        to.send(resource, add(), instead=lambda: add(replace=True))
    else:
        to.send(resource, add())


def _route(to: PlanApplier, resource: StaticRoute, namespace: OpenNamespace) -> None:
    data = add_route(
        resource.to,
        resource.via,
        replace=to.reconciling,
        table=resource.table,
        kind=resource.type,
        metric=resource.metric,
        version=resource.ip_version,
        index=to.index(namespace, resource.device) if resource.device else 0,
        metrics=resource.metrics,
        next_hops=tuple(
            (one.via, to.index(namespace, one.device) if one.device else 0, one.weight)
            for one in resource.next_hops
        ),
    )
    to.send(resource, data)


def _rule(to: PlanApplier, resource: PolicyRule, _: OpenNamespace) -> None:
    to.send(resource, rules.add_rule(resource.state), to.ignored)


def _setting(to: PlanApplier, resource: LinkSetting, namespace: OpenNamespace) -> None:
    index = to.index(namespace, resource.device)
    to.send(resource, devices.set_value(index, resource.group, resource.name, resource.value))


def _netem(to: PlanApplier, resource: Netem, namespace: OpenNamespace) -> None:
    from lvsctl.netlink import tc  # heavy, and few labs have netem

    index = to.index(namespace, resource.device)
    to.send(resource, tc.set_netem(index, resource.impairment))


def _ipvs(
    to: PlanApplier, resource: IpvsService | IpvsRealServer, namespace: OpenNamespace
) -> None:
    family = to.session.ipvs_family(namespace)
    data = ipvs.add_message(resource, family)
    if to.reconciling:
        replaced = ipvs.add_message(resource, family, replace=True)
        to.send_generic(resource, data, instead=lambda: replaced)
    else:
        to.send_generic(resource, data)


def _neighbour(to: PlanApplier, resource: Neighbour, namespace: OpenNamespace) -> None:
    index = to.index(namespace, resource.device)
    to.send(resource, set_neighbour(resource.address, resource.mac, index))


def _proxy(to: PlanApplier, resource: ProxyNeighbour, namespace: OpenNamespace) -> None:
    to.send(resource, set_proxy(resource.address, to.index(namespace, resource.device)))


def _timeouts(to: PlanApplier, resource: ConnectionTimeouts, namespace: OpenNamespace) -> None:
    family = to.session.ipvs_family(namespace)
    to.send_generic(resource, ipvs_config.timeouts_message(family, resource.timeouts))


def _sync_daemon(to: PlanApplier, resource: SyncDaemon, namespace: OpenNamespace) -> None:
    family = to.session.ipvs_family(namespace)
    data = ipvs_config.sync_daemon_message(family, resource.daemon)
    to.send_generic(resource, data, to.ignored)


def _packet_filter(to: PlanApplier, resource: PacketFilter, namespace: OpenNamespace) -> None:
    to.flush(namespace.name)
    rules: dict[str, tuple[str, ...]] = {}
    for rule in resource.rules:
        rules[rule.chain] = (*rules.get(rule.chain, ()), rule.action)
    with netns.enter(namespace.fd):
        packet_filters.drop(resource.program, resource.table, rules)


def _masquerade(to: PlanApplier, resource: Masquerade, namespace: OpenNamespace) -> None:
    to.flush(namespace.name)
    with netns.enter(namespace.fd):
        packet_filters.masquerade([resource.target])


def _mss_clamp(to: PlanApplier, resource: MssClamp, namespace: OpenNamespace) -> None:
    to.flush(namespace.name)
    with netns.enter(namespace.fd):
        packet_filters.clamp(resource.clamp)


def _drop_filter(to: PlanApplier, resource: DropFilter, namespace: OpenNamespace) -> None:
    from lvsctl.netlink import tc  # heavy, and only a fault needs it

    index = to.index(namespace, resource.device)
    to.send(resource, tc.add_clsact(index), to.ignored)
    data = tc.add_drop_filter(index, resource.protocol, resource.version, resource.icmp_type)
    to.send(resource, data, to.ignored)


def _announcement_filter(
    to: PlanApplier, resource: AnnouncementFilter, namespace: OpenNamespace
) -> None:
    from lvsctl.netlink import tc  # heavy, and only a fault needs it

    index = to.index(namespace, resource.device)
    to.send(resource, tc.add_clsact(index), to.ignored)
    to.send(resource, tc.add_announcement_filter(index, resource), to.ignored)


def _marks(to: PlanApplier, resource: Marks, namespace: OpenNamespace) -> None:
    from lvsctl.netlink import tc  # heavy, and few labs have marks

    to.flush(namespace.name)
    with netns.enter(namespace.fd):
        done = packet_filters.mark(resource.markings)
    for device in () if done else resource.devices:
        index = to.index(namespace, device)
        if to.reconciling:  # the kernel has no message that replaces all filters
            to.send(resource, tc.delete_clsact(index), _NO_QDISC)
        to.send(resource, tc.add_clsact(index), to.ignored)
        for number, marking in enumerate(resource.markings, 1):
            to.send(resource, tc.add_mark_filter(index, number, marking), to.ignored)


_NO_QDISC = frozenset({errno.ENOENT, errno.EINVAL})
"""There is no such discipline to delete."""

HANDLERS: dict[type[Resource], Callable[[PlanApplier, Any, OpenNamespace], None]] = {
    Sysctl: PlanApplier.set_sysctl,
    LinkUp: _link_up,
    Bridge: _bridge,
    VethLink: PlanApplier.add_link,
    Tunnel: _tunnel,
    GuePort: _gue_port,
    Address: _address,
    StaticRoute: _route,
    Netem: _netem,
    OffloadsOff: PlanApplier.disable_offloads,
    IpvsService: _ipvs,
    IpvsRealServer: _ipvs,
    Neighbour: _neighbour,
    ProxyNeighbour: _proxy,
    PolicyRule: _rule,
    LinkSetting: _setting,
    ConnectionTimeouts: _timeouts,
    SyncDaemon: _sync_daemon,
    DropFilter: _drop_filter,
    AnnouncementFilter: _announcement_filter,
    Marks: _marks,
    PacketFilter: _packet_filter,
    Masquerade: _masquerade,
    MssClamp: _mss_clamp,
}
"""The function that applies each kind of resource: a new kind is a new row."""
