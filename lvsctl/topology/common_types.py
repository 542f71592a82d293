"""Types of values that several parts of the schema have: names, addresses, times."""

from __future__ import annotations

from lvsctl.topology import parsers as p
from lvsctl.topology.scalar_types import Text

NAME = Text(
    "a name",
    "rs1",
    p.parse_name,
    p.NAME_PATTERN,
    longest=p.MAX_INTERFACE_NAME,
    excluded=p.RESERVED_NAMES,
)
LABEL = Text("a name", "web", p.parse_label, p.NAME_PATTERN, longest=p.MAX_LABEL)
TEXT = Text("text", "two real servers behind one switch", p.parse_text)
# References are looked up, which finds typing errors better than a pattern does.
NETWORK_NAME = Text("a network's name", "lan", p.parse_text)
MEMBER = Text("a node's or group's name", "rs", p.parse_text)
ADDRESS = Text("an IP address", "10.10.0.100", p.parse_address, p.ADDRESS_PATTERN)
INTERFACE = Text("an IP address", "10.10.0.10", p.parse_interface, p.INTERFACE_PATTERN)
SPAN = Text("a time", "5m", p.parse_duration, p.SPAN_PATTERN, numeric=True)
