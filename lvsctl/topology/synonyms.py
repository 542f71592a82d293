"""Words that users know from ipvsadm(8), keepalived and elsewhere.

They are not accepted, so that all topology files look alike, but an error message proposes the
right word: ``*_SYNONYMS`` for a value, ``*_WORDS`` for a key.
"""

from __future__ import annotations

from lvsctl.model.addresses import IpFamily
from lvsctl.model.lab import Redundancy, Role
from lvsctl.model.service import (
    ForwardingMethod,
    Scheduler,
    SchedulerFlag,
    TunnelChecksum,
)

ROLE_SYNONYMS = {
    **dict.fromkeys(("rs", "server", "backend", "realserver", "real_server"), Role.REAL_SERVER),
    **dict.fromkeys(("lb", "balancer", "load-balancer", "lvs"), Role.DIRECTOR),
    **dict.fromkeys(("gateway", "gw"), Role.ROUTER),
}
METHOD_SYNONYMS = {
    **dict.fromkeys(("masq", "masquerade", "masquerading", "m", "lvs-nat"), ForwardingMethod.NAT),
    **dict.fromkeys(("ipip", "tunnel", "tunneling", "i", "lvs-tun"), ForwardingMethod.TUN),
    **dict.fromkeys(("gate", "gateway", "gatewaying", "g"), ForwardingMethod.DR),
    **dict.fromkeys(("direct", "direct-routing", "route", "droute", "lvs-dr"), ForwardingMethod.DR),
}
SCHEDULER_SYNONYMS = {
    "round-robin": Scheduler.RR,
    "weighted-round-robin": Scheduler.WRR,
    "least-connection": Scheduler.LC,
    "weighted-least-connection": Scheduler.WLC,
    "source-hash": Scheduler.SH,
    "maglev": Scheduler.MH,
}


def _meant(key: str, *words: str) -> dict[str, str]:
    return dict.fromkeys(words, f"did you mean '{key}'?")


SERVICE_WORDS = {
    **_meant("persistence", "sticky", "sticky-session", "persistent", "persistence-timeout"),
    **_meant("forward", "mode", "method", "lb-kind", "forwarding", "type"),
    **_meant("scheduler", "algorithm", "lb-algo", "sched", "balance"),
    **_meant("real_servers", "servers", "backends", "members", "real-server", "destinations"),
    **_meant("vip", "address", "ip", "virtual-ip"),
    **_meant("snat", "masquerade", "masq", "full-nat", "fullnat", "source-nat"),
    **_meant("sorry_server", "sorry", "fallback", "backup-server", "sorry-server"),
    **_meant("one_packet", "ops", "one-packet", "onepacket", "one-packet-scheduling"),
    "weight": "a real server has it: real_servers: [{node: rs1, weight: 3}]",
    **_meant("fwmark", "mark", "firewall-mark", "fwm"),
    **_meant("encapsulation", "tun-type", "tunnel", "encap"),
    "sched-flags": "write scheduler: {name: sh, flags: [port]}",
    "pe": "write persistence: {timeout: 5m, engine: sip}",
    "netmask": "write persistence: {timeout: 5m, netmask: 24}",
}
NODE_WORDS = {
    "gateway": "write routes: [{to: default, via: 10.10.0.1}]; dr, tun and nat derive their own",
    "weight": "a service has it: real_servers: [{node: rs1, weight: 3}]",
    **_meant("networks", "network", "interfaces", "nets"),
    **_meant("links", "link", "impairment", "netem"),
    **_meant("mss_clamp", "mss", "clamp", "tcpmss", "clamp-mss", "mss-clamp", "clamp-mss-to-pmtu"),
    "mtu": "write links: {lan: {mtu: 1400}}; a network has one, too",
    **_meant("run", "command", "cmd", "exec", "entrypoint"),
    **_meant("sysctls", "sysctl"),
    **_meant("keepalived", "keepalived-conf", "keepalived-config"),
    **_meant("count", "replicas", "instances"),
    **_meant("timeouts", "timeout", "lvs-timeouts", "connection-timeouts"),
    **_meant("role", "kind", "type"),
    **_meant("ha", "vrrp", "high-availability", "failover", "keepalived-vrrp", "redundancy"),
    "ecmp": "write ha: ecmp",
}
HA_WORDS = {
    **_meant("virtual_router_id", "vrid", "router-id", "id"),
    **_meant("advert_int", "advertisement-interval", "interval", "advert"),
    **_meant("gateways", "gateway", "virtual-gateway"),
    **_meant("sync", "lvs-sync-daemon", "sync-daemon"),
    "nopreempt": "write preempt: false",
    **_meant("password", "auth-pass", "auth_pass", "authentication", "secret"),
    "virtual-ipaddress": "the VIPs of the services are: a gateway of real servers is in gateways",
}
HA_SYNONYMS = {
    **dict.fromkeys(("keepalived", "active-standby", "true", "yes"), Redundancy.VRRP),
    **dict.fromkeys(("active-active", "multipath", "anycast", "bgp"), Redundancy.ECMP),
}
FAMILY_SYNONYMS = {
    **dict.fromkeys(("4", "v4", "inet", "ip4"), IpFamily.IPV4),
    **dict.fromkeys(("6", "v6", "inet6", "ip6"), IpFamily.IPV6),
}
REAL_SERVER_WORDS = {
    **_meant("family", "ip-version", "version", "ip", "af"),
    **_meant("network", "rip", "address", "interface"),
    **_meant("node", "name", "server", "host", "real-server"),
    **_meant("upper", "uthreshold", "u-threshold", "upper-threshold", "max-connections"),
    **_meant("lower", "lthreshold", "l-threshold", "lower-threshold", "min-connections"),
    **_meant("encapsulation", "tun-type", "tunnel", "encap"),
    **_meant("forward", "mode", "method", "lb-kind", "forwarding"),
}
FLAG_SYNONYMS = {
    **dict.fromkeys(("sh-port", "mh-port", "flag-2"), SchedulerFlag.PORT),
    **dict.fromkeys(("sh-fallback", "mh-fallback", "flag-1"), SchedulerFlag.FALLBACK),
}
ENCAPSULATION_WORDS = {
    **_meant("type", "kind", "name", "tun-type", "encapsulation"),
    **_meant("port", "tun-port", "udp-port", "dport"),
    **_meant("checksum", "csum", "tun-csum", "tun-remcsum", "remcsum"),
}
CHECKSUM_SYNONYMS = {
    **dict.fromkeys(("csum", "tun-csum", "true", "yes", "on"), TunnelChecksum.FULL),
    **dict.fromkeys(("remcsum", "tun-remcsum"), TunnelChecksum.REMOTE),
    **dict.fromkeys(("nocsum", "tun-nocsum", "false", "no", "off"), TunnelChecksum.NONE),
}
PERSISTENCE_WORDS = {
    **_meant("netmask", "granularity", "persistence-granularity", "mask", "prefix"),
    **_meant("engine", "pe", "pe-name", "persistence-engine"),
    **_meant("timeout", "time", "persistence-timeout"),
}
NETWORK_WORDS = _meant("ipv4", "subnet", "cidr", "ip", "address")
IMPAIRMENT_WORDS = {
    **_meant("delay", "latency"),
    **_meant("jitter", "variation", "delay-variation"),
    **_meant("loss", "drop", "packet-loss"),
    **_meant("rate", "bandwidth", "bw"),
    **_meant("duplicate", "duplication", "dup"),
    **_meant("corrupt", "corruption"),
    **_meant("reorder", "reordering"),
}
ROUTE_WORDS = {
    **_meant("mss", "advmss", "mss-clamp", "clamp"),
    **_meant("via", "gateway", "gw", "next-hop"),
    **_meant("to", "dst", "destination", "target"),
}
TIMEOUTS_WORDS = _meant("tcp_fin", "tcpfin", "tcp-fin", "fin")
TOPOLOGY_WORDS = {
    **_meant("timeline", "time-line", "drill", "steps", "scenario", "script"),
    **_meant("traffic", "load", "requests"),
    **_meant("expect", "expected", "limits", "assert"),
}
