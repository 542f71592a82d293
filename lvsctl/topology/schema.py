"""The topology's schema, version 1: every key and its type.

The keys of a network, a node and a service are in modules of their own. To add a key, add a row
there and a field in ``topology.config``. The documentation's reference and the JSON Schema are
generated from these rows.
"""

from __future__ import annotations

from typing import Any

from lvsctl.topology.collection_types import Key, ListOf, MapOf, Record
from lvsctl.topology.common_types import LABEL, MEMBER, NAME, TEXT
from lvsctl.topology.config import TopologyConfig
from lvsctl.topology.drill import STEPS_AND_LIMITS, renamed
from lvsctl.topology.scalar_types import Integer
from lvsctl.topology.schema_network import NETWORK
from lvsctl.topology.schema_node import NODE
from lvsctl.topology.schema_service import SERVICE
from lvsctl.topology.synonyms import TOPOLOGY_WORDS

_MAX_NETWORKS = 200
_MAX_GROUPS = 100
_MAX_SERVICES = 200

TOPOLOGY = Record(
    lambda **keys: TopologyConfig(**renamed(keys)),
    {
        "version": Key(Integer(1, 1, "1"), "version of this format", required=True),
        "name": Key(LABEL, "the lab's name", required=True),
        "description": Key(TEXT, "what the lab shows, on one line", default=""),
        "networks": Key(
            MapOf(
                NAME,
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
                NAME,
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
                LABEL,
                ListOf(
                    MEMBER, "a list of nodes or groups", "[rs1, rs2]", at_least=1, distinct=True
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
    words=TOPOLOGY_WORDS,
)


def json_schema() -> dict[str, Any]:
    """Return the topology's JSON Schema (draft 7, which editors support)."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "lvsctl topology, version 1",
        **TOPOLOGY.schema(),
    }
