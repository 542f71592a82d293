"""Put the loopback devices of directors down before their namespaces end.

IPVS keeps the route to a real server for as long as it has the server, and forgets it when the
route's device goes down (ip_vs_dst_event in net/netfilter/ipvs/ip_vs_ctl.c). The route to a
director's own IPv6 address, which direct routing resolves as one of its own (FLOWI_FLAG_KNOWN_NH),
has ``lo`` as its device and holds the device that has the address. While a namespace ends, the
kernel waits for that one, and only then takes ``lo`` down: for ever, and with it the end of every
other namespace and the loading of modules ("unregister_netdevice: waiting for lan to become free",
seen with Linux 6.1).
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from lvsctl.errors import LvsctlError
from lvsctl.kernel import netns, probe

_SIOCSIFFLAGS = 0x8914  # linux/sockios.h
_DOWN = struct.pack("16sh22x", b"lo", 0)  # struct ifreq of netdevice(7)


def put_down(namespaces: Iterable[Path]) -> None:
    """Put ``lo`` down in those of the namespaces that have IPVS with IPv6 real servers.

    What cannot be entered, or is gone, is left as it is.
    """
    if not probe.ipvs_loaded():
        return

    def visits() -> None:
        for one in namespaces:
            with contextlib.suppress(OSError, LvsctlError), netns.enter(one):
                if _has_ipv6_servers():
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                        fcntl.ioctl(sock, _SIOCSIFFLAGS, _DOWN)

    netns.in_thread(visits)


def _has_ipv6_servers() -> bool:
    """Whether the IPVS table of the calling thread's namespace has an IPv6 address."""
    return b"[" in Path("/proc/thread-self/net/ip_vs").read_bytes()
