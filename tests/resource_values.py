"""Values of every kind of resource, as Hypothesis makes them up: such as a kernel accepts.

They fit into a lab where the namespace ``netns`` has the link ``lan`` with 10.10.0.0/16 on it
and a virtual service VIP:80, and ``switch`` the bridge ``lan`` with index 20.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network

from hypothesis import strategies as st

from lvsctl.model.addresses import mac_for
from lvsctl.model.lab import Impairment
from lvsctl.model.packet_filter import (
    Clamp,
    FilterProgram,
    FilterRule,
    Marking,
    MasqueradeTarget,
)
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    IpvsTimeouts,
    PortRange,
    Protocol,
    RealServer,
    Scheduler,
    TunnelChecksum,
    TunnelKind,
    VipPort,
)
from lvsctl.model.state import (
    FdbState,
    FilterState,
    NextHopState,
    SyncDaemonState,
    TcpMetricsState,
    XfrmState,
)
from lvsctl.resources.address import Address
from lvsctl.resources.announcement_filter import AnnouncementFilter
from lvsctl.resources.base import Resource
from lvsctl.resources.bridge import Bridge
from lvsctl.resources.device import Device
from lvsctl.resources.drop_filter import DropFilter
from lvsctl.resources.foreign import (
    SLOW,
    BridgeVlan,
    FdbEntry,
    NextHopObject,
    StoppedProcess,
    TcpMetrics,
    Xfrm,
)
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_config import ConnectionTimeouts, SyncDaemon
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.keepalived import Keepalived
from lvsctl.resources.link_setting import LinkSetting
from lvsctl.resources.link_up import LinkUp
from lvsctl.resources.marks import Marks
from lvsctl.resources.masquerade import Masquerade
from lvsctl.resources.mss_clamp import MssClamp
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.neighbour import LearntNeighbour, Neighbour, ProxyNeighbour
from lvsctl.resources.netem import Netem
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.resources.packet_filter import PacketFilter
from lvsctl.resources.policy_rule import PolicyRule
from lvsctl.resources.qdisc import Qdisc
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import RouteHop, StaticRoute
from lvsctl.resources.sysctl import ChangedSysctl, Sysctl
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


_SETTINGS = (
    ("mtu", "1400", "1500"),
    ("promisc", "on", "off"),
    ("arp", "off", "on"),
    ("txqueuelen", "7", "1000"),
)


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
                jitter=st.sampled_from([0.0, 0.25]),
                corrupt=st.sampled_from([0.0, 0.1]),
            ),
        ),
        Tunnel: st.one_of(
            st.builds(
                Tunnel,
                **node,
                device=st.just("tunl0"),
                index=st.integers(100, 999),
                kind=st.just(TunnelKind.IPIP),
            ),
            st.builds(
                Tunnel,
                **node,
                device=st.just("gre-csum"),
                index=st.integers(100, 999),
                kind=st.just(TunnelKind.GRE),
                checked_at=_hosts,
            ),
        ),
        GuePort: st.builds(GuePort, **node, port=_ports, version=st.sampled_from([4, 6])),
        Address: st.builds(Address, **lan, address=interfaces),
        StaticRoute: st.one_of(
            st.builds(StaticRoute, **node, to=networks, via=st.just(GATEWAY)),
            st.builds(
                StaticRoute,
                **node,
                to=networks,
                via=st.none(),
                next_hops=st.integers(1, 256).map(
                    lambda weight: (RouteHop(GATEWAY), RouteHop(GATEWAY + 1, weight=weight))
                ),
            ),
        ),
        ChangedSysctl: st.builds(
            ChangedSysctl,
            **node,
            name=st.sampled_from(["net.ipv4.conf.lan.arp_ignore", "net.ipv4.ip_default_ttl"]),
            value=st.sampled_from(["1", "2"]),
            usual=st.just("0"),
        ),
        Device: st.builds(Device, **node, device=_devices, kind=st.sampled_from(["dummy", "tun"])),
        LinkSetting: st.sampled_from(_SETTINGS).map(
            lambda words: LinkSetting(
                netns=netns,
                device="lan",
                group="link",
                name=words[0],
                value=words[1],
                usual=words[2],
            )
        ),
        Qdisc: st.builds(
            Qdisc,
            **lan,
            kind=st.sampled_from(["tbf", "netem"]),
            parent=st.just("root"),
            options=st.sampled_from([(), ("rate 1000bit",)]),
            filters=st.sampled_from([(), (FilterState("lan", "1:", "u32", 1, "ip", ("drop",)),)]),
        ),
        FdbEntry: st.builds(
            FdbEntry,
            netns=st.just(switch),
            found=st.builds(
                FdbState, _hosts.map(mac_for), st.just("rs1"), st.just(("static",)), st.just(0)
            ),
        ),
        BridgeVlan: st.builds(
            BridgeVlan,
            netns=st.just(switch),
            device=st.just("rs1"),
            vlan=st.integers(1, 4094),
            of_bridge=st.booleans(),
        ),
        PolicyRule: st.builds(
            PolicyRule,
            **node,
            preference=st.integers(1, 32765),
            text=st.sampled_from(
                [
                    "from 10.10.0.0/16 lookup 100",
                    "from all to 10.10.0.9 fwmark 0x5 blackhole",
                    "not from all fwmark 0x5/0xff iif lo lookup main",
                ]
            ),
        ),
        Xfrm: st.builds(
            Xfrm,
            **node,
            found=st.sampled_from(
                [
                    XfrmState("policy", "src 0.0.0.0/0 dst 0.0.0.0/0 dir in action block", "00"),
                    XfrmState("state", "src 10.0.0.1 dst 10.0.0.2 proto esp spi 0x00000100", "00"),
                    XfrmState("default", "in block fwd accept out accept", ""),
                ]
            ),
        ),
        LearntNeighbour: st.builds(
            LearntNeighbour,
            **lan,
            address=_hosts,
            mac=_hosts.map(mac_for),
            right=_hosts.map(mac_for),
        ),
        ProxyNeighbour: st.builds(ProxyNeighbour, **lan, address=_hosts),
        ConnectionTimeouts: st.builds(
            ConnectionTimeouts,
            **node,
            timeouts=st.builds(
                IpvsTimeouts, st.integers(901, 9000), st.integers(1, 100), st.integers(1, 100)
            ),
        ),
        SyncDaemon: st.builds(
            SyncDaemon,
            **node,
            daemon=st.builds(
                SyncDaemonState,
                st.sampled_from(["master", "backup"]),
                st.just("lan"),
                st.integers(0, 255),
            ),
        ),
        PacketFilter: st.builds(
            PacketFilter,
            **node,
            program=st.just(FilterProgram.IPTABLES),
            table=st.sampled_from(["filter", "nat"]),
            rules=st.just(
                (
                    FilterRule(
                        FilterProgram.IPTABLES,
                        "filter",
                        "INPUT",
                        1,
                        "-A INPUT -p tcp -j DROP",
                        "DROP",
                    ),
                    FilterRule(
                        FilterProgram.IPTABLES, "filter", "FORWARD", 0, "-P FORWARD DROP", "DROP"
                    ),
                )
            ),
        ),
        Masquerade: st.builds(
            Masquerade,
            **node,
            target=st.builds(
                MasqueradeTarget, st.sampled_from(Protocol), st.one_of(_hosts, _hosts6), _ports
            ),
        ),
        MssClamp: st.builds(
            MssClamp,
            **node,
            clamp=st.builds(Clamp, st.sampled_from((4, 6)), st.sampled_from((0, 536, 1440))),
        ),
        NextHopObject: st.builds(
            NextHopObject,
            **node,
            found=st.sampled_from(
                [
                    NextHopState(1, "via 10.10.0.1 dev lan", "lan"),
                    NextHopState(2, "blackhole"),
                    NextHopState(3, "group 1,2/2"),
                ]
            ),
        ),
        TcpMetrics: st.builds(
            TcpMetrics,
            **node,
            found=st.builds(
                TcpMetricsState,
                st.one_of(_hosts, _hosts6),
                st.one_of(st.none(), _hosts),
                st.integers(SLOW, 10 * SLOW),
                st.booleans(),
            ),
        ),
        StoppedProcess: st.builds(
            StoppedProcess, **node, pid=st.integers(2, 99999), process=st.just("python3")
        ),
        Neighbour: st.builds(Neighbour, **lan, address=_hosts, mac=_hosts.map(mac_for)),
        AnnouncementFilter: st.builds(
            AnnouncementFilter, **lan, address=st.one_of(_hosts, _hosts6)
        ),
        DropFilter: st.builds(DropFilter, **lan, protocol=st.integers(1, 255)),
        Marks: st.builds(
            Marks,
            netns=lan["netns"],
            devices=st.just(("lan",)),
            markings=st.lists(
                st.builds(
                    Marking,
                    st.integers(1, 1000),
                    st.one_of(_hosts, _hosts6),
                    st.sampled_from(Protocol),
                    st.sampled_from((None, PortRange(80, 80), PortRange(8000, 8010))),
                ),
                min_size=1,
                max_size=3,
                unique=True,
            ).map(tuple),
        ),
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
            flags=st.sampled_from([(), ("flag-1",), ("flag-1", "flag-2")]),
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
        Keepalived: st.builds(
            Keepalived,
            **node,
            node=st.just("director1"),
            text=st.text("a 'b\"$é\n", min_size=1),
            floating=st.just(()),
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
            checksum=TunnelChecksum.NONE
            if encapsulation is Encapsulation.IPIP
            else draw(st.sampled_from(TunnelChecksum)),
        ),
    )
