"""What became of flows when a real server was taken out, or after silence: from built evidence."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from struct import pack

import pytest

from lvsctl.capture.decode import decode_all
from lvsctl.claims.draining import drained
from lvsctl.claims.flows import Observed, differing
from lvsctl.claims.idle import idled
from lvsctl.engine.drain import MATRIX_TOPOLOGY, wanted_flows
from lvsctl.errors import UsageError
from lvsctl.model.addresses import Endpoint
from lvsctl.model.evidence import Failure
from lvsctl.model.flows import (
    DRAINED,
    DrainRow,
    FlowKind,
    FlowRecord,
    FlowResult,
    Outcome,
    Request,
    Way,
)
from lvsctl.model.frame import Direction, LinkType, RawFrame, Tap
from lvsctl.model.packet import TcpFlag
from lvsctl.model.service import IpvsTimeouts, Protocol
from lvsctl.model.state import Connection
from lvsctl.output import drain_markdown
from lvsctl.output.text.drain import brief
from lvsctl.plan import planner
from lvsctl.topology import shipped
from lvsctl.topology.shipped import Topology

LAB = planner.load_lab(Topology(MATRIX_TOPOLOGY, shipped.text_of(MATRIX_TOPOLOGY).encode()))
CLIENT, VIP = Endpoint(IPv4Address("10.65.0.10"), 40000), IPv4Address("10.65.0.100")
BEGAN, DONE, UNTIL = 100.0, 100.01, 104.0
DEFAULTS = {
    "expire_nodest_conn": "0",
    "expire_quiescent_template": "0",
    "conn_reuse_mode": "1",
    "sloppy_tcp": "0",
}


def frame(at: float, node: str, direction: Direction, flags: TcpFlag, *, reply: bool) -> RawFrame:
    """A TCP segment of the client's connection, at a tap."""
    src, dst = (CLIENT.address.packed, VIP.packed)
    sport, dport = CLIENT.port, 80
    if reply:
        src, dst, sport, dport = dst, src, dport, sport
    packet = pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + src + dst
    packet += pack("!HHIIBBHHH", sport, dport, 1, 0, 0x50, flags, 1000, 0, 0)
    data = bytes(12) + b"\x08\x00" + packet
    tap = Tap(node, "lan")
    return RawFrame(int(at * 1e9), tap, direction, LinkType.ETHERNET, len(data), data)


def sent(at: float) -> RawFrame:
    return frame(at, "director", Direction.IN, TcpFlag.ACK, reply=False)


def reset(at: float, node: str) -> RawFrame:
    return frame(at, node, Direction.OUT, TcpFlag.RST, reply=True)


def observed(
    *frames: RawFrame, entry: str = "", settings: Mapping[str, str] = DEFAULTS
) -> Observed:
    table = (
        Connection(
            Protocol.TCP, CLIENT.address, CLIENT.port, VIP, 80,
            IPv4Address("10.65.0.11"), 80, entry, 890,
        ),
    )  # fmt: skip
    return Observed(
        LAB, "rs1", BEGAN, DONE, UNTIL, settings, {"web": 0, "shop": 300, "quic": 0},
        IpvsTimeouts(), table if entry else (), decode_all(frames),
    )  # fmt: skip


def answer(at: float, server: str = "rs1", after: float = 0.01) -> Request:
    return Request(at, at + after, server)


def failure(at: float, error: str, after: float = 0.01) -> Request:
    return Request(at, at + after, "", error)


BEFORE = (answer(99.8), answer(99.9))
SERVICE = {FlowKind.PERSISTENT: "shop", FlowKind.UDP: "quic"}


def judged(
    kind: FlowKind, way: Way, requests: tuple[Request, ...], seen: Observed | None = None
) -> FlowResult:
    record = FlowRecord(kind, SERVICE.get(kind, "web"), (CLIENT,), "rs1", BEFORE + requests)
    return drained(seen or observed(), way, record)


NODEST = {**DEFAULTS, "expire_nodest_conn": "1"}
QUIESCENT = {**DEFAULTS, "expire_quiescent_template": "1"}
SILENCE = (sent(100.1), sent(100.3))


@pytest.mark.parametrize(
    ("kind", "way", "requests", "seen", "text", "why"),
    [
        (
            FlowKind.HELD,
            Way.WEIGHT,
            (answer(100.1), answer(103.9)),
            observed(entry="ESTABLISHED"),
            "went on at rs1",
            "its entry stays in the table: weight 0 keeps only new connections away",
        ),
        (FlowKind.HELD, Way.WEIGHT, (answer(100.1),), observed(), "went on at rs1", ""),
        (
            FlowKind.HELD,
            Way.DELETE,
            (Request(100.1),),
            observed(*SILENCE),
            "silent until the end (4.0 s)",
            (
                "the director receives its packets (2) and forwards none: its entry leads to the "
                "removed server (expire_nodest_conn=0)"
            ),
        ),
        (
            FlowKind.HELD,
            Way.DELETE,
            (Request(100.1),),
            observed(*SILENCE, frame(100.31, "rs1", Direction.IN, TcpFlag.ACK, reply=False)),
            "silent until the end (4.0 s)",
            "rs1 receives its packets (1) and does not answer",
        ),
        (
            FlowKind.HELD,
            Way.DELETE,
            (Request(100.1),),
            observed(),
            "silent until the end (4.0 s)",
            "",
        ),
        (
            FlowKind.HELD,
            Way.DELETE,
            (failure(100.1, Failure.RESET),),
            observed(sent(100.1), reset(100.11, "director"), settings=NODEST),
            "reset after 110 ms",
            (
                "its next packet ended its entry (expire_nodest_conn=1), and the director itself "
                "reset it (frame #2)"
            ),
        ),
        (
            FlowKind.HELD,
            Way.DELETE,
            (failure(100.1, Failure.RESET, 3.0),),
            observed(*SILENCE, sent(103), reset(103.1, "director")),
            "silent for 3.0 s, then reset",
            (
                "2 packets dropped (expire_nodest_conn=0) until its entry timed out; the director "
                "itself reset the next (frame #4)"
            ),
        ),
        (
            FlowKind.HELD,
            Way.DELETE,
            (failure(100.1, Failure.RESET),),
            observed(sent(100.1), reset(100.11, "rs1")),
            "reset after 110 ms",
            "reset by rs1 (frame #2)",
        ),
        (
            FlowKind.HELD,
            Way.STOP,
            (failure(99.95, Failure.CLOSED, 0.1),),
            observed(frame(100.05, "rs1", Direction.OUT, TcpFlag.FIN, reply=True)),
            "closed after 50 ms",
            "rs1 closed it when its process ended (frame #1)",
        ),
        (
            FlowKind.KEEPALIVE,
            Way.DELETE,
            (failure(99.5, Failure.TIMED_OUT, 3.6),),
            observed(*SILENCE),
            "silent for 3.1 s, then timed out",
            (
                "the director receives its packets (2) and forwards none: its entry leads to the "
                "removed server (expire_nodest_conn=0)"
            ),
        ),
        (
            FlowKind.NEW,
            Way.WEIGHT,
            (answer(100.1, "rs2"), answer(100.2, "rs2")),
            observed(),
            "all 2 at rs2",
            "the scheduler leaves rs1 out: its weight is 0",
        ),
        (
            FlowKind.NEW,
            Way.WEIGHT,
            (answer(100.1, "rs2"), answer(100.2)),
            observed(),
            "1 of 2 still at rs1, others at rs2",
            "",
        ),
        (
            FlowKind.NEW,
            Way.STOP,
            (answer(100.1, "rs2"), failure(100.2, Failure.REFUSED), Request(103.9)),
            observed(),
            "1 of 2 refused, others at rs2",
            "IPVS still sends connections to rs1, where nothing listens",
        ),
        (
            FlowKind.PERSISTENT,
            Way.WEIGHT,
            (answer(100.1), answer(100.2)),
            observed(),
            "2 of 2 still at rs1",
            "the client's persistence template still leads to it (expire_quiescent_template=0)",
        ),
        (
            FlowKind.PERSISTENT,
            Way.WEIGHT,
            (answer(100.1, "rs2"),),
            observed(settings=QUIESCENT),
            "all 1 at rs2",
            "weight 0 ended the client's persistence template (expire_quiescent_template=1)",
        ),
        (
            FlowKind.REUSED_PORT,
            Way.WEIGHT,
            (answer(100.1),),
            observed(entry="FIN_WAIT"),
            "1 of 1 still at rs1",
            (
                "the entry of the earlier connection was used again (conn_reuse_mode=1, "
                "expire_nodest_conn=0)"
            ),
        ),
        (
            FlowKind.UDP,
            Way.DELETE,
            (Request(100.1), Request(101), answer(102.1, "rs2")),
            observed(),
            "silent for 2.0 s, then moved to rs2",
            (
                "dropped (expire_nodest_conn=0) until its entry timed out; then it was scheduled "
                "again"
            ),
        ),
        (
            FlowKind.UDP,
            Way.DELETE,
            (answer(100.1, "rs2"),),
            observed(settings=NODEST),
            "moved to rs2",
            "its next packet ended its entry and was scheduled again (expire_nodest_conn=1)",
        ),
        (
            FlowKind.UDP,
            Way.STOP,
            (failure(100.1, Failure.REFUSED),),
            observed(),
            "refused",
            "IPVS still sends connections to rs1, where nothing listens",
        ),
    ],
)
def test_what_became_of_a_flow_and_why(
    kind: FlowKind,
    way: Way,
    requests: tuple[Request, ...],
    seen: Observed,
    text: str,
    why: str,
) -> None:
    found = judged(kind, way, requests, seen)
    assert (found.text, found.why) == (text, why)


SLOPPY = {**DEFAULTS, "sloppy_tcp": "1"}


@pytest.mark.parametrize(
    ("kind", "requests", "seen", "text", "why"),
    [
        (
            FlowKind.IDLE,
            (failure(100.1, Failure.RESET), failure(100.1, Failure.RESET)),
            observed(sent(100.1), reset(100.11, "director")),
            "2 of 2 reset",
            (
                "their entries had timed out (tcp 900 s): the director itself reset the next "
                "packet (frame #2)"
            ),
        ),
        (
            FlowKind.IDLE,
            (failure(100.1, Failure.RESET), answer(100.1)),
            observed(sent(100.1), reset(100.11, "rs2"), settings=SLOPPY),
            "1 of 2 reset, others at rs1",
            (
                "their entries had timed out (tcp 900 s), and the next packet was scheduled "
                "without a SYN (sloppy_tcp=1): rs2 does not know the connection and reset it "
                "(frame #2)"
            ),
        ),
        (
            FlowKind.IDLE,
            (answer(100.1),),
            observed(entry="ESTABLISHED"),
            "1 of 1 still at rs1",
            "its entry was still in the table",
        ),
        (
            FlowKind.KEEPALIVE,
            (answer(100.1),),
            observed(entry="ESTABLISHED"),
            "went on at rs1",
            "its keepalives, one every second, kept its entry in the table",
        ),
        (
            FlowKind.HALF_CLOSED,
            (failure(100.1, Failure.RESET, 0.5),),
            observed(sent(100.6), reset(100.61, "director")),
            "reset after 600 ms",
            (
                "its entry had timed out (FIN_WAIT, tcpfin 120 s): the director itself reset the "
                "next packet (frame #2)"
            ),
        ),
        (
            FlowKind.IDLE_UDP,
            (answer(100.1), answer(100.1, "rs2")),
            observed(),
            "1 of 2 still at rs1, others at rs2",
            (
                "their entries had timed out (udp 300 s): the next packets were scheduled as new "
                "flows"
            ),
        ),
        (
            FlowKind.REUSED_PORT,
            (answer(100.1),),
            observed(entry="FIN_WAIT"),
            "1 of 1 still at rs1",
            (
                "the entries of the earlier connections were used again (conn_reuse_mode=1, "
                "expire_nodest_conn=0)"
            ),
        ),
    ],
)
def test_what_became_of_a_silent_flow_and_why(
    kind: FlowKind, requests: tuple[Request, ...], seen: Observed, text: str, why: str
) -> None:
    record = FlowRecord(kind, SERVICE.get(kind, "web"), (CLIENT,), "rs1", BEFORE + requests)
    found = idled(seen, record)
    assert (found.text, found.why) == (text, why)


def test_times_are_given_with_their_resolution() -> None:
    found = judged(FlowKind.HELD, Way.DELETE, (answer(100.1), failure(100.2, Failure.RESET)))
    assert found.after == 210
    assert found.resolution == pytest.approx(100)


def test_the_entry_in_the_table_is_told() -> None:
    found = judged(FlowKind.HELD, Way.WEIGHT, (answer(101),), observed(entry="ESTABLISHED"))
    assert found.entry == "ESTABLISHED at rs1, 890 s left"


def test_a_flow_that_did_not_start_is_told() -> None:
    record = FlowRecord(FlowKind.HELD, "web", trouble="none of 32 attempts")
    found = drained(observed(), Way.WEIGHT, record)
    assert (found.outcome, found.text) == (Outcome.NOT_STARTED, "none of 32 attempts")


def test_other_figures_are_no_difference() -> None:
    slow = judged(FlowKind.HELD, Way.DELETE, (failure(100.1, Failure.RESET, 0.2),))
    quick = judged(FlowKind.HELD, Way.DELETE, (failure(100.1, Failure.RESET),))
    gone = judged(FlowKind.HELD, Way.DELETE, (Request(100.1),))
    assert not differing([quick], [slow])
    assert differing([quick], [gone]) == (FlowKind.HELD,)


def test_each_kind_of_flow_has_a_service_that_suits_it() -> None:
    found = {one.kind: one.service for one in wanted_flows(LAB.services, DRAINED, skip=True)}
    assert found == {kind: SERVICE.get(kind, "web") for kind in DRAINED}
    persistent = [one for one in LAB.services if one.persistence]
    kinds = [one.kind for one in wanted_flows(persistent, DRAINED, skip=True)]
    assert kinds == [FlowKind.HELD, FlowKind.KEEPALIVE, FlowKind.PERSISTENT]
    with pytest.raises(UsageError, match="over UDP and keeps flows"):
        wanted_flows(persistent, (FlowKind.UDP,), skip=False)


def test_the_matrix_has_no_figures() -> None:
    flows = (
        judged(FlowKind.HELD, Way.DELETE, (failure(100.1, Failure.RESET, 3.0),)),
        judged(FlowKind.NEW, Way.DELETE, (answer(100.1, "rs2"), Request(100.2))),
    )
    assert [brief(one) for one in flows] == ["silent, then reset", "silent in part"]
    page = drain_markdown.page([DrainRow(Way.DELETE, NODEST, flows)])
    assert "| 1 | 0 | 1 | 0 | silent, then reset | silent in part |" in page
    assert "Weight 0" not in page
