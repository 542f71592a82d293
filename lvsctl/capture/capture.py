"""Capture at every tap of a lab: into memory until it is over, or live, frame by frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Iterator, Mapping
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Self

from lvsctl.capture.decode import GUE_PORTS, decode_all
from lvsctl.capture.listener import Listener, Options, RawRecord, raw_frame
from lvsctl.model.frame import Frame, LinkType, RawFrame, Recording, Tap

_OUT = 4
"""packet(7), PACKET_OUTGOING."""


def sort_records(seen: list[RawRecord]) -> list[RawRecord]:
    """Sort records by time, and those of the same time by what must have come first.

    Kernel timestamps order hops across namespaces if the clock is fine enough. In User-Mode Linux
    it advances by 256 ns, so two hops of one packet may have the same time: then a frame sent by
    one node comes before its arrival at another, and the frames of one node keep their order, in
    which its socket received them.
    """
    seen.sort(key=itemgetter(0))
    ordered: list[RawRecord] = []
    for _, group in groupby(seen, key=itemgetter(0)):
        same = list(group)
        while len(same) > 1:
            ordered.append(same.pop(_first_index(same)))
        ordered += same
    return ordered


def _first_index(same: list[RawRecord]) -> int:
    """Return the index of a record that no other in ``same`` must precede; 0 if there is none."""
    waiting: set[str] = set()
    for position, (_, tap, kind, _, _, data, _) in enumerate(same):
        if tap.node not in waiting:
            comes_from_there = kind != _OUT and any(
                other[2] == _OUT and other[5] == data and other[1].node != tap.node
                for other in same
            )
            if not comes_from_there:
                return position
            waiting.add(tap.node)
    return 0


QUIET = 0.01
"""Seconds without a frame at any tap after which a capture counts as settled."""

SETTLE = 2.0
"""Seconds after which a stopped capture ends although frames keep coming."""

_DELIVERY = 1_000_000
"""Maximum nanoseconds from a frame's timestamp until its socket has it."""


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


class Capture:
    """Captures while the ``with`` block runs; the frames are decoded on first use.

        with Capture({"lvs-dr-director": "director", "lvs-dr-client": "client"}) as capture:
            …traffic…
        for frame in capture.frames: print(frame.summary())

    A thread of its own reads the sockets. The block is entered once every tap is live, and left
    once no frame has come for ``quiet`` seconds (so that frames on their way through the lab are
    included) or after ``SETTLE`` seconds. Memory grows with the number of frames.
    """

    def __init__(
        self,
        nodes: Mapping[str | Path, str],
        options: Options | None = None,
        *,
        quiet: float = QUIET,
        gue_ports: Container[int] = GUE_PORTS,
    ) -> None:
        """``nodes``: namespace, by name or path → the node's name in taps."""
        self._nodes = dict(nodes)
        self._options = options or Options()
        self._quiet = quiet
        self._gue_ports = gue_ports
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._seen: list[RawRecord] = []
        self._error: BaseException | None = None
        self._recording: Recording | None = None

    def __enter__(self) -> Self:
        """Start. Raises UsageError (invalid filter), LabError (no such namespace), HostError."""
        self._listener = Listener(self._nodes, self._options)
        self._thread = threading.Thread(target=self._run, name="lvsctl-capture", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._thread is not None:  # not stopped yet
                self.stop()
        finally:
            listener, self._listener = self._listener, None
            if listener is not None:
                listener.close()

    def stop(self) -> Recording:
        """End the capture once no more frames come; return the recording, also if called again.

        The sockets are closed at the end of the block: a kernel without a compiler for filters
        takes milliseconds to free each, and User-Mode Linux has one CPU.
        """
        listener, thread = self._listener, self._thread
        if listener is None or thread is None:
            return self.recording
        self._thread = None
        listener.interrupt()
        thread.join()
        if self._error is not None:
            raise self._error
        drops = listener.drops()
        frames = tuple(map(raw_frame, sort_records(self._seen)))
        self._seen = []
        taps = {frame.tap: frame.link for frame in frames} | listener.taps
        self._recording = Recording(taps, frames, drops)
        return self._recording

    def _run(self) -> None:
        listener = self._listener
        try:
            if listener is not None:
                self._listen(listener)
        except BaseException as error:  # noqa: BLE001 (``stop`` raises it)
            self._error = error

    def _listen(self, listener: Listener) -> None:
        keep = self._seen.extend
        while True:
            busy = listener.wait(None)
            listener.let_frames_gather()
            keep(listener.read(_now()))
            if not busy or listener.interrupted:
                break
        listener.forget_interrupt()
        deadline = time.monotonic() + SETTLE
        while listener.wait(self._quiet) and time.monotonic() < deadline:
            keep(listener.read(_now()))
        keep(listener.read(_now(), everywhere=True))

    @property
    def recording(self) -> Recording:
        """Taps, raw frames and drops. RuntimeError while the capture runs."""
        if self._recording is None:
            raise RuntimeError("the recording of a capture is available after its end")
        return self._recording

    @cached_property
    def frames(self) -> tuple[Frame, ...]:
        """All frames in time order, decoded on first use."""
        return decode_all(self.recording.frames, gue_ports=self._gue_ports)

    @property
    def drops(self) -> Mapping[str, int]:
        """By node, the number of frames that the socket lost."""
        return self.recording.drops

    @property
    def taps(self) -> Mapping[Tap, LinkType]:
        """The taps, including those without a frame."""
        return self.recording.taps


class LiveCapture:
    """Yields frames as they come, in time order, and keeps none.

        with LiveCapture(nodes) as live:
            for raw in live: writer.write(raw)

    The consuming loop reads the sockets: if it is slow, frames wait in the kernel and are dropped
    (and counted) when its buffers are full.
    """

    def __init__(self, nodes: Mapping[str | Path, str], options: Options | None = None) -> None:
        """As for ``Capture``."""
        self._nodes = dict(nodes)
        self._options = options or Options()
        self._listener: Listener | None = None
        self._drops: dict[str, int] = {}
        self.taps: dict[Tap, LinkType] = {}

    def __enter__(self) -> Self:
        """Start. Raises UsageError (invalid filter), LabError (no such namespace), HostError."""
        self._listener = Listener(self._nodes, self._options)
        self.taps = self._listener.taps
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._listener is not None:
            self._drops = self._listener.drops()
            self._listener.close()
            self._listener = None

    @property
    def drops(self) -> Mapping[str, int]:
        """By node, the frames lost so far."""
        return self._drops if self._listener is None else self._listener.drops()

    def stop(self) -> None:
        """End the iteration after the frames received so far. From any thread or signal handler."""
        if self._listener is not None:
            self._listener.interrupt()

    def __iter__(self) -> Iterator[RawFrame]:
        listener = self._listener
        if listener is None:
            raise RuntimeError("a live capture can only be read inside its `with` block")
        held: list[RawRecord] = []
        while not listener.interrupted:
            # A frame with an earlier timestamp may still be on its way to another socket: recent
            # ones are held back for a moment, so that frames are yielded in time order.
            delivered = _now() - _DELIVERY
            listener.wait(2 * _DELIVERY / 1e9 if held else None)
            held += listener.read(_now())
            held = sort_records(held)
            ripe = next((i for i, seen in enumerate(held) if seen[0] > delivered), len(held))
            yield from map(raw_frame, held[:ripe])
            del held[:ripe]
        held += listener.read(_now(), everywhere=True)
        yield from map(raw_frame, sort_records(held))
