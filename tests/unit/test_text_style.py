"""Layout: tables fit, words stay whole, colours do not count, terminals are not steered."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from lvsctl.output.text.style import Cell, Style, display_width, printable

PLAIN = Style(color=False, width=40)
COLOR = Style(color=True, width=40)


def bare(text: str) -> str:
    return re.sub(r"\033\[[0-9]*m", "", text)


def test_columns_are_aligned() -> None:
    assert PLAIN.table([["a", "bb"], ["ccc", "d"]]) == "a    bb\nccc  d"


def test_a_right_column_is_aligned_right() -> None:
    rows: list[list[str | Cell]] = [[Cell("7", right=True), "x"], [Cell("100", right=True), "y"]]
    assert PLAIN.table(rows) == "  7  x\n100  y"


def test_the_last_column_is_wrapped_where_it_does_not_fit() -> None:
    table = PLAIN.table([["claim", "one two three four five six seven eight nine"]])
    assert table == "claim  one two three four five six seven\n       eight nine"


def test_lines_are_as_wide_as_they_look() -> None:
    """Two columns for each of these signs; none for an accent that stands on its own."""
    wide = PLAIN.table([["x" * 20, "日本 日本 日本 日本 日本 日本"]])
    assert all(display_width(line) <= 40 for line in wide.splitlines())
    accent = "e\N{COMBINING ACUTE ACCENT}"
    assert Style(color=False, width=5).table([[f"a{accent} b{accent} c{accent}"]]) == (
        f"a{accent} b{accent}\nc{accent}"
    )


def test_a_command_is_never_wrapped() -> None:
    command = "lvsctl exec dr/client -- curl -s http://10.10.0.100/"
    table = PLAIN.table([[Cell(command, whole=True), "a request"]])
    assert command in table


def test_without_colour_there_is_no_escape() -> None:
    assert PLAIN.bold("x") + PLAIN.red("y") == "xy"


def test_signs_degrade_to_ascii() -> None:
    assert Style(color=False, width=40, unicode=False).finished("→ 1 … 2") == "-> 1 ... 2\n"


def test_control_characters_are_shown_as_question_marks() -> None:
    assert printable("a\033[31mb\n") == "a?[31mb?"


def test_wide_signs_take_two_columns() -> None:
    assert display_width("日本") == 4


words = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=12)
tables = st.lists(st.lists(st.lists(words, max_size=5).map(" ".join), min_size=3, max_size=3))


@given(tables)
def test_colour_does_not_change_the_layout(rows: list[list[str]]) -> None:
    painted = [[Cell(text, COLOR.green) for text in row] for row in rows]
    assert bare(COLOR.table(painted)) == PLAIN.table(rows)


@given(tables)
def test_nothing_is_lost_and_no_line_is_too_long_for_its_words(rows: list[list[str]]) -> None:
    table = PLAIN.table(rows)
    assert sorted(table.split()) == sorted(
        word for row in rows for cell in row for word in cell.split()
    )
    longest = sum(
        max((len(word) for row in rows for word in row[column].split()), default=0)
        for column in range(3)
    )
    assert all(len(line) <= max(40, longest + 4) for line in table.splitlines())
