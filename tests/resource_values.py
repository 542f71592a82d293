"""Values of every kind of resource, as Hypothesis makes them up: such as a kernel accepts.

They fit into a lab where the namespace ``netns`` has the link ``lan`` with 10.10.0.0/16 on it
and a virtual service VIP:80, and ``switch`` the bridge ``lan`` with index 20.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network

from hypothesis import strategies as st

from lvsctl.model.addresses import mac_for
from lvsctl.model.lab import Impairment
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    Protocol,
    RealServer,
    Scheduler,
    VipPort,
)
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.bridge import Bridge
from lvsctl.resources.drop_filter import DropFilter
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.link_up import LinkUp
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.neighbour import Neighbour
from lvsctl.resources.netem import Netem
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink

WEB = VipPort(Protocol.TCP, ip_address("10.10.255.1"), 80)
GATEWAY = IPv4Address("10.10.0.1")

_ports = st.integers(1, 0xFFFF)
_hosts = st.integers(0x0A0A0064, 0x0A0AFE00).map(IPv4Address)  # in 10.10.0.0/16, unused
_hosts6 = st.integers(1, 0xFFFF).map(lambda n: IPv6Address((0xFD << 120) + (7 << 64) + n))
_devices = st.from_regex(r"[a-z][a-z0-9]{0,12}", fullmatch=True).map(lambda name: f"x-{name}"[:15])
_weights = st.integers(0, 65535)


def values(netns: str, switch: str) -> dict[type[Resource], st.SearchStrategy[Resource]]:
    """A strategy for each kind."""
    node = {"netns": st.just(netns)}
    lan = {**node, "device": st.just("lan")}
    interfaces = st.one_of(
        st.builds(lambda host: ip_interface(f"{host}/32"), _hosts),
        st.builds(lambda host: ip_interface(f"{host}/128"), _hosts6),
    )
    networks = st.integers(0, 250).map(lambda n: ip_network(f"10.200.{n}.0/24"))
    return {
        Namespace: st.builds(Namespace, netns=st.integers(0, 9).map(lambda n: f"{netns}-{n}")),
        Sysctl: st.builds(
            Sysctl,
            **node,
            name=st.sampled_from(["net.ipv4.conf.lan.arp_ignore", "net.ipv4.ip_forward"]),
            value=st.sampled_from(["0", "1"]),
            optional=st.booleans(),
        ),
        Bridge: st.builds(Bridge, **node, device=_devices, index=st.integers(100, 999)),
        VethLink: st.builds(
            VethLink,
            netns=st.just(switch),
            port=_devices,
            port_index=st.integers(3000, 4000),
            bridge=st.just("lan"),
            bridge_index=st.just(20),
            node_netns=st.just(netns),
            device=_devices,
            device_index=st.integers(1000, 2000),
            mac=_hosts.map(mac_for),
        ),
        LinkUp: st.builds(LinkUp, **node, device=st.sampled_from(["lo", "lan"])),
        OffloadsOff: st.builds(OffloadsOff, **lan),
        Netem: st.builds(
            Netem,
            **lan,
            impairment=st.builds(
                Impairment,
                delay=st.sampled_from([0.25, 1.0, 20.0]),
                loss=st.sampled_from([0.0, 0.1, 100.0]),
                rate=st.sampled_from([0, 1_000_000, 5_000_000_000]),
            ),
        ),
        Tunnel: st.builds(
            Tunnel,
            **node,
            device=st.just("tunl0"),
            index=st.integers(100, 999),
            encapsulation=st.just(Encapsulation.IPIP),
        ),
        GuePort: st.builds(GuePort, **node, port=_ports),
        Address: st.builds(Address, **lan, address=interfaces),
        StaticRoute: st.builds(StaticRoute, **node, to=networks, via=st.just(GATEWAY)),
        Neighbour: st.builds(Neighbour, **lan, address=_hosts, mac=_hosts.map(mac_for)),
        DropFilter: st.builds(DropFilter, **lan, protocol=st.integers(1, 255)),
        IpvsService: st.builds(
            IpvsService,
            **node,
            service=st.builds(
                VipPort,
                st.sampled_from([Protocol.TCP, Protocol.UDP]),
                st.one_of(_hosts, _hosts6),
                _ports,
            ),
            scheduler=st.sampled_from([Scheduler.RR, Scheduler.WLC, Scheduler.SH, Scheduler.MH]),
            persistence=st.integers(0, 86400),
        ),
        IpvsRealServer: _real_servers(netns),
        ResponderPort: st.builds(
            ResponderPort,
            **node,
            node=st.just("rs1"),
            protocol=st.sampled_from([Protocol.TCP, Protocol.UDP]),
            port=_ports,
        ),
        UserCommand: st.builds(
            UserCommand,
            **node,
            node=st.just("rs1"),
            argv=st.lists(st.text("a 'b\"$é", min_size=1), min_size=1).map(tuple),
        ),
    }


@st.composite
def _real_servers(draw: st.DrawFn, netns: str) -> IpvsRealServer:
    forward = draw(st.sampled_from(ForwardingMethod))
    tunnel = forward is ForwardingMethod.TUN
    kinds = list(Encapsulation) if tunnel else [Encapsulation.IPIP]
    encapsulation = draw(st.sampled_from(kinds))
    upper = draw(_weights)
    port = 80 if forward is not ForwardingMethod.NAT else draw(_ports)
    return IpvsRealServer(
        netns=netns,
        service=WEB,
        real_server=RealServer(
            "",
            draw(_hosts),
            port,
            draw(_weights),
            upper,
            draw(st.integers(0, upper)),
            forward=forward,
            encapsulation=encapsulation,
            tunnel_port=draw(_ports) if encapsulation is Encapsulation.GUE else 0,
        ),
    )
