"""Messages are byte for byte those that were recorded (recorded/netlink.txt)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from lvsctl.model.addresses import IPNetwork
from lvsctl.model.lab import Impairment
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    IpvsTimeouts,
    Protocol,
    RealServer,
    Scheduler,
    VipPort,
)
from lvsctl.netlink import fou, ipvs, ipvs_config, sockets, tc
from lvsctl.netlink.addresses import add_address, delete_address
from lvsctl.netlink.links import (
    add_bridge,
    add_link,
    add_veth,
    delete_link,
    set_link_state,
    set_link_up,
)
from lvsctl.netlink.neighbours import delete_neighbour, set_neighbour
from lvsctl.netlink.routes import add_route, delete_route
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService

RECORDED = {
    name: bytes.fromhex(message)
    for name, _, message in (
        line.rpartition(": ")
        for line in (Path(__file__).parent / "recorded/netlink.txt").read_text().splitlines()
    )
}
MAC = "02:00:0a:0a:00:0b"
FAMILY = 34  # of IPVS's messages
WEB = VipPort(Protocol.TCP, ip_address("10.0.0.1"), 80)


def network(text: str) -> IPNetwork | None:
    return None if text == "default" else ip_network(text)


def service(protocol: str, vip: str, scheduler: str, persistence: str = "0") -> IpvsService:
    key = VipPort(Protocol(protocol), ip_address(vip), 80)
    return IpvsService(
        netns="", service=key, scheduler=Scheduler(scheduler), persistence=int(persistence)
    )


def real_server(
    vip: str, rip: str, forward: str, encapsulation: str, tunnel_port: str
) -> IpvsRealServer:
    return IpvsRealServer(
        netns="",
        service=VipPort(Protocol.TCP, ip_address(vip), 80),
        real_server=RealServer(
            "",
            ip_address(rip),
            8080,
            weight=3,
            upper=20,
            lower=10,
            forward=ForwardingMethod(forward),
            encapsulation=Encapsulation(encapsulation),
            tunnel_port=int(tunnel_port),
        ),
    )


ENCODE: dict[str, Callable[..., bytearray]] = {
    "link_up": lambda index: set_link_up(int(index)),
    "link_state": lambda device, state: set_link_state(device, up=state == "up"),
    "bridge": lambda device: add_bridge(device, 50),
    "tunnel": lambda device, kind: add_link(device, kind, 9),
    "delete_link": delete_link,
    "veth": lambda port, device: add_veth(port, 1234, 50, device, 2, MAC, 77),
    "address": lambda text: add_address(ip_interface(text), 9),
    "delete_address": lambda text: delete_address(ip_interface(text), 9),
    "route": lambda to, via: add_route(network(to), ip_address(via)),
    "replace_route": lambda to, via: add_route(network(to), ip_address(via), replace=True),
    "delete_route": lambda to, via: delete_route(network(to), ip_address(via)),
    "neighbour": lambda address: set_neighbour(ip_address(address), MAC, 7),
    "delete_neighbour": lambda address: delete_neighbour(ip_address(address), 7),
    "netem": lambda delay, loss, rate: tc.set_netem(
        7, Impairment(delay=float(delay), loss=float(loss), rate=int(rate))
    ),
    "delete_netem": lambda index: tc.delete_netem(int(index)),
    "clsact": lambda index: tc.add_clsact(int(index)),
    "delete_clsact": lambda index: tc.delete_clsact(int(index)),
    "drop_protocol": lambda index, number: tc.add_drop_filter(int(index), int(number)),
    "fou": lambda port: fou.add_port(int(port), 31),
    "delete_fou": lambda port: fou.delete_port(int(port), 31),
    "service": lambda *words: ipvs.add_message(service(*words), FAMILY),
    "edit_service": lambda *words: ipvs.add_message(service(*words), FAMILY, replace=True),
    "delete_service": lambda *words: ipvs.delete_message(service(*words), FAMILY),
    "real_server": lambda *words: ipvs.add_message(real_server(*words), FAMILY),
    "edit_real_server": lambda *words: ipvs.add_message(real_server(*words), FAMILY, replace=True),
    "delete_real_server": lambda *words: ipvs.delete_message(real_server(*words), FAMILY),
    "zero": lambda *which: ipvs.message(
        FAMILY, ipvs.Command.ZERO, ipvs._service_key(WEB) if which else b""
    ),
    "get_config": lambda: ipvs.message(FAMILY, ipvs.Command.GET_CONFIG),
    "set_config": lambda: ipvs_config.timeouts_message(FAMILY, IpvsTimeouts(100, 0, 50)),
    "get_services": lambda: ipvs.message(FAMILY, ipvs.Command.GET_SERVICE, flags=sockets.DUMP),
    "get_real_servers": lambda: ipvs.message(
        FAMILY, ipvs.Command.GET_DEST, ipvs._service_key(WEB), sockets.DUMP
    ),
}
"""How the messages recorded under a name are encoded, from the words behind that name."""


@pytest.mark.parametrize("kind", ENCODE)
def test_the_messages_of_a_kind_are_those_recorded(kind: str) -> None:
    found = {name: name.split()[1:] for name in RECORDED if name.split()[0] == kind}
    assert found
    for name, words in found.items():
        assert ENCODE[kind](*words).hex() == RECORDED[name].hex(), name


def test_every_recorded_message_is_compared() -> None:
    assert {name.split()[0] for name in RECORDED} == ENCODE.keys()


def test_encoding_does_not_import_all_of_pyroute2_and_all_of_it_still_exists() -> None:
    code = (
        "import sys; from lvsctl.netlink import fou, ipvs, tc;"
        "from lvsctl.netlink.links import set_link_up; set_link_up(1);"
        "assert 'pyroute2.netlink' in sys.modules and 'asyncio' not in sys.modules;"
        "from pyroute2 import IPRoute; import pyroute2; assert pyroute2.IPRoute is IPRoute;"
        "from pyroute2 import IPVS; assert 'asyncio' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
