"""Undo single resources of a running lab, so that it is reconciled with its topology.

Only what can be undone in place: the rest (a sysctl, whose earlier value is not known, a user's
command) needs `lvsctl down` and up, and is refused before anything is changed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from lvsctl.errors import LabError
from lvsctl.kernel import commands, loopback, netns, packet_filters, paths, processes, sysctl
from lvsctl.kernel.session import OpenNamespace, Session
from lvsctl.kernel.worker import in_worker
from lvsctl.model.event import Emit, OpsDone, ignore
from lvsctl.model.service import IpvsTimeouts
from lvsctl.netlink import (
    devices,
    fou,
    ipvs,
    ipvs_config,
    nexthops,
    queueing,
    rules,
    sockets,
    switching,
    tcp_metrics,
    xfrm,
)
from lvsctl.netlink.addresses import delete_address
from lvsctl.netlink.links import delete_link, set_link_state
from lvsctl.netlink.neighbours import delete_neighbour, set_proxy
from lvsctl.netlink.routes import delete_route
from lvsctl.plan.diff import independent
from lvsctl.resources.address import Address
from lvsctl.resources.announcement_filter import AnnouncementFilter
from lvsctl.resources.base import Resource
from lvsctl.resources.bridge import Bridge
from lvsctl.resources.device import Device
from lvsctl.resources.drop_filter import DropFilter
from lvsctl.resources.foreign import (
    BridgeVlan,
    FdbEntry,
    NextHopObject,
    StoppedProcess,
    TcpMetrics,
    Xfrm,
)
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
from lvsctl.resources.neighbour import LearntNeighbour, Neighbour, ProxyNeighbour
from lvsctl.resources.netem import Netem
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.resources.packet_filter import PacketFilter
from lvsctl.resources.policy_rule import PolicyRule
from lvsctl.resources.qdisc import Qdisc
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import ChangedSysctl
from lvsctl.resources.tunnel import FALLBACK_DEVICES, Tunnel
from lvsctl.resources.veth_link import VethLink

GONE = frozenset({
    errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.EINVAL, errno.ENXIO,
})  # fmt: skip
"""What the kernel answers where the thing does not exist any more: no error when undoing."""


def undo(resources: Sequence[Resource], lab: str, emit: Emit = ignore) -> None:
    """Undo ``resources`` of the running ``lab``, the last one first.

    What goes together with another one (an address with its namespace) is left to that. What
    does not exist any more is no error. Where a ResponderPort is undone, no port is served any
    more, because one process serves all: those that stay are to be applied again. Raises
    LabError, before anything is done, where one cannot be undone in place; KernelError where
    the kernel rejects it.
    """
    refuse(resources, lab)
    mine = independent(resources)

    def work(say: Emit, stop: threading.Event) -> None:
        with Session(lab) as session:
            for resource in reversed(mine):
                if stop.is_set():
                    return
                with session.wrap_errors(resource):
                    _undo(session, resource)
                say(OpsDone(1))

    in_worker(work, emit)


def refuse(resources: Sequence[Resource], lab: str) -> None:
    """Raise LabError where one of ``resources`` cannot be undone while ``lab`` runs."""
    lasting = [one for one in independent(resources) if not one.UNDOABLE]
    if lasting:
        what = "\n  ".join(command for one in lasting for command in one.describe())
        raise LabError(
            f"lab {lab} is running, and this cannot be taken back meanwhile:\n  {what}",
            hint=f"`lvsctl down {lab}`, then up again",
        )


def _undo(session: Session, resource: Resource) -> None:
    if isinstance(resource, Namespace):
        _delete_namespace(session, resource)
    elif isinstance(resource, PacketFilter | Masquerade | MssClamp):
        _undo_filter(session, resource)
    elif isinstance(resource, Marks):
        _unmark(session, resource)
    elif isinstance(resource, ResponderPort):
        processes.stop_daemon(session.lab, processes.RESPONDER)
    elif isinstance(resource, Keepalived):
        commands.end_keepalived(session.lab, resource.netns)
    elif isinstance(resource, ChangedSysctl):
        with netns.enter(session.open(resource.netns).fd), contextlib.suppress(FileNotFoundError):
            sysctl.write(resource.name, resource.usual)
    elif isinstance(resource, StoppedProcess):
        with contextlib.suppress(ProcessLookupError):
            os.kill(resource.pid, signal.SIGCONT)
    elif isinstance(resource, Xfrm):
        with (
            netns.enter(session.open(resource.netns).fd),
            sockets.open_socket(xfrm.PROTOCOL) as sock,
        ):
            _check(session, resource, sockets.send_all(sock, [xfrm.delete_xfrm(resource.found)]))
    elif not isinstance(resource, OffloadsOff):  # which go with their device
        _send(session, resource)


def _undo_filter(session: Session, resource: PacketFilter | Masquerade | MssClamp) -> None:
    with netns.enter(session.open(resource.netns).fd):
        if isinstance(resource, PacketFilter):
            packet_filters.empty_table(resource.program, resource.table)
        elif isinstance(resource, Masquerade):
            packet_filters.masquerade([resource.target], remove=True)
        else:
            packet_filters.clamp(resource.clamp, remove=True)


def _unmark(session: Session, resource: Marks) -> None:
    from lvsctl.netlink import tc  # heavy, and few labs have marks

    opened = session.open(resource.netns)
    with netns.enter(opened.fd):
        done = packet_filters.unmark()
    for device in () if done else resource.devices:
        with contextlib.suppress(OSError):  # the device does not exist any more
            message = tc.delete_clsact(opened.index(device))
            _check(session, resource, sockets.send_all(opened.route, [message]))


def _delete_namespace(session: Session, resource: Namespace) -> None:
    files = [paths.of(session.lab).namespaces / resource.netns]
    ancestors = processes.ancestors()
    processes.terminate(lambda: processes.pids_in(files) - ancestors)
    session.close(resource.netns)
    loopback.put_down(files)
    netns.delete(session.lab, resource.netns)


def _send(session: Session, resource: Resource) -> None:
    opened = session.open(resource.netns)
    generic = isinstance(
        resource,
        (IpvsService, IpvsRealServer, GuePort, ConnectionTimeouts, SyncDaemon, TcpMetrics),
    )
    sock = session.generic(opened) if generic else opened.route
    try:
        message = MESSAGES[type(resource)](session, resource, opened)
    except OSError as missing:  # its device
        if missing.errno in GONE:
            return
        raise
    _check(session, resource, sockets.send_all(sock, [message]))


def _check(session: Session, resource: Resource, errors: Sequence[sockets.NetlinkError]) -> None:
    for error in errors:
        if error.errno not in GONE:
            raise session.failure(resource, error.errno or 0, str(error))


def _ipvs(session: Session, resource: IpvsService | IpvsRealServer, to: OpenNamespace) -> bytearray:
    return ipvs.delete_message(resource, session.ipvs_family(to))


def _gue_port(session: Session, resource: GuePort, to: OpenNamespace) -> bytearray:
    family = fou.family_id(session.generic(to))
    return fou.delete_port(resource.port, family, resource.version)


def _address(_: Session, resource: Address, to: OpenNamespace) -> bytearray:
    return delete_address(resource.address, to.index(resource.device))


def _route(_: Session, resource: StaticRoute, to: OpenNamespace) -> bytearray:
    return delete_route(
        resource.to,
        resource.via,
        table=resource.table,
        kind=resource.type,
        metric=resource.metric,
        version=resource.ip_version,
        index=to.index(resource.device) if resource.device else 0,
    )


def _nexthop(_: Session, resource: NextHopObject, __: OpenNamespace) -> bytearray:
    return nexthops.delete_nexthop(resource.found)


def _tcp_metrics(session: Session, resource: TcpMetrics, to: OpenNamespace) -> bytearray:
    family = tcp_metrics.family_id(session.generic(to))
    return tcp_metrics.delete_tcp_metrics(resource.found, family)


def _rule(_: Session, resource: PolicyRule, __: OpenNamespace) -> bytearray:
    return rules.delete_rule(resource.state)


def _setting(_: Session, resource: LinkSetting, to: OpenNamespace) -> bytearray:
    index = to.index(resource.device)
    return devices.set_value(index, resource.group, resource.name, resource.usual)


def _extra_device(_: Session, resource: Device, __: OpenNamespace) -> bytearray:
    return delete_link(resource.device)


def _proxy(_: Session, resource: ProxyNeighbour, to: OpenNamespace) -> bytearray:
    return set_proxy(resource.address, to.index(resource.device), delete=True)


def _qdisc(_: Session, resource: Qdisc, to: OpenNamespace) -> bytearray:
    return queueing.delete_qdisc(to.index(resource.device), resource.kind, resource.parent)


def _fdb(_: Session, resource: FdbEntry, to: OpenNamespace) -> bytearray:
    index = to.index(resource.found.device)
    return switching.delete_fdb(index, resource.found, of_bridge=resource.of_bridge)


def _vlan(_: Session, resource: BridgeVlan, to: OpenNamespace) -> bytearray:
    index = to.index(resource.device)
    return switching.delete_vlan(index, resource.vlan, of_bridge=resource.of_bridge)


def _timeouts(session: Session, _: ConnectionTimeouts, to: OpenNamespace) -> bytearray:
    return ipvs_config.timeouts_message(session.ipvs_family(to), IpvsTimeouts())


def _sync_daemon(session: Session, resource: SyncDaemon, to: OpenNamespace) -> bytearray:
    family = session.ipvs_family(to)
    return ipvs_config.sync_daemon_message(family, resource.daemon, stop=True)


def _veth_link(_: Session, resource: VethLink, __: OpenNamespace) -> bytearray:
    return delete_link(resource.port)


def _device(_: Session, resource: Bridge | Tunnel, __: OpenNamespace) -> bytearray:
    if resource.device in FALLBACK_DEVICES:
        return set_link_state(resource.device, up=False)
    return delete_link(resource.device)


def _link_up(_: Session, resource: LinkUp, __: OpenNamespace) -> bytearray:
    return set_link_state(resource.device, up=False)


def _neighbour(_: Session, resource: Neighbour | LearntNeighbour, to: OpenNamespace) -> bytearray:
    return delete_neighbour(resource.address, to.index(resource.device))


def _netem(_: Session, resource: Netem, to: OpenNamespace) -> bytearray:
    from lvsctl.netlink import tc  # heavy, and few labs have netem

    return tc.delete_netem(to.index(resource.device))


def _drop_filter(
    _: Session, resource: DropFilter | AnnouncementFilter, to: OpenNamespace
) -> bytearray:
    from lvsctl.netlink import tc  # heavy, and few labs have filters

    return tc.delete_clsact(to.index(resource.device))


MESSAGES: dict[type[Resource], Callable[[Session, Any, OpenNamespace], bytearray]] = {
    Address: _address,
    AnnouncementFilter: _drop_filter,
    Bridge: _device,
    BridgeVlan: _vlan,
    ConnectionTimeouts: _timeouts,
    Device: _extra_device,
    DropFilter: _drop_filter,
    FdbEntry: _fdb,
    GuePort: _gue_port,
    IpvsRealServer: _ipvs,
    IpvsService: _ipvs,
    LearntNeighbour: _neighbour,
    LinkSetting: _setting,
    LinkUp: _link_up,
    Neighbour: _neighbour,
    Netem: _netem,
    NextHopObject: _nexthop,
    PolicyRule: _rule,
    ProxyNeighbour: _proxy,
    Qdisc: _qdisc,
    StaticRoute: _route,
    SyncDaemon: _sync_daemon,
    TcpMetrics: _tcp_metrics,
    Tunnel: _device,
    VethLink: _veth_link,
}
"""The message that undoes each kind of resource: a new kind is a new row."""
