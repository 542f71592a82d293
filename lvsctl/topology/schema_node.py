"""The schema of a node: its networks, routes, settings, and what a director has besides."""

from __future__ import annotations

from lvsctl.model.lab import Redundancy, Role
from lvsctl.topology import parsers as p
from lvsctl.topology.collection_types import Converted, Key, ListOf, MapOf, OneOf, Record
from lvsctl.topology.common_types import ADDRESS, INTERFACE, NETWORK_NAME, SPAN
from lvsctl.topology.config import HaConfig, NodeConfig, RouteConfig, TimeoutsConfig
from lvsctl.topology.scalar_types import Boolean, Choice, Integer, OrWord, Text
from lvsctl.topology.schema_network import LINK
from lvsctl.topology.synonyms import (
    HA_SYNONYMS,
    HA_WORDS,
    NODE_WORDS,
    ROLE_SYNONYMS,
    ROUTE_WORDS,
    TIMEOUTS_WORDS,
)

_ADDRESSES = OneOf(
    "an address or a list of addresses",
    "10.10.0.10",
    single=Converted(INTERFACE, lambda address: (address,)),
    listed=ListOf(INTERFACE, "a list of addresses", "[10.10.0.10]", at_least=1, distinct=True),
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
    words=ROUTE_WORDS,
)

TIMEOUTS = Record(
    TimeoutsConfig,
    {
        "tcp": Key(SPAN, "an established TCP connection (15m if left out)"),
        "tcp_fin": Key(SPAN, "a TCP connection that is being closed (2m if left out)"),
        "udp": Key(SPAN, "a UDP flow (5m if left out)"),
    },
    "timeouts (a mapping)",
    "{tcp: 15m, tcp_fin: 2m, udp: 5m}",
    any_of=(("tcp", "tcp_fin", "udp"),),
    words=TIMEOUTS_WORDS,
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
            ListOf(ADDRESS, "a list of addresses", "[192.168.20.1]", distinct=True),
            "virtual addresses that are real servers' default gateway (nat); chosen otherwise",
            default=[],
        ),
    },
    "high availability (a mapping)",
    "{advert_int: 1s, sync: true}",
    words=HA_WORDS,
)

HA = OneOf(
    "the word vrrp or ecmp, or a mapping",
    "vrrp",
    single=Converted(Choice(Redundancy, "a way", "ways", HA_SYNONYMS), _usual_ha),
    mapped=HA_SETTINGS,
)

NODE = Record(
    NodeConfig,
    {
        "role": Key(
            Choice(Role, "a role", "roles", ROLE_SYNONYMS), "what the node is", required=True
        ),
        "networks": Key(
            OneOf(
                "a list of networks, or a mapping from networks to addresses",
                "[lan]",
                listed=Converted(
                    ListOf(NETWORK_NAME, "a list of networks", "[lan]", at_least=1, distinct=True),
                    lambda names: {name: () for name in names if name is not None},
                ),
                mapped=MapOf(
                    NETWORK_NAME,
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
                NETWORK_NAME,
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
    words=NODE_WORDS,
)
