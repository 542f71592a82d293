"""What ``up`` says of a topology is what reading it says, whatever a glance made of the text."""

from __future__ import annotations

import pytest

from lvsctl.engine.plans import load_lab
from lvsctl.engine.up import bring_up
from lvsctl.errors import LvsctlError, SpecError
from lvsctl.kernel import paths
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology, text_of

DR = text_of("dr")
MISLEADING = {
    "a comment": "# name: Direct routing\n" + DR,
    "another key": "description: hostname: X\n" + DR.replace("\ndescription:", "\n# "),
    "an anchor": DR.replace("name: dr", "name: &lab dr", 1),
    "a tag": DR.replace("name: dr", "name: !!str dr", 1),
    "a tab": DR.replace("name: dr", "name:\tdr", 1),
    "the next line": DR.replace("name: dr", "name:\n  dr", 1),
    "nothing": "",
    "no name": DR.replace("name: dr\n", "", 1),
    "no possible name": DR.replace("name: dr", "name: DR", 1),
    "a name that is too long": DR.replace("name: dr", f"name: {'a' * 70}", 1),
    "a path": DR.replace("name: dr", "name: ../../etc", 1),
}


class Reached(Exception):
    """The topology was read, and it begins now."""


@pytest.mark.parametrize("how", MISLEADING)
def test_up_reads_what_a_glance_misunderstands(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    topology = Topology("mine.yaml", MISLEADING[how].encode())
    try:
        expected: LvsctlError | None = None
        load_lab(topology)
    except LvsctlError as error:
        expected = error

    def begins(*_: object) -> None:
        raise Reached

    monkeypatch.setattr("lvsctl.engine.carrying_out.carried_out", begins)
    with pytest.raises((Reached, LvsctlError)) as caught:
        bring_up(topology)
    if expected is None:
        assert isinstance(caught.value, Reached)
    else:
        assert isinstance(caught.value, SpecError)
        assert str(caught.value) == str(expected)


def test_up_says_what_is_wrong_with_a_name_of_the_command_line() -> None:
    topology = Topology("dr.yaml", DR.encode())
    for name in ("BAD", "../x", "a" * 70, "-"):
        overrides = Overrides(name=name)
        with pytest.raises(LvsctlError) as expected:
            load_lab(topology, overrides)
        with pytest.raises(LvsctlError) as caught:
            bring_up(topology, overrides)
        assert (str(caught.value), caught.value.hint) == (str(expected.value), expected.value.hint)
        assert not paths.is_name(name)
