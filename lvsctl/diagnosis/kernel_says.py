"""Which of the kernel's counters and drop reasons bear a cause out: its own word for it.

The counters are those that were seen to grow under each cause (Linux 6.1), most of them at
the node where the cause is; where not, at whoever got the packet. A cause stands without
them: they are quoted where they grew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from lvsctl.claims import packet_loss
from lvsctl.diagnosis.base import Cause
from lvsctl.model.evidence import Evidence

MOST = 3
"""Lines that are quoted for one cause."""


class Said(NamedTuple):
    """Counters by nstat(8)'s names, reasons of enum skb_drop_reason and counts of rt_cache.

    ``martian``: the kernel's log tells of it too, where log_martians is set.
    """

    counters: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    martian: bool = False


_NOT_ITS = Said(
    ("IpInAddrErrors", "IpExtInNoRoutes", "Ip6InAddrErrors", "Ip6InNoRoutes"),
    ("IP_INADDRERRORS", "IP_INNOROUTES"),
)
_FORGED = Said(("TcpExtIPReversePathFilter",), ("IP_RPFILTER", "in_martian_src"), martian=True)
_REFUSED = Said(("TcpOutRsts", "UdpNoPorts"), ("NO_SOCKET",))
_NO_ROUTE = Said(
    ("IpOutNoRoutes", "IpExtInNoRoutes", "Ip6OutNoRoutes", "Ip6InNoRoutes"),
    ("IP_OUTNOROUTES", "IP_INNOROUTES"),
)
_NOBODY_THERE = Said(("IcmpOutDestUnreachs", "Icmp6OutDestUnreachs"), ("NEIGH_FAILED",))

SAID: Mapping[str, Said] = {
    "vip-missing": _NOT_ITS,
    "vip-missing-on-director": _NOBODY_THERE,
    "vip-as-subnet": _REFUSED,
    "wrong-forwarding-method": Said(
        (*_NOT_ITS.counters, "IpInHdrErrors", "TcpOutRsts"), ("IP_INADDRERRORS", "IP_INHDR")
    ),
    "wrong-port": _REFUSED,
    "wrong-gateway": Said(("IpInAddrErrors", "TcpOutRsts"), ("IP_INADDRERRORS",)),
    "client-on-real-server-network": _REFUSED,
    "gateway-is-director": Said(
        ("IpInAddrErrors",),
        ("IP_LOCAL_SOURCE", "IP_INVALID_SOURCE", "IP_INADDRERRORS", "in_martian_src"),
        martian=True,
    ),
    "behind-router": Said(("IpInHdrErrors", "IcmpOutTimeExcds"), ("IP_INHDR",)),
    "no-default-gateway": _NO_ROUTE,
    "no-route-to-real-server": Said(
        (*_NO_ROUTE.counters, *_NOBODY_THERE.counters), _NO_ROUTE.reasons
    ),
    "no-route": _NO_ROUTE,
    "ip-forward-off": _NOT_ITS,
    "router-not-forwarding": _NOT_ITS,
    "redirects-sent": Said(("IcmpOutRedirects",)),
    "rp-filter-on-tunnel": _FORGED,
    "rp-filter-on-router": _FORGED,
    "rp-filter-on-director": _FORGED,
    "rp-filter-on-client": _FORGED,
    "rp-filter-on-real-server": _FORGED,
    "tunnel-down": Said(("IpInUnknownProtos", "IcmpOutDestUnreachs"), ("IP_NOPROTO",)),
    "tunnel-filtered": Said((), ("TC_INGRESS", "NETFILTER_DROP")),
    "icmp-filtered": Said(("IcmpOutDestUnreachs",), ("TC_INGRESS", "NETFILTER_DROP")),
    "packets-filtered": Said((), ("TC_INGRESS", "NETFILTER_DROP")),
    "real-server-down": _NOBODY_THERE,
    "service-stopped": _REFUSED,
    "service-missing": _REFUSED,
}
"""By the kind of cause. Those that are not here lose no packet that a kernel would count."""


def borne_out(cause: Cause, evidence: Evidence) -> Cause:
    """The cause, with what the kernels themselves say of it."""
    said = SAID.get(cause.fault)
    if said is None:
        return cause
    quoted = tuple(_quoted(cause, said, evidence))[:MOST]
    return replace(cause, evidence=(*cause.evidence, *quoted))


def _quoted(cause: Cause, said: Said, evidence: Evidence) -> Iterator[str]:
    there = tuple(packet_loss.lost(evidence, said.counters, (cause.node,)))
    yield from there or tuple(packet_loss.lost(evidence, said.counters))
    yield from packet_loss.reasons(evidence, said.reasons)
    if said.martian:
        yield from packet_loss.martians(evidence)
