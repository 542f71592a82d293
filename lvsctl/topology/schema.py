"""The topology's schema, version 1: every key and its type.

To add a key, add a row here and a field in ``topology.config``. The documentation's
reference and the JSON Schema are generated from these rows.
"""

from __future__ import annotations

from typing import Any

from lvsctl.model.addresses import IpFamily
from lvsctl.model.lab import USUAL_MTU, Redundancy, Role
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    PersistenceEngine,
    Protocol,
    Scheduler,
    SchedulerFlag,
    TunnelChecksum,
)
from lvsctl.topology import parsers as p
from lvsctl.topology.collection_types import Converted, Key, ListOf, MapOf, OneOf, Record
from lvsctl.topology.config import (
    EncapsulationConfig,
    HaConfig,
    LinkConfig,
    NetworkConfig,
    NodeConfig,
    PersistenceConfig,
    RealServerConfig,
    RouteConfig,
    SchedulerConfig,
    ServiceConfig,
    TimeoutsConfig,
    TopologyConfig,
)
from lvsctl.topology.drill import STEPS_AND_LIMITS, renamed
from lvsctl.topology.scalar_types import Boolean, Choice, Integer, OrWord, Text

# Words that users know from ipvsadm(8), keepalived and elsewhere. They are not accepted, so
# that all topology files look alike, but an error message proposes the right word.
_ROLE_SYNONYMS = {
    **dict.fromkeys(("rs", "server", "backend", "realserver", "real_server"), Role.REAL_SERVER),
    **dict.fromkeys(("lb", "balancer", "load-balancer", "lvs"), Role.DIRECTOR),
    **dict.fromkeys(("gateway", "gw"), Role.ROUTER),
}
_METHOD_SYNONYMS = {
    **dict.fromkeys(("masq", "masquerade", "masquerading", "m", "lvs-nat"), ForwardingMethod.NAT),
    **dict.fromkeys(("ipip", "tunnel", "tunneling", "i", "lvs-tun"), ForwardingMethod.TUN),
    **dict.fromkeys(("gate", "gateway", "gatewaying", "g"), ForwardingMethod.DR),
    **dict.fromkeys(("direct", "direct-routing", "route", "droute", "lvs-dr"), ForwardingMethod.DR),
}
_SCHEDULER_SYNONYMS = {
    "round-robin": Scheduler.RR,
    "weighted-round-robin": Scheduler.WRR,
    "least-connection": Scheduler.LC,
    "weighted-least-connection": Scheduler.WLC,
    "source-hash": Scheduler.SH,
    "maglev": Scheduler.MH,
}


def _meant(key: str, *words: str) -> dict[str, str]:
    return dict.fromkeys(words, f"did you mean '{key}'?")


_SERVICE_WORDS = {
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
_NODE_WORDS = {
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
_HA_WORDS = {
    **_meant("virtual_router_id", "vrid", "router-id", "id"),
    **_meant("advert_int", "advertisement-interval", "interval", "advert"),
    **_meant("gateways", "gateway", "virtual-gateway"),
    **_meant("sync", "lvs-sync-daemon", "sync-daemon"),
    "nopreempt": "write preempt: false",
    **_meant("password", "auth-pass", "auth_pass", "authentication", "secret"),
    "virtual-ipaddress": "the VIPs of the services are: a gateway of real servers is in gateways",
}
_HA_SYNONYMS = {
    **dict.fromkeys(("keepalived", "active-standby", "true", "yes"), Redundancy.VRRP),
    **dict.fromkeys(("active-active", "multipath", "anycast", "bgp"), Redundancy.ECMP),
}
_FAMILY_SYNONYMS = {
    **dict.fromkeys(("4", "v4", "inet", "ip4"), IpFamily.IPV4),
    **dict.fromkeys(("6", "v6", "inet6", "ip6"), IpFamily.IPV6),
}
_REAL_SERVER_WORDS = {
    **_meant("family", "ip-version", "version", "ip", "af"),
    **_meant("network", "rip", "address", "interface"),
    **_meant("node", "name", "server", "host", "real-server"),
    **_meant("upper", "uthreshold", "u-threshold", "upper-threshold", "max-connections"),
    **_meant("lower", "lthreshold", "l-threshold", "lower-threshold", "min-connections"),
    **_meant("encapsulation", "tun-type", "tunnel", "encap"),
    **_meant("forward", "mode", "method", "lb-kind", "forwarding"),
}
_FLAG_SYNONYMS = {
    **dict.fromkeys(("sh-port", "mh-port", "flag-2"), SchedulerFlag.PORT),
    **dict.fromkeys(("sh-fallback", "mh-fallback", "flag-1"), SchedulerFlag.FALLBACK),
}
_ENCAPSULATION_WORDS = {
    **_meant("type", "kind", "name", "tun-type", "encapsulation"),
    **_meant("port", "tun-port", "udp-port", "dport"),
    **_meant("checksum", "csum", "tun-csum", "tun-remcsum", "remcsum"),
}
_CHECKSUM_SYNONYMS = {
    **dict.fromkeys(("csum", "tun-csum", "true", "yes", "on"), TunnelChecksum.FULL),
    **dict.fromkeys(("remcsum", "tun-remcsum"), TunnelChecksum.REMOTE),
    **dict.fromkeys(("nocsum", "tun-nocsum", "false", "no", "off"), TunnelChecksum.NONE),
}
_PERSISTENCE_WORDS = {
    **_meant("netmask", "granularity", "persistence-granularity", "mask", "prefix"),
    **_meant("engine", "pe", "pe-name", "persistence-engine"),
    **_meant("timeout", "time", "persistence-timeout"),
}
_NETWORK_WORDS = _meant("ipv4", "subnet", "cidr", "ip", "address")

_MAX_NETWORKS = 200
_MAX_GROUPS = 100
_MAX_SERVICES = 200
_MAX_VIPS = 32
_MAX_PORTS = 32

_NAME = Text(
    "a name",
    "rs1",
    p.parse_name,
    p.NAME_PATTERN,
    longest=p.MAX_INTERFACE_NAME,
    excluded=p.RESERVED_NAMES,
)
_LABEL = Text("a name", "web", p.parse_label, p.NAME_PATTERN, longest=p.MAX_LABEL)
_TEXT = Text("text", "two real servers behind one switch", p.parse_text)
# References are looked up, which finds typing errors better than a pattern does.
_NETWORK = Text("a network's name", "lan", p.parse_text)
_MEMBER = Text("a node's or group's name", "rs", p.parse_text)
_ADDRESS = Text("an IP address", "10.10.0.100", p.parse_address, p.ADDRESS_PATTERN)
_INTERFACE = Text("an IP address", "10.10.0.10", p.parse_interface, p.INTERFACE_PATTERN)

_DELAY = Text("a delay", "20ms", p.parse_delay, p.DELAY_PATTERN, numeric=True)
_RATE = Text("a rate", "10mbit", p.parse_rate, p.RATE_PATTERN, numeric=True)


def _share(what: str) -> Text[float]:
    return Text(f"a share of {what} frames", "1%", p.share_of(what), p.LOSS_PATTERN, numeric=True)


def _impairment(links: str, *, default: int | None) -> dict[str, Key]:
    """Keys of what tc-netem(8) does; ``links`` names the link or links."""
    return {
        "delay": Key(
            _DELAY,
            f"delay of {links}, one way: us, ms, s; a bare number is milliseconds",
            default=default,
        ),
        "jitter": Key(_DELAY, "by how much the delay varies, up and down", default=default),
        "loss": Key(_share("lost"), f"frames that {links} loses, in percent", default=default),
        "reorder": Key(
            _share("reordered"), "frames that go at once, ahead of delayed ones", default=default
        ),
        "duplicate": Key(_share("duplicated"), "frames that are sent twice", default=default),
        "corrupt": Key(_share("damaged"), "frames with an inverted bit", default=default),
        "rate": Key(
            _RATE, f"rate of {links} in tc's units, such as 10mbit; no limit when left out"
        ),
    }


_IMPAIRMENT_WORDS = {
    **_meant("delay", "latency"),
    **_meant("jitter", "variation", "delay-variation"),
    **_meant("loss", "drop", "packet-loss"),
    **_meant("rate", "bandwidth", "bw"),
    **_meant("duplicate", "duplication", "dup"),
    **_meant("corrupt", "corruption"),
    **_meant("reorder", "reordering"),
}

LINK = Record(
    LinkConfig,
    {
        **_impairment("the link", default=None),
        "mtu": Key(
            Integer(576, 65535, "1400", unit="bytes"),
            "largest IP packet that it carries, at the node and at its port of the switch",
        ),
    },
    "a link's impairment (a mapping)",
    "{delay: 20ms, loss: 1%}",
    words=_IMPAIRMENT_WORDS,
)

NETWORK = Record(
    NetworkConfig,
    {
        "ipv4": Key(
            Text("an IPv4 subnet", "10.10.0.0/24", p.parse_ipv4_subnet, p.IPV4_SUBNET_PATTERN),
            "IPv4 subnet in CIDR notation",
        ),
        "ipv6": Key(
            Text("an IPv6 subnet", "fd00:10::/64", p.parse_ipv6_subnet, p.IPV6_SUBNET_PATTERN),
            "IPv6 subnet in CIDR notation",
        ),
        **_impairment("every link", default=0),
        "mtu": Key(
            Integer(576, 65535, "9000", unit="bytes"),
            "largest IP packet that its links carry, at the nodes and at the switch",
            default=USUAL_MTU,
        ),
    },
    "a network (a mapping)",
    "{ipv4: 10.10.0.0/24}",
    any_of=(("ipv4", "ipv6"),),
    words={**_NETWORK_WORDS, **_IMPAIRMENT_WORDS},
)

_ADDRESSES = OneOf(
    "an address or a list of addresses",
    "10.10.0.10",
    single=Converted(_INTERFACE, lambda address: (address,)),
    listed=ListOf(_INTERFACE, "a list of addresses", "[10.10.0.10]", at_least=1, distinct=True),
    nothing=(),
)

ROUTE = Record(
    RouteConfig,
    {
        "to": Key(
            Text(
                "a subnet or the word default",
                "default",
                lambda text: (p.parse_route_target(text),),
                p.ROUTE_PATTERN,
            ),
            "where the route leads: default, or a subnet in CIDR notation",
            required=True,
        ),
        "via": Key(
            Text("an IP address", "10.10.0.1", p.parse_address, p.ADDRESS_PATTERN),
            "the gateway, an address on one of the node's networks",
            required=True,
        ),
        "mtu": Key(
            Integer(576, 65535, "1480", unit="bytes"),
            "largest packet that the node sends on it; that of the link if left out",
        ),
        "mss": Key(
            Integer(536, 65495, "1440", unit="bytes"),
            "TCP segment size that the node announces to peers there (ip-route(8), advmss)",
        ),
    },
    "a route (a mapping)",
    "{to: default, via: 10.10.0.1}",
    words={
        **_meant("mss", "advmss", "mss-clamp", "clamp"),
        **_meant("via", "gateway", "gw", "next-hop"),
        **_meant("to", "dst", "destination", "target"),
    },
)

_SPAN = Text("a time", "5m", p.parse_duration, p.SPAN_PATTERN, numeric=True)

TIMEOUTS = Record(
    TimeoutsConfig,
    {
        "tcp": Key(_SPAN, "an established TCP connection (15m if left out)"),
        "tcp_fin": Key(_SPAN, "a TCP connection that is being closed (2m if left out)"),
        "udp": Key(_SPAN, "a UDP flow (5m if left out)"),
    },
    "timeouts (a mapping)",
    "{tcp: 15m, tcp_fin: 2m, udp: 5m}",
    any_of=(("tcp", "tcp_fin", "udp"),),
    words=_meant("tcp_fin", "tcpfin", "tcp-fin", "fin"),
)

_SYNC_THRESHOLD = ListOf(
    Integer(0, 1_000_000, "3", unit="packets"),
    "two numbers of packets: the first, and the period",
    "[3, 50]",
    at_least=2,
    at_most=2,
)


def _usual_ha(by: Redundancy) -> HaConfig:
    return HaConfig(by=by)


HA_SETTINGS = Record(
    HaConfig,
    {
        "virtual_router_id": Key(
            Integer(1, 255, "51"),
            "of the first VRRP instance; each further one has the next",
            default=51,
        ),
        "priority": Key(
            Integer(1, 254, "150"),
            "the highest is master; of several nodes alike the first has it, each further one "
            "50 less (150 if left out)",
        ),
        "advert_int": Key(
            Text("a time", "1s", p.parse_interval, p.DELAY_PATTERN, numeric=True),
            "time between a master's advertisements: a bare number is seconds, or with ms",
            default="1s",
        ),
        "preempt": Key(
            Boolean(),
            "whether a director with a higher priority takes over from one that is master",
            default=True,
        ),
        "unicast": Key(Boolean(), "advertise to the other directors' own addresses", default=False),
        "sync": Key(
            Boolean(),
            "send IPVS's connections to the backup, by the synchronization daemon",
            default=False,
        ),
        "sync_threshold": Key(
            _SYNC_THRESHOLD,
            "packets after which a connection is sent, and the period in which again "
            "(ipvs-sysctl.rst, sync_threshold)",
            default=[3, 50],
        ),
        "password": Key(
            Text("a password", "secret", p.parse_vrrp_password, p.VRRP_WORD),
            "that VRRP's advertisements carry in clear text, up to 8 characters: VRRP version 2, "
            "so IPv4 and whole seconds of advert_int only (RFC 3768, section 10)",
            default="",
        ),
        "gateways": Key(
            ListOf(_ADDRESS, "a list of addresses", "[192.168.20.1]", distinct=True),
            "virtual addresses that are real servers' default gateway (nat); chosen otherwise",
            default=[],
        ),
    },
    "high availability (a mapping)",
    "{advert_int: 1s, sync: true}",
    words=_HA_WORDS,
)

HA = OneOf(
    "the word vrrp or ecmp, or a mapping",
    "vrrp",
    single=Converted(Choice(Redundancy, "a way", "ways", _HA_SYNONYMS), _usual_ha),
    mapped=HA_SETTINGS,
)

NODE = Record(
    NodeConfig,
    {
        "role": Key(
            Choice(Role, "a role", "roles", _ROLE_SYNONYMS), "what the node is", required=True
        ),
        "networks": Key(
            OneOf(
                "a list of networks, or a mapping from networks to addresses",
                "[lan]",
                listed=Converted(
                    ListOf(_NETWORK, "a list of networks", "[lan]", at_least=1, distinct=True),
                    lambda names: {name: () for name in names if name is not None},
                ),
                mapped=MapOf(
                    _NETWORK,
                    _ADDRESSES,
                    "a mapping from networks to addresses",
                    "{lan: 10.10.0.10}",
                    at_least=1,
                ),
            ),
            "the networks the node is on; an address left out is chosen",
            required=True,
        ),
        "count": Key(
            Integer(1, p.MAX_COUNT, "2"),
            "that many nodes alike, their names numbered (rs1, rs2); an address is the first one's",
        ),
        "routes": Key(
            ListOf(ROUTE, "a list of routes", "[{to: default, via: 10.10.0.1}]"),
            "static routes, beyond those that the forwarding method needs",
            default=[],
        ),
        "sysctls": Key(
            MapOf(
                Text(
                    "a sysctl's name",
                    "net.ipv4.ip_forward",
                    p.parse_sysctl,
                    p.SYSCTL_PATTERN,
                ),
                Text("a sysctl's value", "1", p.parse_text, numeric=True),
                "a mapping from sysctls to values",
                "{net.ipv4.ip_forward: 1}",
            ),
            "settings of the node's namespace, applied after those that are derived",
            default={},
        ),
        "run": Key(
            OneOf(
                "a command",
                "python3 -m http.server 80",
                single=Converted(
                    Text("a command", "python3 -m http.server 80", p.parse_script),
                    lambda script: ("/bin/sh", "-c", script),
                ),
                listed=Converted(
                    ListOf(
                        Text("a word of a command", "nginx", p.parse_command, numeric=True),
                        "a command's words",
                        "[nginx, -g, daemon off;]",
                        at_least=1,
                    ),
                    lambda words: tuple(word for word in words if word is not None),
                ),
            ),
            "own command in place of the built-in responder; text is run by /bin/sh -c",
        ),
        "keepalived": Key(
            Text("a file", "keepalived.conf", p.parse_text),
            "a director's keepalived.conf, beside this file: keepalived sets up its IPVS table",
        ),
        "ha": Key(
            HA,
            "with several directors: vrrp, keepalived decides which of them holds the VIPs; ecmp, "
            "each holds them, and routers spread flows over all; a mapping is of vrrp",
        ),
        "timeouts": Key(
            TIMEOUTS,
            "how long a director's IPVS keeps a connection without packets (ipvsadm(8), --set)",
        ),
        "mss_clamp": Key(
            OrWord(Integer(536, 65495, "1440", unit="bytes"), "pmtu", 0),
            "largest TCP segment that both ends may announce through a router or nat director, or "
            "that a real server announces; pmtu: what the path carries (iptables, TCPMSS)",
        ),
        "links": Key(
            MapOf(
                _NETWORK,
                LINK,
                "a mapping from networks to impairments",
                "{lan: {delay: 20ms, loss: 1%}}",
            ),
            "a link of the node's own kind: how what the node sends on it is impaired, and its mtu",
            default={},
        ),
    },
    "a node (a mapping)",
    "{role: client, networks: [lan]}",
    words=_NODE_WORDS,
)

_WEIGHT = Integer(0, 65535, "1")
_THRESHOLD = Integer(0, 65535, "100", unit="connections")
_PORT = Integer(1, 65535, "80")
_PORTS = Text("a port or a range of ports", "80", p.parse_ports, p.PORTS_PATTERN, numeric=True)

_METHOD = Choice(ForwardingMethod, "a forwarding method", "forwarding methods", _METHOD_SYNONYMS)
_KIND = Choice(Encapsulation, "an encapsulation", "encapsulations")
ENCAPSULATION = OneOf(
    "an encapsulation, or a mapping",
    "{type: gue, port: 6081}",
    single=Converted(_KIND, EncapsulationConfig),
    mapped=Record(
        EncapsulationConfig,
        {
            "type": Key(_KIND, "what the tunnel puts around a request", required=True),
            "port": Key(_PORT, "the UDP port that real servers take GUE at (6080 if left out)"),
            "checksum": Key(
                Choice(TunnelChecksum, "a checksum", "checksums", _CHECKSUM_SYNONYMS),
                "of gre or gue, in the tunnel's own header: none, full, or (gue) remote, which "
                "leaves the sum of a packet that has none yet to the real server",
                default="none",
            ),
        },
        "an encapsulation (a mapping)",
        "{type: gue, port: 6081}",
        words=_ENCAPSULATION_WORDS,
    ),
)
_SCHEDULER = Choice(Scheduler, "a scheduler", "schedulers", _SCHEDULER_SYNONYMS)
_FLAG = Choice(SchedulerFlag, "a scheduler's flag", "flags", _FLAG_SYNONYMS)

_REAL_SERVER_KEYS = {
    "node": Key(_MEMBER, "a real server's or a group's name", required=True),
    "weight": Key(_WEIGHT, "share of the connections; 0 drains it", default=1),
    "port": Key(_PORT, "port on the real server (nat only); the service's otherwise"),
    "upper": Key(_THRESHOLD, "no new connections above so many (0: no limit)", default=0),
    "lower": Key(_THRESHOLD, "new connections again below so many", default=0),
    "forward": Key(_METHOD, "its own forwarding method; the service's otherwise"),
    "encapsulation": Key(ENCAPSULATION, "its own encapsulation; the service's otherwise"),
    "network": Key(_NETWORK, "where it has the address that requests are sent to (its RIP)"),
    "family": Key(
        Choice(IpFamily, "an IP version", "IP versions", _FAMILY_SYNONYMS),
        "the IP version of that address; the VIP's otherwise (another one: tun only)",
    ),
}

REAL_SERVER = OneOf(
    "the name of a node or group, or a mapping",
    "{node: rs1, weight: 3}",
    single=Converted(_MEMBER, RealServerConfig),
    mapped=Record(
        RealServerConfig,
        _REAL_SERVER_KEYS,
        "a real server (a mapping)",
        "{node: rs1, weight: 3}",
        words=_REAL_SERVER_WORDS,
    ),
)

SORRY_SERVER = OneOf(
    "the name of a node, or a mapping",
    "{node: rs3}",
    single=Converted(_MEMBER, RealServerConfig),
    mapped=Record(
        RealServerConfig,
        {
            name: _REAL_SERVER_KEYS[name]
            for name in ("node", "port", "forward", "encapsulation", "network", "family")
        },
        "a sorry server (a mapping)",
        "{node: rs3}",
    ),
)

SCHEDULER = Record(
    SchedulerConfig,
    {
        "name": Key(_SCHEDULER, "the scheduler", required=True),
        "flags": Key(
            ListOf(_FLAG, "a list of flags", "[port, fallback]", distinct=True),
            "of sh and mh: port hashes the client's port as well, fallback chooses "
            "another real server for one that takes no connections",
            default=[],
        ),
    },
    "a scheduler (a mapping)",
    "{name: sh, flags: [port, fallback]}",
)

PERSISTENCE = Record(
    PersistenceConfig,
    {
        "timeout": Key(_SPAN, "how long, since its last connection", default="5m"),
        "netmask": Key(
            Text(
                "a netmask in bits",
                "24",
                p.parse_netmask,
                p.NETMASK_PATTERN,
                numeric=True,
            ),
            "clients whose addresses agree in so many bits count as one",
        ),
        "engine": Key(
            Choice(PersistenceEngine, "a persistence engine", "engines"),
            "what else tells clients apart: sip, by the Call-ID (udp only)",
        ),
    },
    "a persistence (a mapping)",
    "{timeout: 5m, netmask: 24}",
    words=_PERSISTENCE_WORDS,
)

SERVICE = Record(
    ServiceConfig,
    {
        "name": Key(_LABEL, "the service's name in reports", required=True),
        "vip": Key(_ADDRESS, "the address that clients use"),
        "vips": Key(
            ListOf(
                _ADDRESS,
                "a list of addresses",
                "[10.10.0.100, 10.10.0.101]",
                at_least=1,
                at_most=_MAX_VIPS,
                distinct=True,
            ),
            "several of them: one service of the kernel, by a firewall mark",
        ),
        "port": Key(OrWord(_PORT, "any", 0), "the port that clients use; any needs persistence"),
        "ports": Key(
            OneOf(
                "ports, a range, or the word any",
                "[80, 443]",
                single=_PORTS,
                listed=Converted(
                    ListOf(_PORTS, "a list of ports", "[80, 443]", at_least=1, at_most=_MAX_PORTS),
                    lambda several: tuple(one for each in several if each for one in each),
                ),
            ),
            "several of them: one service of the kernel, by a firewall mark",
        ),
        "fwmark": Key(
            Integer(1, 0xFFFFFFFF, "1"),
            "the firewall mark; chosen for several ports or VIPs if left out",
        ),
        "protocol": Key(
            Choice(Protocol, "a protocol", "protocols"), "transport protocol", default="tcp"
        ),
        "forward": Key(
            _METHOD,
            "how the director hands requests to the real servers",
            required=True,
        ),
        "encapsulation": Key(
            ENCAPSULATION,
            "what the tunnel puts around a request (tun only)",
            default="ipip",
        ),
        "scheduler": Key(
            OneOf(
                "a scheduler, or a mapping",
                "{name: sh, flags: [port, fallback]}",
                single=Converted(_SCHEDULER, SchedulerConfig),
                mapped=SCHEDULER,
            ),
            "how the director chooses a real server (ipvsadm(8), --scheduler)",
            default="wlc",
        ),
        "persistence": Key(
            OneOf(
                "a time, or a mapping",
                "5m",
                single=Converted(_SPAN, PersistenceConfig),
                mapped=PERSISTENCE,
            ),
            "a client keeps its real server that long: seconds, or with s, m, h, d",
        ),
        "one_packet": Key(
            Boolean(),
            "schedule every packet by itself and keep no connection (udp only; ipvsadm(8), --ops)",
            default=False,
        ),
        "snat": Key(
            Boolean(),
            "replace the source of requests by the director's own address (nat only)",
            default=False,
        ),
        "real_servers": Key(
            ListOf(REAL_SERVER, "a list of real servers", "[rs]", at_least=1),
            "nodes or groups; a node's own entry goes before its group's",
            required=True,
        ),
        "sorry_server": Key(
            SORRY_SERVER,
            "the server that keepalived uses while no real server is usable (keepalived.conf(5))",
        ),
    },
    "a service (a mapping)",
    "{name: web, vip: 10.10.0.100, port: 80, forward: dr, real_servers: [rs]}",
    any_of=(("vip", "vips"), ("port", "ports")),
    words=_SERVICE_WORDS,
)

_TOPOLOGY_WORDS = {
    **_meant("timeline", "time-line", "drill", "steps", "scenario", "script"),
    **_meant("traffic", "load", "requests"),
    **_meant("expect", "expected", "limits", "assert"),
}

TOPOLOGY = Record(
    lambda **keys: TopologyConfig(**renamed(keys)),
    {
        "version": Key(Integer(1, 1, "1"), "version of this format", required=True),
        "name": Key(_LABEL, "the lab's name", required=True),
        "description": Key(_TEXT, "what the lab shows, on one line", default=""),
        "networks": Key(
            MapOf(
                _NAME,
                NETWORK,
                "a mapping of networks",
                "{lan: {ipv4: 10.10.0.0/24}}",
                at_least=1,
                at_most=_MAX_NETWORKS,
            ),
            "network segments; a node's interface is named after its network",
            required=True,
        ),
        "nodes": Key(
            MapOf(
                _NAME,
                NODE,
                "a mapping of nodes",
                "{client: {role: client, networks: [lan]}}",
                at_least=1,
            ),
            "clients, directors, real servers and routers",
            required=True,
        ),
        "groups": Key(
            MapOf(
                _LABEL,
                ListOf(
                    _MEMBER, "a list of nodes or groups", "[rs1, rs2]", at_least=1, distinct=True
                ),
                "a mapping of groups",
                "{all-servers: [rs1, rs2]}",
                at_most=_MAX_GROUPS,
            ),
            "names for several nodes, for use in real_servers",
            default={},
        ),
        "services": Key(
            ListOf(
                SERVICE,
                "a list of services",
                f"[{SERVICE.example}]",
                at_least=1,
                at_most=_MAX_SERVICES,
            ),
            "the virtual services of every director",
            required=True,
        ),
        **STEPS_AND_LIMITS,
    },
    "a topology (a mapping)",
    "version: 1",
    words=_TOPOLOGY_WORDS,
)


def json_schema() -> dict[str, Any]:
    """Return the topology's JSON Schema (draft 7, which editors support)."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "lvsctl topology, version 1",
        **TOPOLOGY.schema(),
    }
