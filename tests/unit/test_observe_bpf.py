"""Filters: how tcpdump's translations are put together, and what it says to a wrong one."""

from __future__ import annotations

import struct

import pytest

from lvsctl.capture import sockets
from lvsctl.errors import HostError, UsageError
from tests.unit.decode_samples import samples
from tests.witness import witness

ETHERNET, LOOPBACK, TUNNEL = 1, 772, 768


@pytest.fixture
def tcpdump() -> str:
    return witness("tcpdump")


def kept(instructions: bytes, frame: bytes, hardware: int) -> int:
    """What the kernel would keep of a frame: classic BPF, as far as tcpdump uses it here."""
    program: list[tuple[int, int, int, int]] = list(struct.iter_unpack("=HBBI", instructions))
    accumulator = index = at = 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        match code:
            case 0x20 | 0x28 | 0x30 if k >= 0xFFFFF000:
                accumulator = hardware
            case 0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50:
                size = {0x00: 4, 0x08: 2, 0x10: 1}[code & 0x18]
                place = k + (index if code & 0x40 else 0)
                if place + size > len(frame):
                    return 0
                accumulator = int.from_bytes(frame[place : place + size], "big")
            case 0xB1:
                index = 4 * (frame[k] & 0xF)
            case 0x54:
                accumulator &= k
            case 0x15 | 0x25 | 0x35 | 0x45:
                holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k,
                         0x45: bool(accumulator & k)}[code]  # fmt: skip
                at += yes if holds else no
            case 0x05:
                at += k
            case 0x06:
                return k
            case _:
                raise AssertionError(f"instruction {code:#x}")


def test_without_an_expression_all_but_loopback_is_kept() -> None:
    frame = samples()["tcp data"]
    everything = sockets.filter_program("", snaplen=96, loopback=False)

    assert kept(everything, frame, ETHERNET) == 96
    assert kept(everything, frame[14:], TUNNEL) == 96
    assert kept(everything, frame, LOOPBACK) == 0
    assert kept(sockets.filter_program("", snaplen=96, loopback=True), frame, LOOPBACK) == 96


@pytest.mark.usefixtures("tcpdump")
@pytest.mark.parametrize(
    ("expression", "wanted"),
    [("tcp port 80", True), ("udp", False), ("dst host 10.10.0.100", True), ("port 81", False)],
)
def test_a_filter_means_the_same_on_every_device(expression: str, wanted: bool) -> None:
    frame = samples()["tcp data"]
    chosen = sockets.filter_program(expression, snaplen=1500, loopback=True)

    assert bool(kept(chosen, frame, ETHERNET)) is wanted
    assert bool(kept(chosen, frame, LOOPBACK)) is wanted
    assert bool(kept(chosen, frame[14:], TUNNEL)) is wanted


@pytest.mark.usefixtures("tcpdump")
def test_arp_is_never_on_a_tunnel_device() -> None:
    arp = sockets.filter_program("arp", snaplen=1500, loopback=False)

    assert kept(arp, samples()["arp request"], ETHERNET)
    assert not kept(arp, samples()["tcp data"][14:], TUNNEL)


@pytest.mark.usefixtures("tcpdump")
@pytest.mark.parametrize("expression", ["port", "(", "-w /tmp/x", "tcp prot 80", "ip and arp"])
def test_a_wrong_filter_is_the_users_mistake(expression: str) -> None:
    with pytest.raises(UsageError, match="is wrong: ") as caught:
        sockets.filter_program(expression, snaplen=1500, loopback=False)

    assert "pcap-filter(7)" in caught.value.hint


def test_without_tcpdump_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)

    with pytest.raises(HostError, match="tcpdump, which is not installed"):
        sockets.filter_program("tcp", snaplen=1500, loopback=False)
