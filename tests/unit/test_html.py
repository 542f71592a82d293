"""The page: one file that needs nothing, and in which no name is markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from lvsctl.diagnosis.engine import conclusion
from lvsctl.engine.findings import Verification
from lvsctl.engine.inspect import recompute
from lvsctl.model.claim import Claim, Finding, Verdict
from lvsctl.model.failover import Failover, HeldConnection, Moment, Step
from lvsctl.model.frame import Direction, Tap
from lvsctl.model.lab import Lab
from lvsctl.output.graph import dot, mermaid
from lvsctl.output.html.failover import failover_page
from lvsctl.output.html.markup import Html, escaped, tag
from lvsctl.output.html.page import POLICY, page, walk_page
from lvsctl.output.html.topology import image
from lvsctl.output.text.style import printable
from lvsctl.topology import shipped
from lvsctl.walk.walk import walks
from tests.unit.recorded import mutations as m
from tests.unit.recorded.mutations import nothing_answered
from tests.unit.recorded.reports import NAMES, evidence_of
from tests.unit.report_samples import lab_of, verification

VOID = {"meta", "br"}
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "div",
    "span", "p", "b", "s", "code", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead",
    "tbody", "tr", "th", "td", "dl", "dt", "dd", "details", "summary", "svg", "g", "defs", "marker",
    "path", "rect", "line", "circle", "text",
}  # fmt: skip
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\x00\u202e'


class Reader(HTMLParser):
    """Takes note of what a browser would see."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(name: str) -> Verification:
    return recompute(evidence_of(name))


def failed_over(**changed: object) -> Failover:
    steps = (
        Step(-40, Moment.ADVERTISED, "d1", "the last advertisement of d1", 5),
        Step(0, Moment.ACTION, "", "d1 loses its power"),
        Step(54, Moment.LAST_ANSWER, "client", "client receives its last answer"),
        Step(1800, Moment.TOOK_OVER, "d2", "d2 is master", 9),
        Step(1844, Moment.ANSWERED, "client", "client receives an answer again"),
    )
    finding = Finding(Claim("ha.one-master", "one director is master"), "web", Verdict.PASS, "", "")
    held = (HeldConnection("10.60.0.10:1", "rs1", 2, False, False, "reset"),)
    usual = Failover("dr-ha", "web", "d1 loses its power", "client", "d1", "d2", 10.0, 19.0, 1790.0,
                     221, 51, steps, held, (finding,), masters=("d2",))  # fmt: skip
    return replace(usual, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "masters", "out"),
    [
        ({}, ["d1", "d2"], 1),
        ({"masters": ("d1", "d2")}, ["d1", "d2"], 1),
        ({"steps": (Step(0, Moment.ACTION, "", "nothing"),), "outage": 0.0, "after": "d1",
          "masters": ("d1",)}, ["d1"], 0),
        ({"steps": (), "after": "", "masters": (), "outage": None}, ["d1"], 0),
        ({"lab": HOSTILE, "action": HOSTILE, "client": HOSTILE}, ["d1", "d2"], 1),
    ],
    ids=["a failover", "split", "no outage", "no master", "hostile"],
)  # fmt: skip
def test_the_page_of_a_failover_shows_who_was_master_and_the_outage(
    changed: dict[str, object], masters: list[str], out: int
) -> None:
    source = failover_page(failed_over(**changed))
    reader = Reader(source)
    assert reader.open == []
    assert reader.tags <= ALLOWED
    assert not {"src", "href", "srcset"} & reader.attributes
    assert source.count('<rect class="on"') == len(masters)
    assert source.count('<rect class="out"') == out
    assert source.count('title="master from') == len(masters)


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_well_formed_and_need_nothing_else(name: str) -> None:
    for source in (page(shown(name), capture="capture.pcapng"),
                   walk_page(next(walks(evidence_of(name))))):  # fmt: skip
        reader = Reader(source)
        assert reader.open == []
        assert reader.tags <= ALLOWED
        assert not {"src", "href", "srcset"} & reader.attributes
        assert "http://www" not in source
        assert "@import" not in source
        assert escaped(POLICY) in source


def test_a_page_shows_topology_claims_and_way() -> None:
    found = shown("nat")
    text = Reader(page(found, capture="capture.pcapng")).text
    for node in found.lab.nodes:
        assert node.name in text
    for finding in found.findings:
        assert finding.claim.text in text
        assert finding.observed in text
    assert "the director rewrote the destination" in text


def test_what_fails_is_open_with_expected_beside_observed() -> None:
    change = m.seen_also_at(m.arp_reply, Tap("rs1", "lan"), Direction.OUT)
    source = page(recompute(change(evidence_of("dr"))), capture="capture.pcapng")
    assert '<details class="claim fail" open="">' in source
    assert '<details class="claim pass" open' not in source
    assert re.search(r"<code>wireshark -g \d+ capture\.pcapng</code>", source)


def test_a_page_of_a_failure_begins_with_the_cause() -> None:
    whole = evidence_of("dr")
    evidence = replace(whole, runs=tuple(map(nothing_answered, whole.runs)))
    source = page(recompute(evidence), capture="c")
    found = conclusion(evidence)
    why = source.index("<h2>Why</h2>")
    wrong = source.index(": what does not hold</h2>")
    assert why < wrong < source.index("<h2>Topology</h2>")
    assert source.index("claim fail") < source.index('<details class="rest">')
    assert source.index("claim pass") > source.index('<details class="rest">')
    for cause in found.causes:
        assert escaped(cause.text) in source[why:]
    assert "<h2>Why</h2>" not in page(shown("dr"), capture="c")


def test_names_cannot_become_markup() -> None:
    lab = lab_of("dr")
    nodes = tuple(replace(node, name=HOSTILE) for node in lab.nodes)
    lab = replace(lab, name=HOSTILE, description=HOSTILE, nodes=nodes)
    found = verification(lab, Verdict.FAIL)
    finding = found.findings[0]
    findings = (replace(finding, expected=HOSTILE, observed=HOSTILE, service=lab.services[0].name),)
    source = page(replace(found, lab=lab, findings=findings), capture=HOSTILE)
    reader = Reader(source)
    assert reader.open == []
    assert reader.tags <= ALLOWED
    assert "onerror" not in reader.attributes
    assert "\x00" not in source
    assert "\u202e" not in source


def evil(name: str) -> str:
    """Hostile text that can be told from other hostile text."""
    return f"{name}{HOSTILE}"


def assert_text(source: str, *texts: str) -> None:
    """It is a page in which each of ``texts`` is to be read, and nothing but text."""
    reader = Reader(source)
    assert reader.open == []
    assert reader.tags <= ALLOWED
    assert not {name for name in reader.attributes if name.startswith("on") or name == "src"}
    assert "\x00" not in source
    assert "\u202e" not in source
    for text in texts:
        assert printable(text) in reader.text


def network_called(lab: Lab, name: str) -> Lab:
    """``lab`` with another name for its first network, wherever it stands."""
    first = lab.networks[0].name
    nodes = tuple(
        replace(
            node,
            interfaces=tuple(
                replace(one, network=name if one.network == first else one.network)
                for one in node.interfaces
            ),
        )
        for node in lab.nodes
    )
    networks = (replace(lab.networks[0], name=name), *lab.networks[1:])
    return replace(lab, networks=networks, nodes=nodes)


def test_networks_services_and_claims_are_text() -> None:
    found = verification(lab_of("dr"), Verdict.FAIL, Verdict.PASS, Verdict.INCONCLUSIVE)
    service = replace(found.lab.services[0], name=evil("service"))
    lab = replace(network_called(found.lab, evil("network")), services=(service,))
    finding = replace(
        found.findings[0],
        claim=Claim(evil("all.claim"), evil("says"), broken_by=(evil("fault"),)),
        kernel=(evil("kernel"),),
        service=service.name,
    )
    unbroken = replace(finding, claim=replace(finding.claim, broken_by=(), unbroken=evil("why")))
    source = page(replace(found, lab=lab, findings=(finding, unbroken)), capture=evil("file"))
    assert_text(
        source, service.name, evil("network"), evil("fault"), evil("all.claim"), evil("says"),
        evil("kernel"), evil("why"), evil("file"),
    )  # fmt: skip


def test_a_frame_s_tap_is_text() -> None:
    found = shown("dr")
    finding = next(one for one in found.findings if one.frames)
    frame = finding.frames[0]
    frame = replace(frame, raw=replace(frame.raw, tap=Tap(evil("node"), evil("device"))))
    source = page(replace(found, findings=(replace(finding, frames=(frame,)),)), capture="c")
    assert_text(source, evil("node"), evil("device"))


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("name", ["nat", "tun"])
def test_a_way_is_text(name: str, answered: bool) -> None:
    way = next(walks(evidence_of(name)))
    nodes = {node: evil(node) for node in way.nodes}
    lab = network_called(way.lab, evil("network"))
    lab = replace(
        lab,
        name=evil("lab"),
        description=evil("description"),
        nodes=tuple(replace(node, name=evil(node.name)) for node in lab.nodes),
    )
    hops = [
        replace(
            hop,
            sender=nodes[hop.sender],
            receivers=tuple(nodes[one] for one in hop.receivers),
            network=evil("network"),
            label=evil(f"label {number} "),
            why=evil(f"why {number} "),
            changes=tuple(replace(one, before=evil("before")) for one in hop.changes),
        )
        for number, hop in enumerate(way.hops)
    ]
    lost = replace(hops[0], receivers=(), label=evil("lost"))
    exchange = way.exchange if answered else replace(way.exchange, error="timeout")
    hostile = replace(
        way,
        lab=lab,
        service=replace(way.service, name=evil("service")),
        client=nodes[way.client],
        exchange=exchange,
        nodes=tuple(nodes.values()),
        hops=(*hops, lost),
        outcome=evil("outcome"),
    )
    assert_text(
        walk_page(hostile), evil("lab"), evil("description"), evil("service"), evil("network"),
        evil("outcome"), evil("before"), evil("lost"), *nodes.values(),
        *(hop.why for hop in hops if not hop.again), *(hop.label for hop in hops if not hop.again),
    )  # fmt: skip
    assert any(hop.again for hop in hops)


def test_payloads_are_text() -> None:
    def evil(_: object, data: bytearray) -> None:
        data[-20:] = b"<script>0</script>!!"

    change = m.with_bytes(lambda f: bool(f.payload), evil)
    source = page(recompute(change(evidence_of("dr"))), capture="c")
    assert Reader(source).tags <= ALLOWED


def test_many_real_servers_share_a_box() -> None:
    lab = lab_of("dr", servers=100)
    source = page(verification(lab, Verdict.PASS), capture="c")
    assert "rs8 and 92 more" in source


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "<b>", tag("b", "&"), Html("<br>"), None) == "<p>&lt;b&gt;<b>&amp;</b><br></p>"
    assert tag("a", x_y='"', class_="c", z=None) == '<a x-y="&quot;" class="c"></a>'


# ── drawings of their own ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", shipped.names())
def test_a_drawing_is_an_image_of_its_own(name: str) -> None:
    root = ET.fromstring(image(lab_of(name)))  # noqa: S314 (our own)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.find("{http://www.w3.org/2000/svg}style") is not None


@pytest.mark.parametrize("drawn", [mermaid, dot])
def test_every_node_network_and_cable_is_drawn_once(drawn: Callable[[Lab], str]) -> None:
    lab = lab_of("dr-routed")
    lines = drawn(lab).splitlines()
    edges = [line for line in lines if "---" in line or " -- " in line]
    assert len(edges) == sum(len(node.interfaces) for node in lab.nodes)
    for node in lab.nodes:
        for interface in node.interfaces:
            addresses = ", ".join(str(one.ip) for one in interface.addresses)
            assert sum(f'"{addresses}"' in line for line in edges) == 1
    assert sum("VIP" in line for line in lines) == 1 + len(lab.services[0].real_servers)


@pytest.mark.parametrize("drawn", [mermaid, dot])
def test_many_real_servers_are_one_shape(drawn: Callable[[Lab], str]) -> None:
    text = drawn(lab_of("dr", servers=200))
    assert "rs1 to rs200" in text
    assert "10.10.0.11 to 10.10." in text
    assert len(text.splitlines()) < 15
