"""Packet filters, traffic control, MTUs and processes of real hosts, judged without a packet.

lb     eth1 10.10.0.2, VIP 10.10.0.100      director
web1   eth1 10.10.0.11, VIP on vip0         rs1
web2   eth1 10.10.0.12, VIP on vip0         rs2
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import NamedTuple

import pytest

from lvsctl.diagnosis.ruleset_walk import ways
from lvsctl.engine.check import check
from lvsctl.engine.findings import Check
from lvsctl.errors import DamagedFile
from lvsctl.formats.hosts import iptables, nft, reader, traffic_control
from lvsctl.model.lab import Impairment, Lab
from lvsctl.model.ruleset import Hook, PacketSeen, Ruleset
from lvsctl.plan import planner
from lvsctl.topology.shipped import Topology
from tests.kernel.labs import topology_of
from tests.unit.test_check import RECORDED, asked

SHOP = """\
version: 1
name: shop
networks:
  lan: {ipv4: 10.10.0.0/24}
nodes:
  client: {role: client, networks: {lan: 10.10.0.10}}
  director: {role: director, networks: {lan: 10.10.0.2}}
  rs1: {role: real-server, networks: {lan: 10.10.0.11}}
  rs2: {role: real-server, networks: {lan: 10.10.0.12}}
services:
  - {name: shop, vip: 10.10.0.100, KEYS, real_servers: [rs1, rs2]}
"""


def shop(keys: str) -> Lab:
    return planner.load_lab(Topology("shop.yaml", SHOP.replace("KEYS", keys).encode()))


LABS: dict[str, Callable[[], Lab]] = {
    "dr": lambda: planner.load_lab(topology_of("dr")),
    "mark": lambda: shop("ports: [80, 443], fwmark: 7, forward: dr"),
    "snat": lambda: shop("port: 80, forward: nat, snat: true"),
    "clamp": lambda: planner.load_lab(
        Topology(
            "shop.yaml",
            SHOP.replace("KEYS", "port: 80, forward: dr")
            .replace("rs1: {", "rs1: {mss_clamp: 1400, ")
            .encode(),
        )
    ),
}


@pytest.fixture(scope="module")
def labs() -> Mapping[str, Lab]:
    return {name: load() for name, load in LABS.items()}


def with_section(text: str, name: str, content: str) -> str:
    """A document in which a section has other content."""
    lines = "".join(f"|{line}\n" for line in content.strip("\n").split("\n"))
    pattern = rf"section {name}\n(\|.*\n)*end {name} \d+"
    found, count = re.subn(pattern, lambda _: f"section {name}\n{lines}end {name} 0", text)
    assert count == 1, name
    return found


def checked(lab: Lab, *changes: tuple[str, str, str]) -> Check:
    """With other content of sections; a name in capitals is a text to exchange."""
    texts = {name: (RECORDED / f"{name}.txt").read_text() for name in ("lb", "web1", "web2")}
    for host, section, content in changes:
        if section in ("MTU", "LISTENER", "CONNTRACK"):
            old, _, new = content.partition(" => ")
            assert old in texts[host], old
            texts[host] = texts[host].replace(old, new)
        else:
            texts[host] = with_section(texts[host], section, content)
    return check(lab, asked(texts))


def saved(table: str, *rules: str, policies: str = "") -> str:
    chains = {
        "filter": "INPUT FORWARD OUTPUT",
        "nat": "PREROUTING INPUT OUTPUT POSTROUTING",
        "mangle": "PREROUTING INPUT FORWARD OUTPUT POSTROUTING",
    }[table]
    lines = [f":{c} {'DROP' if c in policies.split() else 'ACCEPT'} [0:0]" for c in chains.split()]
    return "\n".join((f"*{table}", *lines, *(f"[0:0] {rule}" for rule in rules), "COMMIT"))


def of_nft(hook: str, priority: int, *expressions: list[object], kind: str = "filter") -> str:
    """A table `inet lvs` with a chain of a hook."""
    chain = {"family": "inet", "table": "lvs", "name": "c", "handle": 1, "type": kind,
             "hook": hook, "prio": priority, "policy": "accept"}  # fmt: skip
    rules = [
        {"rule": {"family": "inet", "table": "lvs", "chain": "c", "handle": 9 + n, "expr": one}}
        for n, one in enumerate(expressions)
    ]
    return json.dumps({"nftables": [{"metainfo": {}}, {"chain": chain}, *rules]})


def equal(protocol: str, field: str, right: object) -> dict[str, object]:
    left = {"payload": {"protocol": protocol, "field": field}}
    return {"match": {"op": "==", "left": left, "right": right}}


TO_VIP = equal("ip", "daddr", "10.10.0.100")
HTTPS = equal("tcp", "dport", {"set": [80, 443]})
AS_7 = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 7}}
FLOWER = (
    'eth1 ingress [{"protocol":"ip","pref":3,"kind":"flower","chain":0},{"protocol":"ip","pref":3,'
    '"kind":"flower","chain":0,"options":{"handle":1,"keys":{"eth_type":"ipv4","ip_proto":"tcp",'
    '"dst_ip":"10.10.0.100","dst_port":"PORT"},"actions":[{"order":1,"kind":"skbedit","mark":7,'
    '"control_action":{"type":"pipe"}}]}}]'
)
U32 = (
    'eth1 ingress [{"protocol":"ip","pref":49152,"kind":"u32","chain":0},{"protocol":"ip",'
    '"pref":49152,"kind":"u32","chain":0,"options":{"fh":"800:","ht_divisor":1}},{"protocol":"ip",'
    '"pref":49152,"kind":"u32","chain":0,"options":{"fh":"800::800","match":{"value":"60000",'
    '"mask":"ff0000","offmask":"","off":8},"match":{"value":"a0a0064","mask":"ffffffff",'
    '"offmask":"","off":16},"match":{"value":"PORT","mask":"ffff","offmask":"","off":20},'
    '"actions":[{"order":1,"kind":"gact","control_action":{"type":"drop"},"prob":{"random_type":'
    '"none","control_action":{"type":"pass"},"val":0}}]}}]'
)
NETEM = (
    '[{"kind":"netem","handle":"8001:","dev":"eth1","root":true,"options":{"limit":1000,"delay":'
    '{"delay":0.01,"jitter":0.002,"correlation":0},"loss-random":{"loss":0.03,"correlation":0},'
    '"duplicate":{"duplicate":0.01,"correlation":0},"reorder":{"reorder":0.05,"correlation":0},'
    '"corrupt":{"corrupt":0.02,"correlation":0},"rate":{"rate":1250000},"gap":1},"drops":5}]'
)
UFW = """\
*filter
:INPUT DROP [0:0]
:before - [0:0]
:not-local - [0:0]
:user - [0:0]
-A INPUT -j before
-A INPUT -j user
-A before -i lo -j ACCEPT
-A before -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A before -m conntrack --ctstate INVALID -j DROP
-A before -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m state --state NEW -j DROP
-A before -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A before -j not-local
-A not-local -m addrtype --dst-type LOCAL -j RETURN
-A not-local -m limit --limit 3/min -j LOG --log-prefix "[BLOCK] "
-A not-local -j DROP
-A user -p tcp -m tcp --dport WANTED -j ACCEPT
COMMIT
"""
FIREWALLD: list[list[object]] = [
    [{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [
        ["established", {"accept": None}], ["invalid", {"drop": None}]]}}}],
    [{"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}},
     {"accept": None}],
    [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}},
     {"accept": None}],
    [equal("icmpv6", "type", {"set": ["nd-router-advert"]}), {"accept": None}],
    [equal("tcp", "dport", {"range": [80, 90]}), {"match": {"op": "in", "left": {"ct": {
        "key": "state"}}, "right": ["new", "untracked"]}}, {"accept": None}],
    [{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}],
]  # fmt: skip
MARK_BOTH = (
    "-A PREROUTING -d 10.10.0.100/32 -p tcp -m multiport --dports 80,443 -j MARK "
    "--set-xmark 0x7/0xffffffff"
)
MARK_ONE = "-A PREROUTING -d 10.10.0.100/32 -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x7"
SYNS = "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS"
TRACKED = "vs/conntrack:0 => /proc/sys/net/ipv4/vs/conntrack:1"


class Row(NamedTuple):
    """A lab, what differs on hosts, the cause with its node and remedy, or words of a remark."""

    lab: str
    changes: tuple[tuple[str, str, str], ...]
    fault: str = ""
    node: str = ""
    remedy: str = ""
    remark: str = ""


ROWS = {
    "a policy drops": Row(
        "dr",
        (("lb", "iptables", saved("filter", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
                                  policies="INPUT")),),
        "packet-filter", "director",
        "iptables -t filter -I INPUT -p tcp -d 10.10.0.100 --dport 80 -j ACCEPT",
    ),
    "an accepting rule comes before the policy": Row(
        "dr",
        (("lb", "iptables", saved(
            "filter", "-A INPUT -i eth0 -j DROP",
            "-A INPUT -s 10.10.0.0/24 -p tcp -m multiport --dports 80:90,443 -j ACCEPT",
            policies="INPUT")),),
    ),
    "a chain of the user's returns, and another drops": Row(
        "dr",
        (("web1", "iptables", UFW.replace("WANTED", "443")),),
        "packet-filter", "rs1",
        "iptables -t filter -I INPUT -p tcp -d 10.10.0.100 --dport 80 -j ACCEPT",
    ),
    "as ufw lets through": Row("dr", (("web1", "iptables", UFW.replace("WANTED", "80")),)),
    "as firewalld lets through": Row("dr", (("web1", "nft", of_nft("input", 10, *FIREWALLD)),)),
    "as firewalld rejects": Row(
        "dr", (("web1", "nft", of_nft("input", 10, *FIREWALLD[:4], FIREWALLD[5])),),
        "packet-filter", "rs1", "nft insert rule inet lvs c ip daddr 10.10.0.100 tcp dport 80",
    ),
    "nftables drop": Row(
        "dr", (("web2", "nft", of_nft("input", 0, [TO_VIP, {"drop": None}])),),
        "packet-filter", "rs2", "nft insert rule inet lvs c ip daddr 10.10.0.100 tcp dport 80",
    ),
    "nftables drop replies": Row(
        "dr",
        (("web2", "nft", of_nft("output", 0, [equal("tcp", "sport", 80), {"counter": {}},
                                              {"reject": None}])),),
        "packet-filter", "rs2", "nft insert rule inet lvs c ip saddr 10.10.0.100 tcp sport 80",
    ),
    "a limit": Row(
        "dr",
        (("web1", "iptables", saved("filter", "-A INPUT -p tcp -m limit --limit 5/sec -j DROP")),),
        remark="rs1: whether a packet filter lets requests for web through was not judged",
    ),
    "a limit of nftables": Row(
        "dr",
        (("web1", "nft", of_nft("input", 0, [{"limit": {"rate": 5}}, {"drop": None}])),),
        remark="rs1: whether a packet filter lets requests for web through was not judged",
    ),
    "thousands of lists": Row(
        "dr",
        (("web1", "iptables", saved("filter", *(
            f"-A INPUT -m set --match-set l{n} src -j DROP" for n in range(2000)))),),
        remark="rs1: whether a packet filter lets requests for web through was not judged",
    ),
    "more marks than are followed": Row(
        "dr",
        (("web1", "iptables", saved("mangle", *(
            f"-A PREROUTING -m set --match-set l{n} src -j MARK --set-xmark {1 << n:#x}/0x0"
            for n in range(30)))),),
        remark="rs1: what its packet filters do to requests for web was not judged",
    ),
    "u32 drops": Row(
        "dr", (("web1", "tc-filters", U32.replace("PORT", "50")),),
        "packet-filter", "rs1", "tc filter del dev eth1 ingress pref 49152",
    ),
    "u32 drops another port": Row("dr", (("web1", "tc-filters", U32.replace("PORT", "51")),)),
    "netem": Row(
        "dr", (("web1", "tc-qdiscs", NETEM),),
        "link-impaired", "rs1", "tc qdisc del dev eth1 root",
    ),
    "masquerading that the topology does not have": Row(
        "dr",
        (
            ("lb", "iptables", saved("nat", "-A POSTROUTING -o eth1 -j MASQUERADE")),
            ("lb", "CONNTRACK", TRACKED.replace("vs/c", "/proc/sys/net/ipv4/vs/c", 1)),
        ),
        "packet-rewriting", "director", "sysctl -w net.ipv4.vs.conntrack=0",
    ),
    "masquerading of what IPVS does not let track": Row(
        "dr", (("lb", "iptables", saved("nat", "-A POSTROUTING -o eth1 -j MASQUERADE")),),
    ),
    "masquerading elsewhere": Row(
        "dr",
        (
            ("lb", "iptables", saved("nat", "-A POSTROUTING -o eth0 -j MASQUERADE")),
            ("lb", "CONNTRACK", TRACKED.replace("vs/c", "/proc/sys/net/ipv4/vs/c", 1)),
        ),
    ),
    "no masquerading": Row(
        "snat", (),
        "masquerade-missing", "director",
        "iptables -t nat -A POSTROUTING -d 10.10.0.11 -p tcp -m multiport --dports 80",
    ),
    "masquerading of one": Row(
        "snat",
        (("lb", "nft", of_nft("postrouting", 100, [equal("ip", "daddr", "10.10.0.11"),
                                                   {"snat": {"addr": "10.10.0.2"}}], kind="nat")),),
        "masquerade-missing", "director", "iptables -t nat -A POSTROUTING -d 10.10.0.12 ",
    ),
    "no marks": Row(
        "mark", (), "mark-missing", "director",
        "iptables -t mangle -A PREROUTING -d 10.10.0.100 -p tcp -m tcp --dport 80 -j MARK "
        "--set-mark 7",
    ),
    "a mark of one port": Row(
        "mark", (("lb", "iptables", saved("mangle", MARK_ONE)),), "mark-missing", "director",
        "iptables -t mangle -A PREROUTING -d 10.10.0.100 -p tcp -m tcp --dport 443 -j MARK",
    ),
    "another mark": Row(
        "mark", (("lb", "iptables", saved("mangle", MARK_BOTH.replace("0x7", "0x8"))),),
        "mark-missing", "director",
        "iptables -t mangle -D PREROUTING -d 10.10.0.100/32 -p tcp -m multiport --dports 80,443 "
        "-j MARK --set-xmark 0x8/0xffffffff && iptables -t mangle -A PREROUTING",
    ),
    "a mark that comes too late": Row(
        "mark", (("lb", "iptables", saved("mangle", MARK_BOTH.replace("PREROUTING", "FORWARD"))),),
        "mark-missing", "director", "iptables -t mangle -A PREROUTING ",
    ),
    "nftables mark after IPVS": Row(
        "mark",
        (("lb", "nft", of_nft("input", 100, [TO_VIP, AS_7])), ("lb", "programs", "nft")),
        "mark-missing", "director", "nft add table ip lvsctl_marks && nft add chain ip ",
    ),
    "iptables mark": Row("mark", (("lb", "iptables", saved("mangle", MARK_BOTH)),)),
    "nftables mark": Row(
        "mark", (("lb", "nft", of_nft("prerouting", -150, [TO_VIP, HTTPS, AS_7])),)
    ),
    "nftables mark at input": Row("mark", (("lb", "nft", of_nft("input", 50, [TO_VIP, AS_7])),)),
    "traffic control marks": Row("mark", (("lb", "tc-filters", FLOWER.replace("PORT", "80-443")),)),
    "what marks is not understood": Row(
        "mark",
        (("lb", "iptables", saved("mangle", "-A PREROUTING -m set --match-set vips dst -j MARK "
                                  "--set-xmark 0x7/0xffffffff")),),
        remark="port 80) get the mark 7 was not judged: it depends on iptables -t mangle -A PRE",
    ),
    "no clamp": Row(
        "clamp", (), "mss-clamp-missing", "rs1",
        "iptables -t mangle -A POSTROUTING -p tcp -m tcp --tcp-flags SYN,RST SYN",
    ),
    "a clamp": Row(
        "clamp",
        (("web1", "iptables", saved("mangle", f"-A POSTROUTING {SYNS} --set-mss 1400")),),
    ),
    "another clamp": Row(
        "clamp", (("web1", "iptables", saved("mangle", f"-A OUTPUT {SYNS} --clamp-mss-to-pmtu")),),
        "mss-clamp-missing", "rs1", "iptables -t mangle -A POSTROUTING -p tcp",
    ),
    "a clamp that the topology does not have": Row(
        "dr", (("web1", "iptables", saved("mangle", f"-A OUTPUT {SYNS} --set-mss 1200")),),
        remark="rs1: a packet filter limits the segment size of TCP: 1200 bytes in IPv4",
    ),
    "a smaller MTU": Row(
        "dr", (("web1", "MTU", '"mtu":1500 => "mtu":1400'),),
        "mtu-mismatch", "rs1", "ip link set eth1 mtu 1500",
    ),
    "another MTU everywhere": Row(
        "dr", tuple((h, "MTU", '"mtu":1500 => "mtu":1450') for h in ("lb", "web1", "web2")),
        remark="network lan has an MTU of 1450 on every host, 1500 in the topology",
    ),
    "keepalived stands still": Row(
        "dr",
        (("lb", "keepalived", "/proc/812/comm:keepalived"),
         ("lb", "stopped", "/proc/812/status:State:\tT (stopped)")),
        "process-stopped", "director", "kill -CONT 812",
    ),
    "a process that has ended": Row(
        "dr",
        (("lb", "keepalived", "/proc/812/comm:keepalived\n/proc/813/comm:keepalived"),
         ("lb", "stopped", "/proc/813/status:State:\tZ (zombie)")),
        "keepalived-stopped", "director", "systemctl restart keepalived",
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", ROWS)
def test_what_becomes_of_packets_is_read_from_rules(title: str, labs: Mapping[str, Lab]) -> None:
    row = ROWS[title]
    found = checked(labs[row.lab], *row.changes)
    faults = {r.fault for r in ROWS.values()}
    causes = [cause for cause in found.causes if cause.fault in faults]
    if row.fault:
        assert row.fault in {cause.fault for cause in causes}
        cause = next(one for one in causes if one.fault == row.fault)
        assert cause.node == row.node
        assert cause.remedy.startswith(row.remedy)
    else:
        assert not causes
    if row.lab == "dr":
        assert len(causes) == bool(row.fault)
        assert bool(found.remarks) == bool(row.remark)
    assert row.remark in "\n".join(found.remarks)


def test_what_was_not_read_is_not_judged(labs: Mapping[str, Lab]) -> None:
    """Of a script that did not read packet filters, as an earlier one or one without root."""
    texts = {name: (RECORDED / f"{name}.txt").read_text() for name in ("lb", "web1", "web2")}
    older = {
        name: re.sub(r"section (nft|iptables|tc-\w+|stopped)\n(\|.*\n)*end \1 0\n", "", text)
        for name, text in texts.items()
    }
    found = check(labs["mark"], asked(older))
    assert "mark-missing" not in {cause.fault for cause in found.causes}
    assert any("the mark 7 was not read" in text for text in found.remarks)
    unread = next(host.unread for host in found.hosts if host.node == "director")
    assert any("packet filters" in text for text in unread)


REQUEST = PacketSeen(
    4, "tcp", IPv4Address("192.0.2.9"), IPv4Address("10.10.0.100"), port=80, arrives="eth1",
    state="new",
)  # fmt: skip


def mark_after(text: str) -> set[int]:
    rules = Ruleset(tuple(iptables.chains(text, 4)))
    return {way.packet.mark for way in ways(rules, (Hook.PREROUTING,), REQUEST)}


def test_marks_are_changed_bit_by_bit() -> None:
    rule = "-A PREROUTING -i eth+ -j MARK --set-xmark"
    second = "-A PREROUTING -m mark --mark 0x1/0xf -j MARK --set-xmark 0x30/0x0"
    assert mark_after(saved("mangle", f"{rule} 0x1/0xff", second)) == {0x31}
    assert mark_after(saved("mangle", f"{rule} 0x2/0xff", second)) == {0x2}
    assert mark_after(saved("mangle", "-A PREROUTING -m socket -j MARK --set-xmark 0x5")) == {0, 5}
    connection = "-A PREROUTING -m connmark --mark 0x9 -j MARK --set-xmark 0x5"
    assert mark_after(saved("mangle", connection)) == {0, 5}, "that is not the packet's mark"


def test_netem_and_rules_are_read_as_their_programs_print_them() -> None:
    (found,) = traffic_control.impairments(NETEM).items()
    assert found == (
        "eth1",
        Impairment(delay=10, loss=3, rate=10_000_000, jitter=2, reorder=5, duplicate=1, corrupt=2),
    )
    listing = "table inet lvs { # handle 1\n\tchain c { # handle 1\n\t\tip daddr 1.2.3.4 # handle 9"
    (chain,) = nft.chains(of_nft("input", 0, [TO_VIP, AS_7]), nft.texts(listing), ())
    assert chain.rules[0].text == "nft inet lvs c: ip daddr 1.2.3.4"
    assert chain.rules[0].delete == (
        *("nft", "delete", "rule"), *("inet", "lvs", "c"), "handle", "9",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("section", "content"),
    [
        ("iptables", "nonsense"),
        ("iptables", "*filter\n-A INPUT -j DROP"),
        ("iptables", saved("filter", "-A INPUT -s none -j DROP")),
        ("nft", "{"),
        ("nft", '{"nftables": 3}'),
        ("tc-filters", "nonsense"),
        ("tc-filters", "eth1 ingress [3]"),
        ("tc-qdiscs", '[{"kind":"netem","root":true,"options":{"delay":{"delay":"x"}}}]'),
    ],
)
def test_damaged_sections_are_said_with_their_name(section: str, content: str) -> None:
    text = with_section((RECORDED / "lb.txt").read_text(), section, content)
    with pytest.raises(DamagedFile, match=f"section {section}"):
        reader.read_host(text.encode(), "lb.txt")
