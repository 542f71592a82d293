"""Every kind of resource."""

from __future__ import annotations

from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.bridge import Bridge
from lvsctl.resources.drop_filter import DropFilter
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.link_up import LinkUp
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.neighbour import Neighbour
from lvsctl.resources.netem import Netem
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.resources.packet_filter import PacketFilter
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink

KINDS: tuple[type[Resource], ...] = (
    Namespace,
    Sysctl,
    Bridge,
    VethLink,
    LinkUp,
    OffloadsOff,
    Netem,
    Tunnel,
    GuePort,
    Address,
    StaticRoute,
    Neighbour,
    DropFilter,
    PacketFilter,
    IpvsService,
    IpvsRealServer,
    ResponderPort,
    UserCommand,
)
