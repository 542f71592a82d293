"""Prints a lab's whole state as iproute2, ipvsadm and sysctl see it: JSON, comparable.

Run inside the kernel that the lab is in: `python dump_lab.py LAB`. Uses none of lvsctl.
Left out is what no two builds share: random MACs of switches, handles that the kernel
numbers, counters, lifetimes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

RANDOM_ON_SWITCHES = frozenset({"address", "bridge_id", "root_id", "designated_bridge"})
NUMBERED_BY_THE_KERNEL = frozenset({
    "link_netnsid", "handle", "hello_timer", "tcn_timer", "topology_change_timer", "gc_timer",
    "forward_delay_timer", "message_age_timer", "hold_timer",
    "valid_life_time", "preferred_life_time", "stable_secret", "designated_root",
    "designated_bridge", "root_id", "bridge_id", "refcnt",
    "permaddr",  # an IPv6 tunnel's, random
    "encap_limit", "ttl",  # of what a tunnel sends: none of a lab's sends anything
    "seed",  # netem's, shown by iproute2 6.6 and newer
})  # fmt: skip
COUNTING = (
    "net.netfilter.nf_conntrack_count",
    "net.ipv4.tcp_fastopen_key",
    # By the memory that was free just then.
    "net.ipv4.vs.sync_qlen_max",
    "net.ipv4.tcp_ehash_entries",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.udp_hash_entries",
    "net.ipv6.conf.",  # an address of the kernel's own choosing per device
)


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def without(value: Any, keys: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {k: without(v, keys) for k, v in value.items() if k not in keys}
    if isinstance(value, list):
        return [without(item, keys) for item in value]
    return value


def by_ip(netns: str, *words: str) -> Any:
    found = without(json.loads(output("ip", "-j", "-d", "-n", netns, *words) or "[]"),
                    NUMBERED_BY_THE_KERNEL)  # fmt: skip
    is_switch = any(entry.get("ifname") == "bridge" for entry in found)
    return without(found, RANDOM_ON_SWITCHES) if is_switch else found


def settings(netns: str) -> list[str]:
    lines = output("ip", "netns", "exec", netns, "sysctl", "-e", "-a", "-r", "^net").splitlines()
    return sorted(line for line in lines if not line.startswith(COUNTING) or "disable_ipv6" in line)


def node(netns: str) -> dict[str, Any]:
    tc = json.loads(output("tc", "-j", "-n", netns, "qdisc") or "[]")
    links = by_ip(netns, "addr")
    routes = by_ip(netns, "route", "show", "table", "all")
    # An IPv6 tunnel's link-local address is random, as its hardware address.
    random = {
        address.get("local")
        for link in links
        for address in link["addr_info"]
        if link["link_type"] != "ether" and address["scope"] == "link"
    }
    for link in links:
        link["addr_info"] = [one for one in link["addr_info"] if one.get("local") not in random]
    return {
        "links and addresses": links,
        # IPv6's are listed in the order in which links came up.
        "routes": sorted((one for one in routes if one["dst"] not in random), key=json.dumps),
        "rules": by_ip(netns, "rule"),
        "qdiscs": without(tc, NUMBERED_BY_THE_KERNEL),
        "ipvs": sorted(output("ip", "netns", "exec", netns, "ipvsadm", "-Sn").splitlines()),
        "sysctls": settings(netns),
    }


def main() -> None:
    prefix = f"lvs-{sys.argv[1]}-"
    names = (line.split()[0] for line in output("ip", "netns", "list").splitlines())
    json.dump({name: node(name) for name in sorted(names) if name.startswith(prefix)}, sys.stdout)


if __name__ == "__main__":
    main()
