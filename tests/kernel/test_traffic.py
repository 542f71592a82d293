"""The responder and the clients over a real wire, curl and ss as witnesses.

client  eth0 10.9.0.2, fd09::2 ──────── eth0 10.9.0.1, fd09::1  server
                                        lo   10.9.9.9, fd09:9::9 (VIPs)
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Self

import pytest

from lvsctl.capture.capture import Capture
from lvsctl.errors import KernelError, LabError
from lvsctl.kernel.netns import enter, in_thread
from lvsctl.model.addresses import Endpoint
from lvsctl.model.evidence import Exchange, Failure
from lvsctl.model.frame import Direction
from lvsctl.model.service import Protocol
from lvsctl.plan.planner import load_lab
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.traffic.client import held, requests
from lvsctl.traffic.http import pattern
from lvsctl.traffic.responder import Listener, open_listeners, responder_of
from tests.kernel.by_hand import carries_frames, eventually
from tests.kernel.labs import topology_of

SERVER, VIP = ip_address("10.9.0.1"), ip_address("10.9.9.9")
SERVER6, VIP6 = ip_address("fd09::1"), ip_address("fd09:9::9")
NUMBERS = itertools.count()

SERVE = """
import json, resource, sys
from lvsctl.model.service import Protocol
from lvsctl.traffic.responder import responder_of
from lvsctl.traffic import responder
from lvsctl.traffic.responder import Listener, open_listeners
files, settings, listeners, late = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, 256), files))
vars(responder).update(settings)
wanted = [Listener(n, ns, Protocol(p), port, v6) for n, ns, p, port, v6 in listeners]
with open_listeners(wanted) as sockets:
    print("ready", flush=True)
    if late:
        sys.stdin.readline()
    responder.serve(sockets, {})
print("stopped")
"""


def sh(command: str) -> str:
    done = subprocess.run(command.split(), check=True, capture_output=True, text=True)
    return done.stdout


@dataclass
class Wire:
    """Two namespaces and a cable; responders that the test started."""

    server: str
    client: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def listener(
        self, node: str = "rs1", protocol: Protocol = Protocol.TCP, port: int = 80, v6: bool = False
    ) -> Listener:
        return Listener(node, self.server, protocol, port, v6)

    def serve(
        self, *listeners: Listener, files: int = 4096, late: bool = False, **settings: float
    ) -> subprocess.Popen[str]:
        rows = [(x.node, x.netns, x.protocol, x.port, x.ipv6) for x in listeners]
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, json.dumps([files, settings, rows, late])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    def curl(self, *words: str, stdin: bytes = b"") -> bytes:
        argv = ["ip", "netns", "exec", self.client, "curl", "-sS", "--max-time", "20", *words]
        return subprocess.run(argv, check=True, capture_output=True, input=stdin).stdout

    def connect(self, port: int = 80) -> socket.socket:
        """A plain socket of the client's, connected to the server."""

        def opened() -> socket.socket:
            with enter(self.client):
                sock = socket.socket()
            sock.settimeout(20)
            sock.connect((str(SERVER), port))
            return sock

        return in_thread(opened)


@pytest.fixture
def wire() -> Iterator[Wire]:
    mark = f"lvst-{os.getpid()}-{next(NUMBERS)}"
    made = Wire(f"{mark}-s", f"{mark}-c")
    try:
        for name in (made.server, made.client):
            sh(f"ip netns add {name}")
            sh(f"ip -n {name} link set lo up")
        sh(f"ip link add eth0 netns {made.server} index 11 type veth"
           f" peer name eth0 index 12 netns {made.client}")  # fmt: skip
        for name, n in ((made.server, 1), (made.client, 2)):
            sh(f"ip -n {name} addr add 10.9.0.{n}/24 dev eth0")
            sh(f"ip -n {name} addr add fd09::{n}/64 dev eth0 nodad")
            sh(f"ip -n {name} link set eth0 up")
        sh(f"ip -n {made.server} addr add {VIP}/32 dev lo")
        sh(f"ip -n {made.server} addr add {VIP6}/128 dev lo")
        sh(f"ip -n {made.client} route add {VIP} via {SERVER}")
        sh(f"ip -n {made.client} route add {VIP6} via {SERVER6}")
        for name in (made.server, made.client):
            carries_frames(name, "eth0")
        yield made
    finally:
        for process in made.started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        for name in (made.server, made.client):
            subprocess.run(["ip", "netns", "del", name], check=False)


def ask(wire: Wire, **how: object) -> tuple[Exchange, ...]:
    settings: dict[str, object] = {"count": 1, "url_host": VIP, "port": 80, **how}
    return requests(wire.client, **settings)  # type: ignore[arg-type]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_curl_gets_an_answer(wire: Wire) -> None:
    wire.serve(wire.listener(), wire.listener(v6=True))
    out = wire.curl("-w", "%{local_port} %{http_code}", f"http://{VIP}/x").decode()
    line, rest = out.splitlines()
    port, status = rest.split()
    assert line == f"rs1 answered on 10.9.9.9:80, request from 10.9.0.2:{port}"
    assert status == "200"
    out = wire.curl(f"http://[{SERVER6}]/").decode()
    assert out.startswith("rs1 answered on [fd09::1]:80, request from [fd09::2]:")
    told = json.loads(wire.curl("-H", "Accept: application/json", f"http://{VIP}/x"))
    assert (told["node"], told["local"], told["path"]) == ("rs1", "10.9.9.9:80", "/x")


def test_curl_s_ways_of_asking(wire: Wire) -> None:
    wire.serve(wire.listener())
    url = f"http://{VIP}/"
    used = wire.curl("-o", "/dev/null", "-o", "/dev/null", "-w", "%{num_connects} ", url, url)
    assert used == b"1 0 "  # the second request over the first one's connection
    assert b"X-Real-Server: rs1" in wire.curl("-I", url)
    assert wire.curl("--http1.0", url).startswith(b"rs1 answered")
    assert b" 405 " in wire.curl("-i", "-X", "BREW", url)
    assert b" 431 " in wire.curl("-i", "-H", "a: " + "b" * 20000, url)
    body = os.urandom(3_000_000)
    for words in ((), ("-H", "Expect: 100-continue"), ("-H", "Transfer-Encoding: chunked")):
        told = json.loads(wire.curl("--data-binary", "@-", *words, url + "echo", stdin=body))
        assert told["length"] == len(body)
        assert told["sha256"] == sha256(body).hexdigest()
    assert wire.curl(url + "bytes/5000001") == pattern(0, 5000001)


def test_one_process_stands_on_every_real_server(wire: Wire) -> None:
    listeners = [wire.listener(f"rs{n}", port=8000 + n) for n in range(50)]
    process = wire.serve(*listeners, Listener("other", wire.client, Protocol.TCP, 8000))
    for n in (0, 25, 49):
        (exchange,) = ask(wire, port=8000 + n)
        assert exchange.node == f"rs{n}"
    assert b"other answered on 127.0.0.1:8000" in wire.curl("http://127.0.0.1:8000/")
    tasks = list(Path(f"/proc/{process.pid}/task").iterdir())
    assert len(tasks) == 1
    assert Path(f"/proc/{process.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()


def test_a_connection_goes_on_after_a_long_answer(wire: Wire) -> None:
    wire.serve(wire.listener())
    short, long = f"http://{VIP}/", f"http://{VIP}/bytes/67108864"
    urls = ["-o", "/dev/null", short, "-o", "/dev/null", long, "-o", "/dev/null", short]
    format_endpoint = wire.curl("-w", "%{num_connects} %{size_download}\n", *urls).split()
    assert format_endpoint[::2] == [b"1", b"0", b"0"]
    assert format_endpoint[3] == b"67108864"


def test_sigterm_ends_it(wire: Wire) -> None:
    process = wire.serve(wire.listener())
    assert ask(wire)[0].answered, "so that it serves by now"
    with wire.connect():
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("stopped\n", 0)


def test_all_connect_before_the_first_asks(wire: Wire) -> None:
    """One after the other, each would wake the server for itself."""
    wire.serve(wire.listener())
    ask(wire)  # so that nobody has to ask by ARP
    with Capture({wire.client: "client"}) as capture:
        assert all(exchange.answered for exchange in ask(wire, count=8, concurrency=8))
    sent = [frame for frame in capture.frames if frame.direction is Direction.OUT and frame.tcp]
    syns = [index for index, frame in enumerate(sent) if frame.tcp and frame.tcp.is_syn]
    asks = [index for index, frame in enumerate(sent) if b"GET /" in frame.raw.data]
    assert (len(syns), len(asks)) == (8, 8)
    assert max(syns) < min(asks)


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
@pytest.mark.parametrize("v6", [False, True])
def test_who_comes_before_it_serves_is_answered(wire: Wire, protocol: Protocol, v6: bool) -> None:
    """`up` is done once the sockets listen; what the responder imports comes after."""
    process = wire.serve(wire.listener(protocol=protocol, v6=v6), late=True)
    assert process.stdin
    found: list[Exchange] = []
    host = VIP6 if v6 else VIP
    asking = threading.Thread(
        target=lambda: found.extend(ask(wire, protocol=protocol, url_host=host, timeout=20))
    )
    asking.start()
    waiting = ["ss", "-Hlntu" if v6 else "-4Hlntu", "sport", "=", ":80"]
    eventually(lambda: int(sh(f"ip netns exec {wire.server} {' '.join(waiting)}").split()[2]))
    assert asking.is_alive()
    process.stdin.write("serve\n")
    process.stdin.flush()
    asking.join()
    (exchange,) = found
    assert (exchange.node, exchange.answered) == ("rs1", True)
    assert exchange.local_seen == Endpoint(host, 80)


def test_a_responder_is_ready_once_all_its_sockets_listen(wire: Wire) -> None:
    listen = ResponderPort(netns=wire.server, node="rs1", protocol=Protocol.TCP, port=80)
    said: list[str | None] = []
    with pytest.raises(KernelError, match="rs1: cannot listen"):
        responder_of(load_lab(topology_of("dr")))((listen, listen), said.append)
    assert not said


def open_and_close(*listeners: Listener) -> None:
    with open_listeners(listeners):
        pass


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
def test_a_port_in_use_is_named(wire: Wire, protocol: Protocol) -> None:
    wire.serve(wire.listener(protocol=protocol))
    before = descriptors()
    with pytest.raises(KernelError, match=rf"rs9: cannot listen on {protocol} port 80: ") as caught:
        open_and_close(wire.listener("rs8", port=81), wire.listener("rs9", protocol))
    assert (caught.value.node, caught.value.errno) == ("rs9", errno.EADDRINUSE)
    assert "rs9" in caught.value.hint
    assert descriptors() == before


def test_a_missing_namespace_is_named(wire: Wire) -> None:
    with pytest.raises(LabError, match="rs7: namespace lvst-none does not exist"):
        open_and_close(Listener("rs7", "lvst-none", Protocol.TCP, 80))
    with pytest.raises(LabError):
        requests("lvst-none", VIP, 80, count=1)


def test_the_client_tells_both_sides_of_an_exchange(wire: Wire) -> None:
    wire.serve(wire.listener(), wire.listener(v6=True))
    home = Path("/proc/thread-self/ns/net").readlink()
    for host in (VIP, VIP6):
        for exchange in ask(wire, count=3, url_host=host):
            assert exchange.answered
            assert (exchange.status, exchange.node) == (200, "rs1")
            assert exchange.local == exchange.peer_seen
            assert exchange.local_seen == (host, 80)
    assert Path("/proc/thread-self/ns/net").readlink() == home


@pytest.mark.parametrize("v6", [False, True])
def test_udp_is_answered_from_the_address_asked(wire: Wire, v6: bool) -> None:
    # The client's socket is connected: it would not hear an answer from another address.
    wire.serve(wire.listener(protocol=Protocol.UDP, v6=v6))
    host = VIP6 if v6 else VIP
    done = ask(wire, protocol=Protocol.UDP, count=200, concurrency=50, url_host=host)
    assert {(e.error, e.node, e.local_seen, e.status) for e in done} == {("", "rs1", (host, 80), 0)}
    assert all(e.local == e.peer_seen for e in done)


def test_a_reply_that_comes_twice_is_taken_once(wire: Wire) -> None:
    def bound() -> socket.socket:
        with enter(wire.server):
            sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.bind((str(SERVER), 81))
        return sock

    def answer_twice() -> None:
        for _ in range(4):
            _, client = server.recvfrom(100)
            server.sendto(b"one", client)
            server.sendto(b"one", client)

    with in_thread(bound) as server:
        thread = threading.Thread(target=answer_twice, daemon=True)
        thread.start()
        with held(wire.client, SERVER, 81, count=4, protocol=Protocol.UDP) as done:
            assert [one.error for one in done] == [""] * 4
        thread.join()


def test_many_at_once_and_none_left_behind(wire: Wire) -> None:
    process = wire.serve(wire.listener())
    before = descriptors()
    done = ask(wire, count=2000, concurrency=200, timeout=20)
    assert {e.error for e in done} == {""}
    assert len(done) == 2000
    assert len({e.local for e in done}) >= 200, "a port may serve again, but not two at once"
    assert descriptors() == before
    assert descriptors_of(process) < 30


def test_held_connections_stay_until_the_end(wire: Wire) -> None:
    wire.serve(wire.listener())

    def established() -> int:
        return len(sh(f"ip netns exec {wire.client} ss -Htn state established").splitlines())

    with held(wire.client, VIP, 80, count=12) as done:
        assert [e.node for e in done] == ["rs1"] * 12
        assert established() == 12
    assert established() == 0
    assert len(ask(wire, count=12, hold=True)) == 12
    assert established() == 0


def descriptors_of(process: subprocess.Popen[str]) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def test_resets_leave_no_descriptor_behind(wire: Wire) -> None:
    process = wire.serve(wire.listener())
    assert ask(wire)[0].answered  # "ready" only means that it listens: its loop has descriptors too
    before = descriptors_of(process)
    for data in (b"", b"GET / HT", b"GET /bytes/60000000 HTTP/1.1\r\nHost: v\r\n\r\n", b"\x00"):
        for _ in range(20):
            with wire.connect() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.sendall(data)
    for _ in range(1000):  # each answer comes after what was there before it
        assert ask(wire)[0].answered
        if descriptors_of(process) <= before:
            break
    assert descriptors_of(process) <= before


def test_out_of_descriptors_connections_wait_their_turn(wire: Wire) -> None:
    wire.serve(wire.listener(), files=40)
    crowd = [wire.connect() for _ in range(100)]
    for sock in crowd:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: v\r\nConnection: close\r\n\r\n")
    for sock in crowd:
        assert sock.recv(9) == b"HTTP/1.1 "
        sock.close()


def test_slow_clients_are_sent_away(wire: Wire) -> None:
    wire.serve(wire.listener(), REQUEST_SECONDS=0.05, IDLE_SECONDS=0.1)
    with wire.connect() as slow, wire.connect() as silent:
        slow.sendall(b"GET / HT")
        assert slow.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert slow.recv(1) == b""
        assert silent.recv(1) == b""


def silent(wire: Wire) -> str:
    """An address at which nobody is."""
    sh(f"ip -n {wire.client} neigh add 10.9.0.77 lladdr 02:00:00:00:00:77 dev eth0")
    return "10.9.0.77"


def blackhole(wire: Wire) -> str:
    sh(f"ip -n {wire.client} route add unreachable 10.8.0.0/16")
    return "10.8.0.1"


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
@pytest.mark.parametrize(
    ("where", "error"),
    [
        (lambda _: str(SERVER), Failure.REFUSED),
        (lambda _: "10.7.0.1", Failure.NO_ROUTE),
        (blackhole, Failure.NO_ROUTE),
        (silent, Failure.TIMED_OUT),
    ],
)
def test_failures_have_names(
    wire: Wire, protocol: Protocol, where: Callable[[Wire], str], error: Failure
) -> None:
    before = descriptors()
    host = ip_address(where(wire))
    done = ask(wire, count=3, url_host=host, timeout=0.2, protocol=protocol, concurrency=2)
    assert [e.error for e in done] == [error] * 3
    assert all((e.node, e.status, e.answered) == ("", 0, False) for e in done)
    assert descriptors() == before


def test_a_connection_that_is_not_established_is_given_up_earlier(wire: Wire) -> None:
    done = ask(wire, count=3, url_host=ip_address(silent(wire)), connect=0.2, timeout=600)
    assert [e.error for e in done] == [Failure.TIMED_OUT] * 3


@pytest.mark.parametrize("burst", [1, 3])
def test_after_one_that_hangs_as_many_are_on_their_way_as_the_lab_takes(
    wire: Wire, burst: int
) -> None:
    """A server never answers the second of eight; how many wait for it at each of the others?"""
    waiting: list[int] = []
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        with ExitStack() as held:
            for number in range(8):
                taken = held.enter_context(listener.accept()[0])
                if number == 1:
                    continue
                further = [taken]
                while select.select([listener], [], [], 0.1)[0]:
                    further.append(held.enter_context(listener.accept()[0]))
                waiting.append(len(further))
                for one in further:
                    one.recv(4096)
                    one.close()
                if sum(waiting) == 7:
                    break
            over.wait()

    def listen() -> socket.socket:
        with enter(wire.server):
            return socket.create_server((str(SERVER), 80))

    with in_thread(listen) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        done = ask(wire, url_host=SERVER, count=8, burst=burst, timeout=3.0)
        over.set()
        server.join()
    errors = [one.error for one in done]
    assert errors == [Failure.CLOSED, Failure.TIMED_OUT, *[Failure.CLOSED] * 6]
    assert waiting[0] == 1
    assert max(waiting) <= burst
    assert burst == 1 or max(waiting) > 1


REAL_EPOLL = select.epoll


class LateEpoll:
    """An epoll on a machine that stands still for a moment when it first waits."""

    def __init__(self) -> None:
        self._epoll = REAL_EPOLL()
        self._stands_still = 1.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._epoll, name)

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        time.sleep(self._stands_still)  # noqa: TID251 (what stands still is the machine)
        self._stands_still = 0.0
        return self._epoll.poll(timeout, most)


def test_while_the_machine_stands_still_no_request_times_out(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    responder = wire.serve(wire.listener())
    monkeypatch.setattr("lvsctl.traffic.attempts.select.epoll", LateEpoll)
    responder.send_signal(signal.SIGSTOP)
    goes_on = threading.Timer(1.2, responder.send_signal, (signal.SIGCONT,))
    goes_on.start()
    (exchange,) = ask(wire, timeout=0.8)
    goes_on.join()
    assert exchange.answered
    assert exchange.seconds > 0.8


@pytest.mark.parametrize(
    ("says", "error"),
    [(b"", Failure.CLOSED), (b"SSH-2.0\r\n", Failure.MALFORMED), (None, Failure.RESET)],
)
def test_broken_servers(wire: Wire, says: bytes | None, error: Failure) -> None:
    def listen() -> socket.socket:
        with enter(wire.server):
            return socket.create_server((str(SERVER), 80))

    def answer_one() -> None:
        with listener.accept()[0] as sock:
            if says is None:  # closing with the request unread resets
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.recv(1)
            else:
                sock.recv(4096)
                sock.sendall(says)

    with in_thread(listen) as listener:
        child = os.fork()
        if child == 0:
            try:
                answer_one()
            finally:
                os._exit(0)
        (exchange,) = ask(wire, url_host=SERVER)
        os.waitpid(child, 0)
    assert exchange.error == error


def test_an_interrupt_leaves_nothing_open(wire: Wire) -> None:
    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    host = ip_address(silent(wire))
    before = descriptors()
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            ask(wire, url_host=host, count=50, concurrency=50, timeout=600)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert descriptors() == before


def test_too_many_connections_for_the_limit(wire: Wire) -> None:
    wire.serve(wire.listener())
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60));"
        "from ipaddress import ip_address; from lvsctl.errors import HostError;"
        "from lvsctl.traffic.client import requests\n"
        f"try: requests({wire.client!r}, ip_address('{VIP}'), 80, count=100, hold=True)\n"
        "except HostError as error: print(error.hint)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ulimit -n" in out.stdout
