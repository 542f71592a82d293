"""The shipped topologies, the published schema, and how a command's argument finds a file."""

import io
from pathlib import Path

import jsonschema
import pytest
import yaml

from lvsctl.errors import TopologyError, UsageError
from lvsctl.model.lab import Role
from lvsctl.model.service import ForwardingMethod
from lvsctl.topology import shipped
from lvsctl.topology.loading import parse_topology
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.schema import json_schema

SCHEMA = jsonschema.Draft7Validator(json_schema())
NO_INPUT = io.BytesIO()


@pytest.mark.parametrize("name", shipped.names())
def test_a_shipped_topology(name: str) -> None:
    text = shipped.text_of(name)
    SCHEMA.validate(yaml.safe_load(text))
    lab = parse_topology(text, name)
    assert lab.name == name
    assert lab.description == shipped.summaries()[name]
    assert lab.having(Role.CLIENT)[0].name == "client"
    assert lab.directors[0].name in ("director", "director1")
    assert {"rs1", "rs2"} <= {server.node for server in lab.services[0].real_servers}


@pytest.mark.parametrize("name", shipped.names())
def test_its_drawing_shows_the_addresses_that_nodes_get(name: str) -> None:
    text = shipped.text_of(name)
    drawing = text.partition("\nversion:")[0]
    lab = parse_topology(text, name)
    addresses = [a.ip for node in lab.nodes for i in node.interfaces for a in i.addresses]
    for address in (*addresses, *lab.services[0].vips):
        assert str(address) in drawing


@pytest.mark.parametrize("name", shipped.names())
@pytest.mark.parametrize("servers", [3, 8])
def test_any_number_of_real_servers(name: str, servers: int) -> None:
    lab = parse_topology(shipped.text_of(name), name, overrides=Overrides(servers=servers))
    assert len(lab.having(Role.REAL_SERVER)) == servers
    assert len(lab.services[0].real_servers) == servers


def test_each_forwarding_method_is_there_and_subnets_are_distinct() -> None:
    labs = [parse_topology(shipped.text_of(name), name) for name in shipped.names()]
    assert {lab.services[0].forward for lab in labs} == set(ForwardingMethod)
    subnets = [subnet for lab in labs for network in lab.networks for subnet in network.subnets]
    assert len(subnets) == len(set(subnets))


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(json_schema())


# What is wrong with the structure of a file, the schema must say as well: editors have only that.
STRUCTURAL = (
    *("key-unknown", "role-missing", "role-unknown", "scheduler-unknown"),
    *("forward-unknown", "port-text", "port-range", "port-a-list", "count-zero", "count-huge"),
    *("name-too-long", "name-bad", "name-reserved", "lab-name", "network-empty", "network-twice"),
    *("real-servers-empty", "real-servers-none", "services-empty", "sections-missing", "run"),
    *("sections-of-wrong-kind", "node-of-wrong-kind", "description-a-number", "version-unknown"),
    *("truth-values", "not-a-mapping", "real-server-weight", "subnet-without-prefix", "sysctls"),
    *("subnet-ipv6-as-ipv4", "vip-with-prefix", "encapsulation-unknown", "persistence"),
)


@pytest.mark.parametrize("name", STRUCTURAL)
def test_the_schema_refuses_what_the_loader_refuses(name: str) -> None:
    text = (Path(__file__).parent / "topology" / "broken" / f"{name}.yaml").read_text()
    assert not SCHEMA.is_valid(yaml.safe_load(text))
    with pytest.raises(TopologyError):
        parse_topology(text, name)


def test_find_a_shipped_one_a_file_and_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("name: mine")
    Path("dr").write_text("not the shipped one")
    assert shipped.find("dr", NO_INPUT).source == "dr.yaml"
    assert shipped.find("./dr", NO_INPUT).text == b"not the shipped one"
    assert shipped.find("mine.yaml", NO_INPUT) == shipped.Topology(
        "mine.yaml", b"name: mine", str(Path("mine.yaml").absolute())
    )
    assert shipped.find("-", io.BytesIO(b"x")) == shipped.Topology("standard input", b"x", "-")


@pytest.mark.parametrize(
    ("argument", "message", "hint"),
    [
        ("dr-ruoted", "the topology 'dr-ruoted' does not exist", "did you mean 'dr-routed'?"),
        ("./dr.yml", "the file './dr.yml' does not exist", "did you mean 'dr'?"),
        (
            "none/such.yaml",
            "the file 'none/such.yaml' does not exist",
            "shipped topologies: dns, dr,",
        ),
        ("dr-ruoted.json", "the file 'dr-ruoted.json' does not exist", "did you mean 'dr-routed'?"),
        ("labs", "'labs' is a directory", "it contains a.yaml, b.json"),
        ("binary", "'binary' is binary, not a topology", "name a YAML or JSON file"),
        ("", "the topology '' does not exist", "shipped topologies: dns, dr,"),
        ("a\0b", "'a\\x00b' cannot be read: embedded null byte", ""),
        ("a" * 300, "cannot be read: File name too long", ""),
        ("file/in.yaml", "the file 'file/in.yaml' does not exist", ""),
    ],
)
def test_find_says_what_is_wrong(
    argument: str, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("labs").mkdir()
    for name in ("a.yaml", "b.json", "c.txt"):
        Path("labs", name).touch()
    Path("file").touch()
    Path("binary").write_bytes(b"\x7fELF\0")
    with pytest.raises(UsageError) as raised:
        shipped.find(argument, NO_INPUT)
    assert message in raised.value.message
    assert hint in raised.value.hint


def test_an_unreadable_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(UsageError, match="may not be read"):
        shipped.find("./secret.yaml", NO_INPUT)
