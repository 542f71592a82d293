"""The sysctls of IPVS, net.ipv4.vs.NAME: their defaults, and what they do in a few words.

From Documentation/networking/ipvs-sysctl.rst; those that it leaves out from
net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_lblc.c and ip_vs_lblcr.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

PREFIX = "net.ipv4.vs."


class IpvsSysctl(NamedTuple):
    """``default`` is empty where it depends on the machine; ``on`` is said of any value but 0."""

    default: str
    on: str
    off: str = ""

    def meaning(self, value: str) -> str:
        """What ``value`` does, in a few words."""
        return self.off if value == "0" and self.off else self.on


_DEFENSE = "1, 2: while memory is short, 3: always"

IPVS_SYSCTLS: Mapping[str, IpvsSysctl] = {
    "am_droprate": IpvsSysctl("10", "drop_packet=3 drops one packet in so many"),
    "amemthresh": IpvsSysctl("1024", "pages of free memory below which the defenses begin"),
    "backup_only": IpvsSysctl(
        "0", "a backup of the sync daemon forwards nothing", "a backup forwards, too"
    ),
    "cache_bypass": IpvsSysctl(
        "0",
        "without a usable real server, packets go on to their destination",
        "without a usable real server, packets are refused",
    ),
    "conn_reuse_mode": IpvsSysctl(
        "1",
        "a client port that is used again may get another real server",
        "a client port that is used again stays with its real server",
    ),
    "conntrack": IpvsSysctl(
        "0",
        "netfilter tracks the connections that IPVS forwards",
        "netfilter does not track what IPVS forwards",
    ),
    "debug_level": IpvsSysctl("0", "messages to the kernel's log: the higher, the more"),
    "drop_entry": IpvsSysctl(
        "0", f"drops half-open connections ({_DEFENSE})", "drops no half-open connections"
    ),
    "drop_packet": IpvsSysctl(
        "0", f"drops one request packet in so many ({_DEFENSE})", "drops no packets"
    ),
    "est_cpulist": IpvsSysctl("", "CPUs of the threads that estimate rates"),
    "est_nice": IpvsSysctl("0", "priority of the threads that estimate rates"),
    "expire_nodest_conn": IpvsSysctl(
        "0",
        "connections of a removed real server end with its next packet",
        "packets to a removed real server are dropped until their connection times out",
    ),
    "expire_quiescent_template": IpvsSysctl(
        "0",
        "persistent clients of a drained real server get another one",
        "persistent clients stay with a drained real server",
    ),
    "ignore_tunneled": IpvsSysctl(
        "0", "packets of other protocols, such as tunnels, are left alone", "tunnels are looked at"
    ),
    "lblc_expiration": IpvsSysctl("86400", "lblc forgets a destination after so many seconds"),
    "lblcr_expiration": IpvsSysctl("86400", "lblcr forgets a destination after so many seconds"),
    "nat_icmp_send": IpvsSysctl(
        "0",
        "nat: replies without a connection are refused by ICMP",
        "nat: replies without a connection pass",
    ),
    "pmtu_disc": IpvsSysctl(
        "1",
        "packets larger than the path MTU are refused by ICMP",
        "tun: packets larger than the path MTU are fragmented",
    ),
    "run_estimation": IpvsSysctl("1", "rates are estimated", "rates are not estimated"),
    "schedule_icmp": IpvsSysctl(
        "0", "ICMP errors of unknown connections are scheduled", "ICMP errors are not scheduled"
    ),
    "secure_tcp": IpvsSysctl(
        "0", f"stricter TCP states against floods ({_DEFENSE})", "the usual TCP states"
    ),
    "sloppy_sctp": IpvsSysctl(
        "0", "any SCTP packet opens a connection", "only INIT opens a connection"
    ),
    "sloppy_tcp": IpvsSysctl(
        "0", "any TCP packet opens a connection", "only SYN opens a connection"
    ),
    "snat_reroute": IpvsSysctl(
        "1",
        "nat: replies are routed as the director's own packets",
        "nat: replies are routed as forwarded packets",
    ),
    "sync_persist_mode": IpvsSysctl(
        "0", "of persistent services only templates are synchronized", "all is synchronized"
    ),
    "sync_ports": IpvsSysctl("1", "threads of the sync daemons, each with a UDP port"),
    "sync_qlen_max": IpvsSysctl("", "sync messages that may wait to be sent"),
    "sync_refresh_period": IpvsSysctl(
        "0", "seconds for which an unchanged connection is not sent again", "by sync_threshold only"
    ),
    "sync_retries": IpvsSysctl("0", "times that a sync message is sent again"),
    "sync_sock_size": IpvsSysctl("0", "bytes of the sync socket's buffer", "the system's usual"),
    "sync_threshold": IpvsSysctl(
        "3 50", "a connection is synchronized at its packet A, and then every B packets"
    ),
    "sync_version": IpvsSysctl(
        "1", "the current protocol of sync messages", "the original protocol of sync messages"
    ),
}


def normal(value: str) -> str:
    """A value as sysctl(8) prints it, with one blank between its words."""
    return " ".join(value.split())
