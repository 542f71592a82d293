"""The dr shape with Mininet (Debian's package; its Linux bridge as the switch).

    star.py up|down N PREFIX

Mininet's nodes live as long as its process, so `up` builds and takes down, and prints the
wall time of both; `down` has nothing left to do.
"""

from __future__ import annotations

import json
import sys
import time

from mininet.net import Mininet
from mininet.nodelib import LinuxBridge
from mininet.topo import Topo

VIP = "10.0.255.1/32"


class Star(Topo):
    """client, director and the real servers on one switch."""

    def build(self, servers: int) -> None:
        switch = self.addSwitch("s1")
        for position, name in enumerate(names(servers), 2):
            ip = f"10.0.{position >> 8}.{position & 255}/16"
            self.addLink(self.addHost(name, ip=ip, defaultRoute="via 10.0.0.1"), switch)


def names(servers: int) -> list[str]:
    return ["client", "director", *(f"rs{i}" for i in range(1, servers + 1))]


def main() -> None:
    what, servers = sys.argv[1], int(sys.argv[2])
    if what == "down":
        return
    begun = time.perf_counter()
    net = Mininet(topo=Star(servers), switch=LinuxBridge, controller=None)
    net.start()
    net["director"].cmd(f"ip addr add {VIP} dev director-eth0")
    for name in names(servers)[2:]:
        net[name].cmd(
            "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2; "
            f"ip addr add {VIP} dev lo"
        )
    up = time.perf_counter()
    net.stop()
    print(json.dumps({"ms": (up - begun) * 1e3, "down_ms": (time.perf_counter() - up) * 1e3}))


main()
