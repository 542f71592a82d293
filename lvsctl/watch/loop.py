"""The watching itself: a sample when the time has come, or at once when something rings."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface
from types import TracebackType
from typing import Self

from lvsctl.errors import LvsctlError
from lvsctl.kernel.sampler import Sampler
from lvsctl.model.addresses import IPAddress
from lvsctl.model.evidence import Answers, Exchange
from lvsctl.model.lab import Lab, Role
from lvsctl.model.service import VirtualService
from lvsctl.model.state import Sample
from lvsctl.traffic import client
from lvsctl.traffic.client import arp_probe
from lvsctl.watch.changes import changes
from lvsctl.watch.view import WINDOW, View, view

CLOSEST = 0.1
"""Seconds between two samples at least, however much rings."""

MOST_REQUESTS = 10
"""Requests of one round to one service; else as many as it has real servers."""

REQUEST_PATIENCE = 2.0
ARP_PATIENCE = 0.5
"""Seconds that an answer is waited for."""


class Watcher:
    """A running lab, looked at every ``interval`` seconds and when the kernel tells of a change.

        with Watcher(lab, interval=1.0) as watcher:
            for view in watcher.views(): …

    With ``probing``, each interval asks aloud for every VIP by ARP and sends each service
    some requests; without, nothing is sent and nothing is changed. ``stop`` may be called from
    any thread or signal handler. ``still_there`` is asked before each sample.
    """

    def __init__(
        self,
        lab: Lab,
        *,
        interval: float = 1.0,
        probing: bool = False,
        still_there: Callable[[], bool] = lambda: True,
    ) -> None:
        self._lab = lab
        self._interval = interval
        self._still_there = still_there
        self._sampler = Sampler(lab)
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self.lab_ended = False
        """Whether the lab was gone when the iteration ended."""
        self._prober = _Prober(lab, interval, self._ring) if probing else None

    def __enter__(self) -> Self:
        self._sampler.__enter__()
        if self._prober is not None:
            self._prober.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._prober is not None:
            self._prober.stop()
        self._sampler.close()
        bell, self._bell = self._bell, -1
        os.close(bell)

    def stop(self) -> None:
        """End the iteration."""
        self._stopping = True
        self._ring()

    def redraw(self) -> None:
        """Look at once."""
        self._ring()

    def _ring(self) -> None:
        if self._bell >= 0:
            with suppress(OSError):
                os.eventfd_write(self._bell, 1)

    def views(self) -> Iterator[View]:
        """What is seen, without end: until ``stop``, or the lab is not there any more.

        One for each interval, and one more for every change and every round of probes.
        """
        samples: list[Sample] = []
        due = 0.0
        asked: Answers | None = None
        while not self._stopping:
            if not self._still_there():
                self.lab_ended = True
                return
            self._sampler.take_events()
            sample = self._sampler.sample()
            took = time.monotonic() - sample.clock
            director = self._lab.directors[0].name
            happened = tuple(changes(samples[-1], sample, director)) if samples else ()
            answers = self._prober.latest if self._prober is not None else None
            if happened or answers is not asked or sample.clock >= due:
                samples = [*_kept(samples, sample), sample]
                asked = answers
                yield view(self._lab, samples, happened, answers)
                if sample.clock >= due:
                    # Where looking takes long (a slow machine), half the time is enough.
                    due = sample.clock + max(self._interval, 2 * took)
            self._wait(sample.clock + max(CLOSEST, took), due)

    def _wait(self, earliest: float, due: float) -> None:
        """Until ``due``; or, where something rings before, until ``earliest``."""
        own = [self._bell]
        if self._readable([*own, *(sock.fileno() for sock in self._sampler.event_sockets)], due):
            with suppress(BlockingIOError):
                os.eventfd_read(self._bell)
            if not self._stopping:
                self._readable(own, earliest)

    def _readable(self, fds: list[int], until: float) -> bool:
        """Wait until one of ``fds`` is readable; False: the time has come first."""
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        return bool(poll.poll(max(0.0, (until - time.monotonic()) * 1000)))


def _kept(samples: list[Sample], latest: Sample) -> list[Sample]:
    """The first of all, and those that rates may still be counted from."""
    recent = [s for s in samples[1:] if latest.clock - s.clock < WINDOW + CLOSEST]
    older = samples[1 : len(samples) - len(recent)]
    return [*samples[:1], *older[-1:], *recent]


class _Prober:
    """Asks, in a thread of its own: an answer that does not come must not hold up the looking."""

    def __init__(self, lab: Lab, interval: float, ring: Callable[[], None]) -> None:
        self._lab = lab
        self._interval = interval
        self._ring = ring
        self._stop = threading.Event()
        self.latest: Answers | None = None

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="lvsctl-probes", daemon=True).start()

    def stop(self) -> None:
        """Send no more; what is under way is not waited for."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            exchanges = {}
            arp: dict[tuple[str, IPAddress], tuple[str, ...]] = {
                (node, vip): self._heard(node, device, vip)
                for node, device, vip in _askers(self._lab)
            }
            for service in self._lab.services:
                exchanges[service.name] = self._sent(service)
            self.latest = Answers(exchanges, arp)
            self._ring()
            self._stop.wait(self._interval)

    def _heard(self, node: str, device: str, vip: IPv4Address) -> tuple[str, ...]:
        """Who answers a question for the VIP; nobody where it cannot even be asked."""
        interfaces = self._lab.node(node).addresses_on(device)
        own = next(a.ip for a in interfaces if isinstance(a, IPv4Interface))
        try:
            return arp_probe(self._lab.netns(node), device, own, vip, ARP_PATIENCE)
        except (LvsctlError, OSError):
            return ()

    def _sent(self, service: VirtualService) -> tuple[Exchange, ...]:
        count = max(1, min(len(service.real_servers), MOST_REQUESTS))
        asking = self._lab.having(Role.CLIENT)[0]
        try:
            return client.requests(
                self._lab.netns(asking.name),
                service.endpoint.vip,
                service.endpoint.port,
                count=count,
                concurrency=count,
                protocol=service.endpoint.protocol,
                timeout=REQUEST_PATIENCE,
            )
        except LvsctlError:
            return ()


def _askers(lab: Lab) -> Iterator[tuple[str, str, IPv4Address]]:
    """Each client and router beside a VIP, with its device there, and the VIP."""
    for vip in dict.fromkeys(vip for service in lab.services for vip in service.vips):
        network = lab.network_of(vip)
        if network is None or not isinstance(vip, IPv4Address):
            continue
        for node in (*lab.having(Role.CLIENT), *lab.having(Role.ROUTER)):
            if any(isinstance(a, IPv4Interface) for a in node.addresses_on(network.name)):
                yield node.name, network.name, vip
