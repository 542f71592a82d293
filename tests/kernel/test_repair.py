"""Labs that were damaged by hand: `up` makes them whole again, and says what it did.

   client            director             rs1         rs2
     |          VIP 10.10.0.100          (VIP)       (VIP)
=====+==================+==================+===========+=====  lan
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lvsctl.engine.inspect import verify_lab
from lvsctl.engine.up import bring_up
from lvsctl.errors import KernelError
from lvsctl.kernel import processes
from lvsctl.model.claim import Verdict
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink
from lvsctl.topology import shipped
from tests.kernel.by_hand import process, run
from tests.kernel.initial import initial_namespace
from tests.kernel.labs import curl, lab_up, topology_of, url_of

pytestmark = pytest.mark.ipvs


def end_down() -> None:
    run("ip link set lan down", netns="lvs-dr-rs1")


def cable_removed() -> None:
    run("ip link del lan", netns="lvs-dr-rs1")


def unplugged() -> None:
    run("ip link set rs1 nomaster", netns="lvs-dr-lan")


def other_mac() -> None:
    run("ip link set lan address 02:00:00:00:00:99", netns="lvs-dr-director")


def namespace_removed() -> None:
    run("ip netns del lvs-dr-rs1")


def switch_removed() -> None:
    run("ip netns del lvs-dr-lan")


@pytest.mark.parametrize(
    "damage",
    [end_down, cable_removed, unplugged, other_mac, namespace_removed, switch_removed],
)
def test_damage_is_mended(damage: Callable[[], None]) -> None:
    before = initial_namespace()
    with lab_up("dr"):
        damage()
        repaired = bring_up(topology_of("dr"))
        assert any(isinstance(op, VethLink) for op in repaired.added)
        answers = {curl(repaired.lab, url_of(repaired.lab)).split()[0] for _ in range(2)}
        assert answers == {"rs1", "rs2"}
        assert "tx-checksumming: off" in run("ethtool -k lan", netns="lvs-dr-rs1")
        again = bring_up(topology_of("dr"))
        assert (again.added, again.removed) == ((), ())
    assert initial_namespace() == before


def test_what_goes_along_with_a_namespace_is_not_told() -> None:
    with lab_up("dr", servers=3):
        fewer = bring_up(topology_of("dr"))
        told = [command for op in fewer.removed for command in op.describe()]
        assert "ip netns add lvs-dr-rs3" in told
        assert not any("sysctl" in command for command in told)


def with_command(command: str) -> str:
    """dr, its real server a command of the user's own."""
    return shipped.text_of("dr").replace("count: 2}", f"count: 1, run: {command}}}")


SERVER = "[python3, -m, http.server, '80', --directory, /run/netns]"


def test_a_server_of_the_users_own_is_waited_for_and_started_again() -> None:
    text = with_command(SERVER)
    with lab_up(text) as lab:
        # It says nothing of itself: that it is rs1 who answers is seen in the frames.
        assert verify_lab(lab).verdict is Verdict.PASS
        assert bring_up(topology_of(text)).added == ()
        processes.terminate(lambda: [int(pid) for pid in run("ip netns pids lvs-dr-rs1").split()])
        again = bring_up(topology_of(text))
        assert [type(op) for op in again.added] == [UserCommand]
        assert verify_lab(lab).verdict is Verdict.PASS


def test_another_server_in_the_place_of_the_users_own_is_replaced() -> None:
    text = with_command(SERVER)
    with lab_up(text) as lab:
        for other in ("8081", "80 --bind 127.0.0.1", "80 --bind 10.10.0.11"):
            processes.terminate(lambda: {int(p) for p in run("ip netns pids lvs-dr-rs1").split()})
            with process(f"python3 -u -m http.server {other}", netns="lvs-dr-rs1"):
                again = bring_up(topology_of(text))
            assert [type(op) for op in again.added] == [UserCommand], other
            assert curl(lab, url_of(lab))
            assert bring_up(topology_of(text)).added == ()


def test_a_process_on_the_responders_port_is_left_alone_and_named() -> None:
    with lab_up("dr") as lab:
        processes.stop_daemon("dr", processes.RESPONDER)
        with process("python3 -u -m http.server 80", netns="lvs-dr-rs1") as other:
            left = bring_up(topology_of("dr")).left
            assert [one.command for one in left] == [f"kill {other.pid}"]
            other.kill()
            other.wait()
        assert bring_up(topology_of("dr")).left == ()
        assert {curl(lab, url_of(lab)).split()[0] for _ in range(2)} == {"rs1", "rs2"}


@pytest.mark.parametrize(
    ("command", "said", "helps"),
    [
        ("'nginy -x'", "nginy -x: no such command", "apt-get install nginy"),
        ("'exec nginy -x'", "exec nginy -x: no such command", "apt-get install nginy"),
        ("'echo oops; exit 3'", "ended at once with status 3\n    oops", "to try it by hand"),
        (
            "'sleep 0.5; echo oops'",
            "ended without listening on tcp port 80\n    oops",
            "to try it by hand",
        ),
    ],
    ids=["missing", "missing to exec", "at once", "later"],
)
def test_a_command_that_ends_is_told_with_its_last_words(
    command: str, said: str, helps: str
) -> None:
    before = initial_namespace()
    with pytest.raises(KernelError) as raised:
        bring_up(topology_of(with_command(command)))
    assert f"rs1: {command.strip(chr(39)).partition(':')[0]}" in raised.value.message
    assert said in raised.value.message
    assert helps in raised.value.hint
    assert not Path("/run/lvsctl/dr").exists()
    assert initial_namespace() == before


def test_both_families_are_answered() -> None:
    text = shipped.text_of("dr").replace(
        "ipv4: 10.10.0.0/24", "ipv4: 10.10.0.0/24, ipv6: 'fd00::/64'"
    )
    text += "  - {name: six, vip: 'fd00::100', port: 80, forward: dr, real_servers: [rs]}\n"
    with lab_up(text) as lab:
        assert verify_lab(lab).verdict is Verdict.PASS


def test_nat_over_ipv6() -> None:
    text = (
        shipped.text_of("nat")
        .replace("10.20.0.0/24", "'fd00:1::/64'")
        .replace("192.168.20.0/24", "'fd00:2::/64'")
        .replace("ipv4:", "ipv6:")
        .replace("10.20.0.100", "'fd00:1::100'")
        .replace("10.20.0.10}", "'fd00:1::10'}")
    )
    with lab_up(text) as lab:
        assert verify_lab(lab).verdict is Verdict.PASS
