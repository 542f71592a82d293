"""Configuration of other programs, in and out, without a kernel.

That keepalived reads the files of the corpus likewise is in tests/kernel/test_formats.py.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import jinja2
import pytest
import yaml

from lvsctl.claims.keepalived import as_decided
from lvsctl.cli.main import main
from lvsctl.engine.preview import between
from lvsctl.errors import TopologyError
from lvsctl.formats import readers, writers
from lvsctl.formats.ansible.writer import FILES
from lvsctl.formats.configuration import Configuration, Place
from lvsctl.formats.ipvs_table import Rule, table
from lvsctl.formats.to_topology import Imported, node_names, to_topology
from lvsctl.model.addresses import IPAddress, host_route
from lvsctl.model.lab import HighAvailability, Lab
from lvsctl.model.service import Protocol, VipPort
from lvsctl.plan import planner
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.topology import shipped
from lvsctl.topology.loading import parse_topology
from lvsctl.topology.shipped import Topology
from tests.formats import corpus_files as corpus
from tests.unit.recorded.reports import evidence_of


def imported(text: str, name: str = "site.conf") -> Imported:
    return readers.import_file(Topology(name, text.encode(), f"/nowhere/{name}"))


def lab_of(one: Imported) -> Lab:
    return planner.load_lab(Topology("site.yaml", one.text.encode()))


def rules(found: Iterable[object]) -> set[Rule]:
    """Virtual services and real servers, wherever they are and whatever they are called."""
    result: set[Rule] = set()
    for one in found:
        if isinstance(one, IpvsService):
            result.add(replace(one, netns=""))
        elif isinstance(one, IpvsRealServer):
            server = replace(one.real_server, node="")
            result.add(replace(one, netns="", real_server=server))
    return result


def at_director(found: set[Rule], addresses: Iterable[IPAddress]) -> set[Rule]:
    """With one address in place of any by which the director itself is a real server."""
    own = set(addresses)
    return {
        replace(one, real_server=replace(one.real_server, rip=_ITSELF[one.real_server.rip.version],
                                         local=False))
        if isinstance(one, IpvsRealServer) and one.real_server.rip in own
        else one
        for one in found
    }  # fmt: skip


_ITSELF = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}


def expressible(configuration: Configuration) -> set[Rule]:
    """The table of a configuration, without what a topology has no key for."""
    found: set[Rule] = set()
    for one in rules(table(configuration.services)):
        if isinstance(one, IpvsService):
            named = [flag for flag in one.flags if flag != "flag-3"]
            found.add(replace(one, flags=tuple(named)))
        else:
            match, server = one.service, one.real_server
            port = server.port or (match.port if isinstance(match, VipPort) else 0)
            upper = 0 if server.upper > 65535 else server.upper
            kept = replace(server, port=port, upper=upper)
            found.add(replace(one, real_server=kept))
    return found


@pytest.mark.parametrize("file", [*corpus.FILES, *corpus.OTHERS], ids=lambda file: file.name)
def test_the_topology_of_a_file_has_its_table(file: Path) -> None:
    configuration = corpus.configuration_of(file)
    lab = lab_of(to_topology(configuration, "site"))
    (first, *_) = lab.directors
    own = {*first.addresses, *(vip for service in lab.services for vip in service.vips)}
    made = at_director(rules(planner.plan_for(lab).resources), own)
    assert made == at_director(expressible(configuration), own)


LABS = (
    *shipped.names(),
    *(pytest.param(file, id=file.stem) for file in corpus.FILES),
)


@pytest.mark.parametrize("target", [writers.Target.KEEPALIVED, writers.Target.IPVSADM])
@pytest.mark.parametrize("source", LABS)
def test_what_is_exported_is_read_as_the_same_table(
    source: str | Path, target: writers.Target
) -> None:
    if isinstance(source, Path):
        lab = lab_of(to_topology(corpus.configuration_of(source), "site"))
    else:
        lab = planner.load_lab(Topology(source, shipped.text_of(source).encode()))
    resources = planner.plan_for(lab).resources
    text, *others = writers.export(lab, resources, target).values()
    # Rules are for every director; each has a keepalived.conf of its own.
    assert len(others) == (len(lab.directors) - 1 if target is writers.Target.KEEPALIVED else 0)
    again = readers.read(Topology("out", text.encode(), "/out"), readers.Source(target))
    (first, *_) = lab.directors
    made = at_director(rules(resources), first.addresses)
    assert at_director(rules(table(again.services)), first.addresses) == made
    assert str(readers.detect(text)) == target.value
    if target is writers.Target.IPVSADM:
        assert (
            "'" not in text
        )  # ipvsadm -R knows no quotes, as brackets of IPv6 would get in a shell


def playbooks(name: str) -> dict[str, str]:
    lab = planner.load_lab(Topology(name, shipped.text_of(name).encode()))
    return writers.export(lab, planner.plan_for(lab).resources, writers.Target.ANSIBLE)


@pytest.mark.parametrize("name", shipped.names())
def test_playbooks_are_for_every_host_and_need_no_collection(name: str) -> None:
    """And have each VIP of a real server, and nothing that only a new namespace needs."""
    lab = planner.load_lab(Topology(name, shipped.text_of(name).encode()))
    files = {path: text for path, text in playbooks(name).items() if path.endswith(".yml")}
    parsed = {path: yaml.safe_load(text) for path, text in files.items()}
    groups = parsed["inventory.yml"]["all"]["children"]
    hosts = {host for group in groups.values() for host in group["hosts"]}
    assert hosts == {node.name for node in lab.nodes if node.role in ("director", "real-server")}
    modules = set(re.findall(r"^ +(ansible\.\w+)\.\w+:$", "".join(files.values()), re.MULTILINE))
    assert modules == {"ansible.builtin"}
    of_servers = parsed["group_vars/real_servers.yml"]
    vips = {vip for one in lab.services if one.forward != "nat" for vip in one.vips}
    assert {str(host_route(vip)) for vip in vips} == {
        one["address"] for one in of_servers["lvs_addresses"]
    }
    settings = of_servers["lvs_settings"]
    assert ("net.ipv4.conf.all.arp_ignore = 1" in settings) == any(v.version == 4 for v in vips)
    assert not any("default.rp_filter" in one or "accept_dad" in one for one in settings)


@pytest.mark.parametrize(
    ("name", "gateways"),
    [
        ("nat", ["192.168.20.2"]),
        ("nat-ipv6", ["fd00:192::2"]),
        ("nat-ha", ["192.168.61.1"]),
        ("nat-snat", None),
        ("dr-routed", None),
    ],
)
def test_a_host_whose_gateway_must_be_the_director_has_it_checked(
    name: str, gateways: list[str] | None
) -> None:
    files = playbooks(name)
    assert yaml.safe_load(files["group_vars/real_servers.yml"]).get("lvs_gateways") == gateways
    assert ("which is the director: via" in files["README.md"]) == bool(gateways)


def test_settings_are_those_of_interfaces_that_exist() -> None:
    """Not ``default``, which only new links get; a VLAN's dot is a slash in sysctl(8)."""
    text = shipped.text_of("nat-one-arm").replace(
        "{role: director,",
        "{role: director, sysctls: {net.ipv4.conf.default.log_martians: '{{1}}'},",
    )
    lab = parse_topology(text, "one-arm")
    files = writers.export(lab, planner.plan_for(lab).resources, writers.Target.ANSIBLE)
    settings = yaml.safe_load(files["group_vars/directors.yml"])["lvs_settings"]
    rendered = [jinja2.Template(one).render(lvs_interfaces={"lan": "eth0.10"}) for one in settings]
    assert rendered == [
        "net.ipv4.ip_forward = 1",
        "net.ipv4.conf.all.send_redirects = 0",
        "net.ipv4.conf.eth0/10.send_redirects = 0",
        "net.ipv4.conf.eth0/10.log_martians = {{1}}",
    ]


def test_interfaces_are_the_inventorys() -> None:
    nat, marks = playbooks("nat"), playbooks("dr-fwmark")
    assert "interface {{ lvs_interfaces['public'] }}\n" in nat["templates/keepalived.conf.j2"]
    up = yaml.safe_load(marks["group_vars/directors.yml"])["lvs_commands"][0]["up"]
    assert up.startswith("nft 'add table inet lvsctl_mark; add chain inet lvsctl_mark prerouting ")
    assert up.endswith("|| tc qdisc add dev {{ lvs_interfaces['lan'] }} clsact >/dev/null")


def test_netplan_gets_the_addresses_of_each_device() -> None:
    """Also those of tunnels, which exist already."""
    variables = yaml.safe_load(playbooks("tun-ipv6")["group_vars/real_servers.yml"])
    text = (FILES / "templates/netplan.yaml.j2").read_text(encoding="utf-8")
    # As Ansible renders templates (its documentation, "Templating").
    template = jinja2.Template(text, trim_blocks=True)
    plan = yaml.safe_load(template.render(lvs_name="tun-ipv6", **variables))["network"]
    found = {name: one["addresses"] for name, one in plan["ethernets"].items()}
    wanted = variables["lvs_addresses"]
    assert wanted
    assert found == {
        one["device"]: [two["address"] for two in wanted if two["device"] == one["device"]]
        for one in wanted
    }
    assert {one["match"]["name"] for one in plan["ethernets"].values()} == set(found)


@pytest.mark.exhaustive
def test_ansible_lint_finds_nothing(tmp_path: Path) -> None:
    assert main(["export", "dr-fwmark", "--to", "ansible", "-o", str(tmp_path)]) == 0
    words = [
        str(Path(sys.executable).with_name("ansible-lint")),
        "--offline",
        "--profile",
        "production",
    ]
    environment = {**os.environ, "ANSIBLE_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def problems(text: str, name: str = "site.conf") -> list[str]:
    with pytest.raises(TopologyError) as caught:
        imported(text, name)
    return caught.value.message.splitlines()


def server(line: str, inside: str = "lb_kind DR\nprotocol TCP\n") -> str:
    return f"virtual_server 10.0.0.100 80 {{\n{inside}{line}\n}}\n"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            server("real_server 10.0.0.11 8000 { }"),
            "site.conf:4: lb_kind DR cannot map port 80 to 8000: DR does not rewrite packets",
            "write port 80, or use NAT, the only forwarding method that rewrites ports",
        ),
        (
            server("delay_loop 6 lb_algo rr"),
            "site.conf:4: 'lb_algo' is on the line of delay_loop: keepalived ignores it there",
            "write each keyword on a line of its own, also in a block on one line",
        ),
        (
            server("lb_algo wwrr"),
            "site.conf:4: 'wwrr' is not a scheduler of IPVS",
            "schedulers: rr",
        ),
        (
            server("real_sever 10.0.0.11 80 { }"),
            "site.conf:4: 'real_sever' is not a keyword in virtual_server",
            "did you mean 'real_server'?",
        ),
        (
            server("real_server fd00::11 80 { }"),
            "site.conf:4: fd00::11 is IPv6, and the VIP is IPv4: DR cannot translate",
            "an IPv4 address, or TUN",
        ),
        (
            server("real_server 10.0.0.11 80 { weight 70000 }"),
            "site.conf:4: '70000' is not a weight",
            "a number from 0 to 65535",
        ),
        (
            server("sh-port"),
            "site.conf:4: sh-port is for the scheduler sh only",
            "write lb_algo sh",
        ),
        (
            server("lb_kind TUN type gue"),
            "site.conf:4: a gue tunnel needs a port, and only that has one",
            "write: TUN type gue port 6080",
        ),
        (
            server('virtualhost "open'),
            "site.conf:4: a quotation mark is not closed",
            'close it with "',
        ),
        (server("real_server $RIP 80 { }"), "site.conf:4: $RIP is not defined", "define it before"),
        (
            server("~SEQ(N, 1, -1, 5) real_server 10.0.0.$N 80 { }"),
            "site.conf:4: ~SEQ's step does not lead from its start to its end",
            "it reads:",
        ),
        (
            server("$A=$A\nreal_server ${A} 80 { }"),
            "site.conf:5: a parameter's value contains the parameter itself",
            "it reads:",
        ),
        ("global_defs {\n", "site.conf:1: the block of global_defs is not closed", "add a }"),
        (
            "virtual_server 10.0.0.1 80 {\n}\n}\n",
            "site.conf:3: this } closes no block",
            "remove it",
        ),
        (
            "virtual_server group WEB {\n}\n",
            "site.conf:1: there is no virtual_server_group 'WEB'",
            "there are no groups",
        ),
        (
            server("real_server 10.0.0.11 80 { }") * 2,
            "site.conf:6: 10.0.0.100:80/tcp is in site.conf:1 already",
            "remove one of the two",
        ),
        (
            server("real_server 10.0.0.11 80 { lthreshold 5 }"),
            "site.conf:4: lower threshold 5 is above the upper one, 0",
            "a lower threshold is at most the upper one",
        ),
        (
            "-A -t 10.0.0.1:gopher -s rr\n",
            "site.conf:1: 'gopher' is not a port",
            "numbers in place of names: ipvsadm-save -n",
        ),
        (
            "-A -t www.example.com:http -s rr\n",
            "site.conf:1: 'www.example.com' is not an IP address",
            "numbers in place of names: ipvsadm-save -n",
        ),
        (
            "-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.9:80 -r 10.0.0.2:80\n",
            "site.conf:2: the service of this real server is not above it",
            "-A comes before -a",
        ),
        (
            "virtual=10.0.0.1:80\n  real=10.0.0.2:80 gate\n",
            "site.conf:2: 'real' is indented too little: ldirectord refuses it",
            "indent it with a tab, or at least four blanks",
        ),
        (
            "virtual=10.0.0.1:80\n\treal=10.0.0.2:80 gate\n\n\tscheduler=rr\n",
            "site.conf:4: 'scheduler' belongs to no virtual service: ldirectord refuses it",
            "remove the blank line above it",
        ),
        (
            "virtual=[fd00::1]:80\n\treal6=[fd00::2]:80 gate\n",
            "site.conf:1: virtual is not for IPv6: ldirectord refuses it",
            "virtual6 =",
        ),
        (
            "virtual=10.0.0.1:80\n\treal=10.0.0.2:80 gate\n\tprotocol=sctp\n",
            "site.conf:3: 'sctp' is not a protocol",
            "tcp, udp or fwm",
        ),
        (
            "virtual=10.0.0.1:80\n\treal=10.0.0.2:80 route\n",
            "site.conf:2: '10.0.0.2:80 route' is not a real server",
            "real=10.0.0.11:80 gate 1",
        ),
    ],
)
def test_mistakes_have_their_line_and_what_would_be_right(
    text: str, message: str, hint: str
) -> None:
    lines = problems(text)
    assert message in lines
    assert lines[lines.index(message) + 1].strip().startswith(hint)


def test_a_mistake_in_an_included_file_has_that_files_name(tmp_path: Path) -> None:
    (tmp_path / "main.conf").write_text("include parts/*.inc\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "web.inc").write_text("virtual_server 10.0.0.100 80 {\nlb_algo x\n}\n")
    main = tmp_path / "main.conf"
    with pytest.raises(TopologyError) as caught:
        readers.import_file(Topology("main.conf", main.read_bytes(), str(main)))
    assert f"{tmp_path}/parts/web.inc:2: 'x' is not a scheduler of IPVS" in caught.value.message


def test_files_that_include_each_other_end(tmp_path: Path) -> None:
    main = tmp_path / "main.conf"
    main.write_text("include main.conf\n")
    with pytest.raises(TopologyError, match="include each other 16 levels deep"):
        readers.import_file(Topology("main.conf", main.read_bytes(), str(main)))
    with pytest.raises(TopologyError, match="standard input cannot include files"):
        readers.import_file(Topology("standard input", b"include /etc/passwd\n", "-"))


VRRP = """\
vrrp_instance V {
interface eth0
virtual_router_id 51
virtual_ipaddress {
10.0.0.100/24
}
}
"""
WEB = """\
virtual_server 10.0.0.100 80 {
lb_algo rr
lb_kind DR
protocol TCP
real_server 10.0.0.11 80 { }
}
"""


def with_lines(*lines: str) -> str:
    """The instance with more lines in it."""
    return VRRP.replace("virtual_ip", "\n".join([*lines, "virtual_ip"])) + WEB


def directors_of(text: str) -> list[tuple[str, HighAvailability | None]]:
    return [(node.name, node.ha) for node in lab_of(imported(text)).directors]


HA = HighAvailability(router_id=51, priority=100)


@pytest.mark.parametrize(
    ("lines", "first", "second"),
    [
        ((), HA, replace(HA, priority=50)),
        (("state MASTER", "priority 120"), replace(HA, priority=120), replace(HA, priority=70)),
        # A backup's master has more than it has.
        (("state BACKUP", "priority 120"), replace(HA, priority=170), replace(HA, priority=120)),
        (
            ("state BACKUP", "nopreempt", "advert_int 0.2"),
            replace(HA, preempt=False, advert_int=0.2),
            replace(HA, preempt=False, advert_int=0.2, priority=50),
        ),
        (("priority 255",), replace(HA, priority=254), replace(HA, priority=204)),
    ],
)
def test_a_vrrp_instance_is_two_directors(
    lines: tuple[str, ...], first: HighAvailability, second: HighAvailability
) -> None:
    assert directors_of(with_lines(*lines)) == [("director1", first), ("director2", second)]


def test_unicast_names_the_directors_and_their_addresses() -> None:
    lines = ("priority 150", "unicast_src_ip 10.0.0.3", "unicast_peer {\n10.0.0.2\n10.0.0.4\n}")
    lab = lab_of(imported(with_lines(*lines)))
    assert [(str(d.addresses[0]), d.ha and d.ha.priority) for d in lab.directors] == [
        ("10.0.0.3", 150),
        ("10.0.0.2", 100),
        ("10.0.0.4", 50),
    ]
    assert all(node.ha is not None and node.ha.unicast for node in lab.directors)


def test_the_synchronization_daemon_and_a_gateway_are_carried_over() -> None:
    nat = WEB.replace("DR", "NAT").replace("10.0.0.11 80", "10.0.9.11 80")
    back = VRRP.replace("V {", "W {").replace("eth0", "eth1").replace("51", "52")
    text = (
        "global_defs {\nlvs_sync_daemon eth0 V id 7\n}\n"
        "vrrp_sync_group ALL {\ngroup {\nV\nW\n}\n}\n"
        + VRRP
        + back.replace("10.0.0.100/24", "10.0.9.1/24\n10.0.9.2/24")
        + nat
    )
    one = imported(text)
    ha = lab_of(one).directors[0].ha
    assert ha is not None
    assert ha.sync
    assert [str(address) for address in ha.gateways] == ["10.0.9.1"]
    assert [str(remark).partition(": ")[2] for remark in one.remarks] == [
        "lvs_sync_daemon: id 7: the topology has the defaults",
        "10.0.9.2 of vrrp_instance W: no virtual server needs it",
    ]


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        (with_lines("authentication {\nauth_type PASS\nauth_pass hunter2\n}"), "authentication of"),
        (with_lines("track_interface {\neth1\n}"), "track_interface of vrrp_instance V"),
        (with_lines("notify_master /bin/x"), "a script is never run"),
        (with_lines("virtual_routes {\n10.9.0.0/24 via 10.0.0.9\n}"), "virtual_routes: every"),
        (with_lines("preempt_delay 30"), "takes over at once"),
        (VRRP.replace(".100", ".50") + WEB, "it has no virtual server's address"),
        (VRRP + WEB + WEB.replace(".100", ".101"), "10.0.0.101 is in no vrrp_instance"),
        (VRRP + VRRP.replace("V {", "W {").replace(".100", ".101").replace("51", "60") + WEB
         + WEB.replace(".100", ".101"), "its addresses move with those of V"),
    ],
)  # fmt: skip
def test_what_of_vrrp_is_not_carried_over_is_said_with_its_line(text: str, remark: str) -> None:
    one = imported(text)
    assert any(remark in str(found) for found in one.remarks), one.remarks
    assert "hunter2" not in one.text + "".join(map(str, one.remarks))
    lab_of(one)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            VRRP.replace("virtual_router_id 51\n", "") + WEB,
            "1: vrrp_instance V has no virtual_router",
        ),
        (VRRP.replace("51", "256") + WEB, "3: virtual_router_id '256' is not a number in range"),
        (with_lines("priority high"), "4: priority 'high' is not a number"),
        (with_lines("advert_int 0"), "4: advert_int '0' is not a time"),
        (with_lines("unicast_src_ip lb1"), "4: 'lb1' is not an IP address"),
        ("global_defs {\nlvs_sync_daemon eth0 W\n}\n" + VRRP + WEB, "2: lvs_sync_daemon names 'W'"),
    ],
)
def test_what_is_wrong_in_vrrp_is_an_error_with_its_line(text: str, message: str) -> None:
    with pytest.raises(TopologyError, match=f"site.conf:{message}"):
        imported(text)


def services_of(lab: Lab) -> set[tuple[object, ...]]:
    """What of a lab's virtual services a configuration for a director says."""
    return {
        (
            service.match,
            service.scheduler,
            service.persistence,
            service.netmask,
            frozenset(service.flags),
            service.one_packet,
            frozenset(replace(server, node="", local=False) for server in service.real_servers),
        )
        for service in lab.services
    }


@pytest.mark.parametrize("name", shipped.names())
def test_a_shipped_topology_comes_back_as_it_went_out(name: str) -> None:
    """Through ipvsadm's rules and keepalived.conf: the virtual services are the same again."""
    lab = planner.load_lab(Topology(f"{name}.yaml", shipped.path_of(name).read_bytes(), name))
    resources = planner.plan_for(lab).resources
    for target in (writers.Target.KEEPALIVED, writers.Target.IPVSADM):
        text = next(iter(writers.export(lab, resources, target).values()))
        again = lab_of(imported(text))
        assert services_of(again) == services_of(lab), target
        if target is writers.Target.KEEPALIVED and lab.directors[0].ha is not None:
            ours, its = lab.directors[0].ha, again.directors[0].ha
            # A password is not copied into another file: it may be a secret.
            assert its == replace(ours, sync_threshold=(3, 50), password="")


def test_what_is_assumed_and_what_is_left_out_is_in_the_topology() -> None:
    one = imported(
        VRRP.replace("10.0.0.100/24", "10.0.0.100/28")
        + server("real_server 192.168.0.11 8080 { weight 2\nTCP_CHECK { } }", "lb_kind NAT\n")
    )
    lines = one.text.splitlines()
    assert "  eth0: {ipv4: 10.0.0.96/28}" in lines  # the file's own: no assumption
    assert any(line.startswith("  back: {ipv4: 192.168.0.0/24}  # assumed: ") for line in lines)
    assert "#   site.conf:11: TCP_CHECK: lvsctl does not check real servers" in lines
    assert "#   site.conf:8: it has no protocol: keepalived takes UDP" in lines
    assert [remark.place.line for remark in one.remarks] == [8, 8, 11]
    assert str(one.remarks[1]) == "site.conf:8: it has no lb_algo: keepalived takes wlc"
    assert lab_of(one).services[0].forward == "nat"


MARKS = """
-A -f 7 -s rr
-a -f 7 -r 10.0.0.11:0 -g
-A -f 7 -6 -s rr
-a -f 7 -6 -r [fd00::11]:0 -g
-A -f 8 -s rr
-a -f 8 -r 10.0.0.12:8080 -g
-A -f 9 -s rr -o
-a -f 9 -r 10.0.0.13:0 -i
"""


def test_what_a_firewall_mark_is_for_is_assumed() -> None:
    """A VIP of its own for each, because no packet has two marks; the ports, and UDP for -o."""
    one = imported(MARKS, "rules")
    found = {service.name: service for service in lab_of(one).services}
    assert [f"{service.endpoint}" for service in found.values()] == [
        "10.0.0.100:80/tcp",
        "[fd00::100]:80/tcp",
        "10.0.0.101:80/tcp",
        "10.0.0.102:80/udp",
    ]
    assert [(one.match.version, len(one.endpoints)) for one in found.values()] == [
        (4, 2),
        (6, 2),
        (4, 2),
        (4, 2),
    ]
    assert "    ports: [80, 443]  # assumed: ports 80 and 443 get mark 7: " in one.text
    vrrp = VRRP.replace("10.0.0.100", "10.0.0.50")
    servers = "lb_kind DR\nreal_server 10.0.0.11 0 { }\n"
    (known,) = lab_of(imported(f"{vrrp}virtual_server fwmark 3 {{\n{servers}}}\n")).services
    assert str(known.endpoint.vip) == "10.0.0.50"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("version: 1\nname: x\n", None),
        ("# virtual_server\nversion: 1\n", None),
        ("global_defs {\n}\n", "keepalived"),
        ("@main virtual_server 10.0.0.1 80 {\n", "keepalived"),
        ("$VIP=10.0.0.1\n", "keepalived"),
        ("include /etc/keepalived/conf.d/*.conf\n", "keepalived"),
        ("-A -t 10.0.0.1:80 -s rr\n", "ipvsadm"),
        ("ipvsadm --add-service -t 10.0.0.1:80 -s rr\n", "ipvsadm"),
        ("checktimeout=3\nvirtual=10.0.0.1:80\n", "ldirectord"),
        ("instance: 5\nvirtual_server: 3\n", None),
        ("", None),
    ],
)
def test_formats_are_told_apart_by_content(text: str, found: str | None) -> None:
    assert readers.detect(text) == found


def test_ipvsadm_rules_with_long_options_and_in_scripts() -> None:
    short = (
        "-A -t 10.0.0.1:80 -s wlc -p 360 -M 255.255.255.0\n-a -t 10.0.0.1:80 -r 10.0.0.2 -m -w 3\n"
    )
    long = (
        "ipvsadm -C  # from a script\n\n"
        "ipvsadm --add-service --tcp-service=10.0.0.1:80 --scheduler wlc --persistent "
        "--netmask 255.255.255.0\n"
        "/sbin/ipvsadm --add-server -t 10.0.0.1:80 --real-server 10.0.0.2:80 --masquerading "
        "--weight 3\n"
    )
    tables = [
        set(
            table(readers.read(Topology("r", text.encode(), "/r"), readers.Source.IPVSADM).services)
        )
        for text in (short, long)
    ]
    assert tables[0] == tables[1]


def test_ldirectord_ranges_and_defaults() -> None:
    text = (
        'virtual = 10.0.0.1:80\n    real = 10.0.0.2->10.0.0.4:80 gate 5 "req", "resp"\n'
        "    persistent = 60 # seconds\n    netmask = 255.255.0.0\n"
        "virtual6=[fd00::1]:53\n\treal6=[fd00::2]:53 masq\n\tprotocol=udp\n\tscheduler=rr\n"
        "\tops=yes\n\tfallback6=[fd00::9]:5353 masq\nfallback=10.0.0.9:8080\n"
    )
    configuration = readers.read(Topology("l", text.encode(), "/l"), readers.Source.LDIRECTORD)
    first, second = configuration.services
    assert [str(one.rip) for one in first.destinations] == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    assert {one.weight for one in first.destinations} == {5}
    assert (first.scheduler, first.persistence, first.netmask) == ("wrr", 60, 16)
    assert (second.protocol, second.scheduler, second.place) == ("udp", "rr", Place("l", 5))
    assert second.flags == ("ops",)
    # The server of the whole file, by gate, which cannot map ports; and one of its own.
    sorry = [one.sorry and (str(one.sorry.rip), one.sorry.port, one.sorry.forward)
             for one in configuration.services]  # fmt: skip
    assert sorry == [("10.0.0.9", 80, "dr"), ("fd00::9", 5353, "nat")]


def test_what_ldirectord_does_with_a_file() -> None:
    """Ports by name; port 53 is UDP; a blank line ends no service if a comment does not."""
    configuration = corpus.configuration_of(corpus.DIRECTORY / "sites.cf")
    web, names, mail, _ = configuration.services
    assert web.match == VipPort(Protocol.TCP, ip_address("10.77.1.100"), 80)
    assert [(str(one.rip), one.port, one.weight) for one in web.destinations] == [
        *((f"10.77.1.{host}", 80, 4) for host in (11, 12, 13)),
        ("10.77.1.14", 80, 2),
    ]
    assert names.match == VipPort(Protocol.UDP, ip_address("10.77.1.101"), 53)
    assert {one.port for one in mail.destinations} == {2525}
    sorry = [one.sorry and (str(one.sorry.rip), one.sorry.port) for one in configuration.services]
    assert sorry == [("127.0.0.1", 80), ("10.77.1.30", 53), ("127.0.0.1", 25), None]
    remarks = {remark.text for remark in configuration.remarks}
    assert {
        "gate cannot map port 80 to 8080: ipvsadm takes port 80",
        "the fallback of the whole file is not for firewall marks",
        "checktype=off: ldirectord activates no real server; the lab has all of them",
        "autoreload: it is about the daemon itself",
        "ops is for UDP: ldirectord ignores it",
    } <= remarks


def test_real_servers_keep_their_names_when_others_come() -> None:
    before = lab_of(imported(server("real_server 10.0.0.12 80 { }")))
    after = lab_of(imported(server("real_server 10.0.0.11 80 { }\nreal_server 10.0.0.12 80 { }")))
    names = {node.name for node in before.nodes}
    assert names < {node.name for node in after.nodes}
    change = between(planner.plan_for(before), planner.plan_for(after), after)
    added = [one for one in change.added if one.netns == after.netns("director")]
    assert [type(one) for one in added] == [IpvsRealServer]
    assert not change.removed


def test_names_of_real_servers_are_different_and_short() -> None:
    several = imported(
        server("real_server 10.0.0.11 80 { }\nreal_server 10.1.0.11 80 { }", "lb_kind NAT\n")
    )
    rips = [one.rip for one in several.configuration.services[0].destinations]
    assert list(node_names(rips).values()) == ["rs-0-0-11", "rs-1-0-11"]


def test_claims_expect_what_keepalived_has_decided() -> None:
    """Only where a director runs it, and only what its table had before the requests."""
    evidence = evidence_of("dr")
    assert as_decided(evidence) is evidence
    lab = evidence.lab
    nodes = tuple(
        replace(node, run=("keepalived", "-n")) if node.role == "director" else node
        for node in lab.nodes
    )
    run = evidence.runs[0]
    assert run.before is not None
    drained = run.before.real_servers[0]._replace(weight=0)
    table = run.before._replace(scheduler="wrr", real_servers=(drained,))
    changed = replace(evidence, lab=replace(lab, nodes=nodes), runs=(replace(run, before=table),))
    (service,) = as_decided(changed).lab.services
    assert service.scheduler == "wrr"
    assert [(str(one.rip), one.weight) for one in service.real_servers] == [(str(drained.rip), 0)]
    (nothing,) = as_decided(replace(changed, runs=(replace(run, before=None),))).lab.services
    assert nothing.real_servers == run.service.real_servers
    # The sorry server is in the table in their place.
    sorry = replace(run.service.real_servers[0], node="rs3", rip=ip_address("10.10.0.13"))
    only = run.before.real_servers[0]._replace(rip=sorry.rip)
    instead = replace(
        run,
        service=replace(run.service, sorry=sorry),
        before=run.before._replace(real_servers=(only,)),
    )
    (decided,) = as_decided(replace(changed, runs=(instead,))).lab.services
    assert [one.node for one in decided.real_servers] == ["rs3"]


@pytest.mark.parametrize("method", ["DR", "TUN"])
def test_a_sorry_server_on_the_director_is_the_director(method: str) -> None:
    """Unless there are two of them, of which none can be a real server."""
    inside = f"lb_kind {method}\nprotocol TCP\nsorry_server 127.0.0.1 80\n"
    text = server("real_server 10.0.0.11 80 { }", inside)
    one = imported(text)
    assert "sorry_server: {node: director}  # 127.0.0.1 in the file\n" in one.text
    (service,) = lab_of(one).services
    assert service.is_sorry(ip_address("127.0.0.1"))
    vrrp = "vrrp_instance V {\ninterface e\nvirtual_router_id 5\nvirtual_ipaddress {\n"
    two = imported(f"{text}{vrrp}10.0.0.100\n}}\n}}\n")
    assert "sorry_server:" not in two.text
    assert "127.0.0.1 is the director itself: of several, none can be" in str(two.remarks)


def test_the_director_is_a_real_server_unless_there_are_two_or_nat_leads_to_loopback() -> None:
    """The kernel drops what NAT would send to a loopback address."""
    two = "real_server 127.0.0.1 80 { }\nreal_server 10.0.0.11 80 { }"
    inside = "lb_kind DR\nprotocol TCP\n"
    one = imported(server(two, inside))
    assert "      - {node: director}  # 127.0.0.1 in the file\n" in one.text
    assert [s.local for s in lab_of(one).services[0].real_servers] == [True, False]
    nat = imported(server(two, "lb_kind NAT\nprotocol TCP\nsorry_server ::1 80\n"))
    assert "node: director" not in nat.text
    said = str(nat.remarks)
    assert "127.0.0.1 by NAT: the kernel drops what would be rewritten to a loopback" in said
    assert "::1 is the director itself, of another IP version" in said
    both = imported(server(f"{two}\nreal_server 10.0.0.100 80 {{ }}", inside))
    assert "10.0.0.100 is the director itself, as is 127.0.0.1" in str(both.remarks)
    vrrp = "vrrp_instance V {\ninterface e\nvirtual_router_id 5\nvirtual_ipaddress {\n"
    pair = imported(f"{server(two, inside)}{vrrp}10.0.0.100\n}}\n}}\n")
    assert "127.0.0.1 is the director itself: of several, none can be" in str(pair.remarks)
    only = server("real_server 127.0.0.1 80 { }", inside)
    with pytest.raises(TopologyError, match="none of its real servers can be in a lab"):
        imported(only)


def test_routes_lead_to_the_labs_router_which_gets_the_gateways_address() -> None:
    file = next(one for one in corpus.FILES if one.stem == "virtual-routes")
    one = to_topology(corpus.configuration_of(file), "site")
    lab = lab_of(one)
    routes = [
        "default via 10.33.0.254 mtu 1480 mss 1440",
        "10.34.0.0/24 via 10.33.0.254 mtu 0 mss 0",
        "10.35.0.0/16 via 10.33.0.253 mtu 0 mss 0",
    ]
    for director in lab.directors:
        assert [
            f"{r.to or 'default'} via {r.via} mtu {r.mtu} mss {r.mss}" for r in director.routes
        ] == routes
    assert ip_address("10.33.0.254") in lab.node("router").addresses
    assert [(r.place.line, r.text.partition(":")[0]) for r in one.remarks] == [
        (6, "the route to 10.35.0.0/16 via 10.33.0.253"),
        (7, "the route to 192.168.77.0/24 via 172.16.9.9"),
        (8, "static_routes"),
        (19, "virtual_routes"),
        (20, "virtual_routes"),
        (21, "virtual_routes"),
    ]
    texts = writers.export(lab, planner.plan_for(lab).resources, writers.Target.KEEPALIVED)
    again = readers.read(
        Topology("out", texts["keepalived-director1.conf"].encode(), "/out"),
        readers.Source.KEEPALIVED,
    )
    assert [(r.to, r.via, r.mtu, r.mss) for r in again.routes] == [
        (r.to, r.via, r.mtu, r.mss) for r in lab.directors[0].routes
    ]
    playbook = writers.export(lab, planner.plan_for(lab).resources, writers.Target.ANSIBLE)
    assert "static_routes" not in "".join(playbook.values()), "a host's own routes are its own"


RICH = """\
version: 1
name: rich
networks:
  out: {ipv4: 10.1.0.0/24, mtu: 1450}
  lan: {ipv4: 10.2.0.0/24, delay: 1ms}
nodes:
  client: {role: client, networks: [out]}
  router: {role: router, networks: [out, lan], mss_clamp: 1400}
  director:
    role: director
    networks: {lan: 10.2.0.2}
    mss_clamp: 1440
    timeouts: {tcp: 60}
    routes: [{to: 10.9.0.0/16, via: 10.2.0.1}]
    sysctls: {net.ipv4.vs.expire_nodest_conn: 1}
  rs: {role: real-server, networks: {lan: 10.2.0.11}, count: 3, run: sleep 9}
services:
  - {name: web, vip: 10.2.0.100, ports: [80, 443], fwmark: 5, forward: dr, real_servers: [rs1, rs2],
     sorry_server: {node: rs3}}
  - {name: in, vip: 10.2.0.101, port: 80, forward: nat, snat: true, real_servers: [rs1, rs2]}
"""


@pytest.mark.parametrize(
    ("target", "said", "unsaid"),
    [
        (
            writers.Target.KEEPALIVED,
            (
                "mark 5: 10.2.0.100 tcp 80|snat. of what is sent to 10.2.0.11|limit of TCP's|"
                "expire_nodest|what rs1, rs2, rs3 need|delay, loss|out 1450|run: of rs1"
            ),
            "sorry_server|timeouts|routes",
        ),
        (
            writers.Target.IPVSADM,
            "sorry_server 10.2.0.13 of web|ipvsadm --set 60 120 300|routes of director|mark 5",
            "ha .VRRP",
        ),
        (
            writers.Target.ANSIBLE,
            "mss_clamp and sysctls of router|routes of director|delay, loss|out 1450|run: of rs1",
            "mark 5|snat|sorry_server|timeouts",
        ),
        (writers.Target.CONTAINERLAB, "", "."),
    ],
)
def test_what_a_format_does_not_contain_is_said(
    target: writers.Target, said: str, unsaid: str
) -> None:
    lab = planner.load_lab(Topology("rich.yaml", RICH.encode()))
    resources = planner.plan_for(lab).resources
    lost = "\n".join(writers.lost(lab, resources, target))
    assert not [one for one in said.split("|") if not re.search(one, lost)]
    assert not re.search(unsaid, lost)
    text = "".join(writers.export(lab, resources, target).values())
    if target in (writers.Target.KEEPALIVED, writers.Target.ANSIBLE):
        assert all(f"- {one}\n" in text for one in lost.splitlines())


def test_a_container_runs_keepalived_itself() -> None:
    lab = planner.load_lab(Topology("dr-ha", shipped.text_of("dr-ha").encode()))
    resources = planner.plan_for(lab).resources
    (text,) = writers.export(lab, resources, writers.Target.CONTAINERLAB).values()
    assert "Directors run keepalived, which that image does not have" in text
    nodes = yaml.safe_load(text)["topology"]["nodes"]
    (command,) = (one for one in nodes["director1"]["exec"] if "keepalived" in one)
    assert shlex.split(command)[:2] == ["sh", "-c"]
    assert "/run/keepalived-director1 " in command


def test_a_sorry_server_is_prepared_carried_over_and_written_again_but_not_in_the_table() -> None:
    """Only where it is a host of its own: of `sorry_server_inhibit` it is a real server too."""
    file = next(one for one in corpus.FILES if one.stem == "sorry")
    first = to_topology(corpus.configuration_of(file), "site")
    assert "    sorry_server: {node: rs-3-99, port: 8080}\n" in first.text
    assert [f"{one.place.line}: {one.text}" for one in first.remarks if "sorry" in one.text] == [
        (
            "13: sorry_server 10.19.2.98 stays in the table with weight 0 (sorry_server_inhibit): "
            "that is all the topology has of it, because its sorry servers are in the table only "
            "while they are in use"
        )
    ]
    lab = lab_of(first)
    resources = planner.plan_for(lab).resources
    servers = [one.real_server for one in resources if isinstance(one, IpvsRealServer)]
    assert "10.19.3.99" not in {str(one.rip) for one in servers}
    netns = lab.netns("rs-3-99")
    assert [one.port for one in resources if isinstance(one, ResponderPort)
            and one.netns == netns] == [8080]  # fmt: skip
    text = writers.export(lab, resources, writers.Target.KEEPALIVED)["keepalived.conf"]
    assert "    sorry_server 10.19.3.99 8080\n    sorry_server_lvs_method NAT\n" in text
    again = lab_of(imported(text))
    assert [one.sorry and replace(one.sorry, node="") for one in again.services] == [
        one.sorry and replace(one.sorry, node="") for one in lab.services
    ]


CONF = server("real_server 10.0.0.11 80 { weight 1 }")


def test_the_command_line_imports_compares_and_exports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after, out = tmp_path / "a.conf", tmp_path / "b.conf", tmp_path / "out.yaml"
    before.write_text(CONF)
    after.write_text(CONF.replace("weight 1", "weight 7"))
    assert main(["import", str(before), "-o", str(out), "--name", "site"]) == 0
    assert planner.load_lab(Topology("out", out.read_bytes())).name == "site"
    shown = capsys.readouterr()
    assert f"{before}:1: it has no lb_algo: keepalived takes wlc" in shown.err
    assert shown.err.endswith(f"lvsctl: written: {out}\nlvsctl: next: lvsctl up {out}\n")
    assert shown.out == ""

    assert main(["diff", str(before), str(after), "--exit-code"]) == 1
    said = capsys.readouterr()
    weight = "ipvsadm -e -t 10.0.0.100:80 -r 10.0.0.11:80 -g -w 7"
    assert said.out.splitlines()[1:] == [f"~ lvsctl exec a/director -- {weight}"]
    assert main(["diff", str(before), str(before), "--exit-code"]) == 0
    assert "are the same lab" in capsys.readouterr().out

    assert main(["export", str(after), "--to", "ipvsadm"]) == 0
    rule = "-a -t 10.0.0.100:80 -r 10.0.0.11:80 -g -w 7"
    assert capsys.readouterr().out.splitlines()[1] == rule


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["import", "{wrong}"], 65, "'x' is not a scheduler of IPVS"),
        (["plan", "{wrong}"], 65, "'x' is not a scheduler of IPVS"),
        (["import", "{topology}"], 2, "is in none of the formats that can be imported"),
        (["import", "{wrong}", "--name", "A B"], 2, "--name: 'A B' is not a name"),
        (["import", "{wrong}", "--from", "ldirectord"], 65, "is not a setting"),
        (["export", "{wrong}", "--to", "keepalived"], 65, "'x' is not a scheduler of IPVS"),
        (["diff", "dr", "{wrong}"], 65, "'x' is not a scheduler of IPVS"),
        (["import", "{missing}"], 2, "the file '"),
        (["import", "dr"], 2, "dr is a shipped topology"),
        (["import", "{topology}"], 2, "it is a topology: lvsctl up starts it"),
        (["import", "{binary}"], 2, "name a text file: keepalived.conf"),
        (["import", "{utf16}"], 2, "iconv -f utf-16 -t utf-8"),
        (["import", "{empty}"], 2, "is empty"),
        (["import", "{huge}"], 2, "is larger than 1048576 bytes"),
        (["export", "{huge}", "--to", "ipvsadm"], 2, "is larger than 1048576 bytes"),
        (["export", "missing.conf", "--to", "ansible"], 2, "the file 'missing.conf' does not"),
        (["diff", "dr", "missing.conf"], 2, "the file 'missing.conf' does not exist"),
        (["diff", "-", "-"], 2, "standard input is one file, not two"),
        (["check", "dr", "--inventory", "{missing}"], 2, "the file '"),
        (["check", "dr", "--inventory", "{binary}"], 2, "is binary, not an inventory"),
        (["import", "{unfit}"], 65, "unfit.conf:1: services[0].one_packet: in nat IPVS rewrites"),
    ],
)
def test_the_command_line_refuses(
    words: list[str], status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"wrong": tmp_path / "wrong.conf", "topology": tmp_path / "topology.yaml"}
    files["unfit"] = tmp_path / "unfit.conf"
    files["unfit"].write_text(server("ops\nreal_server 10.0.0.11 53 { }", "lb_kind NAT\n"))
    files |= {name: tmp_path / name for name in ("missing", "binary", "utf16", "empty", "huge")}
    files["binary"].write_bytes(b"\x7fELF\0")
    files["utf16"].write_text(server("lb_algo rr"), encoding="utf-16")
    files["empty"].write_text("\n")
    files["huge"].write_text(server("real_server 10.0.0.11 80 { }") * 20_000)
    files["wrong"].write_text(server("lb_algo x"))
    files["topology"].write_bytes(shipped.text_of("dr").encode())
    assert main([word.format(**files) for word in words]) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "checks"),
    [
        ("dr", ["TCP_CHECK"] * 2),
        ("dns", ["UDP_CHECK"] * 4),
        ("dr-fwmark", ["TCP_CHECK", "connect_port 80"] * 4),
        ("sctp", []),
    ],
)
def test_real_servers_are_checked_by_what_their_protocol_has(name: str, checks: list[str]) -> None:
    lab = planner.load_lab(Topology(name, shipped.text_of(name).encode()))
    files = writers.export(lab, planner.plan_for(lab).resources, writers.Target.KEEPALIVED)
    text = files["keepalived.conf"]
    assert re.findall(r"[A-Z]+_CHECK|connect_port \d+", text) == checks
    assert ("health checks for signalling" in text) == (not checks)


def test_two_directors_get_a_file_each() -> None:
    text = shipped.text_of("dr").replace("role: director,", "role: director, count: 2,")
    lab = parse_topology(text, "dr2")  # without rules: `up` has no VRRP yet
    files = writers.export(lab, planner.plan_for(lab).resources, writers.Target.KEEPALIVED)
    first, second = files["keepalived-director1.conf"], files["keepalived-director2.conf"]
    assert "state MASTER" in first
    assert "priority 150" in first
    assert "state BACKUP" in second
    assert "priority 100" in second
    assert "lvs_sync_daemon lan LAN-4" in first
