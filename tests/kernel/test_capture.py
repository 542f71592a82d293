"""Capturing, with tcpdump beside it and the sender's own clock as witnesses.

client  lan 10.9.0.1 ──────── lan 10.9.0.2  server
"""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Self

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from lvsctl.capture.capture import Capture, LiveCapture
from lvsctl.capture.listener import Listener, Options
from lvsctl.errors import LabError, UsageError
from lvsctl.kernel import netns
from lvsctl.kernel.probe import which
from lvsctl.model.frame import Direction, Frame, LinkType, Tap
from lvsctl.netlink import ethtool
from tests.kernel.by_hand import cable, eventually, namespaces, run

CLIENT, SERVER = "10.9.0.1", "10.9.0.2"
AT_CLIENT, AT_SERVER = Tap("client", "lan"), Tap("server", "lan")

Nodes = dict[str | Path, str]


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """A client and a server, IPv6 off: it talks without being asked."""
    with namespaces("client", "server") as (client, server):
        for name in (client, server):
            netns.run_inside(name, _no_ipv6)
        cable(client, "lan", server, "lan")
        run(f"ip -n {client} addr add {CLIENT}/24 dev lan")
        run(f"ip -n {server} addr add {SERVER}/24 dev lan")
        for name in (client, server):
            netns.run_inside(name, _no_offloads)
        yield {client: "client", server: "server"}


def _no_ipv6() -> None:
    for which_one in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{which_one}/disable_ipv6").write_text("1", encoding="ascii")


def _no_offloads() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        ethtool.disable_offloads(sock, "lan")


def udp(name: str | Path, payloads: list[bytes], *, to: str = SERVER, port: int = 9) -> list[int]:
    """Send datagrams from a namespace; just before and after each, by the clock."""

    def send() -> list[int]:
        times = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for payload in payloads:
                times.append(time.clock_gettime_ns(time.CLOCK_REALTIME))
                sock.sendto(payload, (to, port))
            times.append(time.clock_gettime_ns(time.CLOCK_REALTIME))
        return times

    return netns.run_inside(name, send)


def echo(name: str | Path, count: int, *, to: str = SERVER, size: int = 8) -> None:
    """ping(8): each echo request answered before the next one."""

    def ping() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
            sock.settimeout(5)
            for number in range(count):
                message = struct.pack(">BBHHH", 8, 0, 0, 77, number) + bytes(size)
                rest = 0xFFFF - int.from_bytes(message, "big") % 0xFFFF  # RFC 1071
                message = message[:2] + struct.pack(">H", rest) + message[4:]
                sock.sendto(message, (to, 0))
                while sock.recv(65535)[20] != 0:
                    pass

    netns.run_inside(name, ping)


def exchange(client: str | Path, server: str | Path, size: int) -> None:
    """One TCP connection that carries ``size`` bytes each way."""
    listening = netns.run_inside(server, lambda: socket.create_server((SERVER, 80)))

    def answer() -> None:
        accepted, _ = listening.accept()
        with accepted:
            accepted.sendall(_read(accepted, size))

    def ask() -> None:
        with socket.create_connection((SERVER, 80), timeout=5) as sock:
            sock.sendall(bytes(size))
            assert len(_read(sock, size)) == size

    answering = threading.Thread(target=answer)
    answering.start()
    netns.run_inside(client, ask)
    answering.join()
    listening.close()


def _read(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = sock.recv(65536)
        if not more:
            break
        found += more
    return found


class Tcpdump:
    """The witness: tcpdump in a namespace, its capture read from a pipe."""

    def __init__(self, name: str | Path) -> None:
        program = which("tcpdump")
        assert program is not None
        # Its buffer has room for so many frames of the snaplen: by default, for eight.
        words = ["-i", "lan", "--immediate-mode", "-s", "2048", "-B", "8192", "-U", "-w", "-"]
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", str(name), program, "-Z", "root", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        assert self._process.stderr is not None
        said = b""
        while b"listening on" not in said:
            more = self._process.stderr.read(4096)
            assert more, said
            said += more

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:  # closes its pipes, and waits for it
            self._process.terminate()

    def frames(self, count: int) -> list[bytes]:
        """Its first ``count`` frames, and all others that it has by then."""
        assert self._process.stdout is not None
        content = b""
        deadline = time.monotonic() + 10
        frames: list[bytes] = []
        while len(frames) < count and time.monotonic() < deadline:
            if select.select([self._process.stdout], [], [], 0.2)[0]:
                content += self._process.stdout.read(1 << 20) or b""
                frames = _frames_of(content)
        self._process.terminate()
        said = self._process.communicate()[1]
        assert b"\n0 packets dropped by kernel" in said, said
        return frames


def _frames_of(content: bytes) -> list[bytes]:
    found: list[bytes] = []
    at = 24  # pcap's header; then seconds, microseconds, captured, on the wire, for each frame
    while at + 16 <= len(content):
        (captured,) = struct.unpack_from("=I", content, at + 8)
        if at + 16 + captured <= len(content):
            found.append(content[at + 16 : at + 16 + captured])
        at += 16 + captured
    return found


def by_sender(frames: list[bytes]) -> dict[bytes, list[bytes]]:
    """In order for each way by itself: two CPUs may put one in and one out at the same time."""
    found: dict[bytes, list[bytes]] = {}
    for frame in frames:
        found.setdefault(frame[6:12], []).append(frame)
    return found


def test_tcpdump_saw_the_same_frames(nodes: Nodes) -> None:
    client, server = nodes
    with Tcpdump(client) as at_client, Tcpdump(server) as at_server:
        with Capture(nodes) as capture:
            echo(client, 20)
            exchange(client, server, 20_000)

        assert capture.drops == {"client": 0, "server": 0}
        for tap, tcpdump in {AT_CLIENT: at_client, AT_SERVER: at_server}.items():
            ours = [frame.raw.data for frame in capture.frames if frame.tap == tap]
            assert by_sender(tcpdump.frames(len(ours))) == by_sender(ours)
    kinds = Counter(frame.icmp.name for frame in capture.frames if frame.icmp)
    assert kinds == {"echo request": 40, "echo reply": 40}  # at two taps each


def test_timestamps_order_the_hops(nodes: Nodes) -> None:
    client, _ = nodes

    with Capture(nodes) as capture:
        echo(client, 200)

    frames = [frame for frame in capture.frames if frame.icmp]
    assert [frame.number for frame in capture.frames] == list(range(1, len(capture.frames) + 1))
    assert all(one.time <= other.time for one, other in pairwise(capture.frames))
    hops = [(frame.tap, frame.direction, frame.icmp and frame.icmp.type) for frame in frames]
    assert hops == 200 * [
        (AT_CLIENT, Direction.OUT, 8),
        (AT_SERVER, Direction.IN, 8),
        (AT_SERVER, Direction.OUT, 0),
        (AT_CLIENT, Direction.IN, 0),
    ]


def test_frames_are_stamped_when_sent_from_the_first_on(nodes: Nodes) -> None:
    """The kernel starts stamping when first asked, a moment later; `with` waits for that."""
    client, _ = nodes
    echo(client, 1)  # ARP is over

    with Capture(nodes) as capture:
        times = udp(client, [bytes(8 * n) for n in range(20)])

    sent = [frame for frame in capture.frames if frame.tap == AT_CLIENT and frame.udp]
    assert len(sent) == 20
    for (before, after), frame in zip(pairwise(times), sent, strict=True):
        assert before <= frame.time <= after


def test_loopback_is_no_wire(nodes: Nodes) -> None:
    client, _ = nodes

    for wanted in (False, True):
        with Capture(nodes, Options(loopback=wanted)) as capture:
            udp(client, [b"to myself"], to="127.0.0.1")
        assert (Tap("client", "lo") in capture.taps) is wanted
        assert any(frame.tap.device == "lo" for frame in capture.frames) is wanted


def test_only_the_taps_asked_for(nodes: Nodes) -> None:
    client, _ = nodes

    with Capture(nodes, Options(taps=frozenset({AT_SERVER}))) as capture:
        echo(client, 3)

    assert {frame.tap for frame in capture.frames} == {AT_SERVER}
    assert dict(capture.taps) == {AT_SERVER: LinkType.ETHERNET}


def test_a_filter_and_a_snaplen(nodes: Nodes) -> None:
    client, _ = nodes

    with Capture(nodes, Options(filter="udp dst port 53", snaplen=60)) as capture:
        echo(client, 3)
        udp(client, [bytes(1000)], port=53)
        udp(client, [bytes(1000)], port=54)

    frames = [frame for frame in capture.frames if frame.udp]
    assert [len(frame.raw.data) for frame in capture.frames] == [60, 60]
    assert {(frame.length, frame.malformed) for frame in frames} == {(1042, "")}


def test_drops_are_counted(nodes: Nodes) -> None:
    client, _ = nodes
    echo(client, 1)
    listener = Listener(nodes, Options(buffer=4096, filter="udp"))

    udp(client, [bytes(1000)] * 200)  # nobody reads meanwhile
    seen = listener.read(time.clock_gettime_ns(time.CLOCK_REALTIME), everywhere=True)
    drops = listener.drops()
    listener.close()

    kept = Counter(tap.node for _, tap, *_ in seen)
    assert 0 < kept["client"] < 200
    assert {node: kept[node] + drops[node] for node in drops} == {"client": 200, "server": 200}


SEEN = 4000
"""Datagrams of 1,000 bytes, each at two taps: 8 MB to be seen."""


def test_memory_grows_with_what_is_kept_not_with_what_is_seen(nodes: Nodes) -> None:
    client, _ = nodes
    echo(client, 1)

    with _peak() as kept, Capture(nodes, Options(filter="udp dst port 53")) as capture:
        udp(client, [bytes(1000)] * SEEN, port=53)
    assert len(capture.frames) == 2 * SEEN
    assert kept() > 2 * SEEN * 1000

    with _peak() as filtered, Capture(nodes, Options(filter="udp dst port 53")) as capture:
        udp(client, [bytes(1000)] * SEEN, port=54)
        udp(client, [b"kept"], port=53)
    assert len([frame for frame in capture.frames if frame.udp]) == 2
    assert filtered() < kept() / 10

    with _peak() as cut, Capture(nodes, Options(filter="udp dst port 53", snaplen=60)) as capture:
        udp(client, [bytes(1000)] * SEEN, port=53)
    assert len(capture.recording.frames) == 2 * SEEN
    assert cut() < kept() / 2

    with _peak() as passed, LiveCapture(nodes, Options(filter="udp dst port 53")) as live:
        frames = iter(live)
        for _ in range(SEEN // 50):
            udp(client, [bytes(1000)] * 50, port=53)
            assert sum(1 for _ in islice(frames, 100)) == 100
    assert passed() < kept() / 10


@contextmanager
def _peak() -> Iterator[Callable[[], int]]:
    """Bytes that Python had allocated at most in the block, what was there before not counted."""
    tracemalloc.start()
    before, found = tracemalloc.get_traced_memory()[0], 0
    try:
        yield lambda: found
    finally:
        found = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()


def nothing_waits(node: str | Path) -> bool:
    """Whether every packet socket of a namespace has been read out: column Rmem."""
    rows = run("cat /proc/net/packet", netns=str(node)).splitlines()[1:]
    assert rows, "nobody captures"
    return all(row.split()[6] == "0" for row in rows)


def test_devices_that_come_and_go_meanwhile(nodes: Nodes) -> None:
    client, server = nodes

    with Capture(nodes) as capture:
        cable(str(client), "late", str(server), "late", index=20)
        run(f"ip -n {client} addr add 10.9.1.1/24 dev late")
        run(f"ip -n {server} addr add 10.9.1.2/24 dev late")
        echo(client, 1, to="10.9.1.2")
        # A frame's device is asked for its name when the frame is read.
        eventually(lambda: nothing_waits(client) and nothing_waits(server))
        run(f"ip -n {client} link del late")
        echo(client, 1)

    seen = {frame.tap.device for frame in capture.frames if frame.icmp}
    assert seen == {"late", "lan"}
    assert Tap("server", "late") in capture.taps


@pytest.mark.ipvs  # for the machine's kernel, which has VLAN devices
def test_vlan_tags_are_put_back(nodes: Nodes) -> None:
    client, server = nodes
    for name, address in ((client, "10.9.7.1"), (server, "10.9.7.2")):
        run(f"ip -n {name} link add link lan name lan.7 type vlan id 7")
        run(f"ip -n {name} link set lan.7 up")
        run(f"ip -n {name} addr add {address}/24 dev lan.7")

    with Capture(nodes) as capture:
        echo(client, 2, to="10.9.7.2")

    tagged = [frame for frame in capture.frames if frame.icmp and frame.tap.device == "lan"]
    assert len(tagged) == 8
    assert all(f.ethernet and f.ethernet.vlans == (7,) and not f.malformed for f in tagged)
    plain = [frame for frame in capture.frames if frame.icmp and frame.tap.device == "lan.7"]
    assert [frame.ethernet and frame.ethernet.vlans for frame in plain] == [()] * 8


def test_live_frames_come_in_order_and_end_when_told(nodes: Nodes) -> None:
    client, _ = nodes
    echo(client, 1)

    with LiveCapture(nodes, Options(filter="icmp")) as live:
        frames = iter(live)
        pinging = threading.Thread(target=echo, args=(client, 50))
        pinging.start()
        first = next(frames)
        assert first.direction is Direction.OUT
        pinging.join()
        live.stop()
        rest = list(frames)
        assert live.drops == {"client": 0, "server": 0}

    assert len(rest) == 4 * 50 - 1
    assert all(one.time <= other.time for one, other in pairwise([first, *rest]))


def nothing_can_be_read(*_: object, **__: object) -> None:
    raise OSError("nothing can be read")


def test_nothing_is_left_open_and_the_caller_stays_where_it_is(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = nodes
    home = Path("/proc/thread-self/ns/net").readlink()
    with Capture(nodes):
        pass
    before = len(list(Path("/proc/self/fd").iterdir()))

    with pytest.raises(LabError, match="namespace lvs-nowhere-director does not exist"):
        Capture({**nodes, "lvs-nowhere-director": "director"}).__enter__()
    with pytest.raises(UsageError, match="is wrong"):
        Capture(nodes, Options(filter="((")).__enter__()
    with pytest.raises(UsageError, match="no node rs9 to capture at"):
        Capture(nodes, Options(taps=frozenset({Tap("rs9", "lan")}))).__enter__()
    with monkeypatch.context() as patched:
        patched.setattr(Listener, "read", nothing_can_be_read)
        with pytest.raises(OSError, match="nothing can be read"), Capture(nodes) as capture:
            capture.stop()
    with Capture(nodes) as capture:
        echo(client, 1)

    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert Path("/proc/thread-self/ns/net").readlink() == home
    assert capture.stop() is capture.recording


def test_a_silent_capture_has_its_taps(nodes: Nodes) -> None:
    with Capture(nodes) as capture:
        pass

    assert capture.frames == ()
    # Where tunnel modules are loaded, a new namespace has their fallback devices too.
    fallback = {"tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "sit0", "ip6tnl0", "ip6gre0"}
    assert {tap for tap in capture.taps if tap.device not in fallback} == {AT_CLIENT, AT_SERVER}


# client  lan 10.9.0.1 ──────── lan 10.9.0.2  server
#         tun 10.8.0.1 ═ tunnel ═ tun 10.8.0.2


def inside(frames: tuple[Frame, ...], device: str) -> list[Frame]:
    return [frame for frame in frames if frame.tap.device == device and frame.icmp]


@pytest.mark.ipvs
@pytest.mark.parametrize("kind", ["ipip", "gre"])
def test_tunnel_devices_are_taps(nodes: Nodes, kind: str) -> None:
    client, server = nodes
    for name, local, remote, address in (
        (client, CLIENT, SERVER, "10.8.0.1"), (server, SERVER, CLIENT, "10.8.0.2"),
    ):  # fmt: skip
        run(f"ip -n {name} link add tun type {kind} local {local} remote {remote}")
        run(f"ip -n {name} addr add {address}/24 dev tun")
        run(f"ip -n {name} link set tun up")

    with Capture(nodes, Options(filter="icmp or proto 4 or proto 47")) as capture:
        echo(client, 3, to="10.8.0.2")

    assert capture.taps[Tap("client", "tun")] is LinkType.RAW
    at_tun, at_lan = inside(capture.frames, "tun"), inside(capture.frames, "lan")
    assert len(at_tun) == len(at_lan) == 12
    assert all(frame.ethernet is None and not frame.malformed for frame in at_tun)
    assert {str(frame.inner.dst) for frame in at_tun if frame.inner} == {"10.8.0.1", "10.8.0.2"}
    assert {str(frame.packet.encapsulation) for frame in at_lan} == {kind}
    # One request's way: into the tunnel, out on the wire, in from it, out of the tunnel.
    way = [(frame.tap.node, frame.tap.device) for frame in capture.frames[:4]]
    assert way == [("client", "tun"), ("client", "lan"), ("server", "lan"), ("server", "tun")]


@pytest.mark.ipvs
def test_what_is_taken_off_is_seen_as_it_was_on_the_wire(nodes: Nodes) -> None:
    """fou_core.c writes into the frames that taps see: without it tcpdump shows the same."""
    client, server = nodes
    run(f"ip -n {server} fou add port 6080 gue")
    run(f"ip -n {server} link add tunl0 type ipip")
    run(f"ip -n {server} addr add 10.8.0.2/32 dev tunl0")
    run(f"ip -n {server} link set tunl0 up")
    inner = bytes(IP(src=CLIENT, dst="10.8.0.2") / UDP(dport=9) / Raw(b"hello"))

    with Capture(nodes, Options(filter="udp")) as capture:
        udp(client, [b"\0\4\0\0" + inner], port=6080)

    wrapped = [frame for frame in capture.frames if len(frame.ips) == 2]
    assert {str(frame.tap) for frame in wrapped} == {"client:lan", "server:lan"}
    for frame in wrapped:
        assert frame.outer is not None
        assert (frame.outer.total_length, frame.outer.checksum_ok) == (frame.length - 14, True)
        assert frame.payload == b"hello"
    (out,) = (frame for frame in capture.frames if frame.tap == Tap("server", "tunl0"))
    assert out.raw.data == inner


@pytest.mark.ipvs
def test_a_receiving_gre_device_shows_the_outer_header(nodes: Nodes) -> None:
    """A real server's gre device takes any sender: its frames begin with the outer header."""
    client, server = nodes
    run(f"ip -n {client} link add tun type gre local {CLIENT} remote {SERVER}")
    run(f"ip -n {server} link add tun type gre local {SERVER}")
    for name, address in ((client, "10.8.0.1"), (server, "10.8.0.2")):
        run(f"ip -n {name} addr add {address}/32 dev tun")
        run(f"ip -n {name} link set tun up")
    run(f"ip -n {client} route add 10.8.0.2 dev tun")

    with Capture(nodes, Options(taps=frozenset({Tap("server", "tun")}))) as capture:
        udp(client, [b"hello"], to="10.8.0.2")

    assert [len(frame.ips) for frame in capture.frames] == [2]
    assert capture.frames[0].payload == b"hello"
