"""Connections per second, each with one request: our responder and client beside C's.

    sudo .venv/bin/python benchmarks/serving.py [--rounds N] [--into FOLDER]

In a network namespace of its own, over lo, everything interleaved: wrk (one thread, 64
connections) asks the responder and a plain C epoll server; then wrk and our client ask the C
server. Then 10,000 connections are opened to the responder at once. CPU time per connection is
that of the server, or of the client, alone: it holds where the machine is busy with other things.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import resource
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from multiprocessing.synchronize import Event
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import report  # noqa: E402

C_PORT, OUR_PORT = 8001, 8002
INSIDE = "LVSCTL_BENCHMARK_INSIDE"
SECONDS = 2
CONNECTIONS = 64
REQUESTS = 10_000
AT_ONCE = 10_000

Rate = tuple[float, float]
"""Connections per second; microseconds of CPU time per connection."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--into", type=Path, help="a folder for serving.md")
    chosen = parser.parse_args()
    if INSIDE not in os.environ:
        script = 'mount --make-rprivate / && mount -t tmpfs run /run && ip netns add n && exec "$@"'
        path = f"{HERE.parent}/.tools/bin:/usr/sbin:/sbin:{os.environ['PATH']}"
        command = ["sh", "-c", script, "sh", "ip", "netns", "exec", "n", sys.executable, *sys.argv]
        env = {**os.environ, INSIDE: "1", "PATH": path}
        os.execvpe("unshare", ["unshare", "-n", "-m", *command], env)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    wide = "net.ipv4.ip_local_port_range=1024 65535"
    subprocess.run(["sysctl", "-qw", wide, "net.ipv4.tcp_tw_reuse=1"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        built = f"{folder}/epoll_server"
        source = HERE / "competitors" / "epoll_server.c"
        subprocess.run(["cc", "-O2", "-o", built, source], check=True)
        theirs = subprocess.Popen([built, str(C_PORT)], stdout=subprocess.PIPE)
        assert theirs.stdout
        theirs.stdout.readline()
    ready = multiprocessing.Event()
    ours = multiprocessing.Process(target=respond, args=(ready,))
    ours.start()
    ready.wait()
    assert ours.pid
    try:
        text = "\n".join([*compare(chosen.rounds, theirs.pid, ours.pid), "", at_once()]) + "\n"
        print(text, end="")
        if chosen.into:
            (chosen.into / "serving.md").write_text(text)
    finally:
        ours.terminate()
        theirs.kill()


def respond(ready: Event) -> None:
    from lvsctl.model.service import Protocol
    from lvsctl.traffic import responder
    from lvsctl.traffic.responder import Listener

    with responder.open_listeners([Listener("rs1", "n", Protocol.TCP, OUR_PORT)]) as sockets:
        ready.set()
        responder.serve(sockets)


def compare(rounds: int, theirs: int, ours: int) -> Iterator[str]:
    cases: dict[str, Callable[[], Rate]] = {
        "C server, asked by wrk": lambda: by_wrk(C_PORT, theirs),
        "responder, asked by wrk": lambda: by_wrk(OUR_PORT, ours),
        "wrk, asking the C server": lambda: by_wrk(C_PORT, None),
        "client, asking the C server": by_client,
    }
    samples: dict[str, list[Rate]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, measure in cases.items():
            samples[name].append(measure())
    yield report.heading()
    yield f"Medians of {rounds} interleaved rounds, the ratio that of each round."
    yield ""
    yield "| | connections per second | µs of CPU each | rate ÷ that of the row above |"
    yield "|---|---|---|---|"
    before: list[Rate] = []
    for name, found in samples.items():
        rate, cpu = (statistics.median(values) for values in zip(*found, strict=True))
        ratio = ""
        if before:  # the second of a pair
            pairs = zip(found, before, strict=True)
            ratio = f"{statistics.median(one[0] / other[0] for one, other in pairs):.2f}"
        before = [] if before else found
        yield f"| {name} | {rate:,.0f} | {cpu:.1f} | {ratio} |"


def cpu_of(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def by_wrk(port: int, server: int | None) -> Rate:
    """``server``: whose CPU time; None: wrk's own."""
    before = cpu_of(server) if server else cpu_of_children()
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-H", "Connection: close"]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/"], check=True, capture_output=True, text=True
    )
    used = (cpu_of(server) if server else cpu_of_children()) - before
    count = int(re.search(r"(\d+) requests in ([\d.]+)s", done.stdout)[1])  # type: ignore[index]
    rate = float(re.search(r"Requests/sec: +([\d.]+)", done.stdout)[1])  # type: ignore[index]
    assert "Socket errors" not in done.stdout, done.stdout
    return rate, used / count * 1e6


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def by_client() -> Rate:
    from lvsctl.traffic import client

    begun, cpu = time.perf_counter(), time.process_time()
    found = client.requests(
        "n", ip_address("127.0.0.1"), C_PORT, count=REQUESTS, concurrency=CONNECTIONS
    )
    seconds, used = time.perf_counter() - begun, time.process_time() - cpu
    assert all(exchange.answered for exchange in found)
    return REQUESTS / seconds, used / REQUESTS * 1e6


def at_once() -> str:
    """Open so many connections, and only then ask on every one of them."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    begun = time.perf_counter()
    opened = [socket.create_connection(("127.0.0.1", OUR_PORT)) for _ in range(AT_ONCE)]
    for sock in opened:
        sock.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    waiting = {sock.fileno(): sock for sock in opened}
    epoll = select.epoll()
    for number in waiting:
        epoll.register(number, select.EPOLLIN)
    answered = 0
    while waiting:
        for number, _ in epoll.poll(30):
            answered += waiting[number].recv(4096).startswith(b"HTTP/1.1 200")
            epoll.unregister(number)
            waiting.pop(number).close()
    seconds = time.perf_counter() - begun
    assert answered == AT_ONCE, f"{answered} of {AT_ONCE} answered"
    return f"{AT_ONCE:,} connections at once to it: {answered:,} answered in {seconds:.2f} s."


if __name__ == "__main__":
    main()
