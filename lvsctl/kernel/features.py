"""Test every feature of this host that labs may need: root, the kernel's, and programs.

Each of the kernel's features is tried in a throwaway namespace, which has no name and ends with the
thread that made it. Without root nothing can be tried: then a feature counts as present if the
running kernel or its lists of modules have it, and its text tells which. A new feature is one
row in ``_PROBES``. lvsctl itself runs none of the programs; people do, in a lab.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network
from pathlib import Path

from lvsctl.errors import HostError, KernelError
from lvsctl.kernel import drops, netns, packet_filters, probe
from lvsctl.model.lab import Impairment
from lvsctl.model.packet_filter import Clamp, Marking, MasqueradeTarget
from lvsctl.model.service import GUE_PORT, PersistenceEngine, Protocol, Scheduler, VipPort
from lvsctl.netlink import fou, ipvs, sockets
from lvsctl.netlink.links import add_link, set_link_up
from lvsctl.netlink.routes import add_route
from lvsctl.resources.ipvs_service import IpvsService

TRY_AS_ROOT = "sudo lvsctl doctor --where host"
"""What finds out the features that are not known without root."""

_LOOPBACK_INDEX = 1  # in every namespace (LOOPBACK_IFINDEX)
_ABSENT = {
    *(errno.EOPNOTSUPP, errno.ENOENT, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT),
    errno.ENODEV,  # of a file system
}
_NFTABLES, _NFPROTO_INET = 10, 1  # a subsystem of netfilter, a family
_BATCH_BEGIN, _BATCH_END = 16, 17
_PROBE_TIMEOUT = 5.0
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
            return self._feature("cannot be told without root", present=False, known=False)
        present = not self.module or probe.has_module(self.module)
        if present:
            what = f"module {self.module}" if self.module else "part of the kernel"
            text = f"{what}, not tried: no root"
        elif probe.modules_are_listed():
            text = f"no module {self.module}"
        else:
            return self._feature("cannot be told without root", present=False, known=False)
        return self._feature(text, present=present)

    def not_tried(self, reason: str) -> probe.Feature:
        """The feature, of no use because of ``reason``."""
        return self._feature(f"not tried: {reason}", present=False, known=False)

    def _feature(self, text: str, *, present: bool, known: bool = True) -> probe.Feature:
        if probe.inside_machine():  # which loads what it has by itself
            remedy = probe.OTHER_KERNEL
        elif self.module and probe.has_module(self.module):
            remedy = f"sudo modprobe {self.module}"
        else:
            remedy = probe.MACHINE
        if not (known or probe.has_root()):
            remedy = TRY_AS_ROOT
        return probe.Feature(self.id, text, present, self.needed_for, remedy, self.optional, known)


def names() -> frozenset[str]:
    """What features are called that are the kernel's own."""
    return frozenset(one.id for one in (_NAMESPACE, *_PROBES))


def modules() -> dict[str, str]:
    """What the kernel's features are called as modules, by their id, of those that can be one."""
    return {one.id: one.module for one in _PROBES if one.module}


def kernel_features(*, try_them: bool) -> tuple[probe.Feature, ...]:
    """The kernel's features, tried or, for those who may not try, looked up."""
    if not try_them:
        return tuple(one.listed() for one in (_NAMESPACE, *_PROBES))
    return netns.in_thread(_all_tried)


def check(wanted: Iterable[str]) -> None:
    """Try features, by name. Raises HostError that names those which this kernel lacks."""
    chosen = [one for one in _PROBES if one.id in set(wanted)]
    if not chosen:
        return

    def tried() -> list[probe.Feature]:
        netns.unshare()
        return [one.tried() for one in chosen]

    lacking = [one.id for one in netns.in_thread(tried) if not one.present]
    if lacking:
        raise HostError(
            f"the kernel {os.uname().release} does not have: {', '.join(lacking)}",
            hint=probe.OTHER_KERNEL if probe.inside_machine() else probe.MACHINE,
        )


def _all_tried() -> tuple[probe.Feature, ...]:
    """Each probe in turn, in a namespace that dies with the calling thread."""
    namespace = _NAMESPACE.tried()
    if not namespace.present:  # then everything else would be tried on the host itself
        return (namespace, *(one.not_tried("no namespace to try it in") for one in _PROBES))
    return (namespace, *(one.tried() for one in _PROBES))


def _request(message: bytearray) -> None:
    with sockets.open_socket() as sock:
        sockets.request(sock, message)


def _make_link(kind: str) -> Callable[[], None]:
    def attempt() -> None:
        try:
            _request(add_link(f"probe-{kind}", kind))
        except KernelError as error:
            # The fallback tunnel of a new namespace has the same (no) addresses: it works.
            if error.errno != errno.EEXIST:
                raise

    return attempt


def _decapsulate_gue(version: int) -> Callable[[], None]:
    def attempt() -> None:
        with sockets.open_socket(sockets.GENERIC) as sock:
            sockets.request(sock, fou.add_port(GUE_PORT, fou.family_id(sock), version))

    return attempt


def _add_netem() -> None:
    from lvsctl.netlink import tc  # heavy, and only where netem is tried

    _request(tc.set_netem(_LOOPBACK_INDEX, Impairment()))


def _mark() -> None:
    from lvsctl.netlink import tc  # as above

    if packet_filters.has_nftables():
        return
    _request(tc.add_clsact(_LOOPBACK_INDEX))
    marking = Marking(1, _TEST_NET, Protocol.TCP)
    _request(tc.add_mark_filter(_LOOPBACK_INDEX, 1, marking))


def _masquerade() -> None:
    packet_filters.masquerade([MasqueradeTarget(Protocol.TCP, _TEST_NET, 1)])


def _clamp() -> None:
    packet_filters.clamp(Clamp(4, 1440))


def _spread() -> None:
    _request(set_link_up(_LOOPBACK_INDEX))
    hops = ((None, _LOOPBACK_INDEX, 1), (None, _LOOPBACK_INDEX, 2))
    _request(add_route(ip_network(_TEST_NET), None, next_hops=hops))


def _use_ipv6() -> None:
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    disabled = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    if not disabled.exists():
        raise OSError(errno.EAFNOSUPPORT, "no IPv6 in a new namespace")


def _open_sctp() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM, Protocol.SCTP.number).close()


def _make_table() -> None:
    """Add an nf_tables table for IPv4 and IPv6, as `nft add table inet probe` does."""
    batch = struct.pack("=BBH", 0, 0, socket.htons(_NFTABLES))  # struct nfgenmsg
    name = struct.pack("=HH6s2x", 10, 1, b"probe")  # NFTA_TABLE_NAME
    table = struct.pack("=BBH", _NFPROTO_INET, 0, 0) + name
    flags = sockets.CREATE | sockets.EXCL | sockets.ACK
    messages = (
        sockets.message(_BATCH_BEGIN, 0, batch),
        sockets.message(_NFTABLES << 8, flags, table),  # NFT_MSG_NEWTABLE
        sockets.message(_BATCH_END, 0, batch),
    )
    with sockets.open_socket(sockets.NETFILTER) as sock:
        sock.settimeout(_PROBE_TIMEOUT)
        sock.send(b"".join(messages))
        # Of the table; of the batch as a whole where the kernel does not know what it is about.
        (code,) = struct.unpack_from("=i", sock.recv(4096), sockets.HEADER.size)
        if code:
            raise OSError(-code, os.strerror(-code))


def _read_drop_reasons() -> None:
    """See that the tracepoint of dropped packets has a reason; in a mount namespace of its own."""
    _number, reasons = drops.read_tracepoint()
    if not reasons:
        raise HostError("this kernel tells that a packet was dropped, but not why")


def _schedule(scheduler: Scheduler) -> Callable[[], None]:
    port = 1 + list(Scheduler).index(scheduler)
    service = IpvsService(
        netns="", service=VipPort(Protocol.TCP, _TEST_NET, port), scheduler=scheduler
    )
    return lambda: _add_service(service)


def _keep_calls() -> None:
    match = VipPort(Protocol.UDP, _TEST_NET, 1)
    _add_service(
        IpvsService(
            netns="",
            service=match,
            scheduler=Scheduler.RR,
            persistence=60,
            engine=PersistenceEngine.SIP,
        )
    )


def _add_service(service: IpvsService) -> None:
    if not probe.ipvs_loaded():
        raise HostError("no IPVS")
    with sockets.open_socket(sockets.GENERIC) as sock:
        sockets.request(sock, ipvs.add_message(service, ipvs.family_id(sock)))


_NAMESPACE = _Probe("netns", "", "every mode", netns.unshare)
_PROBES = (
    _Probe("veth", "veth", "every mode", _make_link("veth")),
    _Probe("bridge", "bridge", "every mode", _make_link("bridge")),
    _Probe("ip_vs", "ip_vs", "every mode", probe.load_ipvs),
    _Probe("ipip", "ipip", "tun", _make_link("ipip")),
    _Probe("gre", "ip_gre", "services with encapsulation: gre", _make_link("gre"), optional=True),
    _Probe("sit", "sit", "tun, an IPv6 VIP over IPv4", _make_link("sit"), optional=True),
    _Probe("ip6tnl", "ip6_tunnel", "tun over IPv6", _make_link("ip6tnl"), optional=True),
    _Probe(
        "ip6gre",
        "ip6_gre",
        "services with encapsulation: gre over IPv6",
        _make_link("ip6gre"),
        optional=True,
    ),
    _Probe("gue", "fou", "services with encapsulation: gue", _decapsulate_gue(4), optional=True),
    _Probe(
        "gue6",
        "fou6",
        "services with encapsulation: gue over IPv6",
        _decapsulate_gue(6),
        optional=True,
    ),
    _Probe("netem", "sch_netem", "delay, loss and rate in topologies", _add_netem, optional=True),
    _Probe("ipv6", "ipv6", "topologies with IPv6", _use_ipv6, optional=True),
    _Probe("sctp", "sctp", "services with protocol: sctp", _open_sctp, optional=True),
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
        f"persistence engine {PersistenceEngine.SIP}",
        f"ip_vs_pe_{PersistenceEngine.SIP}",
        f"services with persistence: {{engine: {PersistenceEngine.SIP}}}",
        _keep_calls,
        optional=True,
    ),
    _Probe(
        "marks",
        None,  # of nf_tables or cls_flower
        "services of several ports or VIPs, by a firewall mark",
        _mark,
        optional=True,
    ),
    _Probe("masquerade", None, "services with snat: true", _masquerade, optional=True),
    _Probe("mss clamp", None, "nodes with mss_clamp", _clamp, optional=True),
    _Probe("multipath routes", "", "several active directors (ha: ecmp)", _spread, optional=True),
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


_VERSION_TIMEOUT = 5.0  # seconds for a program to tell its version
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_MODPROBE = re.compile(r"^modprobe: .*", re.MULTILINE)
"""What ipvsadm has modprobe say, where there is no IPVS: it names the kernel's version."""


@dataclass(frozen=True, slots=True)
class _Tool:
    command: str
    question: str
    """The option that makes it tell its version."""
    package: str
    needed_for: str


_TOOLS = (
    _Tool("ip", "-V", "iproute2", "the script of `lvsctl plan`, and `ip netns exec` by hand"),
    _Tool("ipvsadm", "--version", "ipvsadm", "the script of `lvsctl plan`, and `ipvsadm -Ln`"),
    _Tool("sysctl", "--version", "procps", "the script of `lvsctl plan`"),
    _Tool("ethtool", "--version", "ethtool", "the script of `lvsctl plan`"),
    _Tool("keepalived", "--version", "keepalived", "directors with `ha:` or `keepalived:`"),
    _Tool("curl", "--version", "curl", "requests by hand: `lvsctl exec client -- curl …`"),
    _Tool("tcpdump", "--version", "tcpdump", "captures by hand"),
    _Tool("tshark", "--version", "tshark", "reading captures in detail"),
)


def host_features() -> tuple[probe.Feature, ...]:
    """Test everything that labs may need of this host, the most important first.

    Takes a few tenths of a second. Leaves nothing behind but, perhaps, a kernel module.
    """
    root = probe.has_root()
    privilege = probe.Feature(
        id="root",
        text=("" if root else "no ") + "CAP_NET_ADMIN and CAP_SYS_ADMIN",
        present=root,
        needed_for="every mode",
        remedy="run it with sudo, or use the throwaway kernel: --where machine",
    )
    return (privilege, *kernel_features(try_them=root), *programs())


def programs() -> tuple[probe.Feature, ...]:
    """Find the programs, all at once."""
    asked = [(tool, _ask(tool)) for tool in _TOOLS]
    return tuple(_feature(tool, process) for tool, process in asked)


def _ask(tool: _Tool) -> subprocess.Popen[str] | None:
    command = probe.which(tool.command)
    if command is None:
        return None
    try:
        return subprocess.Popen(
            [command, tool.question],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError:  # found, but cannot be run
        return None


def _feature(tool: _Tool, process: subprocess.Popen[str] | None) -> probe.Feature:
    return probe.Feature(
        id=tool.command,
        text="not installed" if process is None else _version(process),
        present=process is not None,
        needed_for=tool.needed_for,
        remedy=f"sudo apt-get install {tool.package}",
        optional=True,
    )


def _version(process: subprocess.Popen[str]) -> str:
    try:
        output, _ = process.communicate(timeout=_VERSION_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "installed, but does not answer"
    found = _VERSION.search(_MODPROBE.sub("", output))
    return found.group() if found else "installed"
