"""Common LVS misconfigurations, from its HOWTO, its mailing list and the kernel's documentation.

Each with the faults that reproduce it, or the reason why none does.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Known:
    """A common misconfiguration. ``faults`` are ids; ``why`` adds what the kernel does."""

    number: int
    text: str
    faults: tuple[str, ...]
    why: str = ""


KNOWN = (
    Known(1, "no arp_ignore on a real server (dr)", ("arp-ignore-unset",)),
    Known(2, "arp_ignore on lo or tunl0 only", ("arp-ignore-on-lo-only",),
          "the receiving interface counts, not the one with the VIP"),
    Known(3, "arp_announce is not 2", ("arp-announce-unset",)),
    Known(4, "the VIP on the real server's LAN interface", ("vip-on-lan",)),
    Known(5, "the VIP as /24 on lo", ("vip-as-subnet",),
          "the whole network becomes local: harmful if the client or its next hop is in it"),
    Known(6, "the VIP is missing on a real server", ("vip-missing",),
          "dropped as not local (IpInAddrErrors): a real server does not forward"),
    Known(7, "a dr real server behind a router", ("behind-router",),
          "the router forwards the packet back to the director until its TTL expires"),
    Known(8, "port mapping in dr or tun", (),
          "rejected in a topology; ipvsadm uses the service's port whatever is given, and the "
          "kernel changes no port. In NAT: `wrong-port`"),
    Known(9, "no gratuitous ARP at a failover", ("stale-vip-neighbour", "announcements-dropped")),
    Known(10, "nat, the real server's gateway is not the director", ("wrong-gateway",)),
    Known(11, "nat, the client on the real servers' network", ("client-on-real-server-network",)),
    Known(12, "the same, the on-link route removed and redirects sent", ("redirects-sent",),
          "works until the real server accepts a redirect"),
    Known(13, "nat with ip_forward=0", ("ip-forward-off",)),
    Known(14, "dr or tun, the real server's gateway is the director", ("gateway-is-director",),
          "dropped: the director does not forward; if it does, as martian (its own address)"),
    Known(15, "rp_filter=1 on an asymmetric path", ("rp-filter-on-router",)),
    Known(16, "rp_filter=1 on the tunnel device", ("rp-filter-on-tunnel",)),
    Known(17, "no ipip, or the tunnel device is down", ("tunnel-down",)),
    Known(18, "MTU: large packets through a tunnel",
          ("icmp-filtered", "pmtu-discovery-off", "tunnel-filtered")),
    Known(19, "offloads hide the MTU", (),
          "labs disable offloads on every interface, so captures show frames as on a wire"),
    Known(20, "the type of the tunnel does not match: IP in IP, GRE or GUE",
          ("encapsulation-mismatch",)),
    Known(21, "the VIP is not on the director", ("vip-missing-on-director",)),
    Known(22, "no usable real server", ("real-server-drained",),
          "one of them; with none left the director sends ICMP port unreachable"),
    Known(23, "a real server removed with live connections", ("real-server-removed",),
          "their packets are dropped silently, or reset with expire_nodest_conn=1"),
    Known(24, "weight 0 with persistence", ("real-server-drained", "persistence-added"),
          "both together: known clients keep coming unless expire_quiescent_template=1"),
    Known(25, "sh or mh without fallback", ("scheduler-changed", "real-server-drained"),
          "both together: a client whose hash selects the drained one is refused"),
    Known(26, "the client on the director (dr)", (),
          "the client is chosen by the request: `lvsctl exec director -- curl VIP`"),
)  # fmt: skip
