"""A path that the user gave, where another user was first: nothing is written through it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from unittest import mock

import pytest

from lvsctl.cli.failure import ExitStatus
from lvsctl.cli.main import main
from lvsctl.cli.where import ForwardRequest, Where, in_lab_kernel
from lvsctl.errors import UsageError
from lvsctl.output import safe_files
from tests.unit.another_user import ANOTHER, as_root, given_away, shared


@pytest.fixture(autouse=True)
def by_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.delenv("LVSCTL_IN_MACHINE", raising=False)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "victim").write_text("precious")
    return tmp_path / "victim"


COMMANDS = {
    "plan": ["plan", "dr", "-o"],
    "capture": ["capture", "--where", "machine", "-w"],  # opened before any machine is started
    "report": ["verify", "--where", "machine", "--report"],
}


@as_root
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_of_another_user_s_is_left_alone_with_what_it_leads_to(
    tmp_path: Path, victim: Path, command: str, dangling: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "nothing" if dangling else victim
    for directory in (tmp_path, shared(tmp_path)):
        link = directory / "lab.pcapng"
        link.symlink_to(target)
        given_away(link)
        assert main([*COMMANDS[command], str(link)]) == ExitStatus.USAGE
        said = capsys.readouterr().err
        assert f"{link} is a link made by another user (uid {ANOTHER}): not written" in said
        assert "preferably in a directory of your own" in said
        assert link.is_symlink()
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nothing").exists()


@as_root
@pytest.mark.parametrize("command", COMMANDS)
def test_what_another_user_has_put_into_tmp_is_left_alone(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that its owner can read: a capture is not for everybody."""
    file = shared(tmp_path) / "lab.pcapng"
    if command == "report":
        file.mkdir()
    else:
        file.write_text("bait")
    given_away(file)
    assert main([*COMMANDS[command], str(file)]) == ExitStatus.USAGE
    assert file.stat().st_size == 4 or list(file.iterdir()) == []
    assert safe_files.nofollow(file / "below") == os.O_NOFOLLOW
    monkeypatch.setenv("SUDO_UID", str(ANOTHER))  # it is of whoever typed sudo
    assert safe_files.nofollow(file) == os.O_NOFOLLOW


@pytest.mark.parametrize("command", ["plan", "capture"])
def test_a_hard_link_in_tmp_is_left_alone(
    tmp_path: Path, victim: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the kernel lets them, anybody may link to root's files; it has their owner then."""
    link = shared(tmp_path) / "lab.pcapng"
    link.hardlink_to(victim)
    assert main([*COMMANDS[command], str(link)]) == ExitStatus.USAGE
    assert f"{link} is in a world-writable directory and a hard link" in capsys.readouterr().err
    assert victim.read_text() == "precious"
    own = tmp_path / "own"
    own.hardlink_to(victim)
    with safe_files.opened(own) as file:
        file.write(b"new")
    assert victim.read_text() == "new"


def test_a_hard_link_that_comes_after_the_look_is_not_emptied(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, nofollow = shared(tmp_path) / "lab.pcapng", safe_files.nofollow

    def looked(path: Path) -> int:
        flags = nofollow(path)
        path.hardlink_to(victim)
        return flags

    monkeypatch.setattr(safe_files, "nofollow", looked)
    with pytest.raises(UsageError, match="hard link"):
        safe_files.opened(link)
    assert victim.read_text() == "precious"


@as_root
def test_links_by_way_of_ours_and_of_parents_count(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "theirs").symlink_to(tmp_path)
    given_away(tmp_path / "theirs")
    (tmp_path / "ours").symlink_to("./theirs/../" + tmp_path.name + "/theirs/victim")
    for path in ("theirs/victim", "ours", "theirs/new", "theirs/new/er"):
        with pytest.raises(UsageError, match="theirs is a link"):
            safe_files.opened(tmp_path / path)
    assert victim.read_text() == "precious"


def test_our_own_links_pipes_and_standard_output_are_followed(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "link").symlink_to("victim")
    with safe_files.opened(tmp_path / "link") as file:
        file.write(b"new")
    assert victim.read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with safe_files.opened(tmp_path / "pipe") as file:
        file.write(b"new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    reader, writer = os.pipe()
    with safe_files.opened(Path(f"/dev/fd/{writer}")) as file:
        file.write(b"new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    os.close(writer)


def test_a_link_that_comes_after_the_look_is_not_followed(tmp_path: Path, victim: Path) -> None:
    flags = safe_files.nofollow(tmp_path / "new")
    (tmp_path / "new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT | flags)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        safe_files.opened(tmp_path / "a")


@pytest.mark.parametrize("mode", [None, 0o600, 0o755])
def test_a_replaced_file_has_its_mode_and_is_no_link(
    tmp_path: Path, victim: Path, mode: int | None
) -> None:
    path = tmp_path / "file"
    path.symlink_to(victim)
    umask = os.umask(0o027)
    try:
        safe_files.replace(path, b"new", mode=mode)
    finally:
        os.umask(umask)
    assert not path.is_symlink()
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == (0o640 if mode is None else mode)
    assert victim.read_text() == "precious"
    assert {one.name for one in tmp_path.iterdir()} == {"file", "victim"}


@as_root
def test_a_directory_for_the_machine_that_comes_in_between_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``prepare`` has looked; before it is made, another user's link is there."""
    directory = shared(tmp_path) / "captures"
    (tmp_path / "elsewhere").mkdir()

    def prepare(words: list[str]) -> ForwardRequest:
        directory.symlink_to(tmp_path / "elsewhere")
        given_away(directory)
        return ForwardRequest(words, writes=directory)

    def sent(*_: object, **__: object) -> int:
        raise AssertionError

    monkeypatch.setattr("lvsctl.cli.where.forward", sent)
    command = in_lab_kernel(starts=True, prepare=prepare)(sent)
    with pytest.raises(UsageError, match="link made by another user"):
        command(ctx=mock.Mock(obj=[]), where=Where.MACHINE)
