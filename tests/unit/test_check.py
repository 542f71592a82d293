"""Real hosts against a topology: read, matched, judged. Recorded on hosts made with plain ip(8).

admin ── eth0 of each                       172.16.0.0/24
lb     eth1 10.10.0.2, VIP 10.10.0.100      director
web1   eth1 10.10.0.11, VIP on vip0         rs1
web2   eth1 10.10.0.12, VIP on vip0         rs2
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path
from typing import NamedTuple

import pytest

from lvsctl.engine import ask_hosts
from lvsctl.engine.ask_hosts import Asked
from lvsctl.engine.check import check
from lvsctl.engine.findings import Check
from lvsctl.errors import DamagedFile, TopologyError, UsageError
from lvsctl.formats import readers
from lvsctl.formats.hosts import document, ipvs, links, reader
from lvsctl.formats.hosts.inventory import InventoryHost, read_inventory
from lvsctl.model.lab import Lab
from lvsctl.model.service import Encapsulation, ForwardingMethod, FwMark, Protocol, VipPort
from lvsctl.output.serialize import to_json
from lvsctl.output.text.check import format_check
from lvsctl.output.text.style import Style
from lvsctl.plan import planner
from lvsctl.topology.shipped import Topology
from tests.kernel.labs import topology_of

RECORDED = Path(__file__).with_name("recorded") / "hosts"
NODES = {"lb": "director", "web1": "rs1", "web2": "rs2"}
PLAIN = Style(color=False, width=100)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return planner.load_lab(topology_of("dr"))


@pytest.fixture(scope="module")
def documents() -> Mapping[str, str]:
    return {name: (RECORDED / f"{name}.txt").read_text() for name in NODES}


def asked(texts: Mapping[str, str]) -> tuple[Asked, ...]:
    return tuple(Asked(name, reader.read_host(text.encode(), name)) for name, text in texts.items())


def checked(lab: Lab, documents: Mapping[str, str], *changes: tuple[str, str, str]) -> Check:
    """With texts exchanged in the documents of hosts; each must be there."""
    texts = dict(documents)
    for host, old, new in changes:
        assert old in texts[host], old
        texts[host] = texts[host].replace(old, new)
    return check(lab, asked(texts))


def test_hosts_as_the_topology_says_are_healthy_whatever_else_they_have(
    lab: Lab, documents: Mapping[str, str]
) -> None:
    """Management interfaces, another virtual service, further addresses are no causes."""
    found = checked(lab, documents)
    assert found
    assert not found.causes
    assert not found.remarks
    assert {host.name: (host.node, host.interfaces) for host in found.hosts} == {
        name: (node, {"lan": "eth1"}) for name, node in NODES.items()
    }
    assert "every real server holds the VIP" in found.ruled_out


DUAL = """\
version: 1
name: dual
networks:
  outside: {ipv4: 10.20.0.0/24, ipv6: fd00:20::/64}
  lan: {ipv4: 10.10.0.0/24, ipv6: fd00:10::/64}
nodes:
  client: {role: client, networks: [outside]}
  router: {role: router, networks: {outside: 10.20.0.1, lan: [10.10.0.1, 'fd00:10::1']}}
  director: {role: director, networks: {lan: [10.10.0.2, 'fd00:10::2']}}
  rs1: {role: real-server, networks: {lan: [10.10.0.11, 'fd00:10::11']}}
services:
  - {name: web, vip: 10.10.0.100, port: 80, forward: dr, scheduler: rr, real_servers: [rs1]}
"""


def test_what_went_with_a_downed_interface_comes_back_in_an_order_that_can_be_typed(
    documents: Mapping[str, str],
) -> None:
    """Its IPv6 addresses, which no node keeps, before the routes whose next hops they reach."""
    dual = planner.load_lab(Topology("dual", DUAL.encode()))
    texts = {name: documents[name] for name in ("lb", "web1")}
    up = '"UP","LOWER_UP"]'
    before, eth1, after = texts["web1"].partition('"ifname":"eth1"')
    assert up in after
    texts["web1"] = before + eth1 + after.replace(up, "]", 1).replace(",]", "]", 1)

    causes = [cause for cause in check(dual, asked(texts)).causes if cause.node == "rs1"]

    assert [cause.fault for cause in causes][:1] == ["real-server-down"]
    assert causes[0].remedy.split(" && ")[:2] == [
        "ip link set eth1 up",
        "ip addr add fd00:10::11/64 dev eth1 nodad",
    ]
    assert causes[0].remedy.endswith("ip route replace default via fd00:10::1")
    assert "address-missing" not in {cause.fault for cause in causes}


ALL = "/proc/sys/net/ipv4/conf/all/"
DESTINATION = "  -> 0A0A000C:0050      Route   1      0          0         "
VIP = '"local":"10.10.0.100"'


class Broken(NamedTuple):
    """Texts to exchange, and what is found then: the cause, its node, its remedy's start."""

    changes: tuple[tuple[str, str, str], ...]
    fault: str
    node: str
    remedy: str


BROKEN = {
    "arp_ignore": Broken(
        (("web1", f"{ALL}arp_ignore:1", f"{ALL}arp_ignore:0"),),
        "arp-ignore-unset", "rs1", "sysctl -w net.ipv4.conf.all.arp_ignore=1",
    ),
    "arp_announce": Broken(
        (("web2", f"{ALL}arp_announce:2", f"{ALL}arp_announce:1"),),
        "arp-announce-unset", "rs2", "sysctl -w net.ipv4.conf.all.arp_announce=2",
    ),
    "no VIP on a real server": Broken(
        (("web1", VIP, '"local":"10.10.0.77"'),),
        "vip-missing", "rs1", "ip addr add 10.10.0.100/32 dev lo",
    ),
    "no VIP on the director": Broken(
        (("lb", VIP, '"local":"10.10.0.77"'),),
        "vip-missing-on-director", "director", "ip addr add 10.10.0.100/32 dev eth1",
    ),
    "wrong netmask": Broken(
        (("web1", '"local":"10.10.0.11","prefixlen":24', '"local":"10.10.0.11","prefixlen":16'),),
        "wrong-prefix-length", "rs1",
        "ip addr add 10.10.0.11/24 dev eth1 && ip addr del 10.10.0.11/16 dev eth1",
    ),
    "two hosts with one address": Broken(
        (("web2", '"local":"172.16.0.3"', '"local":"10.10.0.11"'),),
        "duplicate-address", "rs2", "ip addr del 10.10.0.11/24 dev eth0",
    ),
    "no address": Broken(
        (("web1", '"local":"10.10.0.11"', '"local":"192.0.2.11"'),),
        "address-missing", "rs1", "ip addr add 10.10.0.11/24 dev INTERFACE",
    ),
    "a service that listens on loopback": Broken(
        (("web1", "0.0.0.0:80", "127.0.0.1:80"),),
        "listens-elsewhere", "rs1", "ss -Hlntp 'sport = :80'",
    ),
    "no server": Broken(
        (("web1", "0.0.0.0:80", "0.0.0.0:22"),),
        "service-stopped", "rs1", "ss -Hlntp 'sport = :80'",
    ),
    "a real server that is not in the table": Broken(
        (("lb", DESTINATION, DESTINATION.replace("0C:", "63:")),),
        "real-server-misspelt", "director",
        "ipvsadm -d -t 10.10.0.100:80 -r 10.10.0.99:80 && ipvsadm -a -t 10.10.0.100:80",
    ),
    "a drained real server": Broken(
        (("lb", DESTINATION, DESTINATION.replace("Route   1", "Route   0")),),
        "real-server-drained", "director", "ipvsadm -e -t 10.10.0.100:80 -r 10.10.0.12:80 -g -w 1",
    ),
    "another method": Broken(
        (("lb", DESTINATION, DESTINATION.replace("Route ", "Masq  ")),),
        "wrong-forwarding-method", "director", "ipvsadm -e -t 10.10.0.100:80 -r 10.10.0.12:80 -g",
    ),
    "another scheduler": Broken(
        (("lb", "0A0A0064:0050 rr", "0A0A0064:0050 wlc"), ("lb", ":80 -s rr", ":80 -s wlc")),
        "scheduler-changed", "director", "ipvsadm -E -t 10.10.0.100:80 -s rr",
    ),
    "no service": Broken(
        (("lb", "0A0A0064:0050 rr", "0A0A0064:0051 rr"),),
        "service-missing", "director", "ipvsadm -A -t 10.10.0.100:80 -s rr && ipvsadm -a",
    ),
    "packets that IPVS drops": Broken(
        (("lb", "vs/drop_packet:0", "vs/drop_packet:3"),),
        "drop-packet", "director", "sysctl -w net.ipv4.vs.drop_packet=0",
    ),
}  # fmt: skip
"""Every kind of rule that needs no requests once, in direct routing."""


@pytest.mark.parametrize("title", BROKEN)
def test_a_wrong_setting_is_a_cause_with_the_command_for_that_host(
    title: str, lab: Lab, documents: Mapping[str, str]
) -> None:
    broken = BROKEN[title]
    found = checked(lab, documents, *broken.changes)
    assert not found
    assert [(cause.fault, cause.node) for cause in found.causes] == [(broken.fault, broken.node)]
    remedy = found.causes[0].remedy
    assert remedy.startswith(broken.remedy)
    assert "lvsctl" not in remedy
    assert "netns" not in remedy
    assert "lan" not in remedy.split(), "the interface is called eth1 there"


def flags_of(interface: str, text: str) -> str:
    """The flags of an interface, as the document has them."""
    start = text.index(f'"ifname":"{interface}"')
    return text[start : text.index("]", start) + 1]


def test_an_interface_that_is_down_is_one(lab: Lab, documents: Mapping[str, str]) -> None:
    flags = flags_of("eth1", documents["web2"])
    down = flags.replace('"UP",', "").replace(',"LOWER_UP"', "")
    found = checked(lab, documents, ("web2", flags, down))
    assert [(c.fault, c.remedy) for c in found.causes] == [
        ("real-server-down", "ip link set eth1 up")
    ]


def test_a_wrong_neighbour_is_named_with_its_host(lab: Lab, documents: Mapping[str, str]) -> None:
    entry = '"dst":"10.10.0.2","dev":"eth1","lladdr":"'
    mac = documents["web1"].partition(entry)[2][:17]
    found = checked(lab, documents, ("web1", entry + mac, f"{entry}02:00:00:00:00:99"))
    (cause,) = found.causes
    assert (cause.fault, cause.node) == ("stale-neighbour", "rs1")
    assert cause.remedy == "ip neigh del 10.10.0.2 dev eth1"
    assert cause.evidence == ("rs1: 10.10.0.2 at 02:00:00:00:00:99 (reachable), which no node has",)


def test_drops_of_the_last_seconds_corroborate(lab: Lab, documents: Mapping[str, str]) -> None:
    """The counters are read twice; the second time, more was counted."""
    before, later = documents["web1"].split("section counters-later")
    names = next(line for line in later.split("\n") if line.startswith("|Ip: "))
    values = later.split("\n")[later.split("\n").index(names) + 1]
    grown = values.split()
    grown[names.split().index("InAddrErrors")] = "7"
    text = f"{before}section counters-later{later.replace(values, ' '.join(grown))}"
    found = checked(lab, {**documents, "web1": text}, ("web1", VIP, '"local":"10.10.0.77"'))
    assert found.causes[0].evidence[-1] == (
        "rs1: its kernel counted IpInAddrErrors +7 within 2 s "
        "(addressed to another host, and it does not forward)"
    )


# ── hosts ────────────────────────────────────────────────────────────────────────────────────


def test_a_host_that_does_not_answer_is_said_and_the_others_are_judged(
    lab: Lab, documents: Mapping[str, str]
) -> None:
    present = asked({name: documents[name] for name in ("lb", "web1")})
    found = check(lab, (*present, Asked("rs2", None, "no answer within 30 s")))
    assert not found
    assert not found.causes
    assert not found.ruled_out, "of a host that was not read, nothing is in order"
    assert [(h.node or h.name, h.problem) for h in found.hosts if not h.judged] == [
        ("rs2", "no answer within 30 s")
    ]
    assert "1 host not judged" in format_check(found, style=PLAIN)


def test_a_node_that_was_not_collected_is_said(lab: Lab, documents: Mapping[str, str]) -> None:
    found = check(lab, asked({name: documents[name] for name in ("lb", "web2")}))
    assert [(h.name, h.node, h.problem) for h in found.hosts if not h.judged] == [
        ("", "rs1", "it was not collected")
    ]


def test_further_hosts_are_named_and_need_not_be_judged(
    lab: Lab, documents: Mapping[str, str]
) -> None:
    other = documents["web1"].replace("10.10.0.11", "192.0.2.9").replace("10.10.0.100", "192.0.2.8")
    found = check(lab, asked({**documents, "mail": other}))
    assert found
    assert next(h for h in found.hosts if h.name == "mail").ignored


def test_a_name_decides_before_an_address(lab: Lab, documents: Mapping[str, str]) -> None:
    """A host that took another's address is still itself."""
    texts = {"rs1": documents["web2"], "rs2": documents["web1"], "director": documents["lb"]}
    found = check(lab, asked(texts))
    assert {c.fault for c in found.causes} >= {"address-missing", "duplicate-address"}


def test_a_host_that_lost_its_address_is_known_by_the_vip(
    lab: Lab, documents: Mapping[str, str]
) -> None:
    gone = documents["web1"].replace('"local":"10.10.0.11"', '"local":"198.51.100.11"')
    found = check(lab, asked({**documents, "web1": gone}))
    assert [(c.fault, c.node) for c in found.causes] == [("address-missing", "rs1")]


def test_hosts_of_another_site_are_refused(documents: Mapping[str, str]) -> None:
    with pytest.raises(UsageError, match="no host is a node of nat"):
        check(planner.load_lab(topology_of("nat")), asked({"web1": documents["web1"]}))


def test_what_was_not_read_is_no_cause(lab: Lab, documents: Mapping[str, str]) -> None:
    """Without ss and ipvsadm: nothing is said about listeners, thresholds and flags."""
    texts = {name: _without(text, "listeners", "ipvs-rules") for name, text in documents.items()}
    found = check(lab, asked(texts))
    assert not found.causes
    assert not found.ruled_out
    unread = {h.node: h.unread for h in found.hosts}
    assert any("ss" in part for part in unread["rs1"])
    assert any("ipvsadm" in part for part in unread["director"])


def _without(text: str, *names: str) -> str:
    """A document in which the commands of some sections failed."""
    lines, inside = [], False
    for line in text.split("\n"):
        inside = line in {f"section {name}" for name in names} or (inside and line.startswith("|"))
        if not line.startswith("|") or not inside:
            failed = next((n for n in names if line == f"end {n} 0"), "")
            lines.append(f"end {failed} 127" if failed else line)
    return "\n".join(lines)


def test_json_has_the_schemas_keys(lab: Lab, documents: Mapping[str, str]) -> None:
    found = to_json(checked(lab, documents))
    assert found["lab"] == "dr"
    assert found["healthy"] is True
    assert found["hosts"][0]["interfaces"] == {"lan": "eth1"}
    json.dumps(found)


# ── documents ────────────────────────────────────────────────────────────────────────────────


def test_a_document_says_what_is_wrong_with_it(documents: Mapping[str, str]) -> None:
    whole = documents["web1"]
    for text, message in (
        ("", "not written by lvsctl collect"),
        (whole.replace("lvsctl-collect 1", "lvsctl-collect 9"), "another version"),
        (whole[: len(whole) // 2], "ends before"),
        (whole.replace("end links 0", "end routes 0"), "changed or damaged"),
        (whole.replace("|[{", "|[[", 1), "section links"),
        (_without(whole, "links"), "links is empty"),
    ):
        with pytest.raises(DamagedFile, match=message):
            reader.read_host(text.encode(), "rs1.txt")


def test_a_banner_and_carriage_returns_do_no_harm(documents: Mapping[str, str]) -> None:
    text = "Welcome to web1!\n" + documents["web1"]
    assert reader.read_host(text.replace("\n", "\r\n").encode(), "x").state.links


def test_the_script_is_read_only() -> None:
    """Nothing in it can write: no redirection but of errors, no option that sets anything."""
    code = [line for line in document.script().split("\n") if not line.lstrip().startswith("#")]
    redirections = [line for line in code if ">" in line.replace("2>/dev/null", "")]
    assert not redirections
    words = {word for line in code for word in line.split() if line != "set -u"}
    assert not words & {"-w", "add", "del", "set", "flush", "-A", "-C", "rm", "tee", "modprobe"}


TABLE = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  [fd00:0010:0000:0000:0000:0000:0000:0100]:0050 wrr persistent 300 40000000
  -> [fd00:0010:0000:0000:0000:0000:0000:0011]:0050      Tunnel  2      3          4
UDP  0A0A0064:0035 rr ops
  -> 0A0A000B:0035      Local   1      0          0
FWM  00000007 sh persistent 60 FFFFFF00
  -> 0A0A000B:0000      Masq    1      0          0
"""


def test_the_table_is_what_proc_shows_completed_by_ipvsadm() -> None:
    rules = (
        "-A -t [fd00:10::100]:80 -s wrr -p 300 -M 64\n"
        "-a -t [fd00:10::100]:80 -r [fd00:10::11]:80 -i -w 2 -x 9 -y 5 --tun-type gue"
        " --tun-port 6080 --tun-nocsum\n"
        "-A -u 10.10.0.100:53 -s rr -o\n"
        "-A -f 7 -s sh -p 60 -M 255.255.255.0 -b sh-fallback,sh-port\n"
    )
    six, udp, mark = ipvs.with_rules(ipvs.table(TABLE), rules)
    assert six.match == VipPort(Protocol.TCP, IPv6Address("fd00:10::100"), 80)
    assert (six.scheduler, six.persistence, six.netmask) == ("wrr", 300, 64)
    (server,) = six.real_servers
    assert (server.forward, server.weight, server.active, server.inactive) == (
        ForwardingMethod.TUN, 2, 3, 4,
    )  # fmt: skip
    assert (server.upper, server.lower) == (9, 5)
    assert (server.encapsulation, server.tunnel_port) == (Encapsulation.GUE, 6080)
    assert (udp.match, udp.flags) == (
        VipPort(Protocol.UDP, IPv4Address("10.10.0.100"), 53),
        ("ops",),
    )
    assert udp.real_servers[0].forward == "local"
    assert (mark.match, mark.netmask, mark.flags) == (FwMark(7, 4), 24, ("flag-1", "flag-2"))


def test_tables_rules_and_routes_with_names_are_followed() -> None:
    """A table that has a name in rt_tables is the same one in a rule and in a route."""
    text = (RECORDED / "web1.txt").read_text()
    route = '[{"dst":"default","gateway":"10.10.0.1","dev":"eth1","table":"uplink","flags":[]},'
    text = text.replace("section routes-ipv4\n|[", f"section routes-ipv4\n|{route}")
    text = text.replace("|32766:", "|100:\tfrom 10.10.0.0/24 lookup uplink\n|32766:")
    state = reader.read_host(text.encode(), "web1").state
    rule = next(rule for rule in state.rules if rule.preference == 100)
    (named,) = (one for one in state.other_routes if one.to is None)
    assert rule.text == f"from 10.10.0.0/24 lookup {named.table}"


def test_links_have_their_tunnels_and_flags() -> None:
    text = json.dumps(
        [
            {
                "ifindex": 7, "ifname": "gre7", "flags": ["NOARP", "UP", "LOWER_UP"], "mtu": 1476,
                "link_type": "gre", "address": "0.0.0.0",
                "linkinfo": {"info_kind": "gre", "info_data": {
                    "remote": "any", "local": "10.0.0.1", "ikey": "0.0.0.9"}},
                "addr_info": [{"family": "inet6", "local": "fd00::1", "prefixlen": 128,
                               "tentative": True}],
            }
        ]
    )  # fmt: skip
    (link,) = links.links(text)
    assert (link.kind, link.mac, link.noarp, link.up, link.carrier) == ("gre", "", True, True, True)
    assert [(one.name, one.value) for one in link.settings] == [
        ("local", "10.0.0.1"),
        ("ikey", "0.0.0.9"),
    ]
    assert link.addresses == (ip_interface("fd00::1/128"),)
    assert link.unusual_addresses[0].flags == ("tentative",)


# ── inventories ──────────────────────────────────────────────────────────────────────────────

INI = """\
; made by hand
gateway ansible_host=192.0.2.1
[directors]
lb ansible_host=10.10.0.2 ansible_port=2222 ansible_ssh_common_args='-o ProxyCommand=touch\\ x'
[real_servers]
web[01:03].example.org
[lvs:children]
directors
real_servers
[lvs:vars]
ansible_user=admin
[real_servers:vars]
ansible_user = deploy
[all:vars]
ansible_port=22
"""

YAML = """\
all:
  vars: {ansible_user: admin}
  children:
    directors: {hosts: {lb: {ansible_host: 10.10.0.2, ansible_port: 2222}}}
    real_servers:
      hosts:
        web1: {ansible_become_pass: !vault "x"}
        web2:
      vars: {ansible_user: deploy}
"""


def test_inventories_are_read_as_ansible_reads_them() -> None:
    assert read_inventory(INI.encode(), "hosts") == (
        InventoryHost("gateway", "192.0.2.1", 22),
        InventoryHost("lb", "10.10.0.2", 2222, "admin"),
        *(
            InventoryHost(f"web0{n}.example.org", f"web0{n}.example.org", 22, "deploy")
            for n in (1, 2, 3)
        ),
    )
    assert read_inventory(YAML.encode(), "hosts.yml") == (
        InventoryHost("lb", "10.10.0.2", 2222, "admin"),
        InventoryHost("web1", "web1", 0, "deploy"),
        InventoryHost("web2", "web2", 0, "deploy"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "hosts:1: the inventory has no host"),
        ("-oProxyCommand=x", "hosts:1: '-oProxyCommand=x' is not a host's name"),
        ("rs1 ansible_host=-oProxyCommand=x", "hosts:1: rs1: ansible_host .* is not a name"),
        ("rs1 ansible_host={{ ip }}", "the line cannot be read|is not a name or an address"),
        ("rs1 ansible_user='a b'", "is not a user's name"),
        ("[a:b]\nrs1", r"hosts:1: '\[a:b\]' is not a section"),
        ("rs[1:999999]", "more than 10000 hosts"),
        ("all:\n  hosts: {-oX: }", "hosts:2: '-oX' is not a host's name"),
    ],
)
def test_what_is_wrong_in_an_inventory_is_said_with_its_line(text: str, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        read_inventory(text.encode(), "hosts")


# ── ssh ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of ssh, whose last word but one is the host; it notes its words."""
    program = tmp_path / "ssh"
    program.write_text(
        f"""#!/bin/sh
echo "$@" >>{tmp_path}/words
for word; do host=$last; last=$word; done
case $host in
silent) sleep 60 & wait ;;
refused) echo 'ssh: connect to host refused port 22: Connection refused' >&2; exit 255 ;;
chatter) while :; do echo noise; done ;;
*) cat >/dev/null; cat {RECORDED}/$host.txt ;;
esac
"""
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "words"


def test_hosts_are_asked_at_once_and_each_has_its_own_outcome(
    ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask_hosts, "LARGEST", 1 << 20)
    names = ("lb", "silent", "web1", "refused", "chatter")
    hosts = [replace(InventoryHost(n, n, 2222, "root"), name=f"the-{n}") for n in names]
    found = {one.name: one for one in ask_hosts.by_ssh(hosts, 3.0, sudo=False)}
    assert found["the-lb"].state is not None
    assert found["the-web1"].state is not None
    assert found["the-silent"].problem == "no answer within 3 s"
    assert "Connection refused" in found["the-refused"].problem
    assert "not written by lvsctl collect" in found["the-chatter"].problem
    assert "-T -o BatchMode=yes -o ConnectTimeout=3 -p 2222 -l root -- lb sh -s" in ssh.read_text()


def test_sudo_asks_for_no_password() -> None:
    words = ask_hosts.command(InventoryHost("a", "10.0.0.1"), 5, sudo=True)
    assert words[-3:] == ("--", "10.0.0.1", "sudo -n sh -s")


def test_files_are_hosts_by_their_names(tmp_path: Path, documents: Mapping[str, str]) -> None:
    (tmp_path / "rs1.example.org.txt").write_text(documents["web1"])
    (tmp_path / "rs2").write_text("nonsense")
    first, second = ask_hosts.from_directory(tmp_path)
    assert (first.name, first.state is not None) == ("rs1.example.org", True)
    assert "not written by lvsctl collect" in second.problem
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="is empty"):
        ask_hosts.from_directory(empty)


# ── a topology that was imported ─────────────────────────────────────────────────────────────

RULES = """\
-A -t 10.10.0.100:80 -s rr
-a -t 10.10.0.100:80 -r 10.10.0.11:80 -g
-a -t 10.10.0.100:80 -r 10.10.0.12:80 -g
"""


@pytest.fixture(scope="module")
def imported() -> Lab:
    one = readers.import_file(Topology("rules", RULES.encode(), "/nowhere/rules"))
    return planner.load_lab(Topology("site.yaml", one.text.encode()))


def with_length(text: str, length: int) -> str:
    """With another length of the service network's prefix."""
    for number in (2, 9, 11, 12):
        own = f'"local":"10.10.0.{number}","prefixlen":'
        text = text.replace(f"{own}24", f"{own}{length}")
    return text.replace('"dst":"10.10.0.0/24"', f'"dst":"10.10.0.0/{length}"')


ROUTED = 'section routes-ipv4\n|[{"dst":"default","gateway":"10.10.0.254","dev":"eth1","flags":[]},'


def routed(documents: Mapping[str, str]) -> dict[str, str]:
    """With a default gateway, which is no node of the topology."""
    return {
        name: text.replace("section routes-ipv4\n|[", ROUTED) for name, text in documents.items()
    }


def test_what_an_imported_file_does_not_say_is_taken_from_the_hosts(
    imported: Lab, documents: Mapping[str, str]
) -> None:
    """The director's own address and the prefix are assumed: others are no deviation."""
    texts = {name: with_length(text, 20) for name, text in routed(documents).items()}
    for own in ("10.10.0.9", "10.10.0.1"):  # that is the address chosen for the router
        texts["lb"] = texts["lb"].replace('"local":"10.10.0.2"', f'"local":"{own}"')
        found = check(imported, asked(texts))
        assert not found.causes
        assert {host.name: host.node for host in found.hosts} == {
            "lb": "director", "web1": "rs-0-11", "web2": "rs-0-12",
        }  # fmt: skip
        assert found.remarks[0] == (
            "network lan is 10.10.0.0/20 on every host, 10.10.0.0/24 in the topology"
        )


def test_one_host_with_another_prefix_is_wrong_all_the_same(
    imported: Lab, documents: Mapping[str, str]
) -> None:
    texts = routed(documents)
    found = check(imported, asked({**texts, "web1": with_length(texts["web1"], 20)}))
    assert [(c.fault, c.node) for c in found.causes] == [("wrong-prefix-length", "rs-0-11")]


def test_no_remedy_names_an_address_that_only_a_lab_would_have(
    imported: Lab, documents: Mapping[str, str]
) -> None:
    """The router of an imported topology is assumed; what its real address is, is not known."""
    found = check(imported, asked(documents))
    assert {c.remedy for c in found.causes} == {
        "ip route replace default via ADDRESS  # of router: the topology does not give it"
    }
