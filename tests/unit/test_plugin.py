"""The pytest plugin without labs: where it stays out of the way, and where there can be none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from lvsctl.api.command import Command
from lvsctl.api.lab import topology_argument
from lvsctl.engine.findings import Verification
from lvsctl.errors import (
    KernelError,
    LvsctlError,
    Problem,
    TopologyError,
    UsageError,
    error_from,
    error_json,
)
from lvsctl.kernel import probe
from lvsctl.output import matrix_markdown
from lvsctl.testing.groups import topology_of
from lvsctl.testing.labs import (
    MAX_NAME,
    Labs,
    WatchedLab,
    _label,
    report_directory,
    sections_of,
)
from tests.unit.recorded.reports import evidence_of


def run_pytest(
    directory: Path, text: str, *options: str, wrapped: Sequence[str] = (), **environment: str
) -> tuple[int, str]:
    """pytest on a file: its exit status and what it says."""
    (directory / "test_it.py").write_text(text)
    done = subprocess.run(
        [
            *wrapped,
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
            *options,
        ],
        cwd=directory,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "CI": "", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_run_without_labs_pays_for_one_small_module(tmp_path: Path) -> None:
    text = """
import sys
def test_it():
    ours = {name for name in sys.modules if name.partition(".")[0] == "lvsctl"}
    assert ours == {"lvsctl", "lvsctl.testing", "lvsctl.testing.plugin"}
"""
    status, out = run_pytest(tmp_path, text, "-W", "error", "--strict-markers")

    assert status == 0, out
    assert "lvsctl ==" not in out  # nothing to say in the summary


ABLE = """
import pytest
def test_plain(lvs): pass
@pytest.mark.lvs(unable="skip")
def test_may_be_skipped(lvs): pass
@pytest.mark.lvs(unable="fail")
def test_must_not(lvs): pass
"""


@pytest.mark.parametrize(
    ("options", "ci", "outcomes"),
    [
        pytest.param((), "", "2 skipped, 1 error", marks=pytest.mark.exhaustive),
        ((), "true", "1 skipped, 2 errors"),
        pytest.param(("--lvs-unable=fail",), "", "3 errors", marks=pytest.mark.exhaustive),
        (("--lvs-unable=skip",), "true", "3 skipped"),
        pytest.param(
            ("-o", "lvs_unable=skip"), "true", "2 skipped, 1 error", marks=pytest.mark.exhaustive
        ),
    ],
)
def test_inability_fails_in_ci_and_is_told_loudly_elsewhere(
    tmp_path: Path, options: tuple[str, ...], ci: str, outcomes: str
) -> None:
    # Without capabilities there can be none on this kernel, and in a machine there is no other.
    powerless = ["setpriv", "--bounding-set=-all"] if probe.has_root() else []
    in_a_machine = {"LVSCTL_IN_MACHINE": "1", "LVSCTL_WHERE": "host"}

    _, out = run_pytest(tmp_path, ABLE, *options, wrapped=powerless, CI=ci, **in_a_machine)

    assert outcomes in out, out
    assert "this host cannot run labs: " in out
    assert ("SKIPPED: this host cannot run labs: " in out) == ("skipped" in outcomes)


def test_words_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    bad_mark = '@__import__("pytest").mark.lvs(unable="never")\ndef test_it(lvs): pass\n'

    assert "'fail' or 'skip'" in run_pytest(tmp_path, bad_mark)[1]
    assert "neither fail nor skip" in run_pytest(tmp_path, bad_mark, "-o", "lvs_unable=no")[1]


class Nobody:
    """Watches no labs."""

    def begins(self, lab: str) -> None: ...

    def came_up(self, lab: WatchedLab) -> None: ...

    def touched(self, lab: WatchedLab) -> None: ...

    def gone(self, lab: str) -> None: ...


def labs(*places: Path) -> Labs:
    return Labs(Nobody(), Command(), "3f2a1c0b", places)


def test_files_are_found_beside_the_test_then_in_the_root(tmp_path: Path) -> None:
    beside = tmp_path / "tests"
    beside.mkdir()
    (tmp_path / "shop.yaml").touch()
    found = labs(beside, tmp_path)

    assert found.found("dr") == "dr"
    assert found.found("version: 1\nname: x\n").startswith("version")
    assert found.found('{"version": 1}') == '{"version": 1}'
    assert found.found(' {"version": 1}') == ' {"version": 1}'
    assert found.found("shop.yaml") == str(tmp_path / "shop.yaml")
    (beside / "shop.yaml").touch()
    assert found.found(Path("shop.yaml")) == str(beside / "shop.yaml")
    with pytest.raises(UsageError) as caught:
        found.found("./cart.yaml")
    assert str(beside / "cart.yaml") in caught.value.hint
    with pytest.raises(UsageError, match=r"the file 'cart\.json' does not exist"):
        found.found("cart.json")


@pytest.mark.parametrize(
    ("topology", "taken", "label"),
    [
        ("dr", set(), "dr"),
        ("dr", {"dr", "dr-2"}, "dr-3"),
        ("./My Shop_1.yaml", set(), "my-shop-1"),
        ("2024.yaml", set(), "lab-2024"),
        ("version: 1\n", set(), "lab"),
        ('{"version": 1}', set(), "lab"),
        ("shop.json", set(), "shop"),
        ("---.yaml", set(), "lab"),
    ],
)
def test_a_label_is_a_name_that_a_lab_may_have(topology: str, taken: set[str], label: str) -> None:
    assert _label(topology, taken) == label
    assert len(label) <= MAX_NAME


def test_directories_of_tests_are_readable_and_differ() -> None:
    names = ["t/test_a.py::test_b[x/y]", "t/test_a.py::test_b[x:y]", "t/" + "a" * 300 + "::b"]
    found = [report_directory(name) for name in names]

    assert len(set(found)) == len(found)
    assert found[0].startswith("t-test_a.py-test_b-x-y")
    assert all(len(name) <= 120 and "/" not in name for name in found)


@pytest.mark.parametrize(
    "error",
    [
        UsageError("no such lab", hint="lvsctl ls"),
        KernelError("refused", node="rs1", command="ip link", errno=22, hint="h"),
        TopologyError("x.yaml", [Problem(3, 1, "services[0].port", "is no port", "1 to 65535")]),
    ],
)
def test_errors_cross_the_process_boundary_whole(error: LvsctlError) -> None:
    again = error_from(error_json(error))

    assert type(again) is type(error)
    assert vars(again) == vars(error)


def test_an_error_of_a_newer_lvsctl_is_an_error() -> None:
    said = {"version": 1, "error": "Newer", "message": "m", "hint": "h", "more": 1}

    assert (type(error_from(said)), error_from(said).hint) == (LvsctlError, "h")


def test_nothing_found_is_no_success() -> None:
    nothing = Verification(evidence_of("dr").lab, (), evidence_of("dr"))

    assert not nothing
    assert repr(nothing) == "<dr: inconclusive: nothing was found>"


def test_a_topology_is_a_name_a_path_a_text_or_a_dict() -> None:
    assert topology_argument("dr") == "dr"
    assert topology_argument({"version": 1}) == '{"version": 1}'
    for wrong in (7, None, {"version": object()}):
        with pytest.raises(UsageError):
            topology_argument(wrong)  # type: ignore[arg-type]


def test_the_jobs_of_a_ci_share_the_tests(tmp_path: Path) -> None:
    text = "def test_a(): pass\ndef test_b(): pass\ndef test_c(): pass\n"
    said = [run_pytest(tmp_path, text, "-v", "--lvs-shard", f"{n}/2")[1] for n in (1, 2)]
    shares = [[name for name in "abc" if f"test_{name} PASSED" in one] for one in said]
    assert shares == [["a"], ["b", "c"]]
    assert "1 passed, 2 deselected" in said[0]
    status, said_wrong = run_pytest(tmp_path, text, "--lvs-shard", "3/2")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "3/8 is the third of eight parts" in said_wrong


def test_cells_are_on_the_page_as_soon_as_they_were_tried(tmp_path: Path) -> None:
    """Also where the campaign is killed afterwards, and beside those of an older page."""
    text = """
import json, os

def test_cell(record_property):
    record_property("lvsctl-cell", json.dumps(["vip-missing", "dr", "✓ rs1"]))

def test_killed():
    os._exit(9)
"""
    (tmp_path / "page.md").write_text(matrix_markdown.page({("vip-missing", "tun"): "✓ rs2"}))
    run_pytest(tmp_path, text, "--lvs-matrix", "page.md")
    found = matrix_markdown.read((tmp_path / "page.md").read_text())
    assert (found["vip-missing", "dr"], found["vip-missing", "tun"]) == ("✓ rs1", "✓ rs2")
    status, said = run_pytest(tmp_path, text, "--lvs-matrix", "no/page.md")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "No such file or directory" in said


def test_a_bug_in_the_report_of_a_failed_test_is_in_the_report(tmp_path: Path) -> None:
    """An exception in a hook of pytest would end the run, and hide the failed test."""

    class Broken:
        last_walk, label = None, "dr"

        @property
        def verification(self) -> None:
            raise IndexError("of ours")

    (section,) = sections_of(cast("WatchedLab", Broken()), tmp_path)
    assert section[0] == "lvsctl verify dr"
    assert "IndexError: of ours" in section[1]


@pytest.mark.parametrize(
    ("nodeid", "topology"),
    [
        ("lvsctl/testing/campaign.py::test_fault[dr-vip-missing]", "dr"),
        ("../lib/campaign.py::test_fault[dr-ha-vip-missing]", "dr-ha"),
        ("tests/test_shop.py::test_shop[dr-vip-missing]", ""),
        ("tests/test_shop.py::test_shop", ""),
    ],
)
def test_the_faults_of_a_topology_are_one_group(nodeid: str, topology: str) -> None:
    assert topology_of(nodeid) == topology
