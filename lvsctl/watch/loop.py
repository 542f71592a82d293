"""Sample a running lab at intervals, and at once when the kernel reports a change."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
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
from lvsctl.traffic.neighbours import ask_neighbours
from lvsctl.watch.changes import changes
from lvsctl.watch.view import WINDOW, View, leftovers, view

CLOSEST = 0.1
"""Minimal seconds between two samples, however many changes the kernel reports."""

MOST_REQUESTS = 10
"""Most requests to a service in one probe; otherwise one for each of its real servers."""

REQUEST_TIMEOUT = 2.0
ARP_TIMEOUT = 0.5
"""Seconds to wait for a reply."""


class Watcher:
    """Samples a running lab every ``interval`` seconds and when the kernel reports a change.

        with Watcher(lab, interval=1.0) as watcher:
            for view in watcher.views(): …

    With ``probing``, each interval sends an ARP request for every VIP and some requests to each
    service; without, nothing is sent and nothing is changed. ``stop`` may be called from
    any thread or signal handler. ``still_there`` is called before each sample.
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
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self.lab_ended = False
        """Whether the iteration ended because the lab does not exist any more."""
        self._prober = _Prober(lab, interval, self._wake) if probing else None

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
        wakeup, self._wakeup = self._wakeup, -1
        os.close(wakeup)

    def stop(self) -> None:
        """End the iteration."""
        self._stopping = True
        self._wake()

    def redraw(self) -> None:
        """Sample at once."""
        self._wake()

    def _wake(self) -> None:
        if self._wakeup >= 0:
            with suppress(OSError):
                os.eventfd_write(self._wakeup, 1)

    def views(self) -> Iterator[View]:
        """Yield views until ``stop`` is called or the lab does not exist any more.

        One for each interval, and one for every change and every probe.
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
            if samples:
                sample = replace(sample, left=leftovers(self._lab, samples[-1], sample))
            director = self._sampler.director
            happened = tuple(changes(samples[-1], sample, director)) if samples else ()
            answers = self._prober.latest if self._prober is not None else None
            if happened or answers is not asked or sample.clock >= due:
                samples = [*_kept(samples, sample), sample]
                asked = answers
                yield view(self._lab, samples, happened, answers)
                if sample.clock >= due:
                    # On a slow machine, spend at most half of the time on sampling.
                    due = sample.clock + max(self._interval, 2 * took)
            self._wait(sample.clock + max(CLOSEST, took), due)

    def _wait(self, earliest: float, due: float) -> None:
        """Wait until ``due``; after a change or a call of ``stop``, only until ``earliest``."""
        own = [self._wakeup]
        if self._readable([*own, *(sock.fileno() for sock in self._sampler.event_sockets)], due):
            with suppress(BlockingIOError):
                os.eventfd_read(self._wakeup)
            if not self._stopping:
                self._readable(own, earliest)

    def _readable(self, fds: list[int], until: float) -> bool:
        """Wait until one of ``fds`` is readable; return False if ``until`` comes first."""
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        return bool(poll.poll(max(0.0, (until - time.monotonic()) * 1000)))


def _kept(samples: list[Sample], latest: Sample) -> list[Sample]:
    """Return the first sample, and those from which rates may still be computed."""
    recent = [s for s in samples[1:] if latest.clock - s.clock < WINDOW + CLOSEST]
    older = samples[1 : len(samples) - len(recent)]
    return [*samples[:1], *older[-1:], *recent]


class _Prober:
    """Sends requests from a thread of its own: a missing reply must not delay the samples."""

    def __init__(self, lab: Lab, interval: float, wake: Callable[[], None]) -> None:
        self._lab = lab
        self._interval = interval
        self._wake = wake
        self._stop = threading.Event()
        self.latest: Answers | None = None

    def start(self) -> None:
        """Start sending requests."""
        threading.Thread(target=self._run, name="lvsctl-probes", daemon=True).start()

    def stop(self) -> None:
        """Send no more requests; do not wait for pending ones."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            exchanges = {}
            arp: dict[tuple[str, IPAddress], tuple[str, ...]] = {
                (node, vip): self._arp_replies(node, device, vip)
                for node, device, vip in _arp_senders(self._lab)
            }
            for service in self._lab.services:
                exchanges[service.name] = self._sent(service)
            self.latest = Answers(exchanges, arp)
            self._wake()
            self._stop.wait(self._interval)

    def _arp_replies(self, node: str, device: str, vip: IPAddress) -> tuple[str, ...]:
        """Return the MACs that reply to a request for the VIP; none if it cannot be sent."""
        interfaces = self._lab.node(node).addresses_on(device)
        own = next(a.ip for a in interfaces if a.version == vip.version)
        try:
            return ask_neighbours(self._lab.netns(node), device, own, vip, ARP_TIMEOUT)
        except (LvsctlError, OSError):
            return ()

    def _sent(self, service: VirtualService) -> tuple[Exchange, ...]:
        count = max(1, min(len(service.real_servers), MOST_REQUESTS))
        sender = self._lab.default_client
        try:
            return client.requests(
                self._lab.netns(sender.name),
                service.endpoint.vip,
                service.endpoint.port,
                count=count,
                concurrency=count,
                protocol=service.endpoint.protocol,
                timeout=REQUEST_TIMEOUT,
                call="" if service.keeps_calls else None,
            )
        except LvsctlError:
            return ()


def _arp_senders(lab: Lab) -> Iterator[tuple[str, str, IPAddress]]:
    """Yield each client and router on a VIP's network, with its device there, and the VIP."""
    for vip in dict.fromkeys(vip for service in lab.services for vip in service.vips):
        network = lab.network_of(vip)
        if network is None:
            continue
        for node in (*lab.having(Role.CLIENT), *lab.having(Role.ROUTER)):
            if any(a.version == vip.version for a in node.addresses_on(network.name)):
                yield node.name, network.name, vip
