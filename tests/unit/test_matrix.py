"""The matrix fault × topology: what it says, how it is kept, and that what is kept is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvsctl.cli.failure import ExitStatus
from lvsctl.cli.main import main
from lvsctl.engine.campaign import Cell, Column, Health, Trial
from lvsctl.errors import UsageError
from lvsctl.faults import FAULTS
from lvsctl.faults.known import KNOWN
from lvsctl.model.claim import Claim, Finding, Verdict
from lvsctl.model.shard import Shard
from lvsctl.output import matrix_markdown
from lvsctl.output.text.faults import format_matrix
from lvsctl.output.text.style import Style
from lvsctl.topology import shipped

KEPT = Path(__file__).parents[2] / "docs" / "fault-matrix.md"
HEALTHY = Health(Verdict.PASS, ())


def cell(
    *failed: str,
    named: tuple[tuple[str, str], ...] = (("vip-missing", "rs1"),),
    after: Health = HEALTHY,
) -> Cell:
    """vip-missing at rs1, which must break one claim."""
    found = tuple(Finding(Claim(one, ""), "web", Verdict.FAIL, "", "") for one in failed)
    trial = Trial(FAULTS["vip-missing"], "rs1", ("dr.reply-direct",), (), found)
    return Cell("dr", trial, named, after)


GOOD = cell("dr.reply-direct")
SICK = Health(Verdict.FAIL, (("vip-on-lan", "rs2"),))


def test_a_cell_holds_where_all_is_as_it_should_be() -> None:
    assert GOOD.holds
    assert GOOD.wrong == ()


@pytest.mark.parametrize(
    ("one", "wrong"),
    [
        (cell("dr.reply-direct", named=()), "diagnose names no cause"),
        (cell("dr.reply-direct", named=(("vip-on-lan", "rs1"), ("vip-missing", "rs1"))),
         "diagnose names vip-on-lan at rs1, vip-missing at rs1"),
        (cell("dr.reply-direct", named=(("vip-missing", "rs2"),)),
         "diagnose names vip-missing at rs2"),
        (cell(), "dr.reply-direct did not fail"),
        (cell("dr.reply-direct", "dr.one-segment"), "dr.one-segment failed too"),
        (cell("dr.reply-direct", after=SICK),
         "not restored: verify: fail, diagnose: vip-on-lan at rs2"),
    ],
)  # fmt: skip
def test_a_cell_says_what_is_wrong(one: Cell, wrong: str) -> None:
    assert not one.holds
    assert one.wrong == (wrong,)
    assert wrong in format_matrix([Column("dr", HEALTHY, (one,))], style=Style(False, 200))


def test_a_topology_that_is_not_healthy_is_not_broken_further() -> None:
    column = Column("dr", HEALTHY, (GOOD,), SICK)
    assert not column.holds
    assert "not healthy after all faults" in format_matrix([column], style=Style(False, 200))
    column = Column("dr", SICK, ())
    assert not column.holds
    said = format_matrix([column], style=Style(False, 200))
    assert "dr was not healthy before any fault was injected: verify: fail" in said


def test_what_is_written_is_read_again_and_can_be_added_to() -> None:
    applies = [("vip-missing", "dr"), ("vip-missing", "tun"), ("vip-on-lan", "dr")]
    kept = {("vip-missing", "tun"): "✗ rs1: diagnose names no cause"}
    cells = {**kept, **matrix_markdown.cells_of([Column("dr", HEALTHY, (GOOD,))])}
    text = matrix_markdown.matrix(cells, ["dr", "nat", "tun"], applies)
    found = matrix_markdown.read(text)
    assert found["vip-missing", "dr"] == "✓ rs1"
    assert found["vip-missing", "tun"] == "✗ rs1: diagnose names no cause"
    assert found["vip-missing", "nat"] == matrix_markdown.NOT_APPLICABLE
    assert found["vip-on-lan", "dr"] == matrix_markdown.NOT_RUN
    assert matrix_markdown.matrix(found, ["dr", "nat", "tun"], applies) == text
    assert matrix_markdown.read("# something else\n") == {}


def test_what_the_kept_matrix_says_of_each_fault_in_each_topology_holds() -> None:
    text = KEPT.read_text(encoding="utf-8")
    kept = matrix_markdown.read(text)
    possible = set(matrix_markdown.possible())
    again = "lvsctl fault matrix --write docs/fault-matrix.md"
    assert again in text.partition("|")[0]
    for topology in shipped.names():
        for fault in FAULTS:
            said = kept.get((fault, topology), "")
            place = f"{fault} × {topology}: make it anew: {again}"
            applies = (fault, topology) in possible
            assert (said == matrix_markdown.NOT_APPLICABLE) == (not applies), place
            run = said != matrix_markdown.NOT_RUN
            assert not run or not applies or said.startswith(matrix_markdown.GOOD), place


def test_every_known_misconfiguration_has_a_fault_or_a_reason() -> None:
    assert [one.number for one in KNOWN] == list(range(1, 27))
    for one in KNOWN:
        assert one.faults or one.why
        assert set(one.faults) <= FAULTS.keys()


@pytest.mark.parametrize(("count", "parts"), [(0, 3), (2, 3), (10, 3), (873, 8), (8, 8)])
def test_the_parts_of_a_campaign_are_the_whole(count: int, parts: int) -> None:
    items = list(range(count))
    shares = [Shard.parse(f"{number}/{parts}").of(items) for number in range(1, parts + 1)]
    assert [one for share in shares for one in share] == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "-1/3", "a/b", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a part of a whole"):
        Shard.parse(text)


def test_a_part_without_a_cell_is_no_success() -> None:
    words = ["fault", "matrix", "dr", "--fault", "vip-missing", "--where", "host"]
    assert main([*words, "--shard", "1/2"]) == ExitStatus.USAGE


def test_pages_of_parts_become_one(tmp_path: Path) -> None:
    """What is missing in all of them, or wrong in one, is no success."""
    whole = matrix_markdown.read(KEPT.read_text())
    halves = [dict(list(whole.items())[part::2]) for part in range(2)]
    words = ["fault", "matrix"]
    for number, half in enumerate(halves):
        page = tmp_path / f"{number}.md"
        page.write_text(matrix_markdown.page(half))
        words += ["--merge", str(page)]
    result = tmp_path / "matrix.md"
    assert main([*words, "--write", str(result)]) == 0
    assert matrix_markdown.read(result.read_text()) == matrix_markdown.read(
        matrix_markdown.page(whole)
    )
    assert main(words[:4]) == 1
    wrong = {**whole, ("vip-missing", "dr"): f"{matrix_markdown.BAD} rs1: diagnose names no cause"}
    result.write_text(matrix_markdown.page(wrong))
    assert main(["fault", "matrix", "--merge", str(result)]) == 1
