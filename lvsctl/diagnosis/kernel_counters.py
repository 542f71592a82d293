"""Corroborate causes by the kernel's own counters and drop reasons.

The counters are those that grow under each cause (observed on Linux 6.1), usually at the
cause's node. A cause stands without them; they are quoted if they grew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from lvsctl.claims import packet_loss
from lvsctl.model.claim import Cause
from lvsctl.model.evidence import Evidence

MOST = 3
"""Lines quoted for one cause at most."""


class KernelCounters(NamedTuple):
    """Counters by nstat(8)'s names, reasons of enum skb_drop_reason and counts of rt_cache.

    ``martian``: the kernel logs it too if log_martians is set.
    """

    counters: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    martian: bool = False


_NOT_ITS = KernelCounters(
    ("IpInAddrErrors", "IpExtInNoRoutes", "Ip6InAddrErrors", "Ip6InNoRoutes"),
    ("IP_INADDRERRORS", "IP_INNOROUTES"),
)
_FORGED = KernelCounters(
    ("TcpExtIPReversePathFilter",), ("IP_RPFILTER", "in_martian_src"), martian=True
)
_REFUSED = KernelCounters(("TcpOutRsts", "UdpNoPorts"), ("NO_SOCKET",))
_NO_ROUTE = KernelCounters(
    ("IpOutNoRoutes", "IpExtInNoRoutes", "Ip6OutNoRoutes", "Ip6InNoRoutes"),
    ("IP_OUTNOROUTES", "IP_INNOROUTES"),
)
_NOBODY_THERE = KernelCounters(("IcmpOutDestUnreachs", "Icmp6OutDestUnreachs"), ("NEIGH_FAILED",))

COUNTERS_BY_CAUSE: Mapping[str, KernelCounters] = {
    "vip-missing": _NOT_ITS,
    "vip-missing-on-director": _NOBODY_THERE,
    "vip-as-subnet": _REFUSED,
    "wrong-forwarding-method": KernelCounters(
        (*_NOT_ITS.counters, "IpInHdrErrors", "TcpOutRsts"), ("IP_INADDRERRORS", "IP_INHDR")
    ),
    "wrong-port": _REFUSED,
    "wrong-gateway": KernelCounters(("IpInAddrErrors", "TcpOutRsts"), ("IP_INADDRERRORS",)),
    "client-on-real-server-network": _REFUSED,
    "gateway-is-director": KernelCounters(
        ("IpInAddrErrors",),
        ("IP_LOCAL_SOURCE", "IP_INVALID_SOURCE", "IP_INADDRERRORS", "in_martian_src"),
        martian=True,
    ),
    "behind-router": KernelCounters(("IpInHdrErrors", "IcmpOutTimeExcds"), ("IP_INHDR",)),
    "no-default-gateway": _NO_ROUTE,
    "no-route-to-real-server": KernelCounters(
        (*_NO_ROUTE.counters, *_NOBODY_THERE.counters), _NO_ROUTE.reasons
    ),
    "no-route": _NO_ROUTE,
    "ip-forward-off": _NOT_ITS,
    "router-not-forwarding": _NOT_ITS,
    "redirects-sent": KernelCounters(("IcmpOutRedirects",)),
    "rp-filter-on-tunnel": _FORGED,
    "rp-filter-on-router": _FORGED,
    "rp-filter-on-director": _FORGED,
    "rp-filter-on-client": _FORGED,
    "rp-filter-on-real-server": _FORGED,
    "tunnel-down": KernelCounters(("IpInUnknownProtos", "IcmpOutDestUnreachs"), ("IP_NOPROTO",)),
    "tunnel-filtered": KernelCounters((), ("TC_INGRESS", "NETFILTER_DROP")),
    "icmp-filtered": KernelCounters(("IcmpOutDestUnreachs",), ("TC_INGRESS", "NETFILTER_DROP")),
    "packets-filtered": KernelCounters((), ("TC_INGRESS", "NETFILTER_DROP")),
    "real-server-down": _NOBODY_THERE,
    "service-stopped": _REFUSED,
    "service-missing": _REFUSED,
}
"""By kind of cause. Other causes lose no packet that a kernel counts."""


def corroborate(cause: Cause, evidence: Evidence) -> Cause:
    """Add the kernels' counters and drop reasons to a cause's evidence."""
    said = COUNTERS_BY_CAUSE.get(cause.fault)
    if said is None:
        return cause
    quoted = tuple(_quoted(cause, said, evidence))[:MOST]
    return replace(cause, evidence=(*cause.evidence, *quoted))


def _quoted(cause: Cause, said: KernelCounters, evidence: Evidence) -> Iterator[str]:
    there = tuple(packet_loss.lost(evidence, said.counters, (cause.node,)))
    yield from there or tuple(packet_loss.lost(evidence, said.counters))
    yield from packet_loss.reasons(evidence, said.reasons)
    if said.martian:
        yield from packet_loss.martians(evidence)
