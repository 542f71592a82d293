"""The schema of a virtual service and its real servers."""

from __future__ import annotations

from lvsctl.model.addresses import IpFamily
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
from lvsctl.topology.collection_types import Converted, Key, ListOf, OneOf, Record
from lvsctl.topology.common_types import ADDRESS, LABEL, MEMBER, NETWORK_NAME, SPAN
from lvsctl.topology.config import (
    EncapsulationConfig,
    PersistenceConfig,
    RealServerConfig,
    SchedulerConfig,
    ServiceConfig,
)
from lvsctl.topology.scalar_types import Boolean, Choice, Integer, OrWord, Text
from lvsctl.topology.synonyms import (
    CHECKSUM_SYNONYMS,
    ENCAPSULATION_WORDS,
    FAMILY_SYNONYMS,
    FLAG_SYNONYMS,
    METHOD_SYNONYMS,
    PERSISTENCE_WORDS,
    REAL_SERVER_WORDS,
    SCHEDULER_SYNONYMS,
    SERVICE_WORDS,
)

_MAX_VIPS = 32
_MAX_PORTS = 32

_WEIGHT = Integer(0, 65535, "1")
_THRESHOLD = Integer(0, 65535, "100", unit="connections")
_PORT = Integer(1, 65535, "80")
_PORTS = Text("a port or a range of ports", "80", p.parse_ports, p.PORTS_PATTERN, numeric=True)

_METHOD = Choice(ForwardingMethod, "a forwarding method", "forwarding methods", METHOD_SYNONYMS)
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
                Choice(TunnelChecksum, "a checksum", "checksums", CHECKSUM_SYNONYMS),
                "of gre or gue, in the tunnel's own header: none, full, or (gue) remote, which "
                "leaves the sum of a packet that has none yet to the real server",
                default="none",
            ),
        },
        "an encapsulation (a mapping)",
        "{type: gue, port: 6081}",
        words=ENCAPSULATION_WORDS,
    ),
)
_SCHEDULER = Choice(Scheduler, "a scheduler", "schedulers", SCHEDULER_SYNONYMS)
_FLAG = Choice(SchedulerFlag, "a scheduler's flag", "flags", FLAG_SYNONYMS)

_REAL_SERVER_KEYS = {
    "node": Key(MEMBER, "a real server's or a group's name", required=True),
    "weight": Key(_WEIGHT, "share of the connections; 0 drains it", default=1),
    "port": Key(_PORT, "port on the real server (nat only); the service's otherwise"),
    "upper": Key(_THRESHOLD, "no new connections above so many (0: no limit)", default=0),
    "lower": Key(_THRESHOLD, "new connections again below so many", default=0),
    "forward": Key(_METHOD, "its own forwarding method; the service's otherwise"),
    "encapsulation": Key(ENCAPSULATION, "its own encapsulation; the service's otherwise"),
    "network": Key(NETWORK_NAME, "where it has the address that requests are sent to (its RIP)"),
    "family": Key(
        Choice(IpFamily, "an IP version", "IP versions", FAMILY_SYNONYMS),
        "the IP version of that address; the VIP's otherwise (another one: tun only)",
    ),
}

REAL_SERVER = OneOf(
    "the name of a node or group, or a mapping",
    "{node: rs1, weight: 3}",
    single=Converted(MEMBER, RealServerConfig),
    mapped=Record(
        RealServerConfig,
        _REAL_SERVER_KEYS,
        "a real server (a mapping)",
        "{node: rs1, weight: 3}",
        words=REAL_SERVER_WORDS,
    ),
)

SORRY_SERVER = OneOf(
    "the name of a node, or a mapping",
    "{node: rs3}",
    single=Converted(MEMBER, RealServerConfig),
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
        "timeout": Key(SPAN, "how long, since its last connection", default="5m"),
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
    words=PERSISTENCE_WORDS,
)

SERVICE = Record(
    ServiceConfig,
    {
        "name": Key(LABEL, "the service's name in reports", required=True),
        "vip": Key(ADDRESS, "the address that clients use"),
        "vips": Key(
            ListOf(
                ADDRESS,
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
                single=Converted(SPAN, PersistenceConfig),
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
    words=SERVICE_WORDS,
)
