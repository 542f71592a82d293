"""A plan's operations, carried out stage by stage, each kind in the way that is quickest."""

from __future__ import annotations

import errno
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lvsctl.errors import KernelError
from lvsctl.kernel import fou, links, netns, rtnl, sysctl, wire
from lvsctl.kernel.ahead import cpus
from lvsctl.kernel.session import Opened, Session
from lvsctl.model.event import Emit, OpsDone, ignore
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
    Op,
    SetLinkUp,
    SetSysctl,
)

if TYPE_CHECKING:
    from lvsctl.resources.fault_ops import AddNeighbour, DropIncoming

EXISTS = frozenset({errno.EEXIST})

MANY = 16
"""So many namespaces in a stage that a second thread is worth starting."""

TOGETHER = 8
"""So many cables are worth a message."""

SECOND_HAND = "lvsctl-execute-2"
"""That thread's name."""


Todo = Iterable[tuple[str, Sequence[Op]]]
"""Namespaces, and what is to be done in each."""


@dataclass(slots=True)
class _Message:
    """A netlink message on its way, and what it is part of.

    A refusal with an errno in ``harmless`` is none; one with EEXIST is answered by
    sending ``instead``, where there is one.
    """

    op: Op
    data: bytearray
    harmless: frozenset[int] = frozenset()
    instead: Callable[[], bytearray] | None = None


class Performance:
    """What is made of one plan; each stage in a worker's thread of its own.

    The nodes' ends of the cables can only be set up once there is something at the other
    end: those messages are held until there is more to send to the node, or ``finish``.
    """

    def __init__(self, session: Session, converging: bool) -> None:
        self.session = session
        self.converging = converging
        self.known = EXISTS if converging else frozenset[int]()
        self.far_ends: list[AddLink] = []
        self.held: dict[str, list[_Message]] = {}
        self.new: set[str] = set()
        self.as_new: dict[str, str | None] = {}
        self.laid = 0
        """How many of the next stage's operations are done already, the first ones."""

    def perform(
        self, ops: Iterable[Op], say: Emit, stop: threading.Event, following: Sequence[Op] = ()
    ) -> None:
        """A stage: the ``ops`` of one namespace in order, one namespace after the other.

        Where there are many, by two hands: it is mostly the kernel's work, and two CPUs do it in
        two thirds of the time (more than two hands gain nothing). The second hand takes half
        of the namespaces or, where the stage ``following`` lays cables, begins with those.
        """
        self.new = set()
        todo = list(_by_namespace(list(ops)[self.laid :]).items())
        say(OpsDone(self.laid))
        self.laid = 0
        cables = deque(op for op in following if isinstance(op, AddLink))
        if len(todo) < MANY or cpus() < 2:
            _Hand(self).work(todo, say, stop)
        elif cables and len(cables) == len(following):
            self._and_lay(todo, cables, say, stop)
        else:
            half = len(todo) // 2
            _at_once(
                lambda: _Hand(self).work(todo[:half], say, stop),
                lambda: _Hand(self).work(todo[half:], say, stop),
                stop,
            )
        for cable in self.far_ends:
            message = _Message(cable, rtnl.link_up(cable.device_index))
            self.held.setdefault(cable.node_netns, []).append(message)
        self.far_ends = []

    def _and_lay(
        self,
        todo: Collection[tuple[str, Sequence[Op]]],
        cables: deque[AddLink],
        say: Emit,
        stop: threading.Event,
    ) -> None:
        """Make namespaces, and lay ``cables`` between those that are ready.

        While few are, the second hand makes some for the first to take.
        """
        coming: set[str | None] = {None, *(name for name, _ in todo)}
        new = {name for name, ops in todo if any(isinstance(op, AddNamespace) for op in ops)}
        ready: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def make() -> None:
            try:
                _Hand(self).work(todo, say, stop, ready.put)
            finally:
                ready.put(None)

        def lay() -> None:
            hand = _Hand(self)
            while None in coming and not stop.is_set():
                while ready.qsize() < TOGETHER and not stop.is_set():
                    more = len(new & coming) - 1 - ready.qsize()  # without what is being made
                    if not self.session.prepare(more):
                        break
                coming.discard(ready.get())
                coming.difference_update([ready.get() for _ in range(ready.qsize())])
                batch: list[AddLink] = []
                while cables and not coming & {cables[0].netns, cables[0].node_netns}:
                    batch.append(cables.popleft())
                hand.work(_by_namespace(batch).items(), ignore, stop)
                self.laid += len(batch)

        _at_once(make, lay, stop)

    def finish(self) -> None:
        """Send what is held. Needed before anything relies on the devices being up."""
        hand = _Hand(self)
        for name in list(self.held):
            hand.flush(name)


def _by_namespace(ops: Iterable[Op]) -> dict[str, list[Op]]:
    found: dict[str, list[Op]] = {}
    for op in ops:
        found.setdefault(op.netns, []).append(op)
    return found


def _at_once(first: Callable[[], None], second: Callable[[], None], stop: threading.Event) -> None:
    """Both, ``second`` in a thread of its own; whichever fails, the other ends soon after."""
    failed: list[BaseException] = []

    def beside() -> None:
        try:
            second()
        except BaseException as error:  # noqa: BLE001 (raised below)
            failed.append(error)
            stop.set()

    other = threading.Thread(target=beside, name=SECOND_HAND, daemon=True)
    other.start()
    try:
        first()
    except BaseException:
        stop.set()
        raise
    finally:
        other.join()
    if failed:
        raise failed[0]


class _Hand:
    """What one thread does of a performance: it is in one namespace at a time."""

    def __init__(self, performance: Performance) -> None:
        self._all = performance
        self._session = performance.session
        self._sysctls = sysctl.Instance()
        self._inside: Opened | None = None
        self._waiting: list[_Message] = []
        self._waiting_generic: list[_Message] = []
        self._devices_waiting = False

    def work(
        self,
        todo: Todo,
        say: Emit,
        stop: threading.Event,
        ready: Callable[[str], None] | None = None,
    ) -> None:
        """Namespace by namespace, each ``ready`` when it is done, until ``stop`` is set."""
        try:
            for name, ops in todo:
                for op in ops:
                    try:
                        self._perform(op)
                    except (OSError, KernelError) as error:
                        raise self._session.explained(op, error) from error
                self.flush(name)
                if ready:
                    ready(name)
                if stop.is_set():
                    return
                say(OpsDone(len(ops)))
        finally:
            self._sysctls.close()

    def _perform(self, op: Op) -> None:
        if isinstance(op, AddNamespace):
            self._inside = self._session.create(op.netns)
            self._sysctls.next_namespace()
            self._all.new.add(op.netns)
        else:
            how = HOW.get(type(op)) or _how_faults_do()[type(op)]
            how(self, op, self._session.open(op.netns))

    def sysctl(self, op: SetSysctl, opened: Opened) -> None:
        """Every new namespace has the same settings, so what they are is read but once."""
        self._go_inside(opened)
        if op.netns in self._all.new:
            if op.key not in self._all.as_new:
                self._all.as_new[op.key] = sysctl.read(op.key)
            if self._all.as_new[op.key] == op.value:
                return
            if op.key.endswith(("ip_forward", "forwarding")):  # resets others: read no more
                self._all.new.discard(op.netns)
        sysctl.write(op.key, op.value, optional=op.optional, through=self._sysctls)

    def link_up(self, op: SetLinkUp, opened: Opened) -> None:
        self._later(op, rtnl.link_up(self._index(opened, op.device)))

    def bridge(self, op: AddBridge, opened: Opened) -> None:
        self._later(op, rtnl.add_bridge(op.device, op.index), self._all.known)
        opened.indexes[op.device] = op.index

    def cable(self, op: AddLink, opened: Opened) -> None:
        far = self._session.open(op.node_netns)
        message = _Message(op, rtnl.add_veth(
            op.port, op.port_index, op.bridge_index,
            op.device, op.device_index, op.mac, far.fd,
        ))  # fmt: skip
        if self._all.converging:  # the whole cable is there, and somebody set an end of it down
            message.instead = lambda: rtnl.link_state(op.port, up=True)
        self._waiting.append(message)
        self._devices_waiting = True
        opened.indexes[op.port] = op.port_index
        far.indexes[op.device] = op.device_index
        self._all.far_ends.append(op)

    def tunnel(self, op: AddTunnel, _: Opened) -> None:
        self._later(op, rtnl.add_tunnel(op.device, op.index, str(op.encapsulation)), EXISTS)
        self._later(op, rtnl.link_state(op.device, up=True))

    def gue_port(self, op: AddGuePort, opened: Opened) -> None:
        family = fou.family_id(self._session.generic(opened))
        self._waiting_generic.append(_Message(op, fou.add_port(op.port, family), self._all.known))

    def address(self, op: AddAddress, opened: Opened) -> None:
        self._later(op, rtnl.address(op.address, self._index(opened, op.device)), self._all.known)

    def route(self, op: AddRoute, _: Opened) -> None:
        flags = rtnl.SET if self._all.converging else rtnl.ADD
        self._later(op, rtnl.route(op.to, op.via, flags=flags))

    def impairment(self, op: Impair, opened: Opened) -> None:
        self._later(op, rtnl.add_netem(self._index(opened, op.device), op.impairment))

    def offloads(self, op: DisableOffloads, opened: Opened) -> None:
        if self._devices_waiting:
            self.flush(op.netns)
        links.disable_offloads(opened.route, op.device)

    def ipvs(self, op: AddService | AddRealServer, opened: Opened) -> None:
        from lvsctl.kernel import ipvs_shapes

        family = self._session.ipvs_family(opened)
        message = _Message(op, ipvs_shapes.message(op, family))
        if self._all.converging:
            message.instead = lambda: ipvs_shapes.message(op, family, replace=True)
        self._waiting_generic.append(message)

    def neighbour(self, op: AddNeighbour, opened: Opened) -> None:
        from lvsctl.kernel import rtnl_obstacles

        index = self._index(opened, op.device)
        self._later(op, rtnl_obstacles.neighbour(op.address, op.mac, index))

    def drop(self, op: DropIncoming, opened: Opened) -> None:
        from lvsctl.kernel import rtnl_obstacles

        index = self._index(opened, op.device)
        self._later(op, rtnl_obstacles.add_clsact(index), self._all.known)
        self._later(op, rtnl_obstacles.drop_protocol(index, op.protocol), self._all.known)

    def _later(self, op: Op, data: bytearray, harmless: frozenset[int] = frozenset()) -> None:
        self._waiting.append(_Message(op, data, harmless))

    def _index(self, opened: Opened, device: str) -> int:
        if device not in opened.indexes:
            self.flush(opened.name)  # the device may be among what is waiting
        return opened.index(device)

    def _go_inside(self, opened: Opened) -> None:
        if self._waiting or self._waiting_generic:
            self.flush(opened.name)
        if self._inside is not opened:
            netns.enter_for_good(opened.fd)
            self._inside = opened
            self._sysctls.next_namespace()

    def flush(self, name: str) -> None:
        """Send what is waiting, all of it for the namespace ``name``, and what is held for it."""
        messages = self._all.held.pop(name, None) or []
        if messages or self._waiting:
            messages += self._waiting
            self._waiting, self._devices_waiting = [], False
            self._send(self._session.open(name).route, messages)
        if self._waiting_generic:
            messages, self._waiting_generic = self._waiting_generic, []
            self._send(self._session.generic(self._session.open(name)), messages)

    def _send(self, sock: socket.socket, messages: Sequence[_Message]) -> None:
        again: list[_Message] = []
        for refusal in wire.send_all(sock, [message.data for message in messages]):
            message = messages[refusal.index]
            if refusal.errno in message.harmless:
                continue
            if refusal.errno == errno.EEXIST and message.instead:
                again.append(_Message(message.op, message.instead()))
                continue
            raise self._session.failure(message.op, refusal.errno, str(refusal))
        if again:
            self._send(sock, again)


HOW: dict[type[Op], Callable[[_Hand, Any, Opened], None]] = {
    SetSysctl: _Hand.sysctl,
    SetLinkUp: _Hand.link_up,
    AddBridge: _Hand.bridge,
    AddLink: _Hand.cable,
    AddTunnel: _Hand.tunnel,
    AddGuePort: _Hand.gue_port,
    AddAddress: _Hand.address,
    AddRoute: _Hand.route,
    Impair: _Hand.impairment,
    DisableOffloads: _Hand.offloads,
    AddService: _Hand.ipvs,
    AddRealServer: _Hand.ipvs,
}
"""Which method carries out each kind of operation: a new kind is a new row."""


def _how_faults_do() -> dict[type[Op], Callable[[_Hand, Any, Opened], None]]:
    """The same for what only faults do, so that a lab without any need not import them."""
    from lvsctl.resources.fault_ops import AddNeighbour, DropIncoming

    return {AddNeighbour: _Hand.neighbour, DropIncoming: _Hand.drop}
