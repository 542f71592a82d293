"""Capturing at every tap of a lab: kept until it is over, or handed on as it comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from lvsctl.capture.decode import GUE_PORT, decode_all
from lvsctl.capture.listener import Listener, Options, RawRecord, raw_frame
from lvsctl.capture.order import in_order
from lvsctl.model.frame import Frame, LinkType, RawFrame, Recording, Tap

QUIET = 0.01
"""Seconds without a frame at any tap after which a capture counts as settled."""

SETTLE = 2.0
"""Seconds after which a stopped capture ends although frames keep coming."""

_DELIVERY = 1_000_000
"""Nanoseconds, generously, from a frame's timestamp until its socket has it."""


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


class Capture:
    """Frames kept while the ``with`` block runs, and decoded when asked for.

        with Capture({"lvs-dr-director": "director", "lvs-dr-client": "client"}) as capture:
            …traffic…
        for frame in capture.frames: print(frame.summary())

    A thread of its own reads the sockets; nothing else is done meanwhile. The block is
    entered once every tap is live, and left once they have been silent for ``quiet``
    seconds (frames on their way through the lab are waited for) or after ``SETTLE``.
    Memory grows with the frames kept: their bytes and about 300 more for each, and
    another 700 once ``frames`` has decoded them.
    """

    def __init__(
        self,
        nodes: Mapping[str | Path, str],
        options: Options | None = None,
        *,
        quiet: float = QUIET,
        gue_port: int = GUE_PORT,
    ) -> None:
        """``nodes``: namespace, by name or path → the node's name in taps."""
        self._nodes = dict(nodes)
        self._options = options or Options()
        self._quiet = quiet
        self._gue_port = gue_port
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._seen: list[RawRecord] = []
        self._error: BaseException | None = None
        self._recording: Recording | None = None

    def __enter__(self) -> Self:
        """Listen. Raises UsageError (the filter), LabError (no such namespace), HostError."""
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
        self.stop()

    def stop(self) -> Recording:
        """End the capture once it has settled; what it saw. A second time changes nothing."""
        listener, thread = self._listener, self._thread
        if listener is None or thread is None:
            return self.recording
        self._listener = self._thread = None
        try:
            listener.interrupt()
            thread.join()
            if self._error is not None:
                raise self._error
            drops = listener.drops()
        finally:
            listener.close()
        frames = tuple(map(raw_frame, in_order(self._seen)))
        self._seen = []
        taps = {frame.tap: frame.link for frame in frames} | listener.taps
        self._recording = Recording(taps, frames, drops)
        return self._recording

    def _run(self) -> None:
        listener = self._listener
        try:
            if listener is not None:
                self._listen(listener)
        except BaseException as error:  # noqa: BLE001 (handed over to ``stop``)
            self._error = error

    def _listen(self, listener: Listener) -> None:
        keep = self._seen.extend
        while True:
            busy = listener.wait(None)
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
            raise RuntimeError("a capture is read when it is over")
        return self._recording

    @cached_property
    def frames(self) -> tuple[Frame, ...]:
        """All frames in time order, decoded; decoding happens here, once."""
        return decode_all(self.recording.frames, gue_port=self._gue_port)

    @property
    def drops(self) -> Mapping[str, int]:
        """By node, the frames that the kernel could not hand over."""
        return self.recording.drops

    @property
    def taps(self) -> Mapping[Tap, LinkType]:
        """Where it listened, silent taps included."""
        return self.recording.taps


class LiveCapture:
    """Frames one by one as they come, in time order; nothing is kept.

        with LiveCapture(nodes) as live:
            for raw in live: writer.write(raw)

    The loop that consumes is the one that reads the sockets: a slow one lets frames
    wait in the kernel and, when its buffers are full, be dropped and counted.
    """

    def __init__(self, nodes: Mapping[str | Path, str], options: Options | None = None) -> None:
        """As for ``Capture``."""
        self._nodes = dict(nodes)
        self._options = options or Options()
        self._listener: Listener | None = None
        self._drops: dict[str, int] = {}
        self.taps: dict[Tap, LinkType] = {}

    def __enter__(self) -> Self:
        """Listen. Raises UsageError (the filter), LabError (no such namespace), HostError."""
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
        """Let the iteration end, after what has come until now. From any thread or a signal."""
        if self._listener is not None:
            self._listener.interrupt()

    def __iter__(self) -> Iterator[RawFrame]:
        listener = self._listener
        if listener is None:
            raise RuntimeError("a live capture is read inside its `with` block")
        held: list[RawRecord] = []
        while not listener.interrupted:
            # What has just been stamped may still be on its way to another socket: it is
            # held back for a moment, so that frames leave in time order.
            delivered = _now() - _DELIVERY
            listener.wait(2 * _DELIVERY / 1e9 if held else None)
            held += listener.read(_now())
            held = in_order(held)
            ripe = next((i for i, seen in enumerate(held) if seen[0] > delivered), len(held))
            yield from map(raw_frame, held[:ripe])
            del held[:ripe]
        held += listener.read(_now(), everywhere=True)
        yield from map(raw_frame, in_order(held))
