"""keepalived's keywords inside virtual_server, by what they mean for lvsctl.

From init_check_keywords (keepalived/check/check_parser.c) and install_*_check_keyword
(check_*.c) of versions 2.2.7 and 2.4.3.
"""

from __future__ import annotations

from lvsctl.model.service import TunnelChecksum

CHECKS = frozenset(
    (
        *("TCP_CHECK", "HTTP_GET", "SSL_GET", "SMTP_CHECK", "DNS_CHECK", "MISC_CHECK"),
        *("PING_CHECK", "UDP_CHECK", "BFD_CHECK", "FILE_CHECK"),
    )
)
"""Health checks of a real server; each has a block."""

_HEALTH = "keepalived's health checks decide by it"
_SCRIPT = "a script is never run for a lab"

ABOUT_HEALTH: dict[str, str] = {
    **dict.fromkeys(
        ("delay_loop", "retry", "delay_before_retry", "warmup", "connect_timeout", "alpha"), _HEALTH
    ),
    **dict.fromkeys(("omega", "quorum", "hysteresis", "ha_suspend", "virtualhost"), _HEALTH),
    "inhibit_on_failure": "keepalived sets weight 0 in place of removing a failed server",
    **dict.fromkeys(("quorum_up", "quorum_down", "notify_up", "notify_down"), _SCRIPT),
    **dict.fromkeys(("smtp_alert", "snmp_name"), "it is about reports"),
}
"""Keywords that change nothing in IPVS while all real servers are well."""

SERVER_FLAGS = ("ops", "hashed", "flag-1", "flag-2", "flag-3")
SCHEDULER_FLAGS = ("sh-port", "sh-fallback", "mh-port", "mh-fallback")

VIRTUAL_SERVER = frozenset(
    (
        *("ip_family", "lb_algo", "lvs_sched", "lb_kind", "lvs_method", "protocol", "weight"),
        *("persistence_timeout", "persistence_granularity", "persistence_engine"),
        *("sorry_server", "sorry_server_inhibit", "sorry_server_lvs_method", "real_server"),
        *SERVER_FLAGS,
        *SCHEDULER_FLAGS,
        *ABOUT_HEALTH,
    )
)
REAL_SERVER = frozenset(
    ("weight", "lvs_method", "uthreshold", "lthreshold", *ABOUT_HEALTH, *CHECKS)
) - {"quorum", "hysteresis", "omega", "ha_suspend", "quorum_up", "quorum_down"}

NEEDS_BLOCK = CHECKS | {"real_server"}

REMOVED = {
    "nat_mask": "keepalived 2 has no nat_mask, and ignores it",
    "hashed": "IPVS sets this flag itself",
}
"""Words of older versions that are still in many files."""

LINES_OF_BLOCKS = frozenset(
    (
        *VIRTUAL_SERVER,
        *REAL_SERVER,
        *("state", "interface", "virtual_router_id", "priority", "advert_int", "nopreempt"),
    )
)
"""Words that begin a line: more than one on a line means that line breaks are missing."""

ROOT = frozenset(
    (
        *("global_defs", "SSL", "virtual_server", "virtual_server_group", "vrrp_instance"),
        *("vrrp_sync_group", "vrrp_script", "vrrp_track_process", "vrrp_track_file", "track_file"),
        *("static_ipaddress", "static_routes", "static_rules", "track_group", "garp_group"),
        *("linkbeat_interfaces", "interface_up_down_delays", "linkbeat_use_polling"),
        *("net_namespace", "net_namespace_ipvs", "namespace_with_ipsets", "use_pid_dir"),
        *("instance", "child_wait_time", "bfd_instance", "dynamic_interfaces"),
    )
)

CHECKSUMS = {
    "nocsum": TunnelChecksum.NONE,
    "csum": TunnelChecksum.FULL,
    "remcsum": TunnelChecksum.REMOTE,
}
"""Options of a tunnel (keepalived.conf(5), lvs_method)."""
