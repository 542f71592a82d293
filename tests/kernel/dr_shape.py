"""The dr lab as operations made by hand, so that these tests rest on no planner.

client 10.10.0.10 ──┐
director .11 (VIP) ─┼── lan (switch)
rs1, rs2 … (VIP on lo) ─┘
"""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from lvsctl.model.addresses import mac_for
from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.bridge import Bridge
from lvsctl.resources.link_up import LinkUp
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.veth_link import VethLink

VIP = ip_interface("10.10.255.1/32")
GATEWAY = ip_address("10.10.0.1")
BRIDGE, DEVICE, FIRST_PORT = 20, 50, 100
"""ifindexes above those of the devices that some kernels make in every namespace."""


def node_names(servers: int) -> list[str]:
    """client, director, rs1 …"""
    return ["client", "director", *(f"rs{i}" for i in range(1, servers + 1))]


def dr_plan(lab: str, servers: int = 2, *, offloads: bool = True) -> Plan:
    """The whole plan but for IPVS and the responder."""
    nodes = node_names(servers)
    switch = f"lvs-{lab}-lan"
    names = {node: f"lvs-{lab}-{node}" for node in nodes}
    namespaces: list[Resource] = [Namespace(netns=n) for n in (switch, *names.values())]
    sysctls: list[Resource] = [
        Sysctl(netns=switch, name="net.ipv6.conf.all.disable_ipv6", value="1", optional=True),
        Sysctl(netns=switch, name="net.ipv6.conf.default.disable_ipv6", value="1",
                  optional=True),
        Sysctl(netns=names["director"], name="net.ipv4.ip_forward", value="1"),
    ]  # fmt: skip
    cables: list[Resource] = [LinkUp(netns=switch, device="lo"),
                        Bridge(netns=switch, device="lan", index=BRIDGE)]  # fmt: skip
    ends: list[Resource] = []
    configuration: list[Resource] = []
    for i, (node, netns) in enumerate(names.items()):
        address = ip_interface(f"10.10.{(i + 10) >> 8}.{(i + 10) & 255}/16")
        cables.append(VethLink(
            netns=switch, port=node, port_index=FIRST_PORT + i, bridge="lan", bridge_index=BRIDGE,
            node_netns=netns, device="lan", device_index=DEVICE, mac=mac_for(address.ip),
        ))  # fmt: skip
        if offloads:
            ends += [OffloadsOff(netns=switch, device=node),
                     OffloadsOff(netns=netns, device="lan")]  # fmt: skip
        configuration += [LinkUp(netns=netns, device="lo"),
                          Address(netns=netns, device="lan", address=address)]  # fmt: skip
        if node != "client":
            device = "lan" if node == "director" else "lo"
            configuration.append(Address(netns=netns, device=device, address=VIP))
        if node.startswith("rs"):
            sysctls += [
                Sysctl(netns=netns, name="net.ipv4.conf.all.arp_ignore", value="1"),
                Sysctl(netns=netns, name="net.ipv4.conf.all.arp_announce", value="2"),
            ]
        configuration.append(StaticRoute(netns=netns, to=None, via=GATEWAY))
    return Plan(lab, tuple(
        Stage(title, tuple(ops))
        for title, ops in (("namespaces", namespaces), ("sysctls", sysctls), ("cables", cables),
                           ("offloads", ends), ("addresses", configuration))
    ))  # fmt: skip
