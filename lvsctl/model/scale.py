"""Throughput over the number of real servers, by forwarding method: frozen values, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, median

from lvsctl.model.claim import Verdict
from lvsctl.model.service import ForwardingMethod


@dataclass(frozen=True, slots=True)
class Load:
    """What sent the requests, and how.

    ``tool`` is the program with its version; ``connections`` are those of each real server at the
    same time, ``reply`` the bytes of each reply's body. Measured were ``windows`` of ``seconds``
    each, one after the other, ``warm_up`` seconds after the first request.
    """

    tool: str
    clients: tuple[str, ...]
    connections: int
    reply: int
    warm_up: float
    seconds: float
    windows: int


@dataclass(frozen=True, slots=True)
class DirectorLoad:
    """What the director had to do for the replies, over a whole measurement.

    ``bytes`` and ``packets`` through its interfaces, both directions, for each byte and each
    packet that the clients received; ``sent`` are the bytes that it sent for each of these bytes.
    ``ipvs_in`` and ``ipvs_out`` are the bytes that IPVS counted, the same way. ``busiest`` is its
    link with the highest share of its rate in use, ``use`` that share; empty without a rate.
    """

    bytes: float
    packets: float
    sent: float
    ipvs_in: float
    ipvs_out: float
    busiest: str = ""
    use: float = 0.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds until a reply was complete: half, 90 % and 99 % of the requests took less."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class ScalePoint:
    """What was measured with ``servers`` real servers in the service.

    ``throughput`` are the bits per second of frames that the clients received, a figure for each
    window. ``expected`` is what the links' rates allow (None: no link on the way has a rate).
    ``busy`` is the share of this machine's processors that were not idle. ``requests`` were
    answered, ``errors`` not. ``latency`` is None where nothing was answered. ``tries`` above 1: the
    windows of earlier measurements differed too much, and these are those of the last one.
    """

    servers: int
    throughput: tuple[float, ...]
    expected: float | None
    latency: Latency | None
    requests: int
    errors: int
    busy: float
    director: DirectorLoad
    tries: int = 1

    @property
    def whole(self) -> float:
        """The throughput over all windows, which are equally long: what the verdict rests on."""
        return fmean(self.throughput)

    @property
    def middle(self) -> float:
        """The median of the windows."""
        return median(self.throughput)

    @property
    def least(self) -> float:
        """The lowest throughput of a window."""
        return min(self.throughput)

    @property
    def most(self) -> float:
        """The highest throughput of a window."""
        return max(self.throughput)


@dataclass(frozen=True, slots=True)
class Bend:
    """Where throughput stops growing in proportion to the real servers.

    ``after`` is the last number with which it still did, ``before`` the first with which it did
    not; ``before`` is 0 where it did with every number that was tried.
    """

    after: int
    before: int


@dataclass(frozen=True, slots=True)
class ScaleCurve:
    """One forwarding method.

    ``bend`` is what the measured points show, ``predicted`` what the links' rates say; ``verdict``
    compares the two, None where no rate says anything. ``text`` is why. ``limits`` are the links
    that the replies share, with their rates. ``full_at`` is with how many real servers the
    director's link would be full, calculated from what it sent for each byte of a reply (0: it
    has no rate). ``obstacle``: why the topology cannot have this method; then nothing is measured.
    """

    method: ForwardingMethod
    points: tuple[ScalePoint, ...] = ()
    limits: tuple[str, ...] = ()
    bend: Bend | None = None
    predicted: Bend | None = None
    verdict: Verdict | None = None
    text: str = ""
    full_at: int = 0
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """Throughput over the number of real servers, measured in labs of one topology.

    ``built`` real servers existed in each lab; those that were not in the service did nothing.
    ``own_rate`` is the rate of one real server's link in bits per second; 0: it has none.
    """

    topology: str
    service: str
    built: int
    own_rate: int
    load: Load
    curves: tuple[ScaleCurve, ...]

    @property
    def verdict(self) -> Verdict | None:
        """FAIL before INCONCLUSIVE before PASS; None where nothing is predicted."""
        verdicts = {curve.verdict for curve in self.curves}
        for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS):
            if verdict in verdicts:
                return verdict
        return None
