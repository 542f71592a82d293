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

from lvsctl.kernel import netns, snmp
from lvsctl.kernel.drop_reasons import DropReasons, named
from lvsctl.model.counted import LOSSES, REASONS
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
        # Else the ARP question would come from 10.9.9.9, and rp_filter refuses that too.
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


def test_the_counters_are_each_namespaces_own(pair: tuple[str, str]) -> None:
    sender, receiver = pair
    before = snmp.counters_of(pair)
    send(sender, "10.9.9.9")
    after = snmp.counters_of(pair)
    grown = {name: snmp.growth(before[name], after[name]) for name in pair}
    assert grown[receiver]["TcpExtIPReversePathFilter"] == COUNT
    assert "TcpExtIPReversePathFilter" not in grown[sender]
    # nstat(8), the witness, agrees about the names and the numbers.
    said = run("nstat -asz", netns=receiver)
    told = {line.split()[0]: int(line.split()[1]) for line in said.splitlines() if line[0] != "#"}
    assert {name: told[name] for name in after[receiver]} == after[receiver]
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
        assert reasons.told == Path("/sys/kernel/tracing").is_dir()
        assert not reasons.told or found["IP_RPFILTER"] >= COUNT, "others may drop packets too"
        assert reasons.told or not found
    assert descriptors() == before
    assert Path("/proc/mounts").read_text(encoding="ascii") == mounts


def test_reasons_are_read_from_the_tracepoints_format() -> None:
    text = (
        'print fmt: "%s", __print_symbolic(REC->reason, { 2, "NO_SOCKET" }, { 16, "IP_RPFILTER" })'
    )
    assert named(text) == {"NO_SOCKET": 2, "IP_RPFILTER": 16}
    assert {"NO_SOCKET", "IP_RPFILTER"} <= REASONS.keys()
