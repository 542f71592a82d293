"""Pages in a real browser: nothing off the screen, no text over other text, readable in the dark.

`make test-browser` runs these: they need Chromium. Every page is made from a lab on real IPVS.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

WIDTHS = (390, 800, 1400)
"""A phone, a tablet and a desk; pixels."""

LEAST_CONTRAST = 4.5
"""Of text with what is behind it (WCAG 2.2, 1.4.3)."""

LEAST_TEXT, LEAST_PRINTED = 9.0, 4.5
"""Height of a line of text in pixels, below which nobody reads it; paper has more dots."""

EIGHT_NODES = """\
version: 1
name: eight
networks:
  out: {ipv4: 192.0.2.0/24}
  mid: {ipv4: 198.51.100.0/24}
  lan: {ipv4: 10.88.0.0/16}
nodes:
  client: {role: client, networks: {out: 192.0.2.2}, routes: [{to: default, via: 192.0.2.1}]}
  edge-router:
    role: router
    networks: {out: 192.0.2.1, mid: 198.51.100.1}
    routes: [{to: default, via: 198.51.100.2}]
  core-router:
    role: router
    networks: {mid: 198.51.100.2, lan: 10.88.0.1}
    routes: [{to: default, via: 198.51.100.1}]
  director: {role: director, networks: {lan: 10.88.0.3}, routes: [{to: default, via: 10.88.0.1}]}
  rs: {role: real-server, networks: [lan], count: 4, routes: [{to: default, via: 10.88.0.1}]}
services:
  - {name: web, vip: 10.88.255.1, port: 80, forward: dr, scheduler: rr, real_servers: [rs]}
"""
HUNDRED = """\
version: 1
name: hundred
networks:
  lan: {ipv4: 10.89.0.0/16}
nodes:
  client: {role: client, networks: {lan: 10.89.0.2}, routes: [{to: default, via: 10.89.0.1}]}
  director: {role: director, networks: {lan: 10.89.0.3}, routes: [{to: default, via: 10.89.0.1}]}
  rs:
    {role: real-server, networks: [lan], count: 100, routes: [{to: default, via: 10.89.0.1}]}
services:
  - {name: web, vip: 10.89.255.1, port: 80, forward: dr, scheduler: rr, real_servers: [rs]}
"""


class Kind(NamedTuple):
    """A page, and how it is made: by a command in which names in braces are replaced."""

    topology: str
    fault: str
    command: str


KINDS = {
    "passing": Kind("tun", "", "verify {lab} --report {directory}"),
    "failing": Kind("tun", "rp-filter-on-tunnel", "verify {lab} --report {directory}"),
    "eight nodes": Kind(EIGHT_NODES, "arp-ignore-unset", "verify {lab} --report {directory}"),
    "hundred servers": Kind(HUNDRED, "", "verify {lab} --report {directory}"),
    "graph": Kind(HUNDRED, "", "graph {topology} --format html"),
    "walk": Kind(EIGHT_NODES, "", "walk {lab} --format html"),
    "scale": Kind("", "", "scale --servers 1,2 --forward dr --html {page}"),
    "compare": Kind("", "", "compare --html {page}"),
}


def lvsctl(*words: str, status: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lvsctl", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode in status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program is not None, "Chromium is not installed: type tools/setup browser"
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
        running = playwright.chromium.launch(executable_path=program, args=options)
        yield running
        running.close()


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a page."""
    kind = KINDS[request.param]
    directory = tmp_path_factory.mktemp("page")
    page = directory / "report.html"
    lab, topology = kind.topology, kind.topology
    if "\n" in kind.topology:
        topology = str(directory.with_suffix(".yaml"))
        Path(topology).write_text(kind.topology)
        lab = kind.topology.split("name: ")[1].split("\n")[0]
    if lab:
        lvsctl("up", topology)
    try:
        if kind.fault:
            lvsctl("fault", "inject", kind.fault, "--lab", lab)
        words = kind.command.format(
            lab=lab, topology=topology, directory=directory, page=page
        ).split()
        printed = lvsctl(*words, status=(1,) if kind.fault else (0,))
    finally:
        if lab:
            lvsctl("down", lab)
    if not page.exists():
        page.write_text(printed)
    return page


LOOK = """() => {
  const shown = (e) => e.checkVisibility({contentVisibilityAuto: true, opacityProperty: true,
                                          visibilityProperty: true});
  const scrolls = (e) => {
    // What a person expects to move: a drawing and a table of figures.
    if (!e.closest('.topology, pre, table:not(.walk)')) return false;
    for (let at = e; at; at = at.parentElement)
      if (['auto', 'scroll'].includes(getComputedStyle(at).overflowX)) return true;
    return false;
  };
  const colour = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const [r, g, b, a = 1] = colour(getComputedStyle(at).backgroundColor);
      if (a > 0.5) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255)
      .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.textContent.trim() || !shown(parent)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const svg = parent.closest('svg');
    const style = getComputedStyle(parent);
    const one = light(colour(svg ? style.fill : style.color).slice(0, 3));
    const two = light(svg ? behind(svg) : behind(parent));
    const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    for (const box of range.getClientRects())
      if (box.width && box.height)
        found.push({text: node.textContent.trim().slice(0, 60), left: box.left, right: box.right,
                    top: box.top, bottom: box.bottom, scrolls: scrolls(parent),
                    contrast});
  }
  return {texts: found, width: document.documentElement.scrollWidth};
}"""


def overlapping(texts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the pairs of texts of which one covers a part of the other."""
    pairs = []
    ordered = sorted(texts, key=lambda one: one["top"])
    for index, one in enumerate(ordered):
        for other in ordered[index + 1 :]:
            if other["top"] >= one["bottom"]:
                break
            across = min(one["right"], other["right"]) - max(one["left"], other["left"])
            down = one["bottom"] - other["top"]
            # Boxes of lines contain the space between lines, which letters do not use.
            least = 0.35 * min(one["bottom"] - one["top"], other["bottom"] - other["top"])
            if across > 1 and min(down, other["bottom"] - other["top"]) > least:
                pairs.append((one["text"], other["text"]))
    return pairs


def complaints(page: Page, width: int, least: float = LEAST_TEXT) -> list[str]:
    """Look at the page as it is shown now."""
    seen = page.evaluate(LOOK)
    said = []
    if seen["width"] > width:
        said.append(f"the page is {seen['width']} pixels wide")
    for text in seen["texts"]:
        if not text["scrolls"] and (text["left"] < -1 or text["right"] > width + 1):
            said.append(f"off the screen: {text['text']}")
        if text["contrast"] < LEAST_CONTRAST:
            said.append(f"contrast {text['contrast']:.1f}: {text['text']}")
        if text["bottom"] - text["top"] < least:
            said.append(f"{text['bottom'] - text['top']:.1f} pixels high: {text['text']}")
    said += [f"{one!r} and {other!r} overlap" for one, other in overlapping(seen["texts"])]
    return list(dict.fromkeys(said))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_layout(browser: Browser, made: Path, width: int, scheme: Any) -> None:
    """As it opens, and with everything that is folded opened."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(made.as_uri())
    page.screenshot(path=made.with_name(f"{width}-{scheme}.png"), full_page=True)
    assert complaints(page, width) == []
    page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
    assert complaints(page, width) == []
    page.close()


def test_print(browser: Browser, made: Path) -> None:
    """On A4, whose text is 718 pixels wide at Chromium's margins, in any scheme."""
    page = browser.new_page(viewport={"width": 718, "height": 1000}, color_scheme="dark")
    page.goto(made.as_uri())
    page.emulate_media(media="print")
    assert complaints(page, 718, LEAST_PRINTED) == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.pdf(path=made.with_name("print.pdf"), format="A4")
    page.close()
