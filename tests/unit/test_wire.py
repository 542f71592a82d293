"""Messages patched into a shape are, byte for byte, what pyroute2 encodes."""

from __future__ import annotations

import struct
import subprocess
import sys
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from lvsctl.errors import KernelError
from lvsctl.kernel import by_pyroute2, rtnl, sysctl, wire
from lvsctl.model.addresses import mac_for
from lvsctl.model.lab import Impairment


@pytest.mark.parametrize("port", ["p", "client", "fifteen-letters"])
@pytest.mark.parametrize("device", ["a", "lan", "backend-network"])
def test_veth(port: str, device: str) -> None:
    words = (port, 1234, 50, device, 2, "02:00:0a:0a:00:0b", 77)
    assert rtnl.add_veth(*words) == by_pyroute2.veth(0, 0, *words)


@pytest.mark.parametrize("text", ["10.10.0.11/24", "192.0.2.1/32", "2001:db8::1/64", "fd00::/128"])
@pytest.mark.parametrize("delete", [False, True])
def test_address(text: str, delete: bool) -> None:
    interface = ip_interface(text)
    expected = by_pyroute2.address(
        interface.version, delete, str(interface.ip), interface.network.prefixlen, 9
    )
    assert rtnl.address(interface, 9, delete=delete) == expected


@pytest.mark.parametrize(
    ("to", "via"),
    [
        (None, "10.0.0.1"),
        ("10.20.0.0/16", "10.0.0.1"),
        (None, "2001:db8::1"),
        ("2001:db8:7::/48", "2001:db8::1"),
    ],
)
def test_route(to: str | None, via: str) -> None:
    network = ip_network(to) if to else None
    split = (str(network.network_address), network.prefixlen) if network else ("", 0)
    gateway = ip_address(via)
    for message_type, flags, built in (
        (rtnl.NEWROUTE, rtnl.ADD, rtnl.route(network, gateway)),
        (rtnl.NEWROUTE, rtnl.SET, rtnl.route(network, gateway, flags=rtnl.SET)),
        (rtnl.DELROUTE, wire.REQUEST, rtnl.delete_route(network, gateway)),
    ):
        expected = by_pyroute2.route(message_type, flags, gateway.version, bool(to), *split, via)
        assert built == expected


def test_link_up() -> None:
    expected = by_pyroute2.encode("link", rtnl.NEWLINK, wire.REQUEST, index=300, flags=1, change=1)
    assert rtnl.link_up(300) == expected


@pytest.mark.parametrize("device", ["lan", "tunl0", "sixteen", "fifteen-letters"])
def test_what_is_named_by_its_device(device: str) -> None:
    assert rtnl.link_state(device, up=True) == by_pyroute2.link_state(1, 0, device)
    assert rtnl.link_state(device, up=False) == by_pyroute2.link_state(0, 0, device)
    assert rtnl.add_bridge(device, 50) == by_pyroute2.bridge(0, device, 50)
    assert rtnl.delete_link(device) == by_pyroute2.delete_link(0, device)
    assert rtnl.add_tunnel(device, 9, "ipip") == by_pyroute2.ipip(0, device, 9)
    assert rtnl.add_tunnel(device, 9, "gre") == by_pyroute2.gre(0, device, 9)


@pytest.mark.parametrize(("delay", "ticks"), [(0, 0), (0.05, 781), (10, 156_250), (20.5, 320_312)])
@pytest.mark.parametrize("loss", [0, 0.1, 100])
@pytest.mark.parametrize("rate", [0, 1_000_000, 8 * 0xFFFFFFFF])
def test_netem(delay: float, ticks: int, loss: float, rate: int) -> None:
    expected = by_pyroute2.netem(bool(rate), 7, ticks, round(loss / 100 * 0xFFFFFFFF), rate // 8)
    assert rtnl.add_netem(7, Impairment(delay=delay, loss=loss, rate=rate)) == expected


@pytest.mark.parametrize("index", [7, 0x12345678])
def test_netem_away(index: int) -> None:
    """pyroute2 encodes it each time: held against <linux/rtnetlink.h>, struct tcmsg and a kind."""
    header = struct.pack("=IHHII", 48, 37, 1, 0, 0)  # RTM_DELQDISC, NLM_F_REQUEST
    about = struct.pack("=BxxxiIII", 0, index, 0, 0xFFFFFFFF, 0)  # its parent: the root
    kind = struct.pack("=HH6s2x", 10, 1, b"netem")
    assert rtnl.delete_netem(index) == header + about + kind


def test_get_links() -> None:
    assert rtnl.get_links() == by_pyroute2.get_links()


def test_a_template_is_not_changed_by_its_use() -> None:
    first = rtnl.address(ip_interface("10.0.0.1/8"), 1)
    rtnl.address(ip_interface("10.0.0.2/8"), 2)
    assert rtnl.address(ip_interface("10.0.0.1/8"), 1) == first


def test_the_mac_is_the_one_given() -> None:
    mac = mac_for(ip_address("10.10.0.11"))
    message = rtnl.add_veth("p", 1, 2, "d", 3, mac, 4)
    assert bytes.fromhex(mac.replace(":", "")) in bytes(message)


def test_an_attribute_that_is_cut_off_is_not_read() -> None:
    whole = struct.pack("=HHI", 8, 3, 7)
    assert wire.attribute(bytearray(whole), 0, 3) is not None
    assert wire.attribute(bytearray(whole), 0, 4) is None
    assert wire.attribute(bytearray(struct.pack("=HH", 0, 3)), 0, 3) is None


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/1.rp_filter", "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"),
    ],
)
def test_sysctl_path(key: str, path: str) -> None:
    assert sysctl.path(key) == path


@pytest.mark.parametrize(
    "key", ["vm.swappiness", "kernel.hostname", "net", "net.", "net..x", "net.//.//.vm", "/etc/x"]
)
def test_a_sysctl_of_the_host_is_refused(key: str) -> None:
    with pytest.raises(KernelError, match="does not belong to a network namespace"):
        sysctl.path(key)


def test_encoding_does_not_import_all_of_pyroute2_and_all_of_it_is_still_there() -> None:
    code = (
        "import sys; from lvsctl.kernel import by_pyroute2; by_pyroute2.link_up();"
        "assert 'pyroute2.netlink' in sys.modules and 'asyncio' not in sys.modules;"
        "from pyroute2 import IPRoute; import pyroute2; assert pyroute2.IPRoute is IPRoute;"
        "assert 'asyncio' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
