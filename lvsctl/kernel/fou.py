"""GUE's receiving end: UDP ports at which the kernel takes GUE off, by generic netlink.

Sources: linux/fou.h, net/ipv4/fou_core.c, ip-fou(8).
"""

from __future__ import annotations

import socket
import struct

from lvsctl.errors import HostError
from lvsctl.kernel import nldump
from lvsctl.kernel.nldump import attribute, attributes
from lvsctl.kernel.wire import HEADER, ROOT_DUMP

FAMILY = "fou"
_ADD, _DEL, _GET = 1, 2, 3  # FOU_CMD_*
_PORT, _AF, _TYPE = 1, 2, 4  # FOU_ATTR_*
_GUE = 2  # FOU_ENCAP_GUE
_GENERIC = struct.Struct("=BBH")  # struct genlmsghdr: command, version, reserved


def family_id(sock: socket.socket) -> int:
    """The type of the family's messages. Raises HostError where the kernel does not have it."""
    number = nldump.genl_family(sock, FAMILY)
    if number is None:
        raise HostError("this kernel cannot take GUE off", hint="modprobe fou")
    return number


def add_port(port: int, family: int) -> bytearray:
    """The message of `ip fou add port … gue`, for IPv4; ``wire.send_all`` sends it."""
    return _message(_ADD, port, family, attribute(_TYPE, bytes([_GUE])))


def delete_port(port: int, family: int) -> bytearray:
    """The message of `ip fou del port …`."""
    return _message(_DEL, port, family)


def ports(sock: socket.socket) -> tuple[int, ...]:
    """The ports at which GUE is taken off in the socket's namespace, sorted.

    ``sock`` is a generic netlink socket. A kernel that does not have it has none.
    """
    family = nldump.genl_family(sock, FAMILY)
    if family is None:
        return ()
    request = nldump.packed(family, _GENERIC.pack(_GET, 1, 0), flags=ROOT_DUMP)
    found = set()
    for answer in nldump.ask(sock, request):
        attrs = attributes(answer, HEADER.size + _GENERIC.size)
        if nldump.number(attrs.get(_TYPE)) == _GUE and _PORT in attrs:
            found.add(int.from_bytes(attrs[_PORT], "big"))
    return tuple(sorted(found))


def _message(command: int, port: int, family: int, more: bytes = b"") -> bytearray:
    payload = _GENERIC.pack(command, 1, 0)
    payload += attribute(_PORT, port.to_bytes(2, "big"))
    payload += attribute(_AF, bytes([socket.AF_INET]))
    return nldump.packed(family, payload + more, flags=0)
