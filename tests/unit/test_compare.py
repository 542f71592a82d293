"""The comparison of the methods: what recorded evidence says of each, and how it is shown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lvsctl.claims import compare as judged
from lvsctl.claims.trace import Trace, traces
from lvsctl.model.claim import Verdict
from lvsctl.model.compare import (
    QUOTED,
    SOURCE,
    TITLES,
    ComparedRow,
    Comparison,
    MethodCell,
    Subject,
)
from lvsctl.model.service import ForwardingMethod
from lvsctl.output import compare_markdown
from lvsctl.output.html.compare import compare_page
from lvsctl.output.text.compare import format_comparison
from lvsctl.output.text.style import Style
from lvsctl.plan import planner
from tests.unit.recorded.reports import evidence_of
from tests.unit.report_samples import lab_of

TUNNELLED = (
    "device tunl0, VIP on tunl0, 4 sysctls (rp_filter, arp_ignore, arp_announce), gateway router"
)
NAT, TUN, DR = ForwardingMethod.NAT, ForwardingMethod.TUN, ForwardingMethod.DR


def trace_of(name: str) -> Trace:
    return next(traces(evidence_of(name)))


@pytest.mark.parametrize(
    ("name", "method", "text", "sysctls"),
    [
        ("nat", NAT, "gateway director", 0),
        (
            "tun",
            TUN,
            TUNNELLED,
            4,
        ),
        ("dr", DR, "VIP on lo, 2 sysctls (arp_ignore, arp_announce), gateway none", 2),
    ],
)
def test_needs_are_counted_from_the_plan(
    name: str, method: ForwardingMethod, text: str, sysctls: int
) -> None:
    lab = lab_of(name)
    cell = judged.needs(lab, planner.plan_for(lab), method, "rs1", "lvsctl plan")
    assert cell.measured == text
    assert cell.figures["sysctls"] == sysctls


@pytest.mark.parametrize(
    ("name", "method", "to"),
    # Beside the client a DR real server needs no gateway.
    [("nat", NAT, "the director"), ("dr-routed", DR, "the router"), ("dr", DR, "the client")],
)
def test_the_gateway_is_where_frames_of_replies_go(
    name: str, method: ForwardingMethod, to: str
) -> None:
    cell = judged.gateway(trace_of(name), method, "")
    assert cell.measured == to
    assert cell.frames


def test_replies_of_which_some_take_another_way_are_counted() -> None:
    trace = trace_of("nat")
    first, *rest = trace.conversations
    strayed = tuple(
        replace(one, ethernet=replace(one.ethernet, dst="02:00:00:00:00:99"))
        for one in first.replies
        if one.ethernet
    )
    trace = replace(trace, conversations=(replace(first, replies=strayed), *rest))
    assert "?: 4 of 48 packets" in judged.gateway(trace, NAT, "").measured


@pytest.mark.parametrize(
    ("name", "method", "asking", "reply"),
    [("nat", NAT, 4, 3), ("dr", DR, 4, 0), ("tun", TUN, 4, 0)],
)
def test_frames_and_ipvs_count_the_same_packets_at_the_director(
    name: str, method: ForwardingMethod, asking: int, reply: int
) -> None:
    figures = judged.load(trace_of(name), method, "").figures
    assert round(figures["request packets"]) == round(figures["ipvs packets in"]) == asking
    assert round(figures["reply packets"]) == round(figures["ipvs packets out"]) == reply
    # Twenty bytes more with a tunnel, and as many as before without.
    longer = figures["bytes out"] - figures["bytes in"]
    assert longer == pytest.approx(20 * figures["request packets"] if method is TUN else 0)


@pytest.mark.parametrize(
    ("name", "method", "inside", "outside"),
    [("nat", NAT, 1500, 1500), ("dr", DR, 1500, 1500), ("tun", TUN, 1480, 1500)],
)
def test_the_largest_packet_of_a_tunnel_is_smaller(
    name: str, method: ForwardingMethod, inside: int, outside: int
) -> None:
    cell = judged.largest(trace_of(name), (), method, "")
    assert (cell.figures["request"], cell.figures["request outside"]) == (inside, outside)
    assert cell.figures["fragments"] == 0


def test_the_client_sees_the_vip_alone_and_is_seen_itself() -> None:
    for name, method in (("nat", NAT), ("dr", DR), ("tun", TUN)):
        trace = trace_of(name)
        assert judged.addresses(trace, method, "").measured == f"VIP {trace.vip.address} alone"
        seen = judged.client_seen(trace, method, "")
        assert seen.figures["kept"] == seen.figures["answered"] > 0


def test_a_real_server_that_sees_the_director_is_named() -> None:
    trace = trace_of("nat")
    director = trace.vip
    hidden = tuple(replace(one, peer_seen=director) for one in trace.run.exchanges)
    trace = replace(trace, run=replace(trace.run, exchanges=hidden))
    text = judged.client_seen(trace, NAT, "").measured
    assert text.startswith("its own address and port: 0 of")
    assert str(director.address) in text


def test_the_time_at_the_director_is_that_between_its_frames() -> None:
    cell = judged.latency(trace_of("nat"), (0.004, 0.005, 0.006), (0.003,), NAT, "")
    assert set(cell.figures) == {"request", "reply", "vip", "rip", "spread"}
    assert cell.figures["vip"] == pytest.approx(5.0)
    assert "reply" not in judged.latency(trace_of("dr"), (), (), DR, "").figures
    silent = replace(trace_of("dr"), conversations=())
    assert not judged.latency(silent, (), (), DR, "").done


def comparison(verdict: Verdict = Verdict.PASS) -> Comparison:
    """Two rows, one of which is not measured."""
    frames = judged.load(trace_of("nat"), NAT, "").frames
    rows = []
    for subject in (Subject.LOAD, Subject.NUMBER):
        quoted = QUOTED.get(subject, ("", "", ""))
        cells = tuple(
            MethodCell(
                method,
                "not measured here" if subject is Subject.NUMBER else "4 | 3 packets",
                f"lvsctl scale --forward {method}",
                text,
                frames,
                {"packets": 4},
                done=subject is not Subject.NUMBER,
            )
            for method, text in zip((NAT, TUN, DR), quoted, strict=True)
        )
        rows.append(ComparedRow(subject, TITLES[subject], cells))
    return Comparison("methods", SOURCE, (NAT, TUN, DR), tuple(rows), {"nat": verdict})


@pytest.mark.parametrize("verbose", [False, True])
def test_text_shows_what_is_quoted_and_how_to_see_it(*, verbose: bool) -> None:
    text = format_comparison(comparison(), verbose=verbose, style=Style(color=False, width=80))
    assert "[low (10~20)]" in text
    assert "not measured here: lvsctl scale --forward nat" in " ".join(text.split())
    assert ("TCP SYN" in text) == verbose
    assert "do not trust" not in text


def test_a_lab_that_fails_is_no_measure() -> None:
    failed = comparison(Verdict.FAIL)
    assert not failed.holds
    text = format_comparison(failed, verbose=False, style=Style(color=False, width=80))
    assert "nat: verify says fail in this lab: do not trust what is above" in text
    assert "do not trust what is below" in compare_page(failed)


def test_markdown_and_page_have_a_cell_for_each_method() -> None:
    text = compare_markdown.page(comparison())
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") == 5 for line in table)
    assert "[number of real servers](#number-of-real-servers)" in text
    assert "### number of real servers" in text
    page = compare_page(comparison())
    assert page.count("<td>") == 6
    assert "lvsctl scale --forward dr" in page


def test_unknown_rows_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from lvsctl.cli.main import main

    assert main(["compare", "--only", "load,speed"]) == 2
    assert "'speed' is none of server, without" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", ""], "'' is none of server"),
        (["--html", "/"], "/ is a directory, not a file"),
        (["--html", "/missing/x.html"], "the directory of /missing/x.html does not exist"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from lvsctl.cli.main import main

    assert main(["compare", "--where", "machine", *words]) == 2
    assert message in capsys.readouterr().err
