"""The registry's place is full, read-only, corrupt or older; parts of labs were removed by hand.

`up` either works or leaves nothing; `down` always removes everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from lvsctl.engine.faults import inject_fault
from lvsctl.engine.inspect import verify_lab
from lvsctl.engine.labs import list_labs, running_lab, tear_down
from lvsctl.engine.up import bring_up
from lvsctl.errors import HostError, LabError
from lvsctl.kernel import paths, processes, registry
from lvsctl.plan.planner import plan_for
from lvsctl.topology.overrides import Overrides
from tests.kernel.by_hand import kill, run
from tests.kernel.initial import differences, glance, initial_namespace
from tests.kernel.labs import curl, lab_up, topology_of, url_of
from tests.kernel.test_killed import down, untouched

pytestmark = pytest.mark.ipvs

SPARSE = [1, 3, 5, 6, 9]
every_size = pytest.mark.parametrize(
    "sizes",
    [SPARSE, pytest.param(range(1, 40), marks=pytest.mark.exhaustive)],
    ids=["few", "every"],
)


@contextlib.contextmanager
def file_system(place: Path, options: str) -> Iterator[None]:
    """A tmpfs of the test's own over ``place``."""
    new = not place.exists()
    place.mkdir(parents=True, exist_ok=True)
    run(f"mount -t tmpfs -o mode=0755,{options} trouble {place}")
    try:
        yield
    finally:
        with contextlib.suppress(HostError):  # read-only: then nothing can have come up
            down("dr")
        run(f"umount --lazy {place}")
        if new:
            place.rmdir()


def up(**overrides: object) -> object:
    return bring_up(topology_of("dr"), Overrides(**overrides))  # type: ignore[arg-type]


def refusal() -> HostError | None:
    """Why `up` could not, in words for the user."""
    try:
        up()
    except HostError as error:
        return error
    return None


def answers() -> bool:
    lab = running_lab("dr")
    return curl(lab, url_of(lab)).startswith("rs")


@every_size
@pytest.mark.parametrize(
    ("place", "limit"),
    [(paths.RUN, "nr_inodes={}"), (paths.RUN, "size={}k"), (paths.NETNS, "nr_inodes={}")],
    ids=["inodes", "blocks", "names"],
)
def test_up_on_a_disk_that_fills(place: Path, limit: str, sizes: list[int]) -> None:
    """Whichever file is the one too many: `up` says so and leaves nothing; or it works.

    The smallest has no room for a lab; where there is enough, there is with more; and where it
    failed, `up` does once there is room.
    """
    failed: list[bool] = []
    with untouched("dr"):
        for number in sizes:
            size = number * 4 if "size" in limit else number + 1
            with file_system(place, limit.format(size)):
                before = glance()
                problem = refusal()
                failed.append(problem is not None)
                if problem is None:
                    tear_down("dr")
                else:
                    assert "No space left" in problem.message, problem.message
                    assert problem.hint, problem.message
                assert differences(before) == {}, (limit, size)
                if problem is not None and (len(failed) == 1 or sizes is not SPARSE):
                    run(f"mount -o remount,{limit.format(4096)} {place}")
                    comes_and_goes()
    assert failed[0], "the smallest has room for all"
    assert failed == sorted(failed, reverse=True), list(zip(sizes, failed, strict=True))


def comes_and_goes() -> None:
    """The lab comes up, answers, and goes without a trace."""
    before = glance()
    up()
    assert answers()
    tear_down("dr")
    assert differences(before) == {}


def test_a_running_lab_on_a_full_disk() -> None:
    """Nothing can be noted any more: what would have to be is refused, and `down` works."""
    with untouched("dr"), file_system(paths.RUN, "size=256k"):
        before = glance()
        up()
        with contextlib.suppress(OSError), (paths.RUN / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(HostError, match="No space left"):
            up(servers=4)
        assert answers()
        with pytest.raises(HostError, match="No space left"):
            inject_fault(running_lab("dr"), "arp-ignore-unset")
        assert verify_lab(running_lab("dr")).verdict == "pass"
        tear_down("dr")
        (paths.RUN / "filler").unlink()
        assert differences(before) == {}
        comes_and_goes()


def test_a_read_only_registry() -> None:
    with untouched("dr"), file_system(paths.RUN, "size=1m,ro"):
        before = glance()
        with pytest.raises(HostError, match="Read-only file system") as caught:
            up()
        assert "read-only" in caught.value.hint
        assert differences(before) == {}
        run(f"mount -o remount,rw {paths.RUN}")
        comes_and_goes()


@pytest.mark.parametrize("how", ["writable by all", "another user's", "a symlink", "a file"])
def test_a_registry_that_others_could_write_is_not_used(how: str, tmp_path: Path) -> None:
    """As in a container whose /run is a tmpfs for everybody."""
    place = paths.RUN
    if place.exists():
        place.rmdir()  # empty: as the machine makes it
    try:
        match how:
            case "a symlink":
                place.symlink_to(tmp_path)
            case "a file":
                place.write_text("theirs")
            case "another user's":
                place.mkdir()
                os.chown(place, 65534, 65534)
            case _:
                place.mkdir()
                place.chmod(0o1777)
        with pytest.raises(HostError, match="/run/lvsctl"):
            up()
        assert os.path.lexists(place)
        assert list(tmp_path.iterdir()) == []
    finally:
        place.unlink() if not place.is_dir() or place.is_symlink() else place.rmdir()


def test_a_symlink_in_the_place_of_a_lab_is_left_alone(tmp_path: Path) -> None:
    """Neither followed nor removed: what it points to is somebody's."""
    (tmp_path / "registry.json").write_text("theirs")
    paths.RUN.mkdir(exist_ok=True)
    link = paths.RUN / "dr"
    link.symlink_to(tmp_path)
    try:
        with pytest.raises(LabError, match="in the way"):
            up()
        with pytest.raises(LabError, match="not running"):
            tear_down("dr")
        assert list_labs() == ()
        assert link.is_symlink()
        assert [p.name for p in tmp_path.iterdir()] == ["registry.json"]
    finally:
        link.unlink()
        with contextlib.suppress(OSError):
            paths.RUN.rmdir()


# ── what the entry says ──────────────────────────────────────────────────────────────────────


def entry() -> dict[str, object]:
    found: dict[str, object] = json.loads(paths.of("dr").registry.read_text())
    return found


def rewritten(**words: object) -> None:
    paths.of("dr").registry.write_text(json.dumps({**entry(), **words}))


def half() -> None:
    text = paths.of("dr").registry.read_text()
    paths.of("dr").registry.write_text(text[: len(text) // 2])


def directory() -> None:
    paths.of("dr").registry.unlink()
    paths.of("dr").registry.mkdir()


def symlink() -> None:
    paths.of("dr").registry.unlink()
    paths.of("dr").registry.symlink_to("/etc/hostname")


CORRUPT: dict[str, Callable[[], object]] = {
    "empty": lambda: paths.of("dr").registry.write_bytes(b""),
    "half": half,
    "binary": lambda: paths.of("dr").registry.write_bytes(bytes(range(256))),
    "missing": paths.of("dr").registry.unlink,
    "a directory": directory,
    "a symlink": symlink,
    "an older format": lambda: rewritten(format=0),
    "a newer format": lambda: rewritten(format=99, more={}),
    "before a reboot": lambda: rewritten(boot="earlier"),
    "another lab's": lambda: rewritten(lab="nat"),
    "another lab's topology": lambda: rewritten(topology=topology_of("nat").text.decode()),
    "an older language": lambda: rewritten(topology="version: 0\n"),
    "unknown overrides": lambda: rewritten(overrides={"servers": "many", "colour": 1}),
    "going down": lambda: rewritten(state="going-down"),
    "coming up": lambda: rewritten(state="coming-up"),
    "changing": lambda: rewritten(state="changing"),
    "an unknown state": lambda: rewritten(state="asleep"),
}


SOME = ("half", "an older format", "coming up")


@pytest.mark.parametrize(
    ("repair", "spoilt"),
    [
        pytest.param("down", CORRUPT, id="down"),
        pytest.param("up", SOME, id="up-some"),
        pytest.param("up", CORRUPT, id="up", marks=pytest.mark.exhaustive),
    ],
)
def test_an_entry_that_is_corrupt_or_older(repair: str, spoilt: Iterable[str]) -> None:
    with untouched("dr") as before:
        for what in spoilt:
            up()
            CORRUPT[what]()
            assert [listed.entry.lab for listed in list_labs()] == ["dr"], what
            if repair == "up":
                up()
                assert answers(), what
            removed = tear_down("dr")
            assert len(removed.namespaces) == 5, what
            assert differences(before) == {}, what
    assert Path("/etc/hostname").exists()


# ── what was removed by hand ─────────────────────────────────────────────────────────────────


def without_namespaces() -> None:
    for name in plan_for(running_lab("dr")).namespaces:
        run(f"ip netns del {name}")


def without_names() -> None:
    for name in plan_for(running_lab("dr")).namespaces:
        (paths.NETNS / name).unlink()


def without_store() -> None:
    run(f"umount --lazy {paths.of('dr').namespaces}")


def replaced() -> None:
    """The name is another user's by now."""
    run("ip netns del lvs-dr-rs1")
    run("ip netns add lvs-dr-rs1")


BY_HAND: dict[str, Callable[[], object]] = {
    "the responder": lambda: kill(processes.daemons("dr")["responder"]),
    **{
        f"namespace {name}": (lambda name=name: run(f"ip netns del lvs-dr-{name}"))  # type: ignore[misc]
        for name in ("lan", "client", "director", "rs1")
    },
    "all namespaces": without_namespaces,
    "all names": without_names,
    "the namespaces' mount": without_store,
    "the switch": lambda: run("ip -n lvs-dr-lan link del bridge"),
    "a cable": lambda: run("ip -n lvs-dr-lan link del rs2"),
    "the logs": lambda: shutil.rmtree(paths.of("dr").logs),
}


OFTEN = {"the responder", "namespace director", "all names", "the namespaces' mount"}


@pytest.mark.parametrize(
    "what",
    [w if w in OFTEN else pytest.param(w, marks=pytest.mark.exhaustive) for w in BY_HAND],
)
def test_what_was_removed_by_hand_is_no_obstacle(what: str) -> None:
    with untouched("dr") as before:
        for repair in ("down", "up"):
            up()
            BY_HAND[what]()
            if repair == "up":
                up()
                assert answers()
                assert verify_lab(running_lab("dr")).verdict == "pass"
            tear_down("dr")
            assert differences(before) == {}, repair


def test_a_name_that_is_somebody_elses_by_now_is_left_alone() -> None:
    host = initial_namespace()
    try:
        up()
        replaced()
        with pytest.raises(LabError, match="lvs-dr-rs1 exists already and does not belong"):
            up()
        assert "lvs-dr-rs1" not in tear_down("dr").namespaces
        assert "lo" in run("ip -n lvs-dr-rs1 -o link")
    finally:
        with contextlib.suppress(LabError):
            tear_down("dr")
        run("ip netns del lvs-dr-rs1")
    assert initial_namespace() == host


def test_a_pid_that_somebody_else_has_by_now_is_left_alone() -> None:
    """The responder died, and its number was given to another process: this one."""
    with lab_up("dr"):
        kill(processes.daemons("dr")["responder"])
        (paths.of("dr").pids / "responder.pid").write_text(f"{os.getpid()}\n")
        assert registry.read("dr") is not None
        assert tear_down("dr").processes == 0
