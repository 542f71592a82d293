"""Rules of packet filters are read as their own programs print them, and emptied.

iptables, ip6tables, arptables, ebtables and nft are the witnesses: what they print is what was
read, and after emptying it is what they print of a new namespace.
"""

from __future__ import annotations

import errno
import re
import shlex
from functools import partial
from ipaddress import ip_address
from unittest.mock import Mock

import pytest

from lvsctl.kernel import netns, packet_filters
from lvsctl.model.packet_filter import (
    TO_PATH_MTU,
    Clamp,
    FilterProgram,
    FilterRule,
    Marking,
    MasqueradeTarget,
    growth,
)
from lvsctl.model.service import PortRange, Protocol
from lvsctl.netlink import own_tables
from lvsctl.resources.marks import Marks
from tests.kernel.by_hand import namespaces, run

IPTABLES = (
    "-A INPUT -p tcp -m tcp --dport 80 -j DROP",
    "-A INPUT ! -s 10.0.0.0/8 -i eth+ -j REJECT --reject-with icmp-host-prohibited",
    "-A INPUT -m statistic --mode random --probability 0.30000000028 -j DROP",
    ("-A INPUT -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW"
     " -m limit --limit 5/min -j ACCEPT"),
    ("-A INPUT -p tcp -m multiport --dports 80,90:95 -m connlimit --connlimit-above 3"
     " --connlimit-mask 32 --connlimit-saddr -j DROP"),
    "-A INPUT -p tcp -j OWN",
    "-A FORWARD -p udp -m udp --sport 1024:65535 --dport 53 -m length --length 100:200 -j DROP",
    "-A OUTPUT -d 10.0.0.1/32 -o lan -p icmp -m icmp --icmp-type 8 -j DROP",
    "-A OWN -p tcp -m conntrack --ctstate INVALID -j REJECT --reject-with tcp-reset",
    "-A OWN -m mark --mark 0x5 -j RETURN",
)  # fmt: skip
NAT = (
    "-A PREROUTING -d 10.0.0.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.2:81",
    "-A PREROUTING -p tcp -m tcp --dport 81 -j REDIRECT --to-ports 82",
    "-A POSTROUTING -s 10.0.0.1/32 -j SNAT --to-source 192.0.2.1",
    "-A POSTROUTING -o lan -j MASQUERADE",
)
MANGLE = (
    "-A PREROUTING -j MARK --set-xmark 0x1/0xffffffff",
    "-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400",
)
IP6TABLES = (
    "-A INPUT -s fd00::/16 -p ipv6-icmp -j DROP",
    "-A OUTPUT -p tcp -m tcp --dport 80 -j REJECT --reject-with icmp6-port-unreachable",
)


def rules_in(name: str) -> tuple[FilterRule, ...]:
    """What was read of a namespace."""
    return netns.run_inside(name, packet_filters.current_filters)


def texts(name: str, program: FilterProgram, table: str) -> list[str]:
    """The rules and policies of one table, in the order of the text."""
    found = rules_in(name)
    return sorted(one.text for one in found if (one.program, one.table) == (program, table))


@pytest.mark.ipvs
@pytest.mark.parametrize(
    ("program", "table", "rules"),
    [
        (FilterProgram.IPTABLES, "filter", IPTABLES),
        (FilterProgram.IPTABLES, "nat", NAT),
        (FilterProgram.IPTABLES, "mangle", MANGLE),
        (FilterProgram.IP6TABLES, "filter", IP6TABLES),
    ],
)
def test_rules_read_as_iptables_lists_them(
    program: FilterProgram, table: str, rules: tuple[str, ...]
) -> None:
    with namespaces("a") as (name,):
        found = rules_in(name)  # and looking has not created a table
        assert not any(one.program is program for one in found)
        typed = f"xtables-legacy-multi {program} -t {table}"
        before = run(f"{typed} -S", netns=name)
        if any("OWN" in rule for rule in rules):
            run(f"{typed} -N OWN", netns=name)
        for rule in rules:
            run(f"{typed} {rule}", netns=name)
        if table == "filter":
            run(f"{typed} -P FORWARD DROP", netns=name)
        listed = [line for line in run(f"{typed} -S", netns=name).splitlines() if "-N" not in line]
        assert texts(name, program, table) == sorted(listed)
        assert all(one.complete for one in rules_in(name))
        netns.run_inside(name, lambda: packet_filters.empty_table(program, table))
        assert run(f"{typed} -S", netns=name) == before
        assert not any(one.foreign for one in rules_in(name))


@pytest.mark.ipvs
@pytest.mark.parametrize("program", [FilterProgram.IPTABLES, FilterProgram.IP6TABLES])
def test_a_table_that_was_filled_is_what_iptables_lists(program: FilterProgram) -> None:
    rules = {"INPUT": ("DROP",), "FORWARD": ("DROP", "REJECT")}
    icmp = "icmp" if program is FilterProgram.IPTABLES else "icmp6"
    with namespaces("a") as (name,):
        netns.run_inside(name, lambda: packet_filters.fill_table(program, "filter", rules))
        listed = run(f"xtables-legacy-multi {program} -S", netns=name).splitlines()
        assert [line for line in listed if line.startswith("-A")] == [
            "-A INPUT -j DROP",
            "-A FORWARD -j DROP",
            f"-A FORWARD -j REJECT --reject-with {icmp}-port-unreachable",
        ]
        assert [line for line in listed if line.startswith("-P")] == [
            "-P INPUT ACCEPT",
            "-P FORWARD ACCEPT",
            "-P OUTPUT ACCEPT",
        ]


@pytest.mark.ipvs
def test_rules_about_arp_and_about_the_frames_of_a_bridge() -> None:
    with namespaces("a") as (name,):
        run("arptables-legacy -A INPUT -j DROP", netns=name)
        run("arptables-legacy -A OUTPUT -s 10.0.0.1 --opcode 1 -j DROP", netns=name)
        run("ebtables-legacy -A FORWARD -i director -o rs1 -p IPv4 -j DROP", netns=name)
        run("ebtables-legacy -t nat -A PREROUTING -s 02:00:00:00:00:01 -j DROP", netns=name)
        run("ebtables-legacy -P OUTPUT DROP", netns=name)
        found = {str(one) for one in rules_in(name) if one.foreign}
        assert found == {
            "arptables -t filter -A INPUT -j DROP",
            "arptables -t filter -A OUTPUT -s 10.0.0.1/32 --opcode 1 -j DROP",
            "ebtables -t filter -A FORWARD -p IPv4 -i director -o rs1 -j DROP",
            "ebtables -t filter -P OUTPUT DROP",
            "ebtables -t nat -A PREROUTING -s 02:00:00:00:00:01 -j DROP",
        }
        for program, table in {(one.program, one.table) for one in rules_in(name)}:
            netns.run_inside(name, partial(packet_filters.empty_table, program, table))
        assert not any(one.foreign for one in rules_in(name))
        assert "DROP" not in run("arptables-legacy -L", netns=name)
        assert "entries: 0, policy: ACCEPT" in run("ebtables-legacy -L FORWARD", netns=name)


@pytest.mark.ipvs
def test_a_rule_tells_how_many_packets_it_matched() -> None:
    with namespaces("a") as (name,):
        typed = "xtables-legacy-multi iptables"
        run(f"{typed} -A OUTPUT -d 127.0.0.9 -p icmp -j ACCEPT", netns=name)
        before = rules_in(name)
        run("python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1);"
            ' s.sendto(bytes([8]) + bytes(7), ("127.0.0.9", 0))\'', netns=name)  # fmt: skip
        (rule,) = (one for one in growth(before, rules_in(name)) if one.number)
        assert rule.packets == 1


NFT = (
    "tcp dport 80 drop",
    'ip saddr 10.0.0.0/8 ct state new iifname "lo" reject',
    "ip6 daddr fd00::1 udp sport != 53 drop",
    "ip ttl 3 drop",
    "tcp dport { 80, 443, 8000-8100 } drop",
    "tcp sport != { 80, 81 } reject",
    "tcp dport vmap { 80 : drop, 81 : accept }",
    "udp dport 1000-2000 drop",
    "meta l4proto tcp drop",
    "meta nfproto ipv6 drop",
    "limit rate over 5/second drop",
    "ct count over 3 drop",
    "meta length > 1000 drop",
    "meta nfproto ipv4 meta l4proto icmp icmp type 8 drop",
    "ip saddr @bad drop",
)  # fmt: skip
OTHER_FAMILIES = (
    ("bridge", "forward", "ether saddr 02:00:00:00:00:01 drop"),
    ("bridge", "prerouting", "iifname rs1 ip daddr 10.0.0.1 tcp dport { 80, 443 } drop"),
    ("arp", "input", "arp operation 1 arp daddr ip 10.0.0.1 drop"),
    ("netdev", "ingress device lan", "ip daddr 10.0.0.1 drop"),
    ("netdev", "egress device lan", "drop"),
    ("inet", "ingress device lan", "tcp dport 80 drop"),
)  # fmt: skip


def test_rules_of_nftables_of_every_family_and_hook() -> None:
    with namespaces("a") as (name,):
        run("ip link add lan type veth peer name rs1", netns=name)
        for number, (family, hook, rule) in enumerate(OTHER_FAMILIES):
            chain = f"{family} t x{number}"
            run(f"nft add table {family} t", netns=name)
            run(f"nft 'add chain {chain} {{ type filter hook {hook} priority 0; }}'", netns=name)
            run(f"nft 'add rule {chain} {rule}'", netns=name)
        found = [one for one in rules_in(name) if one.number]
        assert {(one.table.split()[0], one.hook, one.text) for one in found} == {
            (family, hook.split()[0], rule) for family, hook, rule in OTHER_FAMILIES
        }
        assert all(one.complete and one.drops for one in found)


def test_rules_of_nftables() -> None:
    with namespaces("a") as (name,):
        assert not any(one.program is FilterProgram.NFT for one in rules_in(name))
        run("nft add table inet t", netns=name)
        run("nft 'add chain inet t in { type filter hook input priority 0; policy drop; }'",
            netns=name)  # fmt: skip
        run("nft 'add set inet t bad { type ipv4_addr; }'", netns=name)
        for rule in NFT:
            run(f"nft 'add rule inet t in {rule}'", netns=name)
        run("nft add rule inet t in tcp dport 81 counter drop", netns=name)
        run("nft add table ip kept", netns=name)
        found = [one for one in rules_in(name) if one.foreign]
        assert [one.text for one in found] == [
            "policy drop",
            *(rule.replace('"', "") for rule in NFT),
            "tcp dport 81 drop",
        ]
        actions = ["REJECT" if "reject" in rule else "DROP" for rule in NFT]
        assert [one.action for one in found] == ["DROP", *actions, "DROP"]
        assert [one.packets for one in found[1:]] == [*[None] * len(NFT), 0]
        run(" ".join(found[1].delete_command()), netns=name)
        assert "dport 80 drop" not in run("nft list ruleset", netns=name)
        netns.run_inside(name, lambda: packet_filters.empty_table(FilterProgram.NFT, "inet t"))
        assert run("nft list ruleset", netns=name).split() == ["table", "ip", "kept", "{", "}"]


@pytest.fixture
def without_nftables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written goes to iptables' tables, whatever this kernel has."""
    refused = OSError(errno.EOPNOTSUPP, "not here")
    for name in ("replace_masquerade", "replace_clamp"):
        monkeypatch.setattr(own_tables, name, Mock(side_effect=refused))


OWN_TARGETS = (
    MasqueradeTarget(Protocol.TCP, ip_address("10.0.0.11"), 8080),
    MasqueradeTarget(Protocol.SCTP, ip_address("10.0.0.12"), 2905),
    MasqueradeTarget(Protocol.UDP, ip_address("fd00::11"), 53),
)
OWN_LISTED = (
    (FilterProgram.IPTABLES, "10.0.0.11/32 -p tcp -m multiport --dports 8080"),
    (FilterProgram.IPTABLES, "10.0.0.12/32 -p sctp -m multiport --dports 2905"),
    (FilterProgram.IP6TABLES, "fd00::11/128 -p udp -m multiport --dports 53"),
)


@pytest.mark.ipvs
@pytest.mark.usefixtures("without_nftables")
def test_what_is_masqueraded_is_listed_by_iptables_and_removed_one_by_one() -> None:
    with namespaces("a") as (name,):
        netns.run_inside(name, partial(packet_filters.masquerade, OWN_TARGETS))
        listed = [
            (program, line)
            for program in (FilterProgram.IPTABLES, FilterProgram.IP6TABLES)
            for line in run(f"xtables-legacy-multi {program} -t nat -S", netns=name).splitlines()
            if line.startswith("-A")
        ]
        assert listed == [
            (program, f"-A POSTROUTING -d {to} -m comment --comment lvsctl -j MASQUERADE")
            for program, to in OWN_LISTED
        ]
        rules = rules_in(name)
        assert [one.masquerades for one in rules if one.masquerades] == list(OWN_TARGETS)
        assert not any(one.foreign for one in rules)
        gone = partial(packet_filters.masquerade, OWN_TARGETS[:1], remove=True)
        netns.run_inside(name, gone)
        left = {one.masquerades for one in rules_in(name)} - {None}
        assert left == set(OWN_TARGETS[1:])


def test_what_is_masqueraded_is_listed_by_nft() -> None:
    with namespaces("a") as (name,):
        for version in (4, 6):
            own = [one for one in OWN_TARGETS if one.address.version == version]
            netns.run_inside(name, partial(own_tables.replace_masquerade, version, own))
        listed = run("nft -s list ruleset", netns=name)
        assert [line.strip() for line in listed.splitlines() if "daddr" in line] == [
            "ip daddr 10.0.0.11 tcp dport 8080 counter masquerade",
            "ip daddr 10.0.0.12 sctp dport 2905 counter masquerade",
            "ip6 daddr fd00::11 udp dport 53 counter masquerade",
        ]
        assert listed.count("type nat hook postrouting priority srcnat; policy accept;") == 2
        assert [one.masquerades for one in rules_in(name) if one.masquerades] == list(OWN_TARGETS)
        for version in (4, 6):
            netns.run_inside(name, partial(own_tables.replace_masquerade, version, ()))
        assert run("nft list ruleset", netns=name) == ""


@pytest.mark.parametrize("program", [FilterProgram.IPTABLES, FilterProgram.IP6TABLES])
def test_what_a_fault_drops_is_what_iptables_nft_lists(program: FilterProgram) -> None:
    rules = {"INPUT": ("DROP",), "FORWARD": ("REJECT",)}
    family = "ip" if program is FilterProgram.IPTABLES else "ip6"
    with namespaces("a") as (name,):
        netns.run_inside(name, lambda: packet_filters.drop(program, "filter", rules))
        listed = run(f"nft -s list table {family} filter", netns=name).split("\n")
        assert [line.strip() for line in listed if "counter" in line] == [
            "counter drop",
            "counter reject",
        ]
        found = {(one.chain, one.hook, one.action) for one in rules_in(name) if one.foreign}
        assert found == {("INPUT", "input", "DROP"), ("FORWARD", "forward", "REJECT")}
        netns.run_inside(name, lambda: packet_filters.empty_table(program, "filter"))
        assert run("nft list ruleset", netns=name) == ""


MARKINGS = (
    Marking(7, ip_address("10.0.0.1"), Protocol.TCP, PortRange(80, 80)),
    Marking(7, ip_address("10.0.0.1"), Protocol.UDP, PortRange(8000, 8010)),
    Marking(0x80000001, ip_address("fd00::1"), Protocol.SCTP),
)


def test_what_is_marked_is_listed_by_nft_and_written_as_its_command_writes_it() -> None:
    with namespaces("a") as (name,):
        assert netns.run_inside(name, partial(packet_filters.mark, MARKINGS))
        listed = run("nft -s list ruleset", netns=name)
        assert "type filter hook prerouting priority mangle; policy accept;" in listed
        assert [line.strip() for line in listed.splitlines() if "mark set" in line] == [
            "ip daddr 10.0.0.1 tcp dport 80 counter meta mark set 0x00000007",
            "ip daddr 10.0.0.1 udp dport 8000-8010 counter meta mark set 0x00000007",
            "ip6 daddr fd00::1 meta l4proto sctp counter meta mark set 0x80000001",
        ]
        marks = Marks(netns=name, devices=("lan",), markings=MARKINGS)
        run(shlex.join(marks.undo_commands()[0].argv), netns=name)
        assert run("nft list ruleset", netns=name) == ""
        for one in marks.commands():
            run(shlex.join(one.argv), netns=name)
        assert run("nft -s list ruleset", netns=name) == listed
        run(shlex.join(marks.edit_commands()[0].argv), netns=name)
        assert run("nft -s list ruleset", netns=name) == listed
        rules = rules_in(name)
        assert [one.marks for one in rules if one.marks] == list(MARKINGS)
        assert not any(one.foreign for one in rules)
        assert netns.run_inside(name, packet_filters.unmark)
        assert not netns.run_inside(name, packet_filters.unmark)
        assert run("nft list ruleset", netns=name) == ""


CLAMPS = (Clamp(4, 1440), Clamp(6, TO_PATH_MTU))


@pytest.mark.ipvs
@pytest.mark.usefixtures("without_nftables")
def test_a_limit_of_the_segment_size_is_listed_by_iptables_and_replaced() -> None:
    begin = "-A POSTROUTING -p tcp -m tcp --tcp-flags SYN,RST SYN -m comment --comment lvsctl"
    with namespaces("a") as (name,):
        for one in (Clamp(4, 1400), *CLAMPS):
            netns.run_inside(name, partial(packet_filters.clamp, one))
        for program, words in (
            (FilterProgram.IPTABLES, "--set-mss 1440"),
            (FilterProgram.IP6TABLES, "--clamp-mss-to-pmtu"),
        ):
            listed = run(f"xtables-legacy-multi {program} -t mangle -S", netns=name).splitlines()
            added = [line for line in listed if line.startswith("-A")]
            assert added == [f"{begin} -j TCPMSS {words}"]
        rules = rules_in(name)
        assert [one.clamps for one in rules if one.clamps] == list(CLAMPS)
        assert not any(one.foreign for one in rules)
        for gone in (Clamp(4, 1400), CLAMPS[1]):  # the first was replaced before
            netns.run_inside(name, partial(packet_filters.clamp, gone, remove=True))
        assert [one.clamps for one in rules_in(name) if one.clamps] == [CLAMPS[0]]


def test_a_limit_of_the_segment_size_is_listed_by_nft() -> None:
    with namespaces("a") as (name,):
        for version, size in CLAMPS:
            netns.run_inside(name, partial(own_tables.replace_clamp, version, (size,)))
        listed = run("nft -s list ruleset", netns=name)
        rules = [line.strip() for line in listed.splitlines() if "maxseg" in line]
        assert [re.sub(r"tcp flags (\S+ / \S+|& \(\S+ \| \S+\) == \S+)", "tcp flags …", one)
                for one in rules] == [
            "tcp flags … counter tcp option maxseg size set 1440",
            "tcp flags … counter tcp option maxseg size set rt mtu",
        ]  # fmt: skip
        assert listed.count("type filter hook postrouting priority mangle; policy accept;") == 2
        assert [one.clamps for one in rules_in(name) if one.clamps] == list(CLAMPS)
        assert not any(one.foreign for one in rules_in(name))
        for version, _ in CLAMPS:
            netns.run_inside(name, partial(own_tables.replace_clamp, version, ()))
        assert run("nft list ruleset", netns=name) == ""
