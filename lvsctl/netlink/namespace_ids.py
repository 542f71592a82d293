"""Ids of other namespaces, as ip-netns(8) gives them.

Sources: rtnetlink(7), linux/net_namespace.h.
"""

from __future__ import annotations

from lvsctl.netlink import sockets
from lvsctl.netlink.messages import body, decode

from pyroute2.netlink.rtnl.nsidmsg import nsidmsg  # isort: skip (after the shim)

NEWNSID, DELNSID = 88, 89  # RTM_*
GROUP_NSID = 28
"""The multicast group RTNLGRP_NSID."""


def set_namespace_id(fd: int, number: int) -> bytearray:
    """Give the namespace of the descriptor ``fd`` an id in the socket's own (ip-netns(8))."""
    attributes = [("NETNSA_NSID", number), ("NETNSA_FD", fd)]
    return sockets.message(NEWNSID, 0, body(nsidmsg, attributes))


def deleted_namespace_id(whole: bytes) -> int | None:
    """Return the id of the namespace that an event says is going away; None for other events."""
    if sockets.message_type(whole) != DELNSID:
        return None
    number = decode(nsidmsg, whole).get_attr("NETNSA_NSID")
    return None if number is None else int(number)
