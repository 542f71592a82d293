"""Sysctls of a fresh namespace, and those of a lab's namespace that differ from them.

A scratch namespace gets a device of each kind that a lab has; its settings are what the kernel
and this host give to every namespace. It has no name and goes with the thread that made it.

Sources: Documentation/networking/ip-sysctl.rst; net/ipv4/devinet.c (inet_forward_change,
devinet_copy_dflt_conf); net/ipv6/addrconf.c (ipv6_add_dev).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from lvsctl.kernel import netns, sysctl
from lvsctl.model.service import TunnelKind
from lvsctl.model.state import LinkState, Setting
from lvsctl.netlink import devconf, devices, sockets
from lvsctl.netlink.links import add_link, request_links

_SCRATCH = "lvs"
"""How the scratch devices' names begin; their kind follows."""
_KINDS = ("veth", "bridge", *TunnelKind)

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


_IPVS = "net.ipv4.vs."


class Directory(NamedTuple):
    """A directory of sysctls: its path, and of each file its name, its sysctl, its usual value."""

    path: str
    files: tuple[tuple[str, str, str], ...]


class Expected(NamedTuple):
    """The usual values of a namespace: of sysctls that netlink has, and of those in files."""

    by_netlink: tuple[tuple[devconf.Setting, str, str], ...]
    """The sysctl of a device, its name, its usual value."""
    directories: tuple[Directory, ...]


class Fresh(NamedTuple):
    """The sysctls of a fresh namespace.

    ``plain`` by name; ``devices`` those of all, default and lo, and ``kinds`` those of a device
    of each kind, by their names split at the device's. ``by_netlink`` are the sysctls of devices
    of which netlink had the same value as the file: net.ipv4.conf, ``all``, ``default`` or empty
    for any device, the setting.
    """

    plain: Mapping[str, str]
    devices: Mapping[tuple[str, str, str], str]
    kinds: Mapping[str, Mapping[tuple[str, str], str]]
    by_netlink: frozenset[tuple[str, str, str]]
    expected: dict[object, Expected]
    """What was worked out for namespaces that are alike."""

    def has_by_netlink(self, one: devconf.Setting) -> bool:
        """Whether netlink shows a sysctl of a device as its file does."""
        return _of_any_device(one) in self.by_netlink


def fresh_sysctls(kinds: Iterable[str], *, ipv6: bool) -> Fresh:
    """Read the sysctls of a new namespace with a device of each of ``kinds``.

    Without ``ipv6`` only whether each device has it. Raises HostError.
    """
    wanted = [kind for kind in _KINDS if kind in set(kinds)]

    def read() -> Fresh:
        netns.unshare()
        messages = [add_link(f"{_SCRATCH}{kind}", kind) for kind in wanted]
        with sockets.open_socket() as sock:
            sockets.send_all(sock, messages)
        found = dict(_all(wanted, ipv6=ipv6))
        return _sorted(found, _agreed(found, read_device_settings()))

    return netns.in_thread(read)


def read_device_settings() -> devconf.DeviceSettings:
    """Ask netlink for the sysctls of the devices in the calling thread's namespace."""
    found = devconf.DeviceSettings()
    with sockets.open_reader() as sock:
        found.add_links(request_links(sock))
        found.dump_netconf(sock)
        names = {one.ifindex: one.name for one in devices.dump_names(sock)}
        found.dump_neighbour_tables(sock, names)
    return found


def _agreed(
    found: Mapping[str, str], known: devconf.DeviceSettings
) -> frozenset[tuple[str, str, str]]:
    """Return the sysctls of which netlink has the values, for ``Fresh.by_netlink``.

    So that a kernel whose files and answers differ is read by its files.
    """
    agreed: dict[tuple[str, str, str], bool] = {}
    for name, value in found.items():
        one = devconf.split(name)
        answer = known.get(one) if one else None
        if one is not None and answer is not None:
            place = _of_any_device(one)
            agreed[place] = agreed.get(place, True) and answer == value
    return frozenset(place for place, equal in agreed.items() if equal)


def _of_any_device(one: devconf.Setting) -> tuple[str, str, str]:
    return one.start, one.device if one.device in ("all", "default") else "", one.end


def _all(kinds: Iterable[str], *, ipv6: bool) -> Iterator[tuple[str, str]]:
    """Yield the sysctls of the calling thread's namespace that can be read and written."""
    root = f"{sysctl.ROOT}net"
    for place, directories, files in os.walk(root):
        if place == root and not ipv6 and "ipv6" in directories:
            directories.remove("ipv6")
            for device in ("all", "default", *(f"{_SCRATCH}{kind}" for kind in kinds)):
                yield from _readable(f"{root}/ipv6/conf/{device}", ("disable_ipv6",))
        yield from _readable(place, files)


def _readable(place: str, files: Iterable[str]) -> Iterator[tuple[str, str]]:
    path = place[len(sysctl.ROOT) :]
    start = path.translate(_EXCHANGED)
    try:
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # a fallback tunnel of this kind kept another from being made
        return
    try:
        for file in files:
            name = f"{start}.{file}"
            if file not in _DERIVED and name not in _UNSTEADY:
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    yield name, _content(directory, file)
    finally:
        os.close(directory)


_EXCHANGED = str.maketrans("./", "/.")


def _sorted(found: Mapping[str, str], by_netlink: frozenset[tuple[str, str, str]]) -> Fresh:
    plain: dict[str, str] = {}
    on_devices: dict[tuple[str, str, str], str] = {}
    kinds: dict[str, dict[tuple[str, str], str]] = {}
    for name, value in found.items():
        words = name.split(".")
        if len(words) < 5 or words[2] not in ("conf", "neigh"):
            plain[name] = value
            continue
        start, device, end = ".".join(words[:3]), words[3], ".".join(words[4:])
        if device.startswith(_SCRATCH) and device.removeprefix(_SCRATCH) in _KINDS:
            kinds.setdefault(device.removeprefix(_SCRATCH), {})[start, end] = value
        else:
            on_devices[start, device, end] = value
    return Fresh(plain, on_devices, kinds, by_netlink, {})


def changed_sysctls(
    fresh: Fresh,
    planned: Mapping[str, str],
    links: Collection[LinkState],
    *,
    director: bool,
) -> tuple[Setting, ...]:
    """Compare the calling thread's namespace with a fresh one, apart from ``planned`` settings.

    IPVS has virtual services in that of a ``director`` only: elsewhere its settings are left out.
    """
    # Frames of a bridge's port do not reach IP.
    mine = tuple((one.name, one.kind, one.mtu) for one in links if not one.master)
    alike = mine, frozenset(planned.items()), director
    if alike not in fresh.expected:
        fresh.expected[alike] = _expected(fresh, planned, mine, director=director)
    expected = fresh.expected[alike]
    return (*_different(expected.by_netlink), *_in_files(expected.directories))


def _different(settings: Iterable[tuple[devconf.Setting, str, str]]) -> Iterator[Setting]:
    """Yield what differs of the settings that netlink has."""
    known = read_device_settings()
    for one, name, usual in settings:
        now = known.get(one)
        if now is not None and now != usual:  # None: the device was removed meanwhile
            yield Setting(name, now, usual)


def _in_files(directories: Iterable[Directory]) -> Iterator[Setting]:
    for directory in directories:
        yield from _differing(directory)


def _differing(directory: Directory) -> Iterator[Setting]:
    """Yield what differs in a directory, which is looked up once for all of its files."""
    try:
        place = os.open(directory.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for file, name, usual in directory.files:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                now = _text(place, file)
                if now != usual:
                    yield Setting(name, now, usual)
    finally:
        os.close(place)


def _content(directory: int, file: str) -> str:
    """Read a sysctl. Raises OSError, also for one that cannot be both read and written."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        if os.fstat(fd).st_mode & 0o600 != 0o600:
            raise PermissionError(f"{file} is only read, or only written")
        return os.read(fd, 4096).decode().strip()
    finally:
        os.close(fd)


def _text(directory: int, file: str) -> str:
    """Read a sysctl of which the scratch namespace has shown that it is read and written."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(fd, 4096).decode().strip()
    finally:
        os.close(fd)


def _expected(
    fresh: Fresh,
    planned: Mapping[str, str],
    links: Iterable[tuple[str, str, int]],
    *,
    director: bool,
) -> Expected:
    """Return the usual values of a namespace's sysctls that no plan sets."""
    files: dict[str, list[tuple[str, str, str]]] = {}
    by_netlink = []
    for name, usual in _usual(fresh, planned, links):
        if name in planned or (name.startswith(_IPVS) and not director):
            continue
        one = devconf.split(name)
        if one is not None and fresh.has_by_netlink(one):
            by_netlink.append((one, name, usual))
            continue
        directory, _, file = sysctl.path(name).rpartition("/")
        files.setdefault(directory, []).append((file, name, usual))
    directories = tuple(Directory(path, tuple(found)) for path, found in files.items())
    return Expected(tuple(by_netlink), directories)


def _usual(
    fresh: Fresh, planned: Mapping[str, str], links: Iterable[tuple[str, str, int]]
) -> Iterator[tuple[str, str]]:
    yield from fresh.plain.items()
    for (start, device, end), value in fresh.devices.items():
        usual = value
        if start == "net.ipv4.conf" and device == "lo":  # gets what default is set to
            usual = planned.get(f"{start}.default.{end}", value)
        yield f"{start}.{device}.{end}", _propagated(start, device, end, usual, planned)
    for device, kind, mtu in links:
        typed = device.replace(".", "/")
        for (start, end), value in fresh.kinds.get(kind, {}).items():
            if (start, end) == ("net.ipv6.conf", "mtu"):
                yield f"{start}.{typed}.mtu", str(mtu)
                continue
            usual = value
            if fresh.devices.get((start, "default", end)) == value:  # no matter of its kind
                usual = planned.get(f"{start}.default.{end}", value)
            yield f"{start}.{typed}.{end}", _propagated(start, typed, end, usual, planned)


def _propagated(start: str, device: str, end: str, value: str, planned: Mapping[str, str]) -> str:
    """Return the usual value of a setting that the kernel changes together with another."""
    ipv4 = planned.get("net.ipv4.ip_forward", planned.get("net.ipv4.conf.all.forwarding"))
    if start == "net.ipv4.conf" and end == "forwarding" and ipv4 is not None:
        return ipv4
    if start == "net.ipv4.conf" and (device, end) == ("all", "accept_redirects") and ipv4 == "1":
        return "0"
    if start == "net.ipv6.conf" and end in ("forwarding", "disable_ipv6") and device != "all":
        return planned.get(f"net.ipv6.conf.all.{end}", value)
    return value
