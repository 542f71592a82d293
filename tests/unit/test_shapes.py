"""The shapes in the file are what pyroute2 encodes, and what is missing there it encodes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lvsctl.kernel import by_pyroute2, shapes
from tools import shapes as tool

IMPORTS_NOTHING = """
import sys
from ipaddress import ip_address, ip_interface
from lvsctl.kernel import ipvs_shapes, rtnl
from lvsctl.model.service import ForwardingMethod, Protocol, RealServer, Scheduler, ServiceKey
from lvsctl.resources.ops import AddRealServer, AddService

rtnl.link_up(2), rtnl.add_bridge("switch", 50), rtnl.get_links()
rtnl.add_veth("client", 100, 50, "lan", 2, "02:00:00:00:00:01", 5)
rtnl.address(ip_interface("10.0.0.2/24"), 2), rtnl.route(None, ip_address("10.0.0.1"))
key = ServiceKey(Protocol.TCP, ip_address("10.0.0.9"), 80)
ipvs_shapes.message(AddService(netns="", service=key, scheduler=Scheduler.RR), 30)
server = RealServer("rs1", ip_address("10.0.0.3"), 80)
ipvs_shapes.message(
    AddRealServer(netns="", service=key, forward=ForwardingMethod.DR, real_server=server), 30
)
assert not [name for name in sys.modules if name.startswith("pyroute2")]
"""


def test_the_file_is_what_pyroute2_encodes() -> None:
    kept = Path(shapes.FILE).read_text(encoding="ascii")
    assert kept == tool.text(), "write it anew: make shapes"


def test_what_an_ordinary_lab_sends_needs_no_pyroute2() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS_NOTHING], check=True)


def test_a_shape_that_is_not_in_the_file_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_known", dict)
    shapes.shape.cache_clear()
    try:
        assert shapes.shape("link-up") == by_pyroute2.link_up()
        assert shapes.shape("veth", 3, 15) == by_pyroute2.veth(3, 15)
    finally:
        shapes.shape.cache_clear()


@pytest.mark.parametrize(("name", "room"), [("a", 3), ("lan", 3), ("four", 7), ("x" * 15, 15)])
def test_names_of_one_room_differ_in_nothing_but_letters_and_length(name: str, room: int) -> None:
    assert shapes.room_for(name) == room
    message = bytearray(shapes.shape("bridge", room))
    shapes.put_name(message, shapes.offset(bytes(message), 32, 3), name)
    assert message == by_pyroute2.bridge(room, name)
