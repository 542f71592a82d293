"""What kernels tell of dropped packets: counters everywhere, reasons where there is tracing.

sender ──────────────── receiver
10.1.1.1   (wire)       10.1.1.2, rp_filter=1: no way back to 10.9.9.9
10.9.9.9 on lo
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsctl.kernel import counters, netns
from lvsctl.kernel.drops import DropReasons, Martians, martian_text, parse_reasons
from lvsctl.model import nstat
from lvsctl.model.state import LOSSES, MARTIANS, REASONS
from tests.kernel.by_hand import cable, descriptors, namespaces, run

COUNT = 3


@pytest.fixture
def pair() -> Iterator[tuple[str, str]]:
    with namespaces("sender", "receiver") as (sender, receiver):
        cable(sender, "wire", receiver, "wire")
        run("ip addr add 10.1.1.1/24 dev wire", netns=sender)
        run("ip addr add 10.9.9.9/32 dev lo", netns=sender)
        run("ip addr add 10.1.1.2/24 dev wire", netns=receiver)
        run("sysctl -qw net.ipv4.conf.all.rp_filter=1", netns=receiver)
        # Else the ARP request would come from 10.9.9.9, and rp_filter refuses that too.
        run("sysctl -qw net.ipv4.conf.wire.arp_announce=2", netns=sender)
        yield sender, receiver


def send(sender: str, source: str) -> None:
    """Some datagrams to the receiver's discard port, where nobody listens."""

    def sending() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((source, 0))
            for _ in range(COUNT):
                sock.sendto(b"x", ("10.1.1.2", 9))

    netns.run_inside(sender, sending)


def counters_of(pair: tuple[str, str]) -> dict[str, dict[str, int]]:
    return {name: netns.run_inside(name, counters.read_counters) for name in pair}


def test_the_counters_are_each_namespaces_own(pair: tuple[str, str]) -> None:
    sender, receiver = pair
    before = counters_of(pair)
    send(sender, "10.9.9.9")
    after = counters_of(pair)
    grown = {name: nstat.growth(before[name], after[name]) for name in pair}
    assert grown[receiver]["TcpExtIPReversePathFilter"] == COUNT
    assert "TcpExtIPReversePathFilter" not in grown[sender]
    # nstat(8), the witness, agrees about the names and the numbers.
    said = run("nstat -asz", netns=receiver)
    told = {line.split()[0]: int(line.split()[1]) for line in said.splitlines() if line[0] != "#"}
    # IPv6 reports its multicast groups when it likes: what counts that goes on meanwhile.
    now = counters_of(pair)[receiver]
    wrong = {name for name, old in after[receiver].items() if not old <= told[name] <= now[name]}
    assert not wrong
    assert told["TcpExtIPReversePathFilter"] == COUNT
    missing = {name for name in LOSSES if name not in told}
    assert not missing, "nstat knows no such counters"


def test_the_kernel_tells_its_reasons_or_that_it_cannot(pair: tuple[str, str]) -> None:
    sender, _ = pair
    before, mounts = descriptors(), Path("/proc/mounts").read_text(encoding="ascii")
    with DropReasons() as reasons:
        start = reasons.counts()
        send(sender, "10.9.9.9")
        found = {one.reason: one.count for one in reasons.dropped(start)}
        # User-Mode Linux is built without tracing; what has it must tell.
        assert reasons.supported == Path("/sys/kernel/tracing").is_dir()
        assert not reasons.supported or found["IP_RPFILTER"] >= COUNT, "others may drop packets too"
        assert reasons.supported or not found
    assert descriptors() == before
    assert Path("/proc/mounts").read_text(encoding="ascii") == mounts


def test_martians_are_counted_and_logged_where_the_receiver_asks_for_it(
    pair: tuple[str, str],
) -> None:
    sender, receiver = pair
    before = descriptors()
    with Martians() as silent:
        send(sender, "10.9.9.9")
        counted = {one.reason: one.count for one in silent.dropped()}
        assert counted["in_martian_src"] >= COUNT, "others may send martians too"
        # log_martians is off: nothing of these.
        assert not [line for line in silent.logged() if "10.9.9.9" in line]
    run("sysctl -qw net.ipv4.conf.wire.log_martians=1", netns=receiver)
    with Martians() as martians:
        send(sender, "10.9.9.9")
        lines = martians.logged()
    line = "martian source 10.1.1.2 from 10.9.9.9, on dev wire"
    # dmesg(1) is the witness: a kernel without CONFIG_IP_ROUTE_VERBOSE (UML) logs none.
    assert lines.count(line) == (line in run("dmesg")), "each line is told once"
    assert descriptors() == before


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("4,1234,5678,-;IPv4: martian source 10.1.1.2 from 10.9.9.9, on dev wire\n",
         "martian source 10.1.1.2 from 10.9.9.9, on dev wire"),
        ("4,1,5,-,caller=T12;IPv4: martian destination 0.0.0.0 from 10.1.1.1, dev lan\n SUB=x\n",
         "martian destination 0.0.0.0 from 10.1.1.1, dev lan"),
        ("4,1234,5678,-;ll header: 00000000: 02 00\n", ""),
        ("4,1234,5678,-;somebody wrote: IPv4: martian source 1.1.1.1\n", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_the_log_tells_of_other_things_too(record: str, says: str) -> None:
    assert martian_text(record) == says
    assert "in_martian_src" in MARTIANS


def test_reasons_are_read_from_the_tracepoints_format() -> None:
    text = (
        'print fmt: "%s", __print_symbolic(REC->reason, { 2, "NO_SOCKET" }, { 16, "IP_RPFILTER" })'
    )
    assert parse_reasons(text) == {"NO_SOCKET": 2, "IP_RPFILTER": 16}
    assert {"NO_SOCKET", "IP_RPFILTER"} <= REASONS.keys()
