"""Root in the machine, who wants to write on the host what nobody named."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lvsctl.machine import config, process, records, runtime_files

pytestmark = [pytest.mark.machine, pytest.mark.slow]

Run = Callable[..., subprocess.CompletedProcess[str]]

QEMU = bool(
    os.environ.get("LVSCTL_MACHINE_KERNEL") or os.environ.get("LVSCTL_MACHINE_KIND") == "qemu"
)
ROOT = os.geteuid() == 0
"""Whether the machine is root's. Anybody else's cannot write the system anyway, and what is
theirs is only kept from commands that do not set out to get at it (docs/security.md)."""


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """A shell's words, run in a machine of these tests' own."""
    environment = {**os.environ, "LVSCTL_MACHINE": f"confined-{os.getpid()}"}
    machine = [sys.executable, "-m", "lvsctl", "machine"]

    def typed(words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*machine, "run", "--", "sh", "-c", words],
            env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip

    try:
        started = typed("true")
        assert started.returncode == 0, started.stderr
        yield typed
    finally:
        subprocess.run([*machine, "stop"], env=environment, check=False, capture_output=True)


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that the guest sees: not in /tmp, where it has files of its own."""
    made = Path(tempfile.mkdtemp(prefix=".lvsctl-confined-", dir=Path.home()))
    yield made
    shutil.rmtree(made)


MARK = f"lvsctl-was-here-{os.getpid()}"
# mount(8) 2.39 and newer takes the place on the host for a parameter's name, if not by mount(2).
MOUNT = "LIBMOUNT_FORCE_MOUNT2=always mount"


def plainly(words: str) -> str:
    """As an ordinary command: the host's tree is at /."""
    return f"echo mount-worked; HOST=; {words}"


def remounted(words: str) -> str:
    """After the host's tree has been made writable as far as the guest is concerned."""
    return f"{MOUNT} -o remount,rw / && echo mount-worked; HOST=; {words}"


def anew(words: str) -> str:
    """By a writable tree beside the guest's own: hostfs, or what QEMU shares at its start."""
    if QEMU:
        words = f"test -d /dev/host/etc && echo mount-worked; HOST=/dev/host; {words}"
        return f"nsenter --mount=/proc/1/ns/mnt sh -c '{words}'"
    mounted = f"mkdir -p /tmp/all && {MOUNT} -t hostfs -o / none /tmp/all"
    return f"{mounted} && echo mount-worked; HOST=/tmp/all; {words}"


WAYS = [plainly, remounted, anew]
Way = Callable[[str], str]


SYSTEM = ["/etc", "/usr", "/usr/bin", "/boot", "/var/spool", "/run", "/"]


@pytest.mark.parametrize("way", WAYS)
def test_of_the_hosts_system_nothing_is_written(run: Run, way: Way) -> None:
    # Without HOST /run is the guest's own.
    within = {place: f"$HOST{place}" for place in SYSTEM}
    within["/run"] = "$HOST/run" if way is anew else "/run/host/run"
    tries = [f"(echo x > {there}/{MARK}) && echo wrote {p}" for p, there in within.items()]
    done = run(way("; ".join([f"ls -d {' '.join(within.values())}", *tries])))
    assert "mount-worked" in done.stdout, done.stderr
    assert "wrote" not in done.stdout
    assert len(done.stderr.splitlines()) == len(SYSTEM)  # a complaint each, and none of ls
    assert [place for place in SYSTEM if (Path(place) / MARK).exists()] == []


def test_nor_are_its_processes(run: Run) -> None:
    """A file of /proc that changes the process whose file it is: who is killed first, here."""
    file = Path("/proc/self/oom_score_adj")
    before = file.read_text()
    other = int(before) + 1
    place = f"$HOST/proc/{os.getpid()}/oom_score_adj"
    done = run(anew(f"cat {place} && echo read; echo {other} > {place}"))
    assert {"mount-worked", "read"} <= set(done.stdout.split()), done.stderr
    assert file.read_text() == before
    file.write_text(before)  # which can be written, but not from in there


@pytest.mark.skipif(QEMU, reason="only hostfs can be told where on the host to begin")
def test_nor_is_the_host_as_another_process_sees_it(run: Run) -> None:
    """Where a process's root lies for it, the host's mounts are not the machine's."""
    for place in ("/proc/1/root", f"/proc/{os.getpid()}/root"):
        mounted = f"{MOUNT} -t hostfs -o {place} none /tmp/its"
        done = run(f"mkdir -p /tmp/its; {mounted} && echo x > /tmp/its/etc/{MARK}")
        assert done.returncode != 0
        assert not (Path("/etc") / MARK).exists()


CHANGES = [
    "echo other > file",
    "truncate -s 0 file",
    "chmod 777 file",
    "chown 1:1 file",
    "touch -d 2001-01-01 file",
    "mv file renamed",
    "ln file linked",
    "mv -f other file",
    "rm -f file",
    "mkdir made",
    "chmod 777 .",
]
if QEMU:  # hostfs has no attributes to set, so what there are cannot be reached
    CHANGES.append(
        f"""{sys.executable} -c "import os; os.setxattr(\\"file\\", \\"user.x\\", b\\"y\\")" """
    )


@pytest.fixture(params=["/etc", "home"])
def planted(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory with two files that are there before anything is asked of the machine."""
    where = Path.home() if request.param == "home" else Path(request.param)
    if not ROOT and where != Path.home():
        pytest.skip("needs root: a file is put into the host's system, and removed again")
    made = Path(tempfile.mkdtemp(prefix="lvsctl-planted-", dir=where))
    for name in ("file", "other"):
        (made / name).write_text(name)
    yield made
    shutil.rmtree(made)


def seen(directory: Path) -> dict[str, object]:
    """All that there is to change, but for what reading changes."""
    found: dict[str, object] = {}
    for path in (directory, *sorted(directory.iterdir())):
        was = path.lstat()
        found[path.name] = (
            *(was.st_mode, was.st_uid, was.st_gid, was.st_nlink, was.st_ino, was.st_mtime_ns),
            *(was.st_ctime_ns, os.listxattr(path)),
            path.read_text() if stat.S_ISREG(was.st_mode) else "",
        )
    return found


@pytest.mark.parametrize("way", WAYS if ROOT else WAYS[:2])
def test_what_nobody_named_stays_as_it_is(run: Run, planted: Path, way: Way) -> None:
    """Contents, names, modes, owners, times and attributes. As root: who else owns files there?"""
    before = seen(planted)
    done = run(way(f"cd $HOST{planted} && echo there; {'; '.join(CHANGES)}"))
    assert {"mount-worked", "there"} <= set(done.stdout.split()), done.stderr
    assert seen(planted) == before


def test_the_same_changes_can_be_made_where_it_is_named(run: Run, home: Path) -> None:
    """The control: it is not the changes that are wrong."""
    for change in CHANGES:
        mine = home / str(CHANGES.index(change))
        mine.mkdir()
        (mine / "file").write_text("file")
        (mine / "other").write_text("other")
    able = [c for c in CHANGES if ROOT or not c.startswith("chown")]
    words = "; ".join(f"cd {home}/{CHANGES.index(change)}; {change} || exit 9" for change in able)
    before = {change: seen(home / str(CHANGES.index(change))) for change in able}
    done = run(words, cwd=home)
    assert done.returncode == 0, done.stderr
    for change in able:
        assert seen(home / str(CHANGES.index(change))) != before[change], change


@pytest.mark.parametrize("way", WAYS if ROOT else WAYS[:2])
def test_directories_that_nobody_named_are_read_only(run: Run, home: Path, way: Way) -> None:
    mine, beside = home / "mine", home / "beside"
    mine.mkdir()
    beside.mkdir()
    done = run(
        way(f"echo x > $HOST{mine}/here; ls -d $HOST{beside}; echo x > $HOST{beside}/there"),
        cwd=mine,
    )
    assert "mount-worked" in done.stdout, done.stderr
    assert str(beside) in done.stdout, "it must be seen to be tried"
    assert done.returncode != 0
    assert (mine / "here").read_text() == "x\n"
    assert list(beside.iterdir()) == []


def test_a_later_command_may_name_others(run: Run, home: Path) -> None:
    """Also one that takes another's name after that has been removed."""
    for name in ("first", "second", "first"):
        place = home / name
        place.mkdir()
        assert run("echo x > here", cwd=place).returncode == 0
        assert (place / "here").read_text() == "x\n"
        shutil.rmtree(place)


def test_every_directory_that_may_be_named_can_be_written(tmp_path: Path) -> None:
    """What the guest may be asked to write lies below what its process may write."""
    mine = ("/usr/local/mine", "/srv/x", f"/run/user/{os.getuid()}/x", "/run/lvsctl", "/run/x")
    for place in (tmp_path, Path.home() / "x", *map(Path, mine)):
        named = config.why_not_writable(str(place)) is None
        covered = any(place.is_relative_to(tree) for tree in config.writable_trees())
        assert covered == named, place


def test_the_machines_process_has_what_it_needs_and_no_more(run: Run) -> None:
    """Capabilities are for others' files in directories that were named: ``sudo lvsctl``."""
    assert run("true").returncode == 0
    record = records.read(runtime_files.for_machine(f"confined-{os.getpid()}").record)
    assert record is not None
    of_it = records.members(record)
    assert record.pid in of_it
    for pid in of_it:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert int(status["CapPrm"], 16) & ~process.FILES == 0
        assert status["NoNewPrivs"] == "1"
