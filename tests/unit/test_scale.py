"""Throughput over the number of real servers: what links allow, and what a curve shows."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from lvsctl.claims.scale import bend_of, judge
from lvsctl.cli.scale import parse_scale
from lvsctl.errors import UsageError
from lvsctl.model.claim import Verdict
from lvsctl.model.scale import Bend, Scale, ScaleCurve
from lvsctl.model.service import ForwardingMethod
from lvsctl.output import plots
from lvsctl.output.html.scale import scale_page
from lvsctl.output.serialize import from_json, to_json
from lvsctl.output.text.scale import format_scale
from lvsctl.output.text.style import Style
from lvsctl.plan import planner
from lvsctl.plan.capacity import reply_path, throughput, unanswered
from lvsctl.topology import shipped
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology
from tests.unit.scale_samples import measured, point

NAT, TUN, DR = ForwardingMethod.NAT, ForwardingMethod.TUN, ForwardingMethod.DR

ONE_ARM = """
version: 1
name: one
networks:
  lan: {ipv4: 10.0.0.0/24, rate: 10mbit}
  out: {ipv4: 10.0.1.0/24}
nodes:
  client:   {role: client, networks: [out]}
  router:   {role: router, networks: [lan, out], links: {out: {rate: 4mbit}}}
  director: {role: director, networks: [lan], links: {lan: {rate: 6mbit}}}
  rs:       {role: real-server, networks: [lan], count: 3, links: {lan: {rate: 1mbit}}}
services:
  - {name: web, vip: 10.0.0.100, port: 80, forward: dr, real_servers: [rs]}
"""


def expected(text: str, method: ForwardingMethod, servers: int) -> float | None:
    topology = Topology("x.yaml", text.encode())
    lab = planner.load_lab(topology, Overrides(servers=servers, forward=method))
    service, client = lab.services[0], lab.default_client
    return throughput(reply_path(lab, service, one.node, client) for one in service.real_servers)


@pytest.mark.parametrize(
    ("method", "servers", "rate"),
    [
        # client ── router ── director (2.5 Mbit/s) and real servers (0.25 Mbit/s each)
        (NAT, 1, 0.25e6),
        (NAT, 10, 2.5e6),
        (NAT, 11, 2.5e6),
        (NAT, 100, 2.5e6),
        (TUN, 100, 25e6),
        (DR, 100, 25e6),
    ],
)
def test_replies_share_the_directors_link_with_nat_alone(
    method: ForwardingMethod, servers: int, rate: float
) -> None:
    assert expected(shipped.text_of("methods"), method, servers) == pytest.approx(rate)


NO_REPLY = """
version: 1
name: none
networks:
  out: {{ipv4: 10.0.1.0/24}}
  lan: {{ipv4: 10.0.0.0/24}}
nodes:
  client:   {{role: client, networks: [out]}}
  director: {{role: director, networks: [out, lan]}}
  host:     {{role: real-server, networks: {{out: 10.0.1.3, lan: 10.0.0.3}}}}
  rs:       {{role: real-server, networks: [lan], count: 5, {own}}}
services:
  - {{name: web, vip: 10.0.1.100, port: 80, forward: {method}, real_servers: [rs]}}
"""


@pytest.mark.parametrize(
    ("method", "own", "why"),
    [
        ("nat", "", ""),
        ("nat", "routes: [{to: default, via: 10.0.0.77}]", "no route leads to one"),
        ("nat", "routes: [{to: 10.0.1.0/24, via: 10.0.0.3}]", "host does not forward"),
        ("dr", "", "no route leads to one"),
        ("dr", "routes: [{to: default, via: 10.0.0.2}]", "drops packets from its own VIP"),
    ],
)
def test_replies_that_reach_no_client_are_known_before(method: str, own: str, why: str) -> None:
    text = NO_REPLY.format(method=method, own=own or "mss_clamp: 1400")
    found = unanswered(planner.load_lab(Topology("x.yaml", text.encode())))
    assert bool(found) == bool(why)
    assert all(one.startswith("no reply of rs1 … rs5 to requests for web") for one in found)
    assert all(why in one for one in found)


@pytest.mark.parametrize("name", shipped.names())
def test_replies_of_every_shipped_topology_reach_its_clients(name: str) -> None:
    assert unanswered(planner.load_lab(Topology(name, shipped.text_of(name).encode()))) == ()


def test_a_router_that_replies_pass_is_a_limit_too() -> None:
    assert expected(ONE_ARM, DR, 3) == pytest.approx(3e6)
    assert expected(ONE_ARM, DR, 20) == pytest.approx(4e6)


def test_without_a_rate_nothing_is_expected() -> None:
    assert expected(shipped.text_of("dr"), DR, 2) is None


def test_with_snat_replies_return_to_the_directors_own_address() -> None:
    lab = planner.load_lab(Topology("nat-snat.yaml", shipped.text_of("nat-snat").encode()))
    path = reply_path(lab, lab.services[0], "rs1", lab.default_client)
    assert [way.node for way in path] == ["rs1", "director"]


@pytest.mark.parametrize(
    ("values", "bend"),
    [
        ([], None),
        ([(1, 1.0)], None),
        ([(1, 0.0), (2, 2.0)], None),
        ([(1, 1.0), (2, 2.0), (10, 9.0)], Bend(10, 0)),
        ([(1, 1.0), (2, 2.0), (10, 8.0), (20, 8.0)], Bend(2, 10)),
        ([(5, 5.0), (10, 10.0), (20, 10.0)], Bend(10, 20)),
    ],
)
def test_a_curve_bends_where_it_leaves_the_proportion(
    values: list[tuple[int, float]], bend: Bend | None
) -> None:
    assert bend_of(values) == bend


@pytest.mark.parametrize(
    ("points", "verdict", "words"),
    [
        ([point(1, 0.5), point(10, 5.0), point(20, 5.0, 5.0)], Verdict.PASS, "bends after 10"),
        ([point(1, 0.5), point(10, 5.0), point(20, 10.0)], Verdict.PASS, "grows"),
        # DR whose replies go back through the director after all.
        ([point(1, 0.5), point(10, 5.0), point(20, 5.0, 10.0)], Verdict.FAIL, "50% less"),
        # NAT whose replies bypass it.
        ([point(1, 0.5), point(10, 5.0), point(20, 10.0, 5.0)], Verdict.FAIL, "100% more"),
        (
            [point(1, 0.5), point(20, 5.0, 10.0, busy=0.97)],
            Verdict.INCONCLUSIVE,
            "processors were 97% busy",
        ),
        # More than the links carry is not what a busy processor does.
        ([point(1, 0.5), point(20, 10.0, 5.0, busy=0.97)], Verdict.FAIL, "100% more"),
        (
            [point(1, 0.5), point(20, 5.0, 10.0, spread=2.0)],
            Verdict.INCONCLUSIVE,
            "the windows differ",
        ),
        ([point(1, 0.5, None), point(20, 9.0, None)], None, "no link"),
    ],
)
def test_a_verdict_rests_on_the_measured_points(
    points: list[Any], verdict: Verdict | None, words: str
) -> None:
    curve = judge(ScaleCurve(DR, tuple(points)))
    assert curve.verdict is verdict
    assert words in curve.text


def test_text_json_and_page_show_each_curve() -> None:
    result = measured(NAT, (1, 0.5), (10, 5.0), (20, 5.0))
    text = format_scale(result, style=Style(color=False, width=80))
    assert "fits: bends after 10, before 20" in text
    assert max(map(len, text.splitlines())) <= 80
    again = from_json(json.loads(json.dumps(to_json(result))), Scale)
    assert again == result
    page = scale_page(result)
    assert page.count("data:image/svg+xml;base64,") == 4
    assert "img-src data:" in page
    assert "bends after 10, before 20" in page
    assert plots.scale_svg(result, plots.DARK).startswith("<svg")
    assert plots.scale_png(result).startswith(b"\x89PNG")


def test_without_matplotlib_it_is_said_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else found(name)
    )
    from lvsctl.cli.main import main

    assert main(["scale", "--html", str(tmp_path / "x.html")]) == 69
    assert "pip install 'lvsctl[plots]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--servers", "1,x"], "'x' is not a number of real servers"),
        (["--servers", "0"], "'0' is not a number of real servers"),
        (["--forward", "nat,masq"], "'masq' is none of nat, tun, dr"),
        (["--from", "missing.json"], "cannot read missing.json"),
        (["--seconds", "nan"], "nan is not a number of seconds"),
        (["--png", "/"], "/ is a directory, not a file"),
        (["--html", "/missing/x.html"], "the directory of /missing/x.html does not exist"),
    ],
)
def test_wrong_words_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from lvsctl.cli.main import main

    assert main(["scale", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lvsctl.cli.main import main

    for content in ("[]", "{}", '{"curves": 1}', "x"):
        (tmp_path / "x.json").write_text(content)
        assert main(["scale", "--from", str(tmp_path / "x.json")]) == 2
        assert "is not what" in capsys.readouterr().err


def test_a_saved_result_without_figures_is_refused() -> None:
    whole = measured(DR, (1, 0.5), (2, 1.0))
    assert parse_scale(json.dumps(to_json(whole)), Path("x.json")) == whole
    saved: Any = to_json(whole)
    saved["curves"][0]["points"][0]["throughput"] = []
    with pytest.raises(UsageError, match="is not what"):
        parse_scale(json.dumps(saved), Path("x.json"))
    saved["curves"][0]["points"] = []
    with pytest.raises(UsageError, match="is not what"):
        parse_scale(json.dumps(saved), Path("x.json"))
    del saved["curves"][0]
    with pytest.raises(UsageError, match="no measured forwarding method"):
        parse_scale(json.dumps(saved), Path("x.json"))
