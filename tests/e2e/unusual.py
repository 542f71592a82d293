"""Run in a machine of its own: makes its initial namespace an unusual host's, and tries labs there.

    python -m tests.e2e.unusual HOST[,HOST...] TOPOLOGY...

New namespaces copy the initial one's IPv4 settings; a lab must not notice. Prints what went
wrong, a line each; nothing: all is as on any other host.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from lvsctl.engine.inspect import diagnose_lab, verify_lab
from lvsctl.model.claim import Verdict
from tests.kernel.by_hand import run
from tests.kernel.initial import initial_namespace
from tests.kernel.labs import curl, lab_up, url_of


def conf(**settings: int) -> tuple[str, ...]:
    """The same for all devices and for those to come."""
    return tuple(
        f"sysctl -qw net.ipv4.conf.{which}.{key}={value}"
        for which in ("all", "default")
        for key, value in settings.items()
    )


HOSTS: dict[str, tuple[str, ...]] = {
    "usual": (),
    "no-ipv6": (),  # the kernel is told when it starts
    "forwarding": (
        "sysctl -qw net.ipv4.ip_forward=1",
        "sysctl -qw net.ipv6.conf.all.forwarding=1",
    ),
    "strict": conf(rp_filter=1, log_martians=1, accept_redirects=0, send_redirects=0),
    "loose": conf(rp_filter=2, accept_local=1, route_localnet=1, accept_source_route=1),
    "arp": conf(arp_ignore=2, arp_announce=1, arp_filter=1, arp_accept=1, arp_notify=1),
    "arp-as-real-server": conf(arp_ignore=8, arp_announce=2),
    "proxy-arp": conf(proxy_arp=1, shared_media=0, medium_id=0),
    "redirects": conf(send_redirects=1, accept_redirects=1, secure_redirects=0),
    "ipv6-off": (
        "sysctl -qw net.ipv6.conf.all.disable_ipv6=1",
        "sysctl -qw net.ipv6.conf.default.disable_ipv6=1",
    ),
    "firewall": tuple(
        f"xtables-legacy-multi iptables -P {chain} DROP" for chain in ("INPUT", "FORWARD", "OUTPUT")
    ),
    "ipvs": (
        "ip addr add 10.10.0.100/32 dev lo",
        "ipvsadm -A -t 10.10.0.100:80 -s rr",
        "ipvsadm -a -t 10.10.0.100:80 -r 127.0.0.1:8080 -m",
        "ipvsadm -A -f 7 -s sh",
        "sysctl -qw net.ipv4.vs.conntrack=1",
        "sysctl -qw net.ipv4.vs.expire_nodest_conn=1",
    ),
    "tunnels": (
        "ip link add name lan type bridge",
        "sysctl -qw net.ipv6.conf.lan.disable_ipv6=1",  # its addresses would come a second later
        "ip addr add 10.10.0.1/24 dev lan",
        "ip link set dev lan up",
        "sysctl -qw net.core.fb_tunnels_only_for_init_net=0",
        "sysctl -qw net.core.devconf_inherit_init_net=1",
    ),
}
"""What is done to the initial namespace, by name."""


def troubles(topology: str) -> Iterator[str]:
    """What does not work as it should."""
    before = initial_namespace()
    with lab_up(topology) as lab:
        for service in range(len(lab.services)):
            if not curl(lab, url_of(lab, service)).startswith("rs"):
                yield "no answer"
        for finding in verify_lab(lab).findings:
            if finding.verdict is not Verdict.PASS:
                yield f"{finding.claim.id}: {finding.verdict}: {finding.observed}"
        causes = diagnose_lab(lab).causes
        yield from (f"diagnosed: {cause.text}" for cause in causes)
    after = initial_namespace()
    yield from (f"the initial namespace: {key}" for key in before if after[key] != before[key])


def main() -> None:
    """The hosts together, then each topology."""
    for host in sys.argv[1].split(","):
        for command in HOSTS[host]:
            run(command)
        if host == "no-ipv6":
            assert not Path("/proc/sys/net/ipv6").exists()
    for topology in sys.argv[2:]:
        for trouble in troubles(topology):
            sys.stdout.write(f"{topology}: {trouble}\n")


if __name__ == "__main__":
    main()
