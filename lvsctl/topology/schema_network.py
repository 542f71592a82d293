"""The schema of a network, and of what impairs its links."""

from __future__ import annotations

from lvsctl.model.lab import USUAL_MTU
from lvsctl.topology import parsers as p
from lvsctl.topology.collection_types import Key, Record
from lvsctl.topology.config import LinkConfig, NetworkConfig
from lvsctl.topology.scalar_types import Integer, Text
from lvsctl.topology.synonyms import IMPAIRMENT_WORDS, NETWORK_WORDS

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
    words=IMPAIRMENT_WORDS,
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
    words={**NETWORK_WORDS, **IMPAIRMENT_WORDS},
)
