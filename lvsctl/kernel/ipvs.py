"""The kernel's IPVS over generic netlink: messages for a plan, and what the table holds now.

Every function takes a socket opened inside the director's namespace
(``wire.open_socket(wire.GENERIC)``): a socket belongs to the namespace
in which it was opened, whatever thread uses it afterwards.

Importing this imports the base of pyroute2's messages, which takes 15 ms: what only fills the
table imports ``kernel.ipvs_shapes``.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lvsctl.errors import KernelError
from lvsctl.kernel import ipvs_messages as messages
from lvsctl.kernel import nldump
from lvsctl.kernel.ipvs_shapes import TUNNEL_TYPES, family_id, message
from lvsctl.kernel.wire import ROOT_DUMP
from lvsctl.model.service import Encapsulation, Protocol, ServiceKey
from lvsctl.model.state import Counters, RealServerState, ServiceState
from lvsctl.resources.ops import AddRealServer, AddService

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

__all__ = [
    "Timeouts", "delete_message", "family_id", "message", "message_by_pyroute2", "services",
    "set_timeouts", "timeouts", "zero",
]  # fmt: skip

_PROTOCOLS = {protocol.number: protocol for protocol in Protocol}
_ENCAPSULATIONS = {number: kind for kind, number in TUNNEL_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long IPVS remembers an idle connection, in seconds (``ipvsadm -L --timeout``)."""

    tcp: int
    tcp_fin: int
    udp: int


def message_by_pyroute2(
    op: AddService | AddRealServer, family_id: int, *, replace: bool = False
) -> bytearray:
    """The same message as ``message``, encoded by pyroute2 alone."""
    if isinstance(op, AddService):
        command = messages.Command.SET_SERVICE if replace else messages.Command.NEW_SERVICE
        return messages.packed_message(command, family_id, [messages.service(op)])
    command = messages.Command.SET_DEST if replace else messages.Command.NEW_DEST
    return messages.packed_message(
        command, family_id, [messages.service_key(op.service), messages.dest(op)]
    )


def delete_message(op: AddService | AddRealServer, family_id: int) -> bytearray:
    """The netlink message that removes what ``op`` adds; a service goes with its real servers."""
    key = messages.service_key(op.service)
    if isinstance(op, AddService):
        return messages.packed_message(messages.Command.DEL_SERVICE, family_id, [key])
    return messages.packed_message(
        messages.Command.DEL_DEST, family_id, [key, messages.dest_key(op)]
    )


def services(sock: socket.socket) -> tuple[ServiceState, ...]:
    """Every virtual service with its real servers and counters.

    The kernel keeps services in a hash, so their order is lost: they come sorted
    by VIP, port and protocol. Real servers come as they were added (the kernel
    dumps the last one first). Services by firewall mark have no place in
    ``ServiceKey`` and are left out.

    Counters lag: the kernel adds up its processors' counts every two seconds, and
    never with net.ipv4.vs.run_estimation=0 (ip_vs_est.c); ipvsadm sees the same.
    Active and inactive connections are of this moment.

    Raises HostError where the kernel has no IPVS, KernelError where it refuses.
    """
    family = family_id(sock)
    found = []
    for body in _dump(sock, family, messages.Command.GET_SERVICE):
        raw = body["SERVICE"]
        if raw.get("FWMARK"):
            continue
        key = ServiceKey(
            _PROTOCOLS[raw["PROTOCOL"]],
            messages.unpacked_address(raw["AF"], raw["ADDR"]),
            raw["PORT"],
        )
        flags = raw["FLAGS"]["flags"]
        state = ServiceState(
            key=key,
            scheduler=raw.get("SCHED_NAME", ""),
            persistence=raw["TIMEOUT"] if flags & messages.ServiceFlag.PERSISTENT else 0,
            real_servers=_real_servers(sock, family, key),
            counters=_counters(raw),
        )
        found.append(state)
    return tuple(sorted(found, key=_by_key))


def zero(sock: socket.socket, key: ServiceKey | None = None) -> None:
    """Set the counters of one virtual service and its real servers, or of all, to zero."""
    attrs = [] if key is None else [messages.service_key(key)]
    nldump.ask(sock, messages.packed_message(messages.Command.ZERO, family_id(sock), attrs))


def timeouts(sock: socket.socket) -> Timeouts:
    """The timeouts in force in the socket's namespace."""
    (answer,) = nldump.ask(
        sock, messages.packed_message(messages.Command.GET_CONFIG, family_id(sock))
    )
    body = messages.unpacked(bytes(answer))
    return Timeouts(body["TIMEOUT_TCP"], body["TIMEOUT_TCP_FIN"], body["TIMEOUT_UDP"])


def set_timeouts(sock: socket.socket, wanted: Timeouts) -> None:
    """Change the timeouts of the socket's namespace; 0 leaves one as it is."""
    attrs = messages.timeouts(wanted.tcp, wanted.tcp_fin, wanted.udp)
    nldump.ask(sock, messages.packed_message(messages.Command.SET_CONFIG, family_id(sock), attrs))


def _real_servers(sock: socket.socket, family: int, key: ServiceKey) -> tuple[RealServerState, ...]:
    try:
        dump = _dump(sock, family, messages.Command.GET_DEST, [messages.service_key(key)])
    except KernelError as error:
        if error.errno in (errno.ESRCH, errno.ENOENT):
            return ()  # the service was removed between the two dumps
        raise
    found = []
    for body in dump:
        raw = body["DEST"]
        address_family = raw.get("ADDR_FAMILY") or messages.FAMILIES[key.vip.version]
        method = raw["FWD_METHOD"]
        found.append(
            RealServerState(
                rip=messages.unpacked_address(address_family, raw["ADDR"]),
                port=raw["PORT"],
                forward=messages.FORWARD_METHODS.get(method, str(method)),
                weight=raw["WEIGHT"],
                upper=raw["U_THRESH"],
                lower=raw["L_THRESH"],
                active=raw["ACTIVE_CONNS"],
                inactive=raw["INACT_CONNS"],
                encapsulation=_ENCAPSULATIONS.get(raw.get("TUN_TYPE", 0), Encapsulation.IPIP),
                tunnel_port=raw.get("TUN_PORT", 0),
                counters=_counters(raw),
            )
        )
    return tuple(reversed(found))


def _dump(
    sock: socket.socket,
    family: int,
    command: messages.Command,
    attrs: list[tuple[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    request = messages.packed_message(command, family, attrs or [], flags=ROOT_DUMP)
    return [messages.unpacked(bytes(answer)) for answer in nldump.ask(sock, request)]


def _counters(raw: Mapping[str, Any]) -> Counters:
    stats = raw["STATS64"]
    return Counters(
        connections=stats["CONNS"],
        packets_in=stats["INPKTS"],
        packets_out=stats["OUTPKTS"],
        bytes_in=stats["INBYTES"],
        bytes_out=stats["OUTBYTES"],
    )


def _by_key(state: ServiceState) -> tuple[int, bytes, int, str]:
    vip = state.key.vip
    return vip.version, vip.packed, state.key.port, str(state.key.protocol)
