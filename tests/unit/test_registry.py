"""The registry's files, in a directory of the test's own: no privilege, no kernel."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lvsctl.engine.labs import up_command
from lvsctl.errors import HostError, LabError, UsageError
from lvsctl.kernel import paths, processes, registry
from lvsctl.kernel.registry import Entry, State


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/run/lvsctl and /run/netns, elsewhere."""
    monkeypatch.setattr(paths, "RUN", tmp_path / "lvsctl")
    monkeypatch.setattr(paths, "NETNS", tmp_path / "netns")
    (tmp_path / "netns").mkdir()
    return tmp_path


ENTRY = Entry(
    lab="dr",
    topology="version: 1\n# naïve\n",
    source="dr",
    overrides={"servers": 3},
    namespaces=("lvs-dr-client",),
    started=12.5,
)


def test_what_is_written_is_read() -> None:
    registry.begin(ENTRY)
    assert registry.read("dr") == ENTRY
    up = registry.mark(ENTRY, State.UP)
    assert registry.read("dr") == up
    assert registry.labs() == (up,)
    assert list(paths.of("dr").directory.iterdir()) == [paths.of("dr").registry]


def test_no_labs_where_nothing_ever_ran() -> None:
    assert registry.labs() == ()
    assert registry.read("dr") is None


def test_a_lab_begins_once() -> None:
    registry.begin(ENTRY)
    with pytest.raises(LabError, match="exists already"):
        registry.begin(ENTRY)
    assert registry.read("dr") == ENTRY


@pytest.mark.parametrize("planted", ["file", "symlink", "dangling"])
def test_a_foreign_namespace_stops_it_before_any_effect(run: Path, planted: str) -> None:
    name = paths.NETNS / "lvs-dr-client"
    if planted == "file":
        name.write_text("theirs")
    else:
        name.symlink_to("/" if planted == "symlink" else "/nowhere/at/all")
    with pytest.raises(LabError, match="lvs-dr-client exists already and does not belong"):
        registry.begin(ENTRY)
    assert not paths.RUN.exists()
    assert name.is_symlink() or name.read_text() == "theirs"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        ('{"format": 0}', "another version"),
        ('{"format": "x"}', "another version"),
        ("\0\0\0\0", "damaged"),
        (None, "missing"),
    ],
)
def test_a_damaged_entry_is_reported_and_removable(text: str | None, problem: str) -> None:
    registry.begin(ENTRY)
    if text is None:
        paths.of("dr").registry.unlink()
    else:
        paths.of("dr").registry.write_text(text)
    entry = registry.read("dr")
    assert entry is not None
    assert entry.state is State.BROKEN
    assert problem in entry.problem
    assert registry.labs() == (entry,)
    removed = registry.remove("dr")
    assert removed.existed
    assert registry.read("dr") is None


def test_an_entry_that_is_not_utf8_is_damaged() -> None:
    registry.begin(ENTRY)
    paths.of("dr").registry.write_bytes(b"\xff\xfe")
    entry = registry.read("dr")
    assert entry is not None
    assert "damaged" in entry.problem


def test_an_entry_of_another_lab_or_an_earlier_boot_does_not_count() -> None:
    registry.begin(ENTRY)
    said = json.loads(paths.of("dr").registry.read_text())
    paths.of("dr").registry.write_text(json.dumps({**said, "lab": "nat"}))
    assert registry.read("dr").state is State.BROKEN  # type: ignore[union-attr]
    paths.of("dr").registry.write_text(json.dumps({**said, "boot": "earlier"}))
    entry = registry.read("dr")
    assert entry is not None
    assert "started anew" in entry.problem


BAD_NAMES = ("", "..", ".", "a/b", "A", "-a", "a-", "x" * 64, "dr\n", "a.lock")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_cannot_leave_its_directory(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a lab"):
        registry.remove(name)


def test_removing_twice_is_fine_and_says_so() -> None:
    registry.begin(ENTRY)
    assert registry.remove("dr").existed
    assert not registry.remove("dr").existed


def test_only_symlinks_into_the_lab_are_removed(run: Path) -> None:
    registry.begin(ENTRY)
    own = paths.NETNS / "lvs-dr-client"
    own.symlink_to(paths.of("dr").namespaces / "lvs-dr-client")
    foreign = {
        "lvs-dr-x": "/nowhere",
        "lvs-dr-client2": str(paths.of("dr2").namespaces / "lvs-dr-client"),
        "lvs-dr-deep": str(paths.of("dr").namespaces / "a" / "b"),
    }
    for name, target in foreign.items():
        (paths.NETNS / name).symlink_to(target)
    (paths.NETNS / "lvs-dr-file").write_text("theirs")
    assert registry.remove("dr").namespaces == ("lvs-dr-client",)
    assert sorted(p.name for p in paths.NETNS.iterdir()) == sorted([*foreign, "lvs-dr-file"])


def test_a_symlink_in_the_place_of_a_lab_is_not_followed(run: Path) -> None:
    precious = run / "precious"
    precious.mkdir()
    (precious / "file").write_text("theirs")
    paths.RUN.mkdir()
    (paths.RUN / "dr").symlink_to(precious)
    registry.remove("dr")
    assert (precious / "file").read_text() == "theirs"


def test_the_lock_file_goes_with_the_lab(run: Path) -> None:
    with registry.lock("dr"):
        registry.begin(ENTRY)
    assert paths.of("dr").lock.exists()
    with registry.lock("dr"):
        registry.remove("dr")
    assert not paths.RUN.exists()


def test_another_process_that_holds_the_lab_is_named() -> None:
    code = (
        "import sys; from pathlib import Path; from lvsctl.kernel import paths, registry;"
        f"paths.RUN = Path({str(paths.RUN)!r});"
        "lock = registry.lock('dr'); lock.__enter__(); print('held', flush=True);"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(LabError, match=f"being changed by process {other.pid} \\("),
            registry.lock("dr", 0.1),
        ):
            pass
        with registry.lock("nat", 0.1):  # another lab is another matter
            pass
        other.kill()
        other.communicate()
    with registry.lock("dr", 0.1):  # whoever dies holds nothing
        pass


def test_a_process_that_is_not_found_again_is_left_alone() -> None:
    """Its id was another's when it was found first, and has been reused."""
    with subprocess.Popen(["sleep", "60"]) as other:
        found = iter([[other.pid], []])
        assert processes.terminate(lambda: next(found)) == 0
        assert other.poll() is None
        assert processes.terminate(lambda: [other.pid]) == 1


def test_who_waits_gets_the_lab_next_even_where_it_was_removed_meanwhile() -> None:
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with registry.lock("dr", 10):
            order.append("second")

    with registry.lock("dr"):
        registry.begin(ENTRY)
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait()
        registry.remove("dr")
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert not paths.RUN.exists()


def test_errors_inside_the_lock_stay_what_they_are() -> None:
    with pytest.raises(FileNotFoundError), registry.lock("dr"):
        raise FileNotFoundError(errno.ENOENT, "of the caller")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_registry_that_cannot_be_written_says_where_and_why(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> int:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(HostError, match=os.strerror(number)) as caught:
        registry.begin(ENTRY)
    assert str(paths.of("dr").registry) in caught.value.message
    assert caught.value.hint
    assert not paths.of("dr").directory.exists()


def test_a_link_in_the_place_of_all_labs_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs" / "dr").mkdir(parents=True)
    paths.RUN.symlink_to(tmp_path / "theirs")
    for look in (registry.labs, lambda: registry.read("dr")):
        with pytest.raises(HostError, match="is a symlink"):
            look()


def test_a_full_directory_keeps_no_draft_of_the_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.begin(ENTRY)

    def full(self: Path, *_: object, **__: object) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(HostError):
        paths.write_faults("dr", [paths.InjectedFault("vip-missing", "rs1")])
    assert list(paths.of("dr").directory.iterdir()) == [paths.of("dr").registry]


@pytest.mark.parametrize(
    ("entry", "typed"),
    [
        (Entry(lab="dr", argument="dr"), "lvsctl up dr"),
        (Entry(lab="dr", source="dr.yaml"), "lvsctl up dr"),  # of an earlier version
        (Entry(lab="dr", argument="/elsewhere/a b.yaml"), "lvsctl up '/elsewhere/a b.yaml'"),
        (Entry(lab="x", argument="HERE/dr", overrides={"name": "x", "servers": 3}),
         "lvsctl up ./dr --name x --servers 3"),
        (Entry(lab="dr", argument="-", overrides={"scheduler": "wlc"}),
         "lvsctl up - --scheduler wlc"),
    ],
)  # fmt: skip
def test_the_command_that_brings_the_same_lab_up(
    entry: Entry, typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = replace(entry, argument=entry.argument.replace("HERE", str(tmp_path)))
    assert up_command(entry) == typed
