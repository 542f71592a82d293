"""``static_routes``, and ``virtual_routes`` of VRRP instances.

keepalived.conf(5), "Static routes/addresses/rules"; alloc_route in keepalived/vrrp/vrrp_iproute.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from lvsctl.formats.configuration import Notes, RouteLine
from lvsctl.formats.keepalived.numbers import address, number
from lvsctl.formats.keepalived.tree import Block
from lvsctl.model.addresses import IPNetwork

_KEPT = "a topology's route has `to`, `via`, `mtu` and `mss`"
_WITHOUT_VALUE = frozenset(
    ("track_group", "no_track", "no-track", "onlink", "pervasive", "fastopen_no_cookie")
)
_TYPES = frozenset(
    ("blackhole", "unreachable", "prohibit", "throw", "local", "broadcast", "multicast", "nat")
)
_IGNORED = frozenset(
    ("dev", "oif", "scope", "protocol", "proto", "metric", "priority", "preference")
)
"""Which interface and precedence a route has shows by itself where it is the only one."""


def read_routes(root: Block, notes: Notes) -> Iterator[RouteLine]:
    """Yield the routes that a topology can have; the others are noted, each with its line."""
    blocks = list(root.each("static_routes"))
    for instance in root.each("vrrp_instance"):
        blocks += instance.each("virtual_routes")
    for block in blocks:
        for line in block.children or ():
            if line.children is not None:
                notes.remark(line.place, f"{block.keyword}: {_KEPT}")
                continue
            found = _route(line, block.keyword, notes)
            if found is not None:
                yield found


def _route(line: Block, keyword: str, notes: Notes) -> RouteLine | None:
    words = [word for word in line.words if word not in ("to", "unicast", "inet", "inet6")]
    text = " ".join(line.words)
    options: dict[str, str] = {}
    targets: list[str] = []
    while words:
        word = words.pop(0)
        if word in _TYPES or word in ("nexthop", "table", "or", "encap"):
            notes.remark(line.place, f"{keyword}: {text}: {_KEPT}")
            return None
        if word in _WITHOUT_VALUE:
            continue
        if not targets and _target(word) is not None:
            targets.append(word)
        elif words:
            options[word] = words.pop(0) if word not in ("mtu", "advmss") else _locked(words)
        else:
            options[word] = ""
    via = address(options.pop("via", options.pop("gw", "")))
    to = _target(targets[0]) if targets else None
    if to is None or via is None or (to.prefixlen and to.version != via.version):
        notes.remark(line.place, f"{keyword}: {text}: a topology's route leads to a gateway")
        return None
    for name in sorted(options.keys() - _IGNORED - {"mtu", "advmss"}):
        notes.remark(line.place, f"{keyword}: {name} of the route to {targets[0]}: {_KEPT}")
    mtu = number(options.get("mtu", "0"), 0, 65535) or 0
    mss = number(options.get("advmss", "0"), 0, 65535) or 0
    return RouteLine(
        to if to.prefixlen else None, via, line.place, mtu, mss, keyword == "virtual_routes"
    )


def _locked(words: list[str]) -> str:
    """``mtu lock 1400`` and ``mtu 1400``."""
    if words and words[0] == "lock":
        words.pop(0)
    return words.pop(0) if words else ""


def _target(word: str) -> IPNetwork | None:
    """Where a route leads; the default route is one of length 0."""
    if word == "default":
        return ip_network("0.0.0.0/0")
    if word == "default6":
        return ip_network("::/0")
    try:
        return ip_network(word, strict=False)
    except ValueError:
        return None
