"""Apply a plan to the kernel, and roll single resources back on a running lab.

Stage by stage, and within a stage namespace by namespace, in a thread of its own that may
change its namespace. The netlink messages of a namespace are collected and go out in one send
(``netlink.sockets``); everything else (a sysctl, an ioctl) first sends what is waiting, so that
the order within a namespace holds.

Whatever fails raises; the caller removes the whole lab (``registry.remove``).
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from lvsctl.errors import LabError
from lvsctl.kernel import commands, netns, processes, sysctl
from lvsctl.kernel.session import Namespace, Session
from lvsctl.kernel.worker import in_worker
from lvsctl.model.event import Emit, Notice, OpsDone, StageBegun
from lvsctl.netlink import ethtool, fou, ipvs, rtnl, sockets
from lvsctl.resources.fault_ops import AddNeighbour, DropIncoming
from lvsctl.resources.ops import (
    AddAddress,
    AddBridge,
    AddGuePort,
    AddLink,
    AddNamespace,
    AddRealServer,
    AddRoute,
    AddService,
    AddTunnel,
    DisableOffloads,
    Impair,
    Listen,
    Op,
    Plan,
    RunCommand,
    SetLinkUp,
    SetSysctl,
    Stage,
)

Respond = Callable[[tuple[Listen, ...], processes.Ready], None]
"""The real servers' responder: serves until killed; calls Ready once its sockets listen."""

PROCESSES = (Listen, RunCommand)
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
    resources = [resource for stage in stages for resource in stage.ops]
    created = [one.netns for one in resources if isinstance(one, AddNamespace)]
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
            responders += _start_processes(lab, group[-1][1].ops, respond, emit, held)
        links = [one for one in resources if isinstance(one, AddLink)]
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
        if number == len(stages) or any(isinstance(one, PROCESSES) for one in stage.ops):
            yield group
            group = []


def _apply_stages(
    applier: PlanApplier, group: Sequence[tuple[int, Stage]], count: int, emit: Emit
) -> None:
    """Apply a group of the ``count`` stages without its processes, which need all of it."""

    def work(say: Emit, stop: threading.Event) -> None:
        for number, stage in group:
            say(StageBegun(stage.title, number, count, len(stage.ops)))
            mine = [one for one in stage.ops if not isinstance(one, PROCESSES)]
            applier.apply(mine, say, stop)
            if stop.is_set():
                return
        if len(mine) < len(stage.ops):
            applier.finish()

    in_worker(work, emit)


def _start_processes(
    lab: str, resources: Iterable[Op], respond: Respond | None, emit: Emit, held: ExitStack
) -> list[processes.DaemonStart]:
    """Start the processes of a stage; return the responder, which is not ready yet, if any.

    They are forked here, where no other thread runs.
    """
    started: list[processes.DaemonStart] = []
    listens = tuple(one for one in resources if isinstance(one, Listen))
    runs = [one for one in resources if isinstance(one, RunCommand)]
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


def _wait_until_operational(session: Session, links: Iterable[AddLink], say: Emit) -> None:
    """Wait until ``links`` carry frames: otherwise the first ones are lost."""
    ports: dict[str, dict[int, str]] = {}
    for link in links:
        ports.setdefault(link.netns, {})[link.port_index] = link.port
    for name, wanted in ports.items():
        with netns.enter(session.open(name).fd):
            down = rtnl.wait_until_operational(set(wanted), OPERATIONAL_SECONDS)
        if down:
            names = ", ".join(wanted[index] for index in sorted(down)[:5])
            say(Notice(f"{name}: {names} did not come up within {OPERATIONAL_SECONDS:g} s"))


@dataclass(slots=True)
class _Message:
    """A netlink message that waits to be sent, and the resource that it is part of.

    An error with an errno in ``harmless`` is ignored; EEXIST is answered by sending
    ``instead``, if there is one.
    """

    resource: Op
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
        self._peer_links: list[AddLink] = []
        self._deferred: dict[str, list[_Message]] = {}
        self._new: set[str] = set()
        self._defaults: dict[str, str | None] = {}
        self._procfs = sysctl.Procfs()
        self._inside: Namespace | None = None
        self._route: list[_Message] = []
        self._generic: list[_Message] = []
        self._links_waiting = False

    def apply(self, resources: Iterable[Op], say: Emit, stop: threading.Event) -> None:
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
            message = _Message(link, rtnl.set_link_up(link.device_index))
            self._deferred.setdefault(link.node_netns, []).append(message)
        self._peer_links.clear()

    def _apply(self, resource: Op) -> None:
        if isinstance(resource, AddNamespace):
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
        resource: Op,
        data: bytearray,
        harmless: frozenset[int] = frozenset(),
        instead: Callable[[], bytearray] | None = None,
    ) -> None:
        """Queue an rtnetlink message for the namespace of ``resource``."""
        self._route.append(_Message(resource, data, harmless, instead))

    def send_generic(
        self,
        resource: Op,
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

    def index(self, namespace: Namespace, device: str) -> int:
        """Return the ifindex of a device, which may be among what waits to be sent."""
        if device not in namespace.indexes:
            self.flush(namespace.name)
        return namespace.index(device)

    def add_link(self, link: AddLink, namespace: Namespace) -> None:
        """Queue a veth pair, and its peer's set-up for later."""
        peer = self.session.open(link.node_netns)
        data = rtnl.add_veth(
            link.port, link.port_index, link.bridge_index,
            link.device, link.device_index, link.mac, peer.fd,
        )  # fmt: skip
        if self.reconciling:  # the pair exists, and one of its ends was set down
            self.send(link, data, instead=lambda: rtnl.set_link_state(link.port, up=True))
        else:
            self.send(link, data)
        self._links_waiting = True
        namespace.indexes[link.port] = link.port_index
        peer.indexes[link.device] = link.device_index
        self._peer_links.append(link)

    def set_sysctl(self, setting: SetSysctl, namespace: Namespace) -> None:
        """Write a sysctl, unless it is what every new namespace starts with."""
        self._enter(namespace)
        if setting.netns in self._new:
            if setting.key not in self._defaults:
                self._defaults[setting.key] = sysctl.read(setting.key)
            if self._defaults[setting.key] == setting.value:
                return
            if setting.key.endswith(("ip_forward", "forwarding")):  # which resets others
                self._new.discard(setting.netns)
        sysctl.write(setting.key, setting.value, optional=setting.optional, through=self._procfs)

    def disable_offloads(self, resource: DisableOffloads, namespace: Namespace) -> None:
        """Disable the offloads of a device, which may be among what waits to be sent."""
        if self._links_waiting:
            self.flush(resource.netns)
        ethtool.disable_offloads(namespace.route, resource.device)

    def _enter(self, namespace: Namespace) -> None:
        self.flush(namespace.name)
        if self._inside is not namespace:
            netns.enter_for_good(namespace.fd)
            self._inside = namespace
            self._procfs.next_namespace()


def _by_namespace(resources: Iterable[Op]) -> dict[str, list[Op]]:
    found: dict[str, list[Op]] = {}
    for resource in resources:
        found.setdefault(resource.netns, []).append(resource)
    return found


def _link_up(to: PlanApplier, resource: SetLinkUp, namespace: Namespace) -> None:
    to.send(resource, rtnl.set_link_up(to.index(namespace, resource.device)))


def _bridge(to: PlanApplier, resource: AddBridge, namespace: Namespace) -> None:
    to.send(resource, rtnl.add_bridge(resource.device, resource.index), to.ignored)
    namespace.indexes[resource.device] = resource.index


def _tunnel(to: PlanApplier, resource: AddTunnel, _: Namespace) -> None:
    kind = str(resource.encapsulation)
    to.send(resource, rtnl.add_link(resource.device, kind, resource.index), EXISTS)
    to.send(resource, rtnl.set_link_state(resource.device, up=True))


def _gue_port(to: PlanApplier, resource: AddGuePort, namespace: Namespace) -> None:
    family = fou.family_id(to.session.generic(namespace))
    to.send_generic(resource, fou.add_port(resource.port, family), to.ignored)


def _address(to: PlanApplier, resource: AddAddress, namespace: Namespace) -> None:
    index = to.index(namespace, resource.device)
    to.send(resource, rtnl.add_address(resource.address, index), to.ignored)


def _route(to: PlanApplier, resource: AddRoute, _: Namespace) -> None:
    to.send(resource, rtnl.add_route(resource.to, resource.via, replace=to.reconciling))


def _netem(to: PlanApplier, resource: Impair, namespace: Namespace) -> None:
    from lvsctl.netlink import tc  # heavy, and few labs have netem

    index = to.index(namespace, resource.device)
    to.send(resource, tc.set_netem(index, resource.impairment))


def _ipvs(to: PlanApplier, resource: AddService | AddRealServer, namespace: Namespace) -> None:
    family = to.session.ipvs_family(namespace)
    data = ipvs.add_message(resource, family)
    if to.reconciling:
        replaced = ipvs.add_message(resource, family, replace=True)
        to.send_generic(resource, data, instead=lambda: replaced)
    else:
        to.send_generic(resource, data)


def _neighbour(to: PlanApplier, resource: AddNeighbour, namespace: Namespace) -> None:
    index = to.index(namespace, resource.device)
    to.send(resource, rtnl.set_neighbour(resource.address, resource.mac, index))


def _drop_filter(to: PlanApplier, resource: DropIncoming, namespace: Namespace) -> None:
    from lvsctl.netlink import tc  # heavy, and only a fault needs it

    index = to.index(namespace, resource.device)
    to.send(resource, tc.add_clsact(index), to.ignored)
    to.send(resource, tc.add_drop_filter(index, resource.protocol), to.ignored)


HANDLERS: dict[type[Op], Callable[[PlanApplier, Any, Namespace], None]] = {
    SetSysctl: PlanApplier.set_sysctl,
    SetLinkUp: _link_up,
    AddBridge: _bridge,
    AddLink: PlanApplier.add_link,
    AddTunnel: _tunnel,
    AddGuePort: _gue_port,
    AddAddress: _address,
    AddRoute: _route,
    Impair: _netem,
    DisableOffloads: PlanApplier.disable_offloads,
    AddService: _ipvs,
    AddRealServer: _ipvs,
    AddNeighbour: _neighbour,
    DropIncoming: _drop_filter,
}
"""The function that applies each kind of resource: a new kind is a new row."""
