"""Taking single operations back on a running lab, so that it converges to its topology.

Only what can be undone in place: the rest (a sysctl whose earlier value nobody
knows, a user's command) takes `lvsctl down` and up, and says so before anything is done.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Sequence

from lvsctl.errors import LabError
from lvsctl.kernel import netns, paths, processes
from lvsctl.kernel.session import Namespace, Session
from lvsctl.kernel.worker import in_worker
from lvsctl.model.event import Emit, OpsDone, ignore
from lvsctl.netlink import fou, ipvs, rtnl, sockets
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
    RunCommand,
    SetLinkUp,
    SetSysctl,
    subject,
)

GONE = frozenset({
    errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.EINVAL, errno.ENXIO,
})  # fmt: skip
"""What the kernel says where the thing is gone already: no error when undoing."""


FALLBACK_DEVICES = frozenset({"tunl0", "gre0"})
"""Devices that the kernel may have made by itself, and then does not let go: set down instead."""


def obsolete(old: Iterable[Op], new: Iterable[Op]) -> tuple[Op, ...]:
    """What of ``old`` must be undone for ``new`` to be all there is."""
    wanted = {subject(op) for op in new}
    return tuple(op for op in dict.fromkeys(old) if subject(op) not in wanted)


def undo(ops: Sequence[Op], lab: str, emit: Emit = ignore) -> None:
    """Take back ``ops`` of the running ``lab``, the last one first.

    What goes along with something larger (an address with its namespace) is left to
    that. What is gone already is no error. Where a Listen operation is taken back, nothing
    listens any more, because one process does so for all: those that stay are to be executed
    again. Raises LabError, before anything is done, where one cannot be undone in place;
    KernelError where the kernel refuses.
    """
    refuse(ops, lab)
    mine = independent(ops)

    def work(say: Emit, stop: threading.Event) -> None:
        with Session(lab) as session:
            for op in reversed(mine):
                if stop.is_set():
                    return
                with session.wrap_errors(op):
                    _undo(session, op)
                say(OpsDone(1))

    in_worker(work, emit)


def refuse(ops: Sequence[Op], lab: str) -> None:
    """Raise LabError where one of ``ops`` cannot be taken back while ``lab`` runs."""
    lasting = [op for op in independent(ops) if isinstance(op, (SetSysctl, RunCommand))]
    if lasting:
        what = "\n  ".join(command for op in lasting for command in op.describe())
        raise LabError(
            f"lab {lab} is running, and this cannot be taken back meanwhile:\n  {what}",
            hint=f"`lvsctl down {lab}`, then up again",
        )


def independent(ops: Sequence[Op]) -> list[Op]:
    """Those of ``ops`` that do not go along with another one of them."""
    namespaces = {op.netns for op in ops if isinstance(op, AddNamespace)}
    services = {(op.netns, op.service) for op in ops if isinstance(op, AddService)}
    devices: set[tuple[str, str]] = set()
    for op in ops:
        if isinstance(op, AddLink):
            devices |= {(op.netns, op.port), (op.node_netns, op.device)}
        elif isinstance(op, (AddBridge, AddTunnel)):
            devices.add((op.netns, op.device))

    def goes_along(op: Op) -> bool:
        if isinstance(op, AddNamespace):
            return False
        if op.netns in namespaces:
            return True
        match op:
            case AddLink() | AddBridge() | AddTunnel():
                return False
            case AddRealServer():
                return (op.netns, op.service) in services
            case SetSysctl():
                return any(op.netns == name and f".{device}." in op.key.replace("/", ".")
                           for name, device in devices)  # fmt: skip
        return (op.netns, getattr(op, "device", "")) in devices

    return [op for op in dict.fromkeys(ops) if not goes_along(op)]


def _undo(session: Session, op: Op) -> None:
    if isinstance(op, DisableOffloads):  # they stay off, and go with their device
        return
    if isinstance(op, Listen):
        processes.stop_daemon(session.lab, processes.RESPONDER)
        return
    if isinstance(op, AddNamespace):
        files = [paths.namespaces(session.lab) / op.netns]
        processes.terminate(processes.pids_in(files) - processes.ancestors())
        session.close(op.netns)
        netns.delete(session.lab, op.netns)
        return
    opened = session.open(op.netns)
    sock = opened.route
    if isinstance(op, (AddService, AddRealServer)):
        sock = session.generic(opened)
        message = ipvs.delete_message(op, session.ipvs_family(opened))
    elif isinstance(op, AddGuePort):
        sock = session.generic(opened)
        message = fou.delete_port(op.port, fou.family_id(sock))
    else:
        try:
            message = _inverse(op, opened)
        except OSError as missing:
            if missing.errno in GONE:
                return
            raise
    for error in sockets.send_all(sock, [message]):
        if error.errno not in GONE:
            raise session.failure(op, error.errno or 0, str(error))


def _inverse(op: Op, opened: Namespace) -> bytearray:  # noqa: PLR0911 (a row for each kind)
    """The message that takes ``op`` back. Raises OSError where its device is gone."""
    from lvsctl.netlink import tc  # heavy

    match op:
        case AddAddress():
            return rtnl.delete_address(op.address, opened.index(op.device))
        case AddRoute():
            return rtnl.delete_route(op.to, op.via)
        case AddLink():
            return rtnl.delete_link(op.port)
        case AddTunnel() if op.device in FALLBACK_DEVICES:
            return rtnl.set_link_state(op.device, up=False)
        case AddBridge() | AddTunnel():
            return rtnl.delete_link(op.device)
        case SetLinkUp():
            return rtnl.set_link_state(op.device, up=False)
        case Impair():
            return tc.delete_netem(opened.index(op.device))
        case AddNeighbour():
            return rtnl.delete_neighbour(op.address, opened.index(op.device))
        case DropIncoming():
            return tc.delete_clsact(opened.index(op.device))
    raise NotImplementedError(type(op).__name__)
