"""Long enumerations, folded for people."""

from __future__ import annotations

import pytest

from lvsctl.output.folding import folded, name_ranges


def every(form: str, *numbers: int) -> str:
    return ", ".join(form.format(number) for number in sorted(numbers, key=str))


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("rs1 1, rs2 1", "rs1 1, rs2 1"),
        (every("rs{} 1", *range(1, 301)), "rs1–rs300 1 each"),
        (every("rs{} on lo", *range(1, 31)), "rs1–rs30 on lo"),
        ("director on lan, " + every("rs{} on lo", *range(1, 9)), "director on lan, rs1–rs8 on lo"),
        ("connections: " + every("rs{} 4", *range(1, 10)), "connections: rs1–rs9 4 each"),
        # What deviates comes first, though its names would not.
        (
            every("rs{} 1", *range(1, 7), *range(10, 31)) + ", rs7 0, rs8 0",
            "rs7, rs8 0 each, rs1–rs6, rs10–rs30 1 each",
        ),
        (
            "255 of 300 answered; nothing from " + every("rs{}", *range(1, 46)),
            "255 of 300 answered; nothing from rs1–rs45",
        ),
        ("10.0.0.1 1, 10.0.0.2 1, 10.0.0.3 1, 10.0.0.4 1, 10.0.0.5 1, 10.0.0.6 1, 10.0.0.7 1",) * 2,
    ],
)  # fmt: skip
def test_an_enumeration_is_folded(text: str, short: str) -> None:
    assert folded(text) == short


def test_many_different_values_are_cut_off() -> None:
    text = every("rs{0} {0}", *range(1, 41))
    assert folded(text).count(",") == 12
    assert folded(text).endswith("and 28 more")


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["rs1", "rs2", "rs3", "rs5", "rs6", "web"], "rs1–rs3, rs5, rs6, web"),
        (["a1", "b1", "a2"], "a1, a2, b1"),
        (["rs01", "rs02", "rs03"], "rs01, rs02, rs03"),
        ([], ""),
    ],
)
def test_names_in_ranges(names: list[str], short: str) -> None:
    assert name_ranges(names) == short
