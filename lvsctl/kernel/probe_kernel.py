"""The kernel's features, each tried in a throwaway namespace.

The namespace has no name and goes with the thread that made it. Without root nothing
can be tried: then a feature counts as present where the running kernel or its lists
of modules have it, and its text says so.

A new feature is one row in ``_PROBES``.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from lvsctl.errors import HostError, KernelError
from lvsctl.kernel import fou, netns, nldump, probe, wire
from lvsctl.kernel.nldump import attribute
from lvsctl.model.service import GUE_PORT, Protocol, Scheduler, ServiceKey
from lvsctl.resources.ops import AddService

if TYPE_CHECKING:
    from collections.abc import Callable

_RTM_NEWLINK, _RTM_NEWQDISC = 16, 36
_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_TCMSG = struct.Struct("=B3xiIII")  # family, index, handle, parent, info
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 18, 1
_TCA_KIND, _TCA_OPTIONS, _TC_H_ROOT = 1, 2, 0xFFFFFFFF
_NEW = wire.CREATE | wire.EXCL
_LOOPBACK_INDEX = 1  # in every namespace (LOOPBACK_IFINDEX)
_ABSENT = {
    *(errno.EOPNOTSUPP, errno.ENOENT, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT),
    errno.ENODEV,  # of a file system
}
_NETFILTER, _NFTABLES, _NFPROTO_INET = 12, 10, 1  # a protocol of netlink, its part, a family
_BATCH_BEGIN, _BATCH_END = 16, 17
_TRACEFS = "/sys/kernel/tracing"
_PATIENCE = 5.0
_TEST_NET = IPv4Address("192.0.2.1")  # RFC 5737


@dataclass(frozen=True, slots=True)
class _Probe:
    """A feature: ``attempt`` uses it in the calling thread's namespace, and raises if it cannot.

    ``module`` is what it is called where the kernel has it as a module; None where no list
    of modules tells.
    """

    id: str
    module: str | None
    needed_for: str
    attempt: Callable[[], None]
    optional: bool = False

    def tried(self) -> probe.Feature:
        """The feature, after an attempt."""
        try:
            self.attempt()
        except HostError as error:
            return self._feature(error.message, present=False)
        except (KernelError, OSError) as error:
            number = error.errno or 0
            absent = "this kernel does not have it" if number in _ABSENT else os.strerror(number)
            return self._feature(absent, present=False)
        return self._feature("works", present=True)

    def listed(self) -> probe.Feature:
        """The feature as the kernel's lists of modules tell, for those who may not try it."""
        if self.module is None:
            return self._feature("cannot be told without root", present=False)
        present = not self.module or probe.has_module(self.module)
        if present:
            what = f"module {self.module}" if self.module else "part of the kernel"
            says = f"{what}, not tried: no root"
        elif probe.modules_are_listed():
            says = f"no module {self.module}"
        else:
            says = "cannot be told without root"
        return self._feature(says, present=present)

    def not_tried(self, reason: str) -> probe.Feature:
        """The feature, of no use because of ``reason``."""
        return self._feature(f"not tried: {reason}", present=False)

    def _feature(self, says: str, *, present: bool) -> probe.Feature:
        if probe.inside_machine():  # which loads what it has by itself
            remedy = probe.OTHER_KERNEL
        elif self.module and probe.has_module(self.module):
            remedy = f"sudo modprobe {self.module}"
        else:
            remedy = probe.MACHINE
        return probe.Feature(self.id, says, present, self.needed_for, remedy, self.optional)


def names() -> frozenset[str]:
    """What features are called that are the kernel's own."""
    return frozenset(one.id for one in (_NAMESPACE, *_PROBES))


def modules() -> dict[str, str]:
    """What the kernel's features are called as modules, by their id, of those that can be one."""
    return {one.id: one.module for one in _PROBES if one.module}


def features(*, try_them: bool) -> tuple[probe.Feature, ...]:
    """The kernel's features, tried or, for those who may not try, looked up."""
    if not try_them:
        return tuple(one.listed() for one in (_NAMESPACE, *_PROBES))
    return netns.in_thread(_all_tried)


def _all_tried() -> tuple[probe.Feature, ...]:
    """Each probe in turn, in a namespace that dies with the calling thread."""
    namespace = _NAMESPACE.tried()
    if not namespace.present:  # then everything else would be tried on the host itself
        return (namespace, *(one.not_tried("no namespace to try it in") for one in _PROBES))
    return (namespace, *(one.tried() for one in _PROBES))


def _ask(kind: int, payload: bytes) -> None:
    with wire.open_socket(wire.ROUTE) as sock:
        nldump.ask(sock, nldump.packed(kind, payload, flags=_NEW))


def _make_link(kind: str) -> Callable[[], None]:
    def attempt() -> None:
        info = attribute(_IFLA_INFO_KIND, kind.encode())
        name = attribute(_IFLA_IFNAME, f"probe-{kind}".encode() + b"\0")
        message = _IFINFOMSG.pack(0, 0, 0, 0, 0) + name + attribute(_IFLA_LINKINFO, info)
        try:
            _ask(_RTM_NEWLINK, message)
        except KernelError as error:
            # The fallback tunnel of a new namespace has the same (no) addresses: it works.
            if error.errno != errno.EEXIST:
                raise

    return attempt


def _take_gue_off() -> None:
    with wire.open_socket(wire.GENERIC) as sock:
        nldump.ask(sock, fou.add_port(GUE_PORT, fou.family_id(sock)))


def _add_netem() -> None:
    options = struct.pack("=6I", 0, 1000, 0, 0, 0, 0)  # tc_netem_qopt: a queue of 1000, no more
    message = _TCMSG.pack(0, _LOOPBACK_INDEX, 0, _TC_H_ROOT, 0)
    message += attribute(_TCA_KIND, b"netem\0") + attribute(_TCA_OPTIONS, options)
    _ask(_RTM_NEWQDISC, message)


def _use_ipv6() -> None:
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    disabled = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    if not disabled.exists():
        raise OSError(errno.EAFNOSUPPORT, "no IPv6 in a new namespace")


def _make_table() -> None:
    """An nf_tables table for IPv4 and IPv6, as `nft add table inet probe` makes it."""
    batch = struct.pack("=BBH", 0, 0, socket.htons(_NFTABLES))  # struct nfgenmsg
    table = struct.pack("=BBH", _NFPROTO_INET, 0, 0) + attribute(1, b"probe\0")
    messages = (
        nldump.packed(_BATCH_BEGIN, batch, flags=0),
        nldump.packed(_NFTABLES << 8, table, flags=_NEW | wire.ACK),  # NFT_MSG_NEWTABLE
        nldump.packed(_BATCH_END, batch, flags=0),
    )
    with wire.open_socket(_NETFILTER) as sock:
        sock.settimeout(_PATIENCE)
        sock.send(b"".join(messages))
        # Of the table; of the batch as a whole where the kernel does not know what it is about.
        (code,) = struct.unpack_from("=i", sock.recv(4096), wire.HEADER.size)
        if code:
            raise OSError(-code, os.strerror(-code))


def _read_drop_reasons() -> None:
    """See that the tracepoint of dropped packets has a reason; in a mount namespace of its own."""
    netns.unshare(netns.CLONE_NEWNS)
    netns.mount("", "/", flags=netns.MS_SLAVE | netns.MS_REC)
    netns.mount("tracefs", _TRACEFS, "tracefs")
    shape = Path(_TRACEFS, "events/skb/kfree_skb/format").read_text(encoding="ascii")
    if " reason;" not in shape:
        raise HostError("this kernel tells that a packet was dropped, but not why")


def _schedule(scheduler: Scheduler) -> Callable[[], None]:
    def attempt() -> None:
        if not probe.ipvs_loaded():
            raise HostError("no IPVS")
        from lvsctl.kernel import ipvs  # imports some of pyroute2: only where there is IPVS

        service = AddService(
            netns="",
            service=ServiceKey(Protocol.TCP, _TEST_NET, 1 + list(Scheduler).index(scheduler)),
            scheduler=scheduler,
        )
        with wire.open_socket(wire.GENERIC) as sock:
            nldump.ask(sock, ipvs.message(service, ipvs.family_id(sock)))

    return attempt


_NAMESPACE = _Probe("netns", "", "every mode", netns.unshare)
_PROBES = (
    _Probe("veth", "veth", "every mode", _make_link("veth")),
    _Probe("bridge", "bridge", "every mode", _make_link("bridge")),
    _Probe("ip_vs", "ip_vs", "every mode", probe.load_ipvs),
    _Probe("ipip", "ipip", "tun", _make_link("ipip")),
    _Probe("gre", "ip_gre", "services with encapsulation: gre", _make_link("gre"), optional=True),
    _Probe("gue", "fou", "services with encapsulation: gue", _take_gue_off, optional=True),
    _Probe("netem", "sch_netem", "delay, loss and rate in topologies", _add_netem, optional=True),
    _Probe("ipv6", "ipv6", "topologies with IPv6", _use_ipv6, optional=True),
    *(
        _Probe(
            f"scheduler {scheduler}",
            f"ip_vs_{scheduler}",
            f"services with scheduler: {scheduler}",
            _schedule(scheduler),
            optional=scheduler is not Scheduler.RR,
        )
        for scheduler in Scheduler
    ),
    _Probe(
        "nf_tables",
        "nf_tables",
        "packet filters of your own (nft) on nodes",
        _make_table,
        optional=True,
    ),
    # The last, for it leaves the calling thread with mounts of its own.
    _Probe(
        "drop reasons",
        None,
        "the kernel's own word for why it dropped a packet",
        _read_drop_reasons,
        optional=True,
    ),
)
"""In order of need. The first failure does not keep the others from being tried."""
