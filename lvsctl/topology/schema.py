"""The topology's schema, version 1: which keys there are and what each may hold.

This is the place to open to add a key: one row here, one field in ``spec.drafts``.
The rows read as the reference; ``json_schema`` publishes them.
"""

from __future__ import annotations

from typing import Any

from lvsctl.model.lab import Role
from lvsctl.model.service import Encapsulation, ForwardingMethod, Protocol, Scheduler
from lvsctl.topology import synonyms
from lvsctl.topology import values as v
from lvsctl.topology.compounds import As, ByKind, Field, ListOf, MapOf, Record
from lvsctl.topology.drafts import (
    NetworkDraft,
    NodeDraft,
    RealServerDraft,
    RouteDraft,
    ServiceDraft,
    TopologyDraft,
)
from lvsctl.topology.shapes import Choice, Integer, Word

_MAX_NETWORKS = 200
_MAX_GROUPS = 100
_MAX_SERVICES = 200

_NAME = Word(
    "a name",
    "rs1",
    v.name_of,
    v.NAME_PATTERN,
    longest=v.MAX_INTERFACE_NAME,
    excluded=v.RESERVED_NAMES,
)
_LABEL = Word("a name", "web", v.label_of, v.NAME_PATTERN, longest=v.MAX_LABEL)
_TEXT = Word("text", "two real servers behind one switch", v.text_of)
# References are looked up, which finds typing errors better than a pattern does.
_NETWORK = Word("a network's name", "lan", v.text_of)
_MEMBER = Word("a node's or group's name", "rs", v.text_of)
_ADDRESS = Word("an IP address", "10.10.0.100", v.address_of, v.ADDRESS_PATTERN)
_INTERFACE = Word("an IP address", "10.10.0.10", v.interface_of, v.INTERFACE_PATTERN)

NETWORK = Record(
    NetworkDraft,
    {
        "ipv4": Field(
            Word("an IPv4 subnet", "10.10.0.0/24", v.ipv4_subnet_of, v.IPV4_SUBNET_PATTERN),
            "IPv4 subnet in CIDR notation",
        ),
        "ipv6": Field(
            Word("an IPv6 subnet", "fd00:10::/64", v.ipv6_subnet_of, v.IPV6_SUBNET_PATTERN),
            "IPv6 subnet in CIDR notation",
        ),
        "delay": Field(
            Word("a delay", "20ms", v.delay_of, v.DELAY_PATTERN, numeric=True),
            "delay of every link, one way: us, ms, s; a bare number is milliseconds",
            default=0,
        ),
        "loss": Field(
            Word("a share of lost frames", "1%", v.loss_of, v.LOSS_PATTERN, numeric=True),
            "frames that every link loses, in percent",
            default=0,
        ),
        "rate": Field(
            Word("a rate", "10mbit", v.rate_of, v.RATE_PATTERN, numeric=True),
            "rate of every link in tc's units, such as 10mbit; no limit when left out",
        ),
    },
    "a network (a mapping)",
    "{ipv4: 10.10.0.0/24}",
    any_of=("ipv4", "ipv6"),
)

_ADDRESSES = ByKind(
    "an address or a list of addresses",
    "10.10.0.10",
    single=As(_INTERFACE, lambda address: (address,)),
    listed=ListOf(_INTERFACE, "a list of addresses", "[10.10.0.10]", at_least=1, distinct=True),
    nothing=(),
)

_ROUTE = Record(
    RouteDraft,
    {
        "to": Field(
            Word(
                "a subnet or the word default",
                "default",
                lambda text: (v.route_target_of(text),),
                v.ROUTE_PATTERN,
            ),
            "where the route leads: default, or a subnet in CIDR notation",
            required=True,
        ),
        "via": Field(
            Word("an IP address", "10.10.0.1", v.address_of, v.ADDRESS_PATTERN),
            "the gateway, an address on one of the node's networks",
            required=True,
        ),
    },
    "a route (a mapping)",
    "{to: default, via: 10.10.0.1}",
)

NODE = Record(
    NodeDraft,
    {
        "role": Field(
            Choice(Role, "a role", "roles", synonyms.ROLES), "what the node is", required=True
        ),
        "networks": Field(
            ByKind(
                "a list of networks, or a mapping from networks to addresses",
                "[lan]",
                listed=As(
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
        "count": Field(
            Integer(1, v.MAX_COUNT, "2"),
            "that many nodes alike, their names numbered (rs1, rs2); an address is the first one's",
        ),
        "routes": Field(
            ListOf(_ROUTE, "a list of routes", "[{to: default, via: 10.10.0.1}]"),
            "static routes, beyond those that the forwarding method needs",
            default=[],
        ),
        "sysctls": Field(
            MapOf(
                Word(
                    "a sysctl's name",
                    "net.ipv4.ip_forward",
                    v.sysctl_of,
                    v.SYSCTL_PATTERN,
                ),
                Word("a sysctl's value", "1", v.text_of, numeric=True),
                "a mapping from sysctls to values",
                "{net.ipv4.ip_forward: 1}",
            ),
            "settings of the node's namespace, applied after those that are derived",
            default={},
        ),
        "run": Field(
            ByKind(
                "a command",
                "python3 -m http.server 80",
                single=As(
                    Word("a command", "python3 -m http.server 80", v.script_of),
                    lambda script: ("/bin/sh", "-c", script),
                ),
                listed=As(
                    ListOf(
                        Word("a word of a command", "nginx", v.command_of, numeric=True),
                        "a command's words",
                        "[nginx, -g, daemon off;]",
                        at_least=1,
                    ),
                    lambda words: tuple(word for word in words if word is not None),
                ),
            ),
            "own command in place of the built-in responder; text is run by /bin/sh -c",
        ),
    },
    "a node (a mapping)",
    "{role: client, networks: [lan]}",
)

_WEIGHT = Integer(0, 65535, "1")
_THRESHOLD = Integer(0, 65535, "100", unit="connections")
_PORT = Integer(1, 65535, "80")

REAL_SERVER = ByKind(
    "the name of a node or group, or a mapping",
    "{node: rs1, weight: 3}",
    single=As(_MEMBER, RealServerDraft),
    mapped=Record(
        RealServerDraft,
        {
            "node": Field(_MEMBER, "a real server's or a group's name", required=True),
            "weight": Field(_WEIGHT, "share of the connections; 0 drains it", default=1),
            "port": Field(_PORT, "port on the real server (nat only); the service's otherwise"),
            "upper": Field(_THRESHOLD, "no new connections above so many (0: no limit)", default=0),
            "lower": Field(_THRESHOLD, "new connections again below so many", default=0),
        },
        "a real server (a mapping)",
        "{node: rs1, weight: 3}",
    ),
)

SERVICE = Record(
    ServiceDraft,
    {
        "name": Field(_LABEL, "the service's name in reports", required=True),
        "vip": Field(_ADDRESS, "the address that clients use", required=True),
        "port": Field(_PORT, "the port that clients use", required=True),
        "protocol": Field(
            Choice(Protocol, "a protocol", "protocols"), "transport protocol", default="tcp"
        ),
        "forward": Field(
            Choice(
                ForwardingMethod,
                "a forwarding method",
                "forwarding methods",
                synonyms.METHODS,
            ),
            "how the director hands requests to the real servers",
            required=True,
        ),
        "encapsulation": Field(
            Choice(Encapsulation, "an encapsulation", "encapsulations"),
            "what the tunnel puts around a request (tun only)",
            default="ipip",
        ),
        "scheduler": Field(
            Choice(Scheduler, "a scheduler", "schedulers", synonyms.SCHEDULERS),
            "how the director chooses a real server (ipvsadm(8), --scheduler)",
            default="wlc",
        ),
        "persistence": Field(
            Word("a time", "5m", v.span_of, v.SPAN_PATTERN, numeric=True),
            "a client keeps its real server that long: seconds, or with s, m, h, d",
        ),
        "real_servers": Field(
            ListOf(REAL_SERVER, "a list of real servers", "[rs]", at_least=1),
            "nodes or groups; a node's own entry goes before its group's",
            required=True,
        ),
    },
    "a service (a mapping)",
    "{name: web, vip: 10.10.0.100, port: 80, forward: dr, real_servers: [rs]}",
)

TOPOLOGY = Record(
    TopologyDraft,
    {
        "version": Field(Integer(1, 1, "1"), "version of this format", required=True),
        "name": Field(_LABEL, "the lab's name", required=True),
        "description": Field(_TEXT, "what the lab shows, on one line", default=""),
        "networks": Field(
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
        "nodes": Field(
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
        "groups": Field(
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
        "services": Field(
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
    },
    "a topology (a mapping)",
    "version: 1",
)


def json_schema() -> dict[str, Any]:
    """The topology's JSON Schema (draft 7, which editors read), for ``lvsctl schema``."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "lvsctl topology, version 1",
        **TOPOLOGY.schema(),
    }
