"""What loading a topology decides: addresses, names, real servers, and what YAML means."""

import json
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.errors import TopologyError, UsageError
from lvsctl.model.lab import Impairment, Lab, Role, Route, Violation
from lvsctl.model.service import Encapsulation, ForwardingMethod, Protocol, RealServer, Scheduler
from lvsctl.modes.base import is_deprecated
from lvsctl.modes.tun import cost
from lvsctl.topology import shipped
from lvsctl.topology.loading import parse_topology
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.schema import TOPOLOGY

DR = """\
version: 1
name: dr
networks:
  lan: {ipv4: 10.10.0.0/24}
nodes:
  client:   {role: client,      networks: {lan: 10.10.0.10}}
  director: {role: director,    networks: [lan]}
  rs:       {role: real-server, networks: [lan], count: 2}
services:
  - name: web
    vip: 10.10.0.100
    port: 80
    forward: dr
    real_servers: [rs]
"""


def lab(*changes: tuple[str, str], **overrides: Any) -> Lab:
    """The lab of DR after textual changes."""
    text = DR
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return parse_topology(text, "dr.yaml", overrides=Overrides(**overrides))


def addresses(lab: Lab) -> dict[str, str]:
    """Every node's addresses, in a line of text each."""
    return {
        node.name: " ".join(str(a) for i in node.interfaces for a in i.addresses)
        for node in lab.nodes
    }


def test_the_example_of_the_design() -> None:
    assert addresses(lab()) == {
        "client": "10.10.0.10/24",
        "director": "10.10.0.2/24",
        "rs1": "10.10.0.11/24",
        "rs2": "10.10.0.12/24",
    }
    service = lab().services[0]
    assert str(service.match) == "10.10.0.100:80/tcp"
    assert service.scheduler is Scheduler.WLC
    assert service.real_servers == (
        RealServer("rs1", ip_address("10.10.0.11"), 80, forward=ForwardingMethod.DR),
        RealServer("rs2", ip_address("10.10.0.12"), 80, forward=ForwardingMethod.DR),
    )


def test_chosen_addresses_skip_taken_ones_and_vips() -> None:
    chosen = addresses(lab(("10.10.0.10}", "10.10.0.11}"), ("10.10.0.100", "10.10.0.12")))
    assert (chosen["rs1"], chosen["rs2"]) == ("10.10.0.13/24", "10.10.0.14/24")


def test_a_small_subnet_is_used_to_the_last_address() -> None:
    small = lab(("0.0/24", "0.0/29"), ("10.10.0.10}", "10.10.0.1}"), ("10.10.0.100", "10.10.0.6"))
    assert addresses(small) == {
        "client": "10.10.0.1/29",
        "director": "10.10.0.2/29",
        "rs1": "10.10.0.3/29",
        "rs2": "10.10.0.4/29",
    }


def test_both_families_at_once() -> None:
    both = lab(("0.0/24", "0.0/24, ipv6: 'fd00:10::/64'"))
    assert addresses(both)["client"] == "10.10.0.10/24 fd00:10::10/64"
    assert addresses(both)["rs2"] == "10.10.0.12/24 fd00:10::12/64"


def test_an_ipv6_service_has_ipv6_real_servers() -> None:
    six = lab(("0.0/24", "0.0/24, ipv6: 'fd00:10::/64'"), ("vip: 10.10.0.100", "vip: fd00:10::100"))
    assert str(six.services[0].match) == "[fd00:10::100]:80/tcp"
    assert str(six.services[0].real_servers[0].rip) == "fd00:10::11"


@pytest.mark.parametrize(
    ("vip", "family", "encapsulation", "rip", "device", "costs"),
    [
        ("10.10.0.100", "", "ipip", "10.10.0.11", "tunl0", 20),
        ("10.10.0.100", "ipv4", "gue", "10.10.0.11", "tunl0", 32),
        ("10.10.0.100", "ipv6", "ipip", "fd00:10::11", "ip6tnl0", 40),
        ("10.10.0.100", "ipv6", "gre", "fd00:10::11", "ip6gre0", 44),
        ("10.10.0.100", "ipv6", "gue", "fd00:10::11", "ip6tnl0", 52),
        ("10.10.0.100", "", "{type: gre, checksum: full}", "10.10.0.11", "gre-csum", 28),
        ("fd00:10::100", "", "{type: gre, checksum: full}", "fd00:10::11", "gre6-csum", 48),
        ("10.10.0.100", "", "{type: gue, checksum: remote}", "10.10.0.11", "tunl0", 32),
        ("fd00:10::100", "", "ipip", "fd00:10::11", "ip6tnl0", 40),
        ("fd00:10::100", "ipv4", "ipip", "10.10.0.11", "sit0", 20),
        ("fd00:10::100", "ipv4", "gue", "10.10.0.11", "sit0", 32),
        ("fd00:10::100", "ipv4", "gre", "10.10.0.11", "gre0", 24),
    ],
)
def test_a_tunnel_ends_at_an_address_of_either_family(
    vip: str, family: str, encapsulation: str, rip: str, device: str, costs: int
) -> None:
    entry = f"{{node: rs, family: {family}}}" if family else "rs"
    both = lab(
        ("0.0/24", "0.0/24, ipv6: 'fd00:10::/64'"),
        ("vip: 10.10.0.100", f"vip: '{vip}'"),
        ("forward: dr", f"forward: tun\n    encapsulation: {encapsulation}"),
        ("[rs]", f"[{entry}]"),
    )
    server = both.services[0].real_servers[0]
    assert (str(server.rip), server.tunnel_device(ip_address(vip))) == (rip, device)
    assert cost(server) == costs
    # Over IPv6 the kernel could choose the VIP as the tunnel's source.
    assert is_deprecated(both, ip_address(vip)) == (":" in vip and ":" in rip)


def test_an_address_with_count_is_the_first() -> None:
    counted = addresses(lab(("networks: [lan], count", "networks: {lan: 10.10.0.20/24}, count")))
    assert (counted["rs1"], counted["rs2"]) == ("10.10.0.20/24", "10.10.0.21/24")


def test_the_rip_is_on_the_network_shared_with_the_director() -> None:
    two = lab(
        ("lan: {ipv4", "back: {ipv4: 10.99.0.0/24}\n  lan: {ipv4"),
        ("real-server, networks: [lan]", "real-server, networks: [back, lan]"),
    )
    assert str(two.services[0].real_servers[0].rip) == "10.10.0.11"


def test_every_key() -> None:
    full = parse_topology(
        """
        version: 1
        name: full
        networks:
          lan: {ipv4: 10.0.0.0/24, delay: 20ms, loss: 0.5%, rate: 10Mbit}
          far: {ipv4: 10.0.1.0/24, delay: 5, loss: 1, rate: 1kbps, jitter: 2ms, reorder: 25%,
            duplicate: 1%, corrupt: 0.1%}
        nodes:
          client: {role: client, networks: [lan]}
          director:
            role: director
            networks: [lan]
            routes:
              - {to: default, via: 10.0.0.1}
              - {to: 10.0.1.0/24, via: 10.0.0.1}
            sysctls: {net.ipv4.ip_forward: 1, net.ipv4.vs.sync_threshold: 3 50}
          near: {role: real-server, networks: [lan], run: nginx -g 'daemon off;',
            links: {lan: {loss: 0, jitter: 1ms}}}
          rs: {role: real-server, networks: [far], count: 2, run: [sleep, 60]}
          router: {role: router, networks: [lan, far]}
        groups:
          all: [near, remote]
          remote: [rs]
        services:
          - name: dns
            vip: 10.0.0.100
            port: "53"
            protocol: udp
            forward: tun
            encapsulation: gre
            scheduler: sh
            persistence: 5m
            real_servers:
              - all
              - {node: rs2, weight: 0, upper: 100, lower: 80}
        """,
        "full.yaml",
    )
    assert full.network("lan").impairment == Impairment(20.0, 0.5, 10_000_000)
    assert full.network("far").impairment == Impairment(5.0, 1.0, 8_000, 2, 25, 1, 0.1)
    assert full.impairment_of(full.node("near"), "lan") == Impairment(20, 0, 10_000_000, 1)
    assert full.impairment_of(full.node("client"), "lan") == full.network("lan").impairment
    director = full.node("director")
    assert director.routes == (
        Route(None, ip_address("10.0.0.1")),
        Route(ip_network("10.0.1.0/24"), ip_address("10.0.0.1")),
    )
    assert director.sysctls == (
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.vs.sync_threshold", "3 50"),
    )
    assert full.node("near").run == ("/bin/sh", "-c", "nginx -g 'daemon off;'")
    assert full.node("rs1").run == ("sleep", "60")
    service = full.services[0]
    tunnelled = partial(RealServer, forward=ForwardingMethod.TUN, encapsulation=Encapsulation.GRE)
    assert service.endpoint.protocol is Protocol.UDP
    assert (service.encapsulation, service.persistence) == (Encapsulation.GRE, 300)
    assert service.real_servers == (
        tunnelled("near", ip_address("10.0.0.11"), 53),
        tunnelled("rs1", ip_address("10.0.1.11"), 53),
        tunnelled("rs2", ip_address("10.0.1.12"), 53, weight=0, upper=100, lower=80),
    )


@pytest.mark.parametrize("word", ["on", "no", "y"])
def test_words_that_yaml_1_1_takes_for_truth_values_are_names(word: str) -> None:
    assert lab(("name: dr", f"name: {word}")).name == word


def test_numbers_with_colons_are_not_base_60() -> None:
    with pytest.raises(TopologyError, match="not the text '1:30'"):
        lab(("port: 80", "port: 1:30"))


def test_anchors_may_be_used() -> None:
    shared = lab(("networks: [lan]}", "networks: &on [lan]}"), ("networks: [lan]", "networks: *on"))
    assert shared == lab()


@pytest.mark.parametrize("indent", [None, 0, 2, "\t"])
@pytest.mark.parametrize("name", shipped.names())
def test_a_topology_in_json_is_the_same_lab(name: str, indent: int | str | None) -> None:
    text = shipped.text_of(name)
    in_json = json.dumps(yaml.safe_load(text), indent=indent)
    assert parse_topology(in_json, "it.json") == parse_topology(text, "it.yaml")


JSON = (Path(__file__).parent / "topology" / "small.json").read_text()
"""A topology in JSON."""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"small"', '"sm\\u0061ll"'),
        ("0/24", "0\\/24"),
        ("\n", "\r\n"),
        ("{\n", "\ufeff{\n"),
        ('"name":', '"name" :'),
        ('"count": 2', '"count": "2"'),
    ],
)
def test_json_written_in_another_way(old: str, new: str) -> None:
    assert old in JSON
    assert parse_topology(JSON.replace(old, new, 1), "it") == parse_topology(JSON, "it")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"small"', '"small", "name": "other"', "it:3:20: name: the key 'name' is a duplicate"),
        ('"count": 2', '"count": 2.0', "it:8:65: nodes.rs.count: must be a whole number"),
        ('"count": 2', '"count": 2e0', "it:8:65: nodes.rs.count: must be a whole number"),
        ('"count": 2', '"count": NaN', "not the text 'NaN'"),
        ('"count": 2', f'"count": {"9" * 5000}', "nodes.rs.count: must be a whole number"),
        ('"count": 2', '"count": true', "not the truth value true"),
        ('"small"', '"\\ud800"', "it:3:14: not YAML: found invalid Unicode character escape code"),
        ('"small"', "null", "it:3:3: name: must be a name, but is empty"),
        ('"name"', '"<<": {}, "nmae"', "it:3:13: nmae: unknown key 'nmae'"),
        ('"name"', '"": 1, "name"', "unknown key ''"),
        ('"client",', '"client"', "not YAML: "),
        ("\n}\n", "", "not YAML: "),
        ("\n}\n", "\n}}", "not YAML: "),
        ("\n}\n", "\n}\n---\n{}", "a second YAML document starts here"),
        ('"small"', "[" * 17 + "]" * 17, "nested more than 16 levels deep"),
        ('"small"', "[" * 20_000, "not YAML: "),
        ('"small"', '["a"' + ',"a"' * 50_000 + "]", "more than 50000 values"),
    ],
    ids=range(17),
)
def test_mistakes_in_json_have_a_place(old: str, new: str, message: str) -> None:
    assert old in JSON
    with pytest.raises(TopologyError) as raised:
        parse_topology(JSON.replace(old, new), "it")
    assert message in str(raised.value)


def test_overrides() -> None:
    changed = lab(name="other", servers=5, scheduler=Scheduler.SH)
    assert changed.name == "other"
    assert [server.node for server in changed.services[0].real_servers] == [
        *("rs1", "rs2", "rs3", "rs4", "rs5")
    ]
    assert changed.services[0].scheduler is Scheduler.SH


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"name": "Lab 1"}, "--name: 'Lab 1' is not a name"),
        ({"servers": 0}, "--servers 0: this topology can have 1 to 1000 real servers"),
    ],
)
def test_impossible_overrides_are_the_command_lines_fault(
    overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as raised:
        lab(**overrides)
    assert raised.value.message == message


def test_servers_needs_a_count() -> None:
    single = (("  rs: ", "  rs1:"), (", count: 2", ""), ("[rs]", "[rs1]"))
    assert lab(*single, servers=1) == lab(*single)
    with pytest.raises(UsageError, match="names each of its real servers: rs1"):
        lab(*single, servers=2)


def test_several_groups_share_the_servers() -> None:
    text = DR.replace(
        "services:", "  far: {role: real-server, networks: [lan], count: 1}\nservices:"
    )
    nodes = parse_topology(text, "", overrides=Overrides(servers=5)).having(Role.REAL_SERVER)
    assert [node.name for node in nodes] == ["rs1", "rs2", "rs3", "far1", "far2"]


def test_a_rules_violation_is_placed_where_the_file_mentions_it() -> None:
    def rules(lab: Lab) -> Iterator[Violation]:
        yield Violation(("services", 0, "real_servers", 1, "port"), "second real server")
        yield Violation(("nodes", "rs2", "networks", "lan"), "second node")
        yield Violation(("services", 0, "scheduler"), "a key that is left out")

    with pytest.raises(TopologyError) as raised:
        parse_topology(DR, "dr.yaml", rules=rules)
    assert str(raised.value).splitlines() == [
        "dr.yaml:8:44: nodes.rs.networks[0]: second node",
        "dr.yaml:10:5: services[0].scheduler: a key that is left out",
        "dr.yaml:14:20: services[0].real_servers[0]: second real server",
    ]


@given(st.binary() | st.text() | st.text("[]{}:,-&*a \n\t'\"!|>%#?"))
def test_arbitrary_text(text: str | bytes) -> None:
    load_or_refuse(text)


KEYS = st.sampled_from([*TOPOLOGY.fields, "role", "count", "lan", "rs", "node", "weight", "ipv4"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | KEYS,
    lambda children: st.lists(children) | st.dictionaries(KEYS | st.text(), children),
    max_leaves=10,
)


@given(VALUES | st.dictionaries(KEYS, VALUES))
def test_arbitrary_structures(document: Any) -> None:
    load_or_refuse(yaml.safe_dump(document, allow_unicode=True))


def places(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all values in a document."""
    yield path
    children = dict(enumerate(tree)) if isinstance(tree, list) else tree
    if not isinstance(children, dict):
        return
    for key, value in children.items():
        yield from places(value, (*path, key))


@given(st.sampled_from(shipped.names()), st.data())
def test_a_shipped_topology_with_one_value_replaced(name: str, data: st.DataObject) -> None:
    document = yaml.safe_load(shipped.text_of(name))
    *path, last = data.draw(st.sampled_from([path for path in places(document) if path]))
    inner = document
    for step in path:
        inner = inner[step]
    others = [inner[key] for key in (inner if isinstance(inner, dict) else range(len(inner)))]
    inner[last] = data.draw(VALUES | st.sampled_from(others))
    load_or_refuse(yaml.safe_dump(document, allow_unicode=True))


def load_or_refuse(text: str | bytes) -> None:
    """Load a topology: twice the same lab, or a TopologyError whose problems say where."""
    try:
        assert parse_topology(text, "any") == parse_topology(text, "any")
    except TopologyError as error:
        problems = error.problems
    else:
        return
    assert problems
    assert all(problem.message for problem in problems)


@pytest.mark.parametrize(
    "text",
    [
        "- " * 100_000,
        "[" * 100_000,
        "{a: " * 50_000,
        "? " * 50_000,
        "a: " + "9" * 10_000,
        "name: " + "x" * 1_000_000,
        "x" * 2_000_000,
        "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 1000)).replace("[*a0]", "[]"),
        DR + "groups:\n" + "".join(f"  g{i}: [g{i + 1}]\n" for i in range(3000)),
        DR + "groups:\n" + "".join(f"  g{i}: [g{i + 1}]\n" for i in range(99)),
        DR.replace("[rs]", "[" + "rs," * 40_000 + "]"),
        DR.replace(
            "services:", "".join(f"  n{i}: {{role: x}}\n" for i in range(9000)) + "services:"
        ),
        DR.replace(
            "nodes:", "".join(f"  n{i}: {{ipv4: 10.0.0.0/24}}\n" for i in range(200)) + "nodes:"
        ),
    ],
    ids=range(13),
)
def test_hostile_files(text: str) -> None:
    with pytest.raises(TopologyError):
        parse_topology(text, "hostile")
