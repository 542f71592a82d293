"""The rtnetlink messages of what only a fault puts in the way: ``lvsctl.resources.fault_ops``.

Sources: linux/neighbour.h, linux/pkt_sched.h, linux/pkt_cls.h, tc-u32(8).
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from lvsctl.kernel import by_pyroute2, nldump, rtnl, wire
from lvsctl.model.addresses import IPAddress

NEWNEIGH, DELNEIGH = 28, 29
NEWTFILTER = 44
"""RTM_*."""

_NDMSG = struct.Struct("=BxxxiHBB")
_NUD_PERMANENT = 0x80
_DESTINATION, _LLADDR = 1, 2  # NDA_*

_CLSACT, _CLSACT_HANDLE, _INGRESS = 0xFFFFFFF1, 0xFFFF0000, 0xFFFFFFF2
_PROTOCOL_AT = 9  # bytes into the IP header


def neighbour(address: IPAddress, mac: str, index: int) -> bytearray:
    """A permanent entry of the ARP or ND cache, in place of one that is there."""
    attributes = nldump.attribute(_DESTINATION, address.packed)
    attributes += nldump.attribute(_LLADDR, bytes.fromhex(mac.replace(":", "")))
    body = _NDMSG.pack(_family(address), index, _NUD_PERMANENT, 0, 0) + attributes
    return nldump.packed(NEWNEIGH, body, flags=wire.CREATE | wire.REPLACE)


def delete_neighbour(address: IPAddress, index: int) -> bytearray:
    """Its removal."""
    attributes = nldump.attribute(_DESTINATION, address.packed)
    body = _NDMSG.pack(_family(address), index, 0, 0, 0) + attributes
    return nldump.packed(DELNEIGH, body, flags=0)


def _family(address: IPAddress) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def add_clsact(index: int) -> bytearray:
    """The place for filters on what comes in at a device."""
    return by_pyroute2.encode("tc", rtnl.NEWQDISC, rtnl.ADD, index=index, parent=_CLSACT,
                       handle=_CLSACT_HANDLE, attrs=[("TCA_KIND", "clsact")])  # fmt: skip


def delete_clsact(index: int) -> bytearray:
    """Its removal, and that of the filters in it."""
    return by_pyroute2.encode("tc", rtnl.DELQDISC, wire.REQUEST, index=index, parent=_CLSACT,
                       handle=_CLSACT_HANDLE, attrs=[("TCA_KIND", "clsact")])  # fmt: skip


def drop_protocol(index: int, protocol: int) -> bytearray:
    """IPv4 packets of ``protocol`` that come in at a device are dropped (tc-u32(8))."""
    from pyroute2.netlink.rtnl.tcmsg import cls_u32

    key = f"{protocol:#x}/0xff+{_PROTOCOL_AT}"
    options: Any = cls_u32.get_parameters({"action": "drop", "target": 0, "keys": [key]})
    options["attrs"] = [entry for entry in options["attrs"] if entry[0] != "TCA_U32_CLASSID"]
    return by_pyroute2.encode("tc", NEWTFILTER, rtnl.ADD, index=index, parent=_INGRESS,
                       info=socket.htons(0x0800),
                       attrs=[("TCA_KIND", "u32"), ("TCA_OPTIONS", options)])  # fmt: skip
