"""UDP ports at which a kernel decapsulates GUE, over generic netlink.

Sources: linux/fou.h, net/ipv4/fou_core.c, ip-fou(8).
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from lvsctl.errors import HostError
from lvsctl.netlink import messages, sockets
from lvsctl.netlink.messages import FAMILIES, body

from pyroute2.netlink import genlmsg  # isort: skip (after the shim)

FAMILY = "fou"
_ADD, _DEL, _GET = 1, 2, 3  # FOU_CMD_*
_GUE = 2  # FOU_ENCAP_GUE


class Message(genlmsg):  # type: ignore[misc]  # pyroute2 has no types, and no class for it
    """A message of the family, FOU_ATTR_*."""

    prefix = "FOU_ATTR_"
    nla_map = (
        ("FOU_ATTR_UNSPEC", "none"),
        ("FOU_ATTR_PORT", "be16"),
        ("FOU_ATTR_AF", "uint8"),
        ("FOU_ATTR_IPPROTO", "uint8"),
        ("FOU_ATTR_TYPE", "uint8"),
    )


def family_id(sock: socket.socket) -> int:
    """Return the type of the family's messages. Raises HostError where the kernel has no fou."""
    number = messages.generic_family(sock, FAMILY)
    if number is None:
        raise HostError("this kernel cannot decapsulate GUE", hint="modprobe fou")
    return number


def add_port(port: int, family: int, version: int = 4) -> bytearray:
    """Return the message of `ip fou add port … gue`; IP ``version`` 6: `ip -6 fou …`."""
    attributes = [("FOU_ATTR_PORT", port), ("FOU_ATTR_AF", FAMILIES[version])]
    return _message(family, _ADD, [*attributes, ("FOU_ATTR_TYPE", _GUE)])


def delete_port(port: int, family: int, version: int = 4) -> bytearray:
    """Return the message of `ip fou del port …`."""
    attributes = [("FOU_ATTR_PORT", port), ("FOU_ATTR_AF", FAMILIES[version])]
    return _message(family, _DEL, attributes)


def _message(family: int, command: int, attributes: list[tuple[str, int]]) -> bytearray:
    return sockets.message(family, 0, body(Message, attributes, cmd=command, version=1))


class GuePorts(NamedTuple):
    """The ports at which GUE is decapsulated over each IP version, sorted."""

    ipv4: tuple[int, ...] = ()
    ipv6: tuple[int, ...] = ()


def ports(sock: socket.socket) -> GuePorts:
    """Return the ports of the socket's namespace at which GUE is decapsulated.

    ``sock`` is a generic netlink socket. A kernel without fou has none.
    """
    family = messages.generic_family(sock, FAMILY)
    if family is None:
        return GuePorts()
    asked = sockets.message(family, sockets.DUMP, body(Message, cmd=_GET, version=1))
    found = (messages.decode(Message, answer) for answer in sockets.request(sock, asked))
    gue = [one for one in found if one.get_attr("FOU_ATTR_TYPE") == _GUE]
    return GuePorts(
        *(
            tuple(
                sorted(
                    {
                        int(one.get_attr("FOU_ATTR_PORT"))
                        for one in gue
                        if one.get_attr("FOU_ATTR_AF") == number
                    }
                )
            )
            for number in FAMILIES.values()
        )
    )
