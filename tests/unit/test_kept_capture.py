"""The capture that verify keeps of a lab that does not pass: there to be opened, and only then."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lvsctl.capture.pcapng import read_recording
from lvsctl.cli import verify
from lvsctl.engine.findings import Verification
from lvsctl.engine.inspect import recompute
from lvsctl.model.frame import Direction
from tests.unit.another_user import given_away, shared
from tests.unit.recorded import mutations as m
from tests.unit.recorded.reports import evidence_of


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where captures are kept; not made yet."""
    monkeypatch.delenv(verify.CAPTURES_VARIABLE, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"lvsctl-captures-{os.getuid()}"


def failing() -> Verification:
    """A frame's TTL is not what the director makes of it."""
    requests = m.both(m.at("director", Direction.OUT), m.to_port(80), m.tcp)
    return recompute(m.with_ttl(requests, 64)(evidence_of("dr")))


def test_what_fails_is_kept_with_its_frames_under_the_numbers_told(place: Path) -> None:
    result = failing()
    kept = verify.keep_capture(result)
    assert kept == str(place / "dr.pcapng")
    frames = read_recording(Path(kept)).frames
    shown = next(frame for finding in result.findings for frame in finding.frames)
    assert frames[shown.number - 1] == shown.raw
    verify.keep_capture(result)
    assert [path.name for path in place.iterdir()] == ["dr.pcapng"]


def test_what_passes_leaves_nothing(place: Path) -> None:
    assert verify.keep_capture(recompute(evidence_of("dr"))) is None
    assert not place.exists()


def test_a_directory_that_is_anothers_is_left_alone(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place.symlink_to(elsewhere)
    assert verify.keep_capture(failing()) is None
    assert "not yours alone; --report DIR writes it elsewhere" in capsys.readouterr().err
    assert verify.directory_for_machine() is None
    assert list(elsewhere.iterdir()) == []


Plant = Callable[[Path, Path], object]


def _link(place: Path, elsewhere: Path) -> None:
    place.symlink_to(elsewhere)


def _anothers_link(place: Path, elsewhere: Path) -> None:
    place.symlink_to(elsewhere)
    given_away(place)


def _anothers_directory(place: Path, _: Path) -> None:
    place.mkdir()
    given_away(place)


def _open_to_all(place: Path, _: Path) -> None:
    place.mkdir()
    place.chmod(0o777)


PLANTED: dict[str, Plant] = {
    "a link": _link,
    "another's link": _anothers_link,
    "another's directory": _anothers_directory,
    "open to all": _open_to_all,
    "a file": lambda place, _: place.write_text("a file"),
}


@pytest.mark.parametrize(
    ("what", "chosen"),  # one that was chosen may be a link of ours, and open to others
    [*((what, False) for what in PLANTED), *((what, True) for what in PLANTED if "'s" in what)],
)
def test_what_comes_in_between_is_left_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: str,
    chosen: bool,
) -> None:
    """It is another's from just before the directory is made: after every look at it."""
    if what.startswith("another's") and os.geteuid() != 0:
        pytest.skip("only root can make another user's files")
    (tmp_path / "elsewhere").mkdir()
    temporary = shared(tmp_path)
    place = temporary / f"lvsctl-captures-{os.getuid()}"
    monkeypatch.delenv(verify.CAPTURES_VARIABLE, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    if chosen:
        monkeypatch.setenv(verify.CAPTURES_VARIABLE, str(place))
    mkdir = Path.mkdir

    def after_planting(self: Path, mode: int = 0o777, **more: bool) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "mkdir", mkdir)
            PLANTED[what](place, tmp_path / "elsewhere")
        mkdir(self, mode, **more)

    monkeypatch.setattr(Path, "mkdir", after_planting)
    assert verify.keep_capture(failing()) is None
    assert "the capture is not kept" in capsys.readouterr().err
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not place.is_dir() or list(place.iterdir()) == []


def test_the_directory_can_be_chosen_and_is_handed_on(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert verify.directory_for_machine() == place
    assert os.environ[verify.CAPTURES_VARIABLE] == str(place)
    monkeypatch.setenv(verify.CAPTURES_VARIABLE, "/etc/captures")
    assert verify.directory_for_machine() is None  # not for the machine to write
    with monkeypatch.context() as inside:
        inside.setenv("LVSCTL_IN_MACHINE", "1")
        assert verify.keep_capture(failing()) is None  # and not in a directory of the machine's own
    assert "is not kept in /etc/captures: it belongs to the host" in capsys.readouterr().err
    monkeypatch.setenv(verify.CAPTURES_VARIABLE, str(tmp_path / "mine"))
    assert verify.keep_capture(failing()) == str(tmp_path / "mine" / "dr.pcapng")
