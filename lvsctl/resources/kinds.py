"""Every kind of resource."""

from __future__ import annotations

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
from lvsctl.resources.sysctl import ChangedSysctl, Sysctl
from lvsctl.resources.tunnel import Tunnel
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink

KINDS: tuple[type[Resource], ...] = (
    Namespace,
    Sysctl,
    ChangedSysctl,
    Bridge,
    VethLink,
    Device,
    LinkSetting,
    LinkUp,
    OffloadsOff,
    Netem,
    Qdisc,
    FdbEntry,
    BridgeVlan,
    Tunnel,
    GuePort,
    Address,
    StaticRoute,
    PolicyRule,
    Xfrm,
    NextHopObject,
    TcpMetrics,
    Neighbour,
    LearntNeighbour,
    ProxyNeighbour,
    DropFilter,
    AnnouncementFilter,
    Marks,
    PacketFilter,
    Masquerade,
    MssClamp,
    IpvsService,
    IpvsRealServer,
    ConnectionTimeouts,
    SyncDaemon,
    StoppedProcess,
    ResponderPort,
    UserCommand,
    Keepalived,
)
