"""Sysctls of a fresh namespace, and those of a lab's namespace that differ from them.

A scratch namespace gets a device of each kind that a lab has; its settings are what the kernel
and this host give to every namespace. It has no name and goes with the thread that made it.

Sources: Documentation/networking/ip-sysctl.rst; net/ipv4/devinet.c (inet_forward_change),
net/ipv6/addrconf.c (ipv6_add_dev).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from lvsctl.kernel import netns, sysctl
from lvsctl.model.state import LinkState, Setting
from lvsctl.netlink import rtnl, sockets

_SCRATCH = "lvs"
"""How the scratch devices' names begin; their kind follows."""
_KINDS = ("veth", "bridge", "ipip", "gre")
_FAMILY, _DEVICE, _LAST = 1, 3, -1
"""Places of the words of net.FAMILY.conf.DEVICE.SETTING."""

_UNSTEADY = frozenset({
    "net.ipv4.tcp_fastopen_key",  # random
    "net.netfilter.nf_conntrack_count",
    # Those grow with modules:
    "net.ipv4.tcp_available_congestion_control",
    "net.ipv4.tcp_allowed_congestion_control",
    "net.ipv4.tcp_available_ulp",
})  # fmt: skip
"""What changes by itself, or differs from namespace to namespace."""
_DERIVED = frozenset({"retrans_time", "base_reachable_time", "unres_qlen", "stable_secret"})
"""Settings of a device that show another one in another unit, or cannot be read."""


def fresh_sysctls(kinds: Iterable[str]) -> dict[str, str]:
    """Read the sysctls of a new namespace with a device of each of ``kinds``.

    A device's settings are under its kind (net.ipv4.conf.veth.rp_filter). Raises HostError.
    """
    wanted = [kind for kind in _KINDS if kind in set(kinds)]

    def read() -> dict[str, str]:
        netns.unshare()
        messages = [rtnl.add_link(f"{_SCRATCH}{kind}", kind) for kind in wanted]
        with sockets.open_socket() as sock:
            sockets.send_all(sock, messages)
        found = {}
        for name in _names():
            key = _general(name)
            if key not in _UNSTEADY and key.rpartition(".")[2] not in _DERIVED:
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    value = sysctl.read(name)
                    if value is not None:
                        found[key] = value
        return found

    return netns.in_thread(read)


def _names() -> Iterator[str]:
    """Yield the sysctls of the calling thread's namespace that can be read and written."""
    root = Path(sysctl.ROOT) / "net"
    for place, _, files in os.walk(root):
        for file in files:
            path = f"{place}/{file}"
            if os.stat(path).st_mode & 0o600 == 0o600:  # noqa: PTH116 (there are hundreds)
                words = path[len(sysctl.ROOT) :].split("/")
                yield ".".join(word.replace(".", "/") for word in words)


def _general(name: str) -> str:
    words = name.split(".")
    if _of_device(words) and words[_DEVICE].startswith(_SCRATCH):
        words[_DEVICE] = words[_DEVICE].removeprefix(_SCRATCH)
    return ".".join(words)


def _of_device(words: list[str]) -> bool:
    return len(words) > 4 and words[2] in ("conf", "neigh")


def changed_sysctls(
    fresh: Mapping[str, str],
    planned: Mapping[str, str],
    links: Collection[LinkState],
    procfs: sysctl.Procfs,
) -> tuple[Setting, ...]:
    """Compare the calling thread's namespace with a fresh one, apart from ``planned`` settings."""
    found: list[Setting] = []
    with_ipv6 = _with_ipv6(links, procfs)
    for key, value in fresh.items():
        words = key.split(".")
        if words[_FAMILY] == "ipv6" and not with_ipv6 and words[_LAST] != "disable_ipv6":
            continue
        for name, usual in _instances(words, value, fresh, planned, links):
            if name in planned:
                continue
            with contextlib.suppress(OSError, UnicodeDecodeError):
                now = sysctl.read(name, through=procfs)
                if now is not None and now != usual:
                    found.append(Setting(name, now, usual))
    return tuple(found)


def _with_ipv6(links: Collection[LinkState], procfs: sysctl.Procfs) -> bool:
    """Return whether any device but lo has IPv6: without it, its settings are without effect."""
    for link in links:
        if link.name == "lo" or link.master:
            continue
        name = f"net.ipv6.conf.{link.name.replace('.', '/')}.disable_ipv6"
        if sysctl.read(name, through=procfs) == "0":
            return True
    return False


def _instances(
    words: list[str],
    value: str,
    fresh: Mapping[str, str],
    planned: Mapping[str, str],
    links: Collection[LinkState],
) -> Iterator[tuple[str, str]]:
    """Yield the names that a setting of ``fresh`` has in a lab's namespace, with usual values."""
    key = ".".join(words)
    if not _of_device(words):
        yield key, value
        return
    if words[_DEVICE] not in _KINDS:  # all, default, lo
        yield key, _propagated(words, value, planned)
        return
    for link in links:
        if link.kind != words[_DEVICE] or link.master:  # frames of a port do not reach IP
            continue
        mine = [*words]
        mine[_DEVICE] = link.name.replace(".", "/")
        if words[1] == "ipv6" and words[_LAST] == "mtu":
            yield ".".join(mine), str(link.mtu)
            continue
        default = [*words]
        default[_DEVICE] = "default"
        usual = value
        if fresh.get(".".join(default)) == value:  # no matter of its kind
            usual = planned.get(".".join(default), value)
        yield ".".join(mine), _propagated(words, usual, planned)


def _propagated(words: list[str], value: str, planned: Mapping[str, str]) -> str:
    """Return the usual value of a setting that the kernel changes together with another."""
    family, device, last = words[_FAMILY], words[_DEVICE], words[_LAST]
    ipv4 = planned.get("net.ipv4.ip_forward", planned.get("net.ipv4.conf.all.forwarding"))
    if family == "ipv4" and last == "forwarding" and ipv4 is not None:
        return ipv4
    if family == "ipv4" and (device, last) == ("all", "accept_redirects") and ipv4 == "1":
        return "0"
    if family == "ipv6" and last in ("forwarding", "disable_ipv6") and device != "all":
        return planned.get(f"net.ipv6.conf.all.{last}", value)
    return value
