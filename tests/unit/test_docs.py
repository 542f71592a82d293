"""The documentation, without running its commands. tests/e2e/test_docs.py runs them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import typer

from lvsctl.claims import tables
from lvsctl.cli.commands import command
from lvsctl.faults import FAULTS
from lvsctl.topology import schema, shipped
from tests.unit.test_rooms import ROOMS
from tools.docs import DOCS, ROOT, reference
from tools.docs.alike import essence
from tools.docs.page import File, Page, PageError, Prose, read
from tools.docs.reference import json as json_reference

PAGES = sorted(path for path in DOCS.rglob("*.md") if path.parent != DOCS / "reference")
CLAIMS = {row.claim.id for table in tables() for row in table}

README = ROOT / "README.md"

each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))


def test_reference_pages_are_up_to_date() -> None:
    stale = [path.name for path in reference.stale(DOCS / "reference")]
    assert not stale, "type: .venv/bin/python -m tools.docs reference"


# ── every command on every page is valid ─────────────────────────────────────────────────


def typed(page: Page) -> Iterator[tuple[str, bool]]:
    """Yield what a reader may type: commands that were run, blocks of shell, `lvsctl …` in prose.

    With whether it stands in prose.
    """
    for one in page.commands:
        yield one.words, False
    for piece in page.pieces:
        if isinstance(piece, Prose):
            text = "\n".join(piece.lines)
            for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
                yield from ((line, False) for line in block.replace("\\\n", " ").splitlines())
            prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
            for words in re.findall(r"`(lvsctl [^`…]+)`", prose.replace("\n", " ")):
                yield words, True


def lvsctl_words(line: str) -> Iterator[list[str]]:
    """Yield the words of each lvsctl command in a line of shell, without redirections."""
    tokens = shlex.shlex(line, posix=True, punctuation_chars=True)
    tokens.whitespace_split = True
    plain = groupby(tokens, lambda token: not token.strip("();<>|&\n"))
    for is_operator, found in plain:
        words = list(found)
        if not is_operator and words[0] == "lvsctl":
            yield words[1:]


def parsed(words: list[str], *, in_prose: bool) -> dict[str, Any]:
    """Return the parameters of a command line. Raises Typer's exception if it is wrong.

    In prose the last word may be missing: "`lvsctl verify --from` does that".
    """
    if words in (["--help"], ["--install-completion"]):
        return {}
    node: Any = command()
    name = "lvsctl"
    while hasattr(node, "commands"):
        name, *words = words
        node = node.commands[name]
    if not words:  # the name of a command, in prose
        return {}
    try:
        return dict(node.make_context(name, list(words)).params)
    except typer.TyperException:
        if not in_prose:
            raise
        return dict(node.make_context(name, [*words, "NAME"]).params)


@pytest.mark.parametrize("path", [README, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_what_the_command_line_takes(path: Path) -> None:
    page = read(path)
    files = {f"./{piece.name}" for piece in page.pieces if isinstance(piece, File)}
    for line, in_prose in typed(page):
        for words in lvsctl_words(line):
            params = parsed(words, in_prose=in_prose)
            topology = params.get("topology") or (
                params.get("name") if words[0] == "topologies" else None
            )
            placeholder = topology is None or topology.isupper() or topology == "-"
            assert placeholder or topology in {*shipped.names(), *files}, line
            if words[0] == "fault" and words[1] in {"inject", "show", "restore"}:
                fault = params.get("name")
                assert fault is None or fault.isupper() or fault in FAULTS, line


@each_page
def test_claims_named_in_prose_exist(path: Path) -> None:
    for name in re.findall(r"`((?:nat|tun|dr|all)\.[a-z0-9-]+)`", path.read_text()):
        assert name in CLAIMS or name.endswith((".sh", ".yaml", ".pcapng")), name


@each_page
def test_commands_of_a_page_have_been_run(path: Path) -> None:
    page = read(path)
    assert page.text() == path.read_text()
    if any(page.commands):
        assert any(one.output for one in page.commands), f"python -m tools.docs run {path}"


def test_json_reference_has_every_command_that_reports() -> None:
    def reporting(node: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
        for name, one in getattr(node, "commands", {}).items():
            yield from reporting(one, (*words, name))
        formats = [param.type for param in node.params if "--format" in param.opts]
        if any("json" in getattr(one, "choices", ("json",)) for one in formats):
            yield " ".join(words)

    assert json_reference.commands() == set(reporting(command()))


# ── HACKING, in the README ───────────────────────────────────────────────────────────────────


def paths_in_hacking() -> list[str]:
    """Every path in backquotes in the tables of HACKING."""
    hacking = README.read_text(encoding="utf-8").partition("\n## HACKING\n")[2]
    rows = "\n".join(line for line in hacking.splitlines() if line.startswith("|"))
    return re.findall(r"`([^`\s]+(?:/|\.\w+))`", rows)


def test_paths_in_hacking_exist() -> None:
    """KIND.py, MODE.py and the like stand for any name: at least one file must match."""
    missing = [path for path in paths_in_hacking() if not any(ROOT.glob(pattern_of(path)))]
    assert not missing


def pattern_of(path: str) -> str:
    return re.sub(r"(?<=/)[A-Z]+(?=\.)", "[a-z]*", path)


def test_hacking_names_every_room_in_order() -> None:
    named = [path for path in paths_in_hacking() if path.count("/") == 1 + path.endswith("/")]
    rooms = [Path(path).name.removesuffix(".py") for path in named if path.startswith("lvsctl/")]
    assert tuple(dict.fromkeys(rooms[: len(ROOMS)])) == ROOMS


# ── when two outputs are the same ────────────────────────────────────────────────────────────

ANSWER = "rs1 answered on 10.10.0.100:80, request from 10.10.0.10:{}"
STATS = "TCP  10.10.0.100:80      {}       {}       {}     1185        0"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ANSWER.format(35748), ANSWER.format(60001)),
        (STATS.format(3, 18, 0), STATS.format(3, 19, 0)),
        ("   0.04  client → rs1  on lan  SYN", "  12.40  client → rs1  on lan  SYN"),
        ("received by rs2,\n   rs1, director", "received by director, rs1, rs2"),
        ("57 replies from 10.10.0.100", "48 replies from 10.10.0.100"),
        ("its kernel counted TcpOutRsts +24 (a", "its kernel counted TcpOutRsts +9 (a"),
        (
            "frames #5 rs1:lan, #7 client:lan",
            "frames #8 client:lan,\n          #6 rs1:lan",
        ),
    ],
)
def test_what_may_differ(one: str, other: str) -> None:
    assert essence((one,)) == essence((other,))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ANSWER.format(35748), ANSWER.format(80)),
        (ANSWER.format(35748), ANSWER.format(35748).replace("rs1", "rs2")),
        (STATS.format(3, 18, 0), STATS.format(4, 18, 0)),
        (STATS.format(3, 18, 0), STATS.format(3, 18, 5)),
        ("received by rs2, rs1, director", "received by rs2, director"),
        ("57 replies from 10.10.0.100", "0 replies from 10.10.0.100"),
        ("its kernel counted TcpOutRsts +24 (a", "its kernel counted IpOutNoRoutes +24 (a"),
        (f"{ANSWER.format(40000)} :40000", f"{ANSWER.format(40000)} :40001"),
        ("12 of 12 answered", "11 of 12 answered"),
    ],
)
def test_what_may_not_differ(one: str, other: str) -> None:
    assert essence((one,)) != essence((other,))


# ── reading pages ────────────────────────────────────────────────────────────────────────────


def test_page_is_read_as_it_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '# Title\n\n```yaml title="a.yaml"\nversion: 1\n```\n\n<!-- exit 3 -->\n'
        "```console\n$ echo one \\\n> two\none two\n\n$ exit 3\n```\n"
    )
    file, console = read(page).pieces[1], list(read(page).commands)
    assert isinstance(file, File)
    assert (file.name, file.lines) == ("a.yaml", ("version: 1",))
    assert [(one.words, one.output, one.status) for one in console] == [
        ("echo one \\\ntwo", ("one two",), 0),
        ("exit 3", (), 3),
    ]
    assert read(page).text() == page.read_text()


def test_page_that_is_not_run_says_why(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: needs Vagrant -->\n\n```console\n==> default: up\n```\n")
    assert not list(read(page).commands)
    page.write_text("<!-- not run: -->\n\n```console\n==> default: up\n```\n")
    with pytest.raises(PageError):
        read(page)


@pytest.mark.parametrize("text", ["```console\n$ true\n", "```console\noutput\n```\n"])
def test_broken_blocks_are_refused(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(PageError, match=r"page\.md:1|page\.md:2"):
        read(page)


# ── the site ─────────────────────────────────────────────────────────────────────────────────


def site(checkout: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """Build the site. Not with --quiet, which hides the warnings that --strict counts."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(into)],
        cwd=checkout,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_site_builds_strictly_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    """Strict: no dead link, no dead anchor, no page that is missing in the navigation."""
    done = site(ROOT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in tmp_path.rglob("*.html"):
        fetched = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=.?https?://[^\s>]*", path.read_text()
        )
        assert not fetched, f"{path.name} fetches {fetched}"


@pytest.mark.slow
def test_site_with_a_dead_link_is_refused(tmp_path: Path) -> None:
    """The strict build fails on a missing page, anchor or file, and on an orphan."""
    docs = tmp_path / "docs"
    docs.mkdir()
    links = "[page](no.md) [anchor](orphan.md#no) [file](../no.py) [there](../mkdocs.yml)"
    (docs / "index.md").write_text(f"# A\n\n{links}\n")
    (docs / "orphan.md").write_text("# B\n")
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    settings = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[0]
    (tmp_path / "mkdocs.yml").write_text(f"{settings}\nnav:\n  - A: index.md\n")
    done = site(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    for complaint in ("'no.md'", "'orphan.md#no'", "'../no.py'", "  - orphan.md"):
        assert complaint in done.stderr
    assert "mkdocs.yml'" not in done.stderr


IPVS_ATTRIBUTES = {
    "CMD": "SERVICE DEST DAEMON TIMEOUT_TCP TIMEOUT_TCP_FIN TIMEOUT_UDP",
    "SVC": "AF PROTOCOL ADDR PORT FWMARK SCHED_NAME FLAGS TIMEOUT NETMASK STATS PE_NAME STATS64",
    "DEST": "ADDR PORT FWD_METHOD WEIGHT U_THRESH L_THRESH ACTIVE_CONNS INACT_CONNS PERSIST_CONNS "
    "STATS ADDR_FAMILY STATS64 TUN_TYPE TUN_PORT TUN_FLAGS",
    "DAEMON": "STATE MCAST_IFN SYNC_ID SYNC_MAXLEN MCAST_GROUP MCAST_GROUP6 MCAST_PORT MCAST_TTL",
    "STATS": "CONNS INPKTS OUTPKTS INBYTES OUTBYTES CPS INPPS OUTPPS INBPS OUTBPS PAD",
    "INFO": "VERSION CONN_TAB_SIZE",
}
"""The attributes in linux/ip_vs.h of Linux 6.12, without UNSPEC and MAX."""


def test_every_attribute_of_ipvs_has_a_key_or_a_reason() -> None:
    page = (DOCS / "ipvs-options.md").read_text()
    names = {f"IPVS_{of}_ATTR_{one}" for of, s in IPVS_ATTRIBUTES.items() for one in s.split()}
    header = Path("/usr/include/linux/ip_vs.h")  # newer kernels may have more
    if header.exists():
        names.update(re.findall(r"^\t(IPVS_[A-Z]+_ATTR_\w+),", header.read_text(), re.MULTILINE))
    missing = [one for one in names if f"| `{one}` |" not in page]
    assert not missing


def test_keys_on_the_page_of_ipvs_exist() -> None:
    known = set(json.dumps(schema.json_schema()).split('"')) | {"lvs_sync_daemon"}
    rows = (DOCS / "ipvs-options.md").read_text().splitlines()
    told = [row.split("|")[3] for row in rows if re.match(r"\| `IPVS_(?!STATS|INFO)", row)]
    words = [word for one in told if " none" not in one for word in re.findall("`[^`]+`", one)]
    keys = {key for word in words for key in re.findall("[a-z_]+", word)}
    assert {"netmask", "timeouts", "upper"} <= keys <= known
