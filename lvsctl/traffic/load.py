"""Load on a virtual service: wrk in the clients' namespaces, or lvsctl's own client.

wrk (https://github.com/wg/wrk) keeps its connections and sends the next request on each as soon
as the reply to the last one is complete. Our own client opens a connection for each request.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from lvsctl import __version__
from lvsctl.errors import KernelError
from lvsctl.kernel.netns import enter, run_inside
from lvsctl.model.addresses import Endpoint
from lvsctl.model.evidence import Exchange
from lvsctl.model.scale import Latency
from lvsctl.model.service import Protocol, VipPort
from lvsctl.traffic.attempts import Attempts, Target

END_SECONDS = 10.0
"""How long wrk may take to end and to print what it measured."""

TIMEOUT = 60
"""Seconds that a request may take: a link that is full makes all wait."""

_LONGEST = 3600
"""Seconds after which wrk ends by itself, if this process was killed."""

_SCRIPT = b"""\
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("lvsctl %d %d %d %d %d\\n", summary.requests,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
"""
"""For wrk: print its totals in one line, times in microseconds."""

_LINE = re.compile(r"^lvsctl (\d+) (\d+) (\d+) (\d+) (\d+)$", re.MULTILINE)


class Sent(NamedTuple):
    """What became of the requests of a client."""

    requests: int
    errors: int
    latency: Latency | None


_End = Callable[[], Sent]
"""Ends the load of a client and returns what became of it."""

_MOST_REQUESTS = 1_000_000
"""Of our own client: more than it sends in an hour."""


class Running:
    """Load that runs; ``results`` are those of each client once it has ended."""

    def __init__(self) -> None:
        self.results: list[Sent] = []


def wrk() -> str | None:
    """Return the path of wrk; None if it is not installed."""
    return shutil.which("wrk")


def name_of_tool() -> str:
    """Return the name and version of what sends the requests."""
    program = wrk()
    if program is None:
        return f"lvsctl {__version__}'s own client, a connection for each request (wrk is missing)"
    done = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    found = re.match(r"wrk (?:debian/)?(\S+)", done.stdout)
    return f"wrk {found[1]}" if found else "wrk"


def connections_needed() -> int:
    """Return how many connections for each real server keep its link full.

    Our own client opens one for each request, which the scheduler may send elsewhere: a real
    server has more of them at one moment and fewer at another.
    """
    return 2 if wrk() is not None else 6


@contextmanager
def running(clients: Sequence[str], to: VipPort, path: str, connections: int) -> Iterator[Running]:
    """Send requests for ``path`` from the namespaces ``clients`` inside the ``with`` block.

    ``connections`` at the same time in all, shared by the clients. Raises KernelError if wrk
    fails; LabError if a namespace does not exist.
    """
    program = wrk()
    found = Running()
    shares = [len(range(n, connections, len(clients))) for n in range(len(clients))]
    with ExitStack() as stack:
        ends = []
        for client, share in zip(clients, shares, strict=True):
            if share and program is not None:
                ends.append(stack.enter_context(_wrk(program, client, to, path, share)))
            elif share:
                ends.append(stack.enter_context(_own(client, to, path, share)))
        yield found
        found.results = [end() for end in ends]


@contextmanager
def _wrk(program: str, client: str, to: VipPort, path: str, connections: int) -> Iterator[_End]:
    script = os.memfd_create("lvsctl-wrk.lua")
    try:
        os.write(script, _SCRIPT)
        argv = [program, "-t1", f"-c{connections}", f"-d{_LONGEST}s", f"--timeout={TIMEOUT}s"]
        argv += ["-s", f"/proc/self/fd/{script}", f"http://{Endpoint(to.vip, to.port)}{path}"]
        process = run_inside(client, lambda: _started(argv, script))
    finally:
        os.close(script)

    def end() -> Sent:
        process.send_signal(signal.SIGINT)  # it prints what it measured so far
        try:
            output, _ = process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            raise KernelError("wrk did not end", node=client, command=" ".join(argv)) from None
        line = _LINE.search(output)
        if line is None:
            last = (output.strip().splitlines() or ["it printed nothing"])[-1]
            raise KernelError(f"wrk: {last}", node=client, command=" ".join(argv))
        requests, errors, *times = map(int, line.groups())
        latency = Latency(*(round(one / 1000, 1) for one in times)) if requests else None
        return Sent(requests, errors, latency)

    try:
        yield end
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _started(argv: Sequence[str], script: int) -> subprocess.Popen[str]:
    """Start wrk in the namespace of the calling thread."""
    # It inherits what is blocked here, and SIGINT ends it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    return subprocess.Popen(
        argv,
        pass_fds=[script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def _own(client: str, to: VipPort, path: str, connections: int) -> Iterator[_End]:
    target = Target(
        to.vip, to.port, Protocol.TCP, TIMEOUT, path,
        keep=False, impatience=TIMEOUT, burst=connections,
    )  # fmt: skip
    stop = os.eventfd(0)
    attempts = Attempts(target, _MOST_REQUESTS, connections, stop)
    over = threading.Event()

    def run() -> None:
        try:
            with enter(client):
                attempts.run()
        finally:
            over.set()

    thread = threading.Thread(target=run, daemon=True)

    def end() -> Sent:
        os.eventfd_write(stop, 1)
        over.wait(END_SECONDS)
        done = [one for one in attempts.exchanges if one.answered]
        return Sent(len(done), len(attempts.exchanges) - len(done), _latency(done))

    attempts.make_room()
    thread.start()
    try:
        yield end
    finally:
        os.eventfd_write(stop, 1)
        over.wait(END_SECONDS)
        attempts.close()
        os.close(stop)


def _latency(done: Sequence[Exchange]) -> Latency | None:
    if not done:
        return None
    times = sorted(one.seconds * 1000 for one in done)
    p50, p90, p99 = (round(times[int(share * (len(times) - 1))], 1) for share in (0.5, 0.9, 0.99))
    return Latency(p50, p90, p99)
