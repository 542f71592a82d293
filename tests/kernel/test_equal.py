"""`up` makes a lab equal to its topology: whatever was changed by hand is seen and undone.

   client            director             rs1         rs2
     |          VIP 10.10.0.100          (VIP)       (VIP)
=====+==================+==================+===========+=====  lan

ip(8), tc(8), bridge(8) and ipvsadm(8) are the witnesses: what they print is the same again.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from lvsctl.engine.inspect import inspect_lab
from lvsctl.engine.up import bring_up
from lvsctl.kernel.probe import which
from lvsctl.model.lab import Lab
from tests.kernel.by_hand import eventually, run
from tests.kernel.labs import lab_up, topology_of

pytestmark = pytest.mark.ipvs

SHOWN = (
    "ip -d link",
    "ip -d addr",
    "ip -4 route show table all",
    "ip -6 route show table all",
    "ip rule",
    "ip -6 rule",
    "ip neigh show nud permanent",
    "ip neigh show nud noarp",
    "ip neigh show proxy",
    "tc qdisc",
    "bridge -d link",
    "bridge vlan",
    "ip xfrm policy",
    "ip xfrm state",
    "ip xfrm policy getdefault",
    "ip nexthop",
    "{ipvsadm} -Sn",
    "{ipvsadm} -Ln --timeout",
    "{ipvsadm} -Ln --daemon",
    "sysctl -a -r net.ipv[46].(conf.(all|lan|lo)|vs|ip_|icmp)",
)
_UNSTEADY = re.compile(
    r"\w+_timer +[\d.]+|(valid|preferred)_lft \S+|\S*(stable_secret|nf_conntrack_count).*"
)
_MADE_AGAIN = re.compile(r"(?<=link/ether )\S+|(?<=bridge_id 8000.)\S+|8000\.[0-9a-f.:]+")
"""The MAC address of a switch's port, which the kernel makes up, and what follows from it."""


def shown(netns: str) -> str:
    """What the witnesses print of a namespace, without timers and made-up addresses."""
    # fmt: off
    script = "; ".join(SHOWN).format(ipvsadm=which("ipvsadm") or "ipvsadm")
    # fmt: on
    done = subprocess.run(
        ["ip", "netns", "exec", netns, "sh", "-c", f"{script} 2>/dev/null"],
        capture_output=True,
        text=True,
        check=False,
    )
    text = _UNSTEADY.sub("", done.stdout)
    return _MADE_AGAIN.sub("", text) if netns.endswith("-lan") else text


def typed(netns: str, command: str) -> None:
    """Type a command line in a namespace; it must succeed."""
    ipvsadm, ethtool = which("ipvsadm") or "ipvsadm", which("ethtool") or "ethtool"
    line = command.replace("ipvsadm", ipvsadm).replace("ethtool", ethtool)
    done = subprocess.run(
        ["ip", "netns", "exec", netns, "sh", "-ec", line],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def said(lab: Lab, member: str) -> str:
    """The deviations that `inspect` tells of a node or of a network's switch."""
    found = inspect_lab(lab)
    part = found.switches[member] if member in found.switches else found.nodes[member]
    return "\n".join(one.text for one in part.deviations)


BREAKS = (
    # links
    ("rs1", "ip link set lan mtu 1200", "lan: mtu is 1200, not 1500"),
    ("rs1", "ip link set lan arp off promisc on", "lan: arp is off"),
    ("rs1", "ip link set lan address 02:00:0a:0a:00:0c", "has the MAC address 02:00:0a:0a:00:0c"),
    ("director", "ip link set lan down; ip link set lan name eth7; ip link set eth7 up",
     "lan is now called eth7"),
    ("rs1", "ip link set lo down", "lo is down"),
    ("rs1", "ethtool -K lan tx on gso on", "offloads are on"),
    ("client", "ip link add d0 type dummy; ip addr add 10.10.0.100/24 dev d0; ip link set d0 up",
     "device d0 (dummy) is not from the topology"),
    ("rs2", "ip link add link lan name v5 type vlan id 5", "device v5 (vlan)"),
    # traffic control
    ("rs1", "tc qdisc add dev lan root netem loss 60% duplicate 5%", "netem duplicate 5%"),
    ("client", "tc qdisc add dev lan root tbf rate 1mbit burst 10kb latency 50ms",
     "tbf rate 1000000bit"),
    ("director", "tc qdisc add dev lan clsact; tc filter add dev lan ingress matchall action drop",
     "an ingress filter matchall of all (drop)"),
    ("rs1", "tc qdisc add dev lo root netem loss 100%", "lo: queueing discipline netem"),
    # neighbours
    ("director", "ip neigh replace 10.10.0.11 lladdr 02:00:00:00:00:99 dev lan nud permanent",
     "10.10.0.11 is bound to 02:00:00:00:00:99"),
    ("client", "ip neigh replace 10.10.0.100 lladdr 02:00:00:00:00:99 dev lan nud stale",
     "10.10.0.100 is 02:00:00:00:00:99 on lan, not 02:00:0a:0a:00:02"),
    ("rs2", "ip neigh add proxy 10.10.0.99 dev lan", "answers for 10.10.0.99 as a proxy"),
    # routes and rules
    ("rs2", "ip route add unreachable 10.10.0.10/32", "an unreachable route to 10.10.0.10/32"),
    ("rs1", "ip rule add from 10.10.0.100 table 100; ip route add default via 10.10.0.2 table 100",
     "from 10.10.0.100 lookup 100"),
    ("rs1", "ip rule del pref 32766", "from all lookup main` is missing"),
    ("client", "ip route add default nexthop via 10.10.0.2 nexthop via 10.10.0.11",
     "over 2 next hops"),
    ("rs1", "ip route del 10.10.0.0/24 dev lan", "the route to 10.10.0.0/24 on lan is missing"),
    ("rs2", "ip route del local 10.10.0.100 dev lo table local", "table local is missing"),
    ("rs1", "ip xfrm policy add dir in src 10.10.0.0/24 dst 10.10.0.0/24 action block",
     "xfrm policy: src 10.10.0.0/24"),
    ("rs1", "ip xfrm policy setdefault in block out block",
     "xfrm default: in block fwd accept out block"),
    ("client",
     "ip nexthop add id 8 blackhole; ip route add 10.10.0.100/32 nhid 8",
     "next hop object 8: blackhole, used by the route to 10.10.0.100/32"),
    # addresses and sysctls
    ("rs1", "ip addr del 10.10.0.11/24 dev lan; ip addr add 10.10.0.11/24 dev lan noprefixroute",
     "noprefixroute"),
    ("client", "ip addr del 127.0.0.1/8 dev lo", "127.0.0.1 is missing on lo"),
    ("client", "sysctl -qw net.ipv4.ip_default_ttl=2", "net.ipv4.ip_default_ttl is 2, not 64"),
    ("rs1", "sysctl -qw net.ipv4.conf.lan.arp_ignore=8", "lan.arp_ignore is 8"),
    # IPVS
    ("director", "ipvsadm --set 4 4 4", "tcp 4 s, tcpfin 4 s, udp 4 s"),
    ("director", "ipvsadm -E -t 10.10.0.100:80 -s sh -b sh-port", "flags sh-port, not none"),
    ("director", "ipvsadm -E -t 10.10.0.100:80 -s rr -p 60 -M 255.255.255.0", "netmask 24"),
    ("director", "ipvsadm -A -f 5 -s rr; ipvsadm -a -f 5 -r 10.10.0.11 -g", "fwmark 5"),
    ("director", "ipvsadm --start-daemon backup --mcast-interface lan", "backup on lan"),
    ("director", "sysctl -qw net.ipv4.vs.drop_packet=1", "net.ipv4.vs.drop_packet is 1"),
    # the switch
    ("lan", "bridge link set dev rs1 isolated on flood off", "rs1: isolated is on"),
    ("lan", "bridge link set dev rs2 state 0", "rs2: state is disabled"),
    ("lan", "ip link set bridge type bridge vlan_filtering 1", "vlan_filtering is 1"),
    ("lan", "bridge vlan add dev rs1 vid 7 pvid untagged", "port rs1 is in VLAN 7"),
    ("lan", "ip link set bridge type bridge stp_state 1", "stp_state is 1"),
    ("lan", "bridge fdb add 02:00:0a:0a:00:0b dev rs2 master static", "bound to port rs2"),
    ("lan", "ip addr add 10.10.0.10/24 dev bridge", "10.10.0.10 is on bridge"),
    ("lan", "ip link set bridge mtu 600", "bridge: mtu is 600"),
    ("lan", "ip link set bridge down", "bridge is down"),
    ("lan", "ip link set rs1 nomaster", "port rs1 is not in the bridge"),
    ("lan", "ip link set rs1 down; ip link set rs1 name x1; ip link set x1 up",
     "port rs1 is now called x1"),
    ("lan", "ip link set rs1 address 02:00:0a:0a:00:0b", "rs1 has a node's MAC address"),
    ("lan", "bridge fdb add 02:00:0a:0a:00:0b dev bridge self permanent", "bound to port bridge"),
)  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_up("dr") as running:
        yield running


# Each kind is read and undone in a place of its own, but `make test` has to end: every fourth one.
ROWS = [
    pytest.param(*row, marks=pytest.mark.exhaustive) if number % 4 else row
    for number, row in enumerate(BREAKS)
]


@pytest.mark.parametrize(("member", "command", "words"), ROWS, ids=lambda row: str(row)[:40])
def test_what_was_changed_by_hand_is_told_and_undone(
    lab: Lab, member: str, command: str, words: str
) -> None:
    netns = lab.netns(member)
    before = shown(netns)
    typed(netns, command)
    try:
        assert words in said(lab, member)
    finally:
        changed = bring_up(topology_of("dr"))
    assert changed.changed
    assert not changed.left
    assert shown(netns) == before
    assert not said(lab, member)


def test_what_may_be_in_use_is_left_alone_and_named_with_its_command(lab: Lab) -> None:
    netns = lab.netns("client")
    typed(netns, "ip tuntap add dev tun5 mode tun")
    try:
        left = bring_up(topology_of("dr"))
        assert not left.changed
        (one,) = left.left
        assert (one.netns, one.command) == (netns, f"ip -n {netns} link del dev tun5")
        assert "tun5" in said(lab, "client")
    finally:
        run(one.command)
    assert bring_up(topology_of("dr")).left == ()


def test_a_stopped_responder_goes_on(lab: Lab) -> None:
    (listener,) = inspect_lab(lab).nodes["rs1"].state.listeners
    run(f"kill -STOP {listener.pid}")
    eventually(lambda: "is stopped by a signal" in said(lab, "rs1"))
    assert bring_up(topology_of("dr")).changed
    assert not said(lab, "rs1")
