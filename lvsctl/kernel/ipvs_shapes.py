"""The messages that fill IPVS's table: shapes that pyroute2 encoded, their fields patched.

The classes that encoded them are those of ``kernel.ipvs_messages``; ``kernel.shapes`` tells how.
tests/unit/test_ipvs_messages.py holds every message against them, byte for byte.
"""

from __future__ import annotations

import functools
import socket
import struct

from lvsctl.errors import HostError
from lvsctl.kernel import nldump
from lvsctl.kernel.shapes import offset, shape
from lvsctl.model.service import Encapsulation, ForwardingMethod
from lvsctl.resources.ops import AddRealServer, AddService

FAMILY = "IPVS"
LOAD_HINT = "sudo modprobe ip_vs"

FORWARD_NUMBERS = {ForwardingMethod.NAT: 0, ForwardingMethod.TUN: 2, ForwardingMethod.DR: 3}
"""IP_VS_CONN_F_MASQ, _TUNNEL, _DROUTE."""
TUNNEL_TYPES = {Encapsulation.IPIP: 0, Encapsulation.GUE: 1, Encapsulation.GRE: 2}
"""IP_VS_CONN_F_TUNNEL_TYPE_*."""

_SET_SERVICE, _SET_DEST = 2, 6  # IPVS_CMD_*; the shapes have NEW_SERVICE and NEW_DEST
_ATTRIBUTES = 20  # after nlmsghdr and genlmsghdr
_SERVICE, _DEST = 1, 2  # IPVS_CMD_ATTR_*
_U16, _U32, _PORT = struct.Struct("=H"), struct.Struct("=I"), struct.Struct("!H")

At = dict[str, int]
"""Where in a shape which field is."""


def family_id(sock: socket.socket) -> int:
    """The number under which this kernel registered IPVS: the type of all its messages.

    The same in every namespace until the module is loaded anew. Raises HostError
    where the kernel has no IPVS (yet).
    """
    number = nldump.genl_family(sock, FAMILY)
    if number is None:
        raise HostError("this kernel has no IPVS loaded", hint=LOAD_HINT)
    return number


def message(op: AddService | AddRealServer, family: int, *, replace: bool = False) -> bytearray:
    """The netlink message that carries out ``op``, or with ``replace`` changes what is there.

    Whoever sends it fills in the sequence number and asks for the acknowledgement.
    """
    made, at = _service(op) if isinstance(op, AddService) else _real_server(op)
    _U16.pack_into(made, 4, family)
    if replace:
        made[16] = _SET_SERVICE if isinstance(op, AddService) else _SET_DEST
    _U16.pack_into(made, at["protocol"], op.service.protocol.number)
    _put(made, at["vip"], op.service.vip.packed)
    _PORT.pack_into(made, at["port"], op.service.port)
    return made


def _service(op: AddService) -> tuple[bytearray, At]:
    scheduler = str(op.scheduler).encode("ascii")
    shaped, at = _service_shape(op.service.vip.version, len(scheduler))
    made = bytearray(shaped)
    _put(made, at["scheduler"], scheduler)
    _U32.pack_into(made, at["flags"], 1 if op.persistence else 0)  # IP_VS_SVC_F_PERSISTENT
    _U32.pack_into(made, at["timeout"], op.persistence)
    return made, at


def _real_server(op: AddRealServer) -> tuple[bytearray, At]:
    server = op.real_server
    tunnel = 0
    if op.forward is ForwardingMethod.TUN and op.encapsulation is not Encapsulation.IPIP:
        tunnel = 2 if op.tunnel_port else 1
    shaped, at = _real_server_shape(op.service.vip.version, server.rip.version, tunnel)
    made = bytearray(shaped)
    _put(made, at["rip"], server.rip.packed)
    _PORT.pack_into(made, at["real port"], server.port)
    _U32.pack_into(made, at["method"], FORWARD_NUMBERS[op.forward])
    _U32.pack_into(made, at["weight"], server.weight)
    _U32.pack_into(made, at["upper"], server.upper)
    _U32.pack_into(made, at["lower"], server.lower)
    if tunnel:
        made[at["tunnel"]] = TUNNEL_TYPES[op.encapsulation]
    if tunnel == 2:
        _PORT.pack_into(made, at["tunnel port"], op.tunnel_port)
    return made, at


@functools.cache
def _service_shape(version: int, scheduler_length: int) -> tuple[bytes, At]:
    made = shape("service", version, scheduler_length)
    own = {"scheduler": 6, "flags": 7, "timeout": 8}  # IPVS_SVC_ATTR_*
    return made, _key_at(made) | _at(made, _SERVICE, own)


@functools.cache
def _real_server_shape(version: int, rip_version: int, tunnel: int) -> tuple[bytes, At]:
    made = shape("real-server", version, rip_version, tunnel)
    own = {"rip": 1, "real port": 2, "method": 3, "weight": 4, "upper": 5, "lower": 6}
    own |= {0: {}, 1: {"tunnel": 13}, 2: {"tunnel": 13, "tunnel port": 14}}[tunnel]
    return made, _key_at(made) | _at(made, _DEST, own)  # IPVS_DEST_ATTR_*


def _key_at(made: bytes) -> At:
    return _at(made, _SERVICE, {"protocol": 2, "vip": 3, "port": 4})  # IPVS_SVC_ATTR_*


def _at(made: bytes, within: int, fields: dict[str, int]) -> At:
    return {name: offset(made, _ATTRIBUTES, within, kind) for name, kind in fields.items()}


def _put(message: bytearray, at: int, value: bytes) -> None:
    message[at : at + len(value)] = value
