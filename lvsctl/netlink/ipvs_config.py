"""IPVS's timeouts and synchronization daemons, of a namespace and not of a service.

Sources: ipvsadm(8), linux/ip_vs.h, net/netfilter/ipvs/ip_vs_ctl.c.
"""

from __future__ import annotations

import socket

from lvsctl.model.service import IpvsTimeouts
from lvsctl.model.state import SyncDaemonState
from lvsctl.netlink import sockets
from lvsctl.netlink.ipvs import Command, Daemon, Message, dump, family_id, message
from lvsctl.netlink.messages import attribute, body, decode, nested

_STATES = {1: "master", 2: "backup"}  # IP_VS_STATE_*
_NUMBERS = {name: number for number, name in _STATES.items()}


def timeouts(sock: socket.socket) -> IpvsTimeouts:
    """Return the timeouts in force in the socket's namespace."""
    (answer,) = sockets.request(sock, message(family_id(sock), Command.GET_CONFIG))
    found = decode(Message, answer)
    words = ("TCP", "TCP_FIN", "UDP")
    return IpvsTimeouts(*(found.get_attr(f"IPVS_CMD_ATTR_TIMEOUT_{word}") for word in words))


def set_timeouts(sock: socket.socket, wanted: IpvsTimeouts) -> None:
    """Change the timeouts of the socket's namespace; 0 leaves one as it is."""
    sockets.request(sock, timeouts_message(family_id(sock), wanted))


def timeouts_message(family: int, wanted: IpvsTimeouts) -> bytearray:
    """Return the message that changes the timeouts; 0 leaves one as it is."""
    attributes = attribute(Message, "IPVS_CMD_ATTR_TIMEOUT_TCP", wanted.tcp)
    attributes += attribute(Message, "IPVS_CMD_ATTR_TIMEOUT_TCP_FIN", wanted.tcp_fin)
    attributes += attribute(Message, "IPVS_CMD_ATTR_TIMEOUT_UDP", wanted.udp)
    return message(family, Command.SET_CONFIG, attributes)


def sync_daemons(sock: socket.socket) -> tuple[SyncDaemonState, ...]:
    """Return the synchronization daemons that run in the socket's namespace."""
    found = []
    for answer in dump(sock, family_id(sock), Command.GET_DAEMON):
        raw = answer.get_attr("IPVS_CMD_ATTR_DAEMON")
        found.append(
            SyncDaemonState(
                _STATES.get(raw.get_attr("IPVS_DAEMON_ATTR_STATE"), "unknown"),
                raw.get_attr("IPVS_DAEMON_ATTR_MCAST_IFN") or "",
                raw.get_attr("IPVS_DAEMON_ATTR_SYNC_ID") or 0,
            )
        )
    return tuple(found)


def sync_daemon_message(family: int, wanted: SyncDaemonState, *, stop: bool = False) -> bytearray:
    """Return the message that starts a synchronization daemon, or stops it."""
    attributes: list[tuple[str, object]] = [("IPVS_DAEMON_ATTR_STATE", _NUMBERS[wanted.state])]
    if not stop:
        attributes += [
            ("IPVS_DAEMON_ATTR_MCAST_IFN", wanted.interface),
            ("IPVS_DAEMON_ATTR_SYNC_ID", wanted.sync_id),
        ]
    content = nested(Message, "IPVS_CMD_ATTR_DAEMON", body(Daemon, attributes))
    return message(family, Command.DEL_DAEMON if stop else Command.NEW_DAEMON, content)
