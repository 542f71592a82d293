"""Saved reports: whole or absent, the same when read again, and never a traceback."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvsctl.cli.main import main
from lvsctl.engine.findings import Verification
from lvsctl.engine.inspect import recompute
from lvsctl.errors import DamagedFile, HostError, LvsctlError, UsageError
from lvsctl.output import saved_report
from lvsctl.output.evidence import capture_bytes, evidence_bytes, evidence_from
from tests.unit.another_user import ANOTHER, as_root, given_away, shared
from tests.unit.recorded.reports import NAMES, evidence_of, files_of


@pytest.fixture
def verified() -> Verification:
    return recompute(evidence_of("dr"))


@pytest.mark.parametrize("name", NAMES)
def test_evidence_is_the_same_when_read_again(name: str) -> None:
    evidence = evidence_of(name)
    capture = capture_bytes(evidence)
    assert evidence_from(evidence_bytes(evidence, capture), capture) == evidence


def test_a_report_has_all_its_files_and_can_be_judged_again(
    tmp_path: Path, verified: Verification
) -> None:
    saved_report.save(tmp_path / "deep" / "out", verified)
    assert {path.name for path in (tmp_path / "deep" / "out").iterdir()} == set(saved_report.NAMES)
    again = recompute(saved_report.load(tmp_path / "deep" / "out"))
    assert again.findings == verified.findings


def test_report_json_names_frames_of_the_capture(tmp_path: Path, verified: Verification) -> None:
    saved_report.save(tmp_path, verified)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["capture"] == "capture.pcapng"
    frames = {frame.number: frame for frame in saved_report.load(tmp_path).frames}
    shown = [one for claim in report["claims"] for one in claim["evidence"]]
    assert shown
    for one in shown:
        assert frames[one["frame"]].summary() == one["summary"]


def test_a_report_replaces_a_report(tmp_path: Path, verified: Verification) -> None:
    saved_report.save(tmp_path, verified)
    other = recompute(evidence_of("nat"))
    saved_report.save(tmp_path, other)
    assert saved_report.load(tmp_path).lab.name == "nat"


@pytest.mark.parametrize("name", ["thesis.txt", "evidence.json", "report.html"])
def test_other_peoples_directories_are_left_alone(
    tmp_path: Path, verified: Verification, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="nothing was written"):
        saved_report.save(tmp_path, verified)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_file_is_no_directory(tmp_path: Path, verified: Verification) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        saved_report.save(tmp_path / "out", verified)
    with pytest.raises(UsageError, match="is a file"):
        saved_report.refuse_others(tmp_path / "out")


def test_what_is_interrupted_is_no_report_and_can_be_written_again(
    tmp_path: Path, verified: Verification, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_report.save(tmp_path, verified)
    replace, unlink = os.replace, os.unlink

    def killed(source: str, target: str, **words: int) -> None:
        if target == saved_report.CAPTURE:
            raise SystemExit  # as far as the files are concerned, a kill
        replace(source, target, **words)

    def untidy(name: str, **words: int) -> None:
        """A killed process does not tidy up."""
        if name == saved_report.EVIDENCE:
            unlink(name, **words)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        patch.setattr("os.unlink", untidy)
        with pytest.raises(SystemExit):
            saved_report.save(tmp_path, recompute(evidence_of("nat")))
    assert {path.name for path in tmp_path.iterdir()} > {saved_report.EVIDENCE + ".unfinished"}
    with pytest.raises(UsageError, match="no complete report"):
        saved_report.load(tmp_path)
    saved_report.save(tmp_path, verified)
    assert saved_report.load(tmp_path).lab.name == "dr"


def test_a_full_disk_is_said_and_loses_nothing(
    tmp_path: Path, verified: Verification, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_report.save(tmp_path, verified)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(HostError, match="No space left"):
        saved_report.save(tmp_path, recompute(evidence_of("nat")))
    assert {path.name for path in tmp_path.iterdir()} == set(saved_report.NAMES)
    assert saved_report.load(tmp_path).lab.name == "dr"


Contents = Mapping[str, bytes]


@pytest.fixture(scope="module")
def contents() -> Contents:
    """The files of a report."""
    return saved_report.report_files(recompute(evidence_of("dr")))


def only_ordinary_files(directory: Path) -> bool:
    return {path.name for path in directory.iterdir() if not path.is_symlink()} == set(
        saved_report.NAMES
    )


@pytest.mark.parametrize("name", saved_report.NAMES)
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_in_the_place_of_an_unfinished_file_is_not_written_through(
    tmp_path: Path, contents: Contents, name: str, dangling: bool
) -> None:
    victim, directory = tmp_path / "victim", tmp_path / "report"
    directory.mkdir()
    (directory / f"{name}.unfinished").symlink_to(victim)
    if not dangling:
        victim.write_text("precious")
    saved_report.write(directory, contents)
    assert only_ordinary_files(directory)
    assert victim.exists() is not dangling
    assert dangling or victim.read_text() == "precious"


@pytest.mark.parametrize("name", saved_report.NAMES)
def test_a_link_in_the_place_of_a_report_s_file_is_replaced(
    tmp_path: Path, contents: Contents, name: str
) -> None:
    victim, directory = tmp_path / "victim", tmp_path / "report"
    saved_report.write(directory, contents)
    (directory / name).rename(victim)
    (directory / name).symlink_to(victim)
    before = victim.read_bytes()
    saved_report.write(directory, dict.fromkeys(saved_report.NAMES, b"new"))
    assert only_ordinary_files(directory)
    assert victim.read_bytes() == before


def test_a_link_that_comes_in_between_is_not_written_through(
    tmp_path: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the stale file is gone and before ours is there."""
    victim, unlink = tmp_path / "victim", os.unlink
    victim.write_text("precious")
    planted: list[str] = []

    def unlinked(name: str, *, dir_fd: int) -> None:
        with suppress(FileNotFoundError):
            unlink(name, dir_fd=dir_fd)
        if name not in planted:
            planted.append(name)
            os.symlink(victim, name, dir_fd=dir_fd)

    monkeypatch.setattr("os.unlink", unlinked)
    with pytest.raises(HostError, match="File exists"):
        saved_report.write(tmp_path / "report", contents)
    assert planted
    assert victim.read_text() == "precious"


def test_a_directory_that_is_renamed_meanwhile_takes_the_report_along(
    tmp_path: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may rename it cannot send the files elsewhere."""
    directory, moved, other = (tmp_path / name for name in ("report", "moved", "other"))
    other.mkdir()
    replace = os.replace

    def renamed(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if not moved.exists():
            directory.rename(moved)
            directory.symlink_to(other)
        replace(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr("os.replace", renamed)
    saved_report.write(directory, contents)
    assert only_ordinary_files(moved)
    assert list(other.iterdir()) == []


@as_root
@pytest.mark.parametrize("target", ["other", "other/deep", "missing"])
def test_a_link_of_another_user_s_is_no_report_s_directory(
    tmp_path: Path, contents: Contents, target: str
) -> None:
    (tmp_path / "other" / "deep").mkdir(parents=True)
    for place in (tmp_path / "link", shared(tmp_path) / "link"):
        place.symlink_to(tmp_path / target)
        given_away(place)
        mine = place.with_name("mine")
        mine.symlink_to(place)
        for named in (place, place / "report", mine, place / ".." / "link"):
            with pytest.raises(UsageError, match="link made by another user") as caught:
                saved_report.write(named, contents)
            assert "name another file or directory" in caught.value.hint
    assert [path.name for path in (tmp_path / "other").rglob("*")] == ["deep"]
    assert not (tmp_path / "missing").exists()


@as_root
def test_a_directory_that_another_user_made_in_tmp_is_left_alone(
    tmp_path: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    directory = shared(tmp_path) / "report"
    directory.mkdir()
    given_away(directory)
    with pytest.raises(UsageError, match=f"belongs to another user .uid {ANOTHER}"):
        saved_report.write(directory, contents)
    assert list(directory.iterdir()) == []
    monkeypatch.setenv("SUDO_UID", str(ANOTHER))  # who typed sudo
    saved_report.write(directory, contents)
    assert only_ordinary_files(directory)


@as_root
def test_a_volume_of_another_user_s_and_links_of_ours_are_fine(
    tmp_path: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "volume").mkdir()
    given_away(tmp_path / "volume")
    (tmp_path / "mine").symlink_to("volume")
    saved_report.write(tmp_path / "mine", contents)
    monkeypatch.setenv("LVSCTL_IN_MACHINE", "1")
    saved_report.write(tmp_path / "mine", contents)
    assert only_ordinary_files(tmp_path / "volume")


def test_a_pipe_is_no_report_and_is_not_waited_for(tmp_path: Path, contents: Contents) -> None:
    os.mkfifo(tmp_path / saved_report.EVIDENCE)
    with pytest.raises(UsageError, match="nothing was written"):
        saved_report.write(tmp_path, contents)


def test_nothing_there_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        saved_report.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="contains no complete report"):
        saved_report.load(tmp_path)


Edit = Callable[[dict[str, Any]], object]
DAMAGE: dict[str, Edit] = {
    "another format": lambda v: v.update(format="cake recipe"),
    "a later version": lambda v: v.update(version=3),
    "a version as truth": lambda v: v.update(version=True),
    "no version": lambda v: v.pop("version"),
    "an unknown key": lambda v: v.update(extra=1),
    "a missing key": lambda v: v.pop("lab"),
    "a wrong address": lambda v: v["runs"][0]["service"].update(vip="10.0.0.300"),
    "an address as a number": lambda v: v["runs"][0]["service"].update(vip=7),
    "a number as text": lambda v: v["runs"][0]["service"].update(port="80"),
    "a sysctl as a number": lambda v: v["lab"]["nodes"][0].update(sysctls={"net.a": 1}),
    "true as a number": lambda v: v["runs"][0]["service"].update(port=True),
    "a number as truth": lambda v: v["states"]["rs1"]["links"][0].update(up=1),
    "text for a list": lambda v: v.update(runs="none"),
    "an unknown role": lambda v: v["lab"]["nodes"][0].update(role="king"),
    "an unknown node": lambda v: v["runs"][0].update(client="nobody"),
    "no director": lambda v: v["lab"].update(
        nodes=[node for node in v["lab"]["nodes"] if node["role"] != "director"]
    ),
    "a mark of nothing": lambda v: v["runs"][0]["service"].update(mark=1, endpoints=[]),
    "half an endpoint": lambda v: v["runs"][0]["exchanges"][0].update(local="10.0.0.1"),
    "a port that is none": lambda v: v["runs"][0]["exchanges"][0].update(local="10.0.0.1:٣"),
}


DAMAGE_IN_VERSION_1: dict[str, Edit] = {
    "a wrong address": lambda v: v["runs"][0]["service"]["key"].update(vip="10.0.0.300"),
    "a key that is none": lambda v: v["runs"][0]["service"].update(key=[]),
    "true as a number": lambda v: v["runs"][0]["service"]["key"].update(port=True),
    "sysctls that are no pairs": lambda v: v["lab"]["nodes"][0].update(sysctls=[1]),
    "sysctls whose names are lists": lambda v: v["lab"]["nodes"][0].update(sysctls=[[[], "1"]]),
    "half an endpoint": lambda v: v["runs"][0]["exchanges"][0].update(local=["10.0.0.1"]),
    "nested too deep": lambda v: v["runs"].append(json.loads("[" * 400 + "]" * 400)),
}
"""The recorded reports are of version 1, and are upgraded when they are read."""


@pytest.mark.parametrize(
    ("version", "damage"),
    [*((2, name) for name in DAMAGE), *((1, name) for name in DAMAGE_IN_VERSION_1)],
)
def test_damaged_evidence_is_refused_in_words(
    version: int,
    damage: str,
    contents: Contents,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = contents if version == 2 else files_of("dr")
    value = json.loads(files["evidence.json"])
    assert value["version"] == version
    (DAMAGE if version == 2 else DAMAGE_IN_VERSION_1)[damage](value)
    (tmp_path / "evidence.json").write_text(json.dumps(value))
    (tmp_path / "capture.pcapng").write_bytes(files["capture.pcapng"])
    assert main(["verify", "--from", str(tmp_path)]) == 65
    said = capsys.readouterr().err
    assert "evidence.json" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b"{}"])
def test_what_is_no_evidence_is_refused(content: bytes) -> None:
    with pytest.raises(DamagedFile):
        evidence_from(content, b"")


def test_a_capture_of_another_run_is_refused() -> None:
    with pytest.raises(DamagedFile, match="not the one"):
        evidence_from(files_of("dr")["evidence.json"], files_of("nat")["capture.pcapng"])


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON_VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(max_examples=150)
@given(st.data(), st.booleans())
def test_whatever_stands_anywhere_it_is_read_or_refused(data: st.DataObject, old: bool) -> None:
    evidence = evidence_of("dr")
    files = files_of("dr")
    fresh = evidence_bytes(evidence, files["capture.pcapng"])
    value = json.loads(files["evidence.json"] if old else fresh)
    here: Any = value
    while True:  # down to a place in the tree, and put something else there
        keys = sorted(here) if isinstance(here, dict) else list(range(len(here)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(here[key], dict | list) and here[key] and data.draw(st.booleans()):
            here = here[key]
            continue
        here[key] = data.draw(JSON_VALUES)
        break
    with suppress(LvsctlError):
        evidence = evidence_from(json.dumps(value).encode(), files_of("dr")["capture.pcapng"])
        recompute(evidence)


def test_from_takes_neither_a_lab_nor_a_report(tmp_path: Path) -> None:
    assert main(["verify", "dr", "--from", str(tmp_path)]) == 2
