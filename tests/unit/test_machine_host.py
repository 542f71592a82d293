"""The host's side of the machine, as far as it needs none: names, places, paths, decisions."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from lvsctl.errors import HostError, UsageError
from lvsctl.machine import (
    broker,
    config,
    directories,
    mount_namespace,
    packages,
    records,
    relay,
    runtime_files,
    uml,
)
from lvsctl.machine.config import BrokerArguments
from lvsctl.machine.guest import modules, mounts
from tests.unit.another_user import acting_as, as_root, given_away


def _plan() -> config.MachineConfig:
    kernel = config.Kernel(Path("/usr/bin/linux.uml"), Path("/usr/lib/uml/modules/6.1.176"))
    return config.MachineConfig(
        *("uml", kernel, 512, 1, ""), ("/home/me/lab",), ("/home/me/lab", "/opt/x"), "3:7"
    )


def test_the_host_side_imports_the_standard_library_only() -> None:
    code = (
        "import sys; before = set(sys.modules); import lvsctl.machine.client\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert set(done.stdout.split()) <= {"lvsctl", *sys.stdlib_module_names}
    assert "asyncio" not in done.stdout.split()


@pytest.mark.parametrize("name", ["../x", "a b", "-x", "x" * 33])
def test_a_machine_needs_a_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("LVSCTL_MACHINE", name)
    with pytest.raises(UsageError, match="is not a valid name"):
        runtime_files.machine_name()


def test_a_runtime_directory_that_others_can_enter_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "lvsctl").mkdir(mode=0o755)
    with pytest.raises(HostError, match="only you can access: it is not safe"):
        runtime_files.for_machine("x")


def test_a_runtime_directory_that_is_a_link_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "lvsctl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="only you can access: it is not safe"):
        runtime_files.for_machine("x")


@as_root
def test_a_runtime_directory_of_another_owner_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "lvsctl").mkdir(mode=0o700)
    given_away(tmp_path / "lvsctl")
    with pytest.raises(HostError, match="only you can access: it is not safe"):
        runtime_files.for_machine("x")


@pytest.fixture
def stranger() -> Iterator[tuple[int, Path]]:
    """A user whom nobody knows, and that user's runtime directory for want of a better one."""
    user = 1_000_000 + os.getpid()
    fallback = Path(f"/tmp/lvsctl-{user}")
    yield user, fallback
    if fallback.is_symlink() or fallback.is_file():
        fallback.unlink()
    elif fallback.exists():
        fallback.rmdir()


@as_root
@pytest.mark.parametrize("given", [None, "", "relative", "another's", "closed", "missing"])
def test_without_a_runtime_directory_of_one_s_own_it_is_in_tmp(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stranger: tuple[int, Path], given: str | None
) -> None:
    user, fallback = stranger
    elsewhere = {"another's": "/run", "closed": str(tmp_path / "own"), "missing": "/nowhere/at/all"}
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if given is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", elsewhere.get(given, given))
    tmp_path.chmod(0o700)
    with acting_as(user):
        assert runtime_files.for_machine("x").directory == fallback
        assert runtime_files.for_machine("x").directory == fallback  # and so it is the next time
    found = fallback.lstat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (user, 0o700)


@as_root
@pytest.mark.parametrize(
    ("what", "mode", "whose"),
    [
        ("directory", 0o700, "another's"),
        ("directory", 0o777, "another's"),
        ("directory", 0o777, "ours"),
        ("link", None, "another's"),
        ("link", None, "ours"),
        ("file", 0o600, "ours"),
    ],
)
def test_what_was_planted_in_tmp_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    stranger: tuple[int, Path],
    what: str,
    mode: int | None,
    whose: str,
) -> None:
    """Even a link to a directory that would do: whoever made it may change it."""
    user, fallback = stranger
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with tempfile.TemporaryDirectory(dir="/tmp") as good:
        os.chown(good, user, -1)
        if what == "link":
            fallback.symlink_to(good)
        elif what == "directory":
            fallback.mkdir()
        else:
            fallback.touch()
        if mode is not None:
            fallback.chmod(mode)
        if whose == "ours":
            os.lchown(fallback, user, -1)
        with acting_as(user), pytest.raises(HostError) as caught:
            runtime_files.for_machine("x")
        assert str(fallback) in caught.value.message
        assert "XDG_RUNTIME_DIR" in caught.value.hint
        assert list(Path(good).iterdir()) == []


def test_the_record_survives_and_nonsense_is_no_record(tmp_path: Path) -> None:
    where = runtime_files.RuntimeFiles(tmp_path, "x")
    assert records.read(where.record) is None
    record = records.Record(records.boot_id(), 1, 2, "/dev/shm/lvsctl-machine-x")
    records.write(where.record, record)
    assert records.read(where.record) == record
    where.record.write_text("{")
    assert records.read(where.record) is None


def test_the_life_lock_is_exclusive_and_free_after_its_file_was_removed(tmp_path: Path) -> None:
    where = runtime_files.RuntimeFiles(tmp_path, "x")
    held = runtime_files.take_life_lock(where, 0)
    assert held is not None
    assert runtime_files.take_life_lock(where, 0) is None
    where.lock.unlink()
    os.close(held)
    again = runtime_files.take_life_lock(where, 0)
    assert again is not None
    os.close(again)


def test_machines_of_different_names_start_at_once_and_one_once_only(tmp_path: Path) -> None:
    where, other = (runtime_files.RuntimeFiles(tmp_path, name) for name in "xy")
    entered: list[str] = []

    def second() -> None:
        with runtime_files.starting(where):
            entered.append("second")

    waiting = threading.Thread(target=second)
    with runtime_files.starting(where), runtime_files.starting(other):
        waiting.start()
        runtime_files.sweep(where)  # by whoever starts it, before it does
        assert where.starting.exists()
        entered.append("first")
    waiting.join(timeout=60)
    assert entered == ["first", "second"]
    assert list(tmp_path.iterdir()) == []
    where.starting.touch()  # of one that was killed at it
    runtime_files.sweep(where)
    assert list(tmp_path.iterdir()) == []


def test_a_full_runtime_directory_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files can still be created there; the locks hold without a word in them."""

    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    where = runtime_files.RuntimeFiles(tmp_path, "x")
    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(Path, "rename", full)  # after the record's draft was written
    with runtime_files.starting(where):
        with pytest.raises(OSError, match="No space left"):
            records.write(where.record, records.Record(records.boot_id(), 1, 1, "/dev/null"))
        runtime_files.sweep(where)
        assert list(tmp_path.iterdir()) == [where.starting]
    assert list(tmp_path.iterdir()) == []


def test_sweeping_ends_only_the_recorded_session(tmp_path: Path) -> None:
    where = runtime_files.RuntimeFiles(tmp_path, "x")
    work = tmp_path / f"{records.WORK_PREFIX}x"
    work.mkdir()
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as ours:
        started = records.start_time(ours.pid)
        assert started is not None
        later = records.Record(records.boot_id(), ours.pid, started + 1, str(work))
        assert records.members(later) == []  # an older process of that session id is not ours
        records.write(where.record, records.Record(records.boot_id(), ours.pid, started, str(work)))
        runtime_files.sweep(where)
        assert ours.wait(10) == -9
    assert not work.exists()
    assert list(tmp_path.iterdir()) == []


def test_only_work_directories_are_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    records.remove_work(str(tmp_path / "precious"))
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize(
    "directory", ["/", "/etc", "/etc/nginx", "/usr", "/home", "/var", "/dev", "/run/lvsctl"]
)
def test_system_directories_stay_read_only(directory: str) -> None:
    assert config.why_not_writable(directory) is not None


MINE = f"/run/user/{os.getuid()}/x"


@pytest.mark.parametrize(
    "directory", ["/home/me", "/root", "/tmp/x", "/usr/src/app", "/srv/lab", "/run/media/me", MINE]
)
def test_peoples_own_directories_may_be_written(directory: str) -> None:
    assert config.why_not_writable(directory) is None


def test_a_named_directory_must_exist(tmp_path: Path) -> None:
    assert config.writable_directories([str(tmp_path), str(tmp_path)]) == (str(tmp_path.resolve()),)
    with pytest.raises(UsageError, match="not a directory"):
        config.writable_directories([str(tmp_path / "missing")])
    with pytest.raises(UsageError, match="belongs to the host's system"):
        config.writable_directories(["/etc"])


def test_a_link_that_came_where_a_directory_was_named_is_not_followed(tmp_path: Path) -> None:
    """Who may write above it could have the broker open what it points to."""
    (tmp_path / "link").symlink_to(tmp_path)
    mount_namespace.open_for(
        os.getpid(), str(tmp_path.resolve())
    )  # which this process may write as it is
    for place in (tmp_path / "link", Path("/etc")):
        with pytest.raises(PermissionError, match="must not be written"):
            mount_namespace.open_for(os.getpid(), str(place))


def test_paths_in_tmp_among_the_arguments(tmp_path: Path) -> None:
    file = Path("/tmp") / f"lvsctl-test-{os.getpid()}.yaml"
    file.touch()
    try:
        found = relay.paths_in(["up", file.name, f"--topology={file}", "/etc/passwd"], "/tmp")
    finally:
        file.unlink()
    assert set(found) == {str(file)}


def test_the_order_survives_its_command_line() -> None:
    order = BrokerArguments("x", _plan(), 3, 4)
    assert BrokerArguments.from_json(order.to_json()) == order


def test_a_path_with_a_space_is_quoted_for_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uml, "interpreter", lambda: "/home/me/my env/python")
    line = uml.command_line(_plan(), Path("/dev/shm/x"), 5)
    assert 'init="/home/me/my env/python"' in line
    assert "ro" in line
    assert "ssl0=fd:5" in line
    assert "mem=512M" in line
    monkeypatch.setattr(uml, "interpreter", lambda: '/a"b/python')
    with pytest.raises(HostError, match="cannot contain"):
        uml.command_line(_plan(), Path("/dev/shm/x"), 5)


def test_a_machine_that_fits_nowhere_says_where_it_was_tried() -> None:
    with pytest.raises(HostError, match=r"no space for a machine of 1099511627776 MiB\n/dev/shm: "):
        directories.create_work_directory(2**40, executable=True)


def test_the_console_s_telling_lines() -> None:
    noise = [f"line {n}" for n in range(30)]
    assert broker.relevant_lines(noise) == noise[-broker.LINES_SHOWN :]
    panic = [*noise, "Kernel panic - not syncing: x", *noise]
    assert broker.relevant_lines(panic)[0].startswith("Kernel panic")


def test_modules_are_loaded_after_what_they_need() -> None:
    dep = (
        "kernel/net/netfilter/ipvs/ip_vs_rr.ko: kernel/net/netfilter/ipvs/ip_vs.ko "
        "kernel/net/netfilter/nf_conntrack.ko kernel/lib/libcrc32c.ko\n"
        "kernel/net/netfilter/ipvs/ip_vs.ko: kernel/net/netfilter/nf_conntrack.ko "
        "kernel/lib/libcrc32c.ko\n"
        "kernel/lib/libcrc32c.ko:\n"
        "kernel/net/bridge/br_netfilter.ko: kernel/net/bridge/bridge.ko\n"
        "kernel/net/netfilter/ipvs/ip_vs_ftp.ko:\n"
        "kernel/drivers/net/veth.ko.xz:\n"
    )
    assert [modules.name_of(path) for path in modules.load_order(dep)] == [
        *("libcrc32c", "nf_conntrack", "ip_vs", "ip_vs_rr", "veth")
    ]


@pytest.mark.parametrize(
    ("path", "at_boot"),
    [
        ("kernel/net/netfilter/ipvs/ip_vs_mh.ko", True),
        ("kernel/net/netfilter/ipvs/ip_vs_ftp.ko", False),
        ("kernel/net/netfilter/ipvs/ip_vs_pe_sip.ko", False),
        ("kernel/net/bridge/bridge.ko", True),
        ("kernel/net/bridge/br_netfilter.ko", False),
        ("kernel/net/ipv4/fou.ko", True),
        ("kernel/net/sched/sch_netem.ko", True),
        ("kernel/net/sched/sch_tbf.ko", False),
    ],
)
def test_what_is_loaded_at_boot_where_the_rest_comes_on_demand(path: str, at_boot: bool) -> None:
    assert modules.wanted_at_boot(path) is at_boot


def test_the_kernel_asks_for_modules_by_these_names(tmp_path: Path) -> None:
    (tmp_path / "modules.alias").write_text(
        "# Aliases extracted from modules themselves.\n"
        "alias net-pf-2-proto-132 sctp\n"
        "alias virtio:d00000001v* virtio_net\n"
        "alias crypto-ctr(aes) ctr\n"
    )
    (tmp_path / "modules.dep").write_text(
        "kernel/net/sctp/sctp.ko: kernel/lib/libcrc32c.ko\nkernel/net/sched/act-x.ko.xz:\n"
    )
    assert modules.names_and_aliases(str(tmp_path)) == {
        "net-pf-2-proto-132": "sctp",
        "sctp": "sctp",
        "act-x": "act_x",
        "act_x": "act_x",
    }


def test_bridged_frames_never_meet_iptables() -> None:
    """br_netfilter would send every frame that a lab's switch forwards through iptables."""
    assert not modules.wanted("kernel/net/bridge/br_netfilter.ko")


@pytest.mark.parametrize(
    ("path", "is_hidden"), [("/tmp", True), ("/tmp/x", True), ("/tmpfoo", False), ("/home", False)]
)
def test_what_the_guest_hides(path: str, is_hidden: bool) -> None:
    assert mounts.hidden(path) is is_hidden


@pytest.mark.parametrize("cache", ["", "relative/cache"])
def test_without_a_home_the_cache_is_named(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setattr(Path, "home", _no_home)
    with pytest.raises(HostError, match="no home directory") as raised:
        directories.cache_directory()
    assert "set HOME, or XDG_CACHE_HOME" in raised.value.hint


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_relative_cache_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert directories.cache_directory() == tmp_path / ".cache" / "lvsctl"


def _damage(tree: Path, how: str) -> None:
    file = tree / "usr/bin/linux.uml"
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:10])
    elif how == "missing":
        (tree / "usr/lib/uml/modules/6.1/ip_vs.ko").unlink()
    else:
        (tree / directories.MANIFEST).write_bytes(b"\xff")


@pytest.mark.parametrize("how", ["truncated", "missing", "no list"])
def test_a_damaged_kernel_is_fetched_anew(
    how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")  # nor is one installed
    monkeypatch.setattr(packages, "missing_tool", lambda: "")

    def download(_package: str, scratch: Path, *_: object) -> Path:
        return scratch

    def unpack(_package: Path, tree: Path, _hint: str) -> None:
        modules = tree / "usr/lib/uml/modules/6.1"
        modules.mkdir(parents=True)
        (modules / "modules.dep").touch()
        (modules / "ip_vs.ko").write_bytes(b"module")
        (tree / "usr/bin").mkdir()
        (tree / "usr/bin/linux.uml").write_bytes(b"a whole kernel")
        (tree / "usr/bin/linux.uml").chmod(0o755)

    monkeypatch.setattr(packages, "download", download)
    monkeypatch.setattr(packages, "unpack", unpack)
    said: list[str] = []
    kernel = uml.ensure_kernel(said.append)
    assert (uml.ensure_kernel(said.append), len(said)) == (kernel, 1)

    _damage(uml.unpack_directory() / "current", how)
    assert uml.ensure_kernel(said.append) == kernel

    assert kernel.program.read_bytes() == b"a whole kernel"
    assert str(uml.unpack_directory()) in said[1]
    assert len(said) == 3
    assert [path.name for path in uml.unpack_directory().iterdir()] == ["current"]


def test_a_module_that_is_damaged_is_told_with_what_fetches_it_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One with its size but other bytes, which no look at the cache finds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tree = tmp_path / "lvsctl/uml/current"
    failed = {"ip_vs": "Exec format error", "sctp": "unknown symbol", "veth": "Exec format error"}

    (said,) = broker.complaints_of_modules(failed, tree / "usr/bin/linux.uml")

    assert said.startswith("the kernel cannot load ip_vs, veth (Exec format error); ")
    assert said.endswith(
        f"lvsctl machine stop; rm -r {tmp_path}/lvsctl/uml/current; lvsctl machine start"
    )
    assert broker.complaints_of_modules({"sctp": "unknown symbol"}, tree) == []


def test_a_process_whose_id_was_reused_is_not_signalled() -> None:
    with subprocess.Popen(["sleep", "60"]) as ours:
        now = records.process(ours.pid)
        earlier = now._replace(started=now.started - 1)
        record = records.Record(records.boot_id(), 0, 0, "", broker=earlier, supervisor=earlier)
        records.end_background(record, signal.SIGKILL)
        assert ours.poll() is None
        records.end_background(record._replace(broker=now), signal.SIGKILL)
        assert ours.wait() == -signal.SIGKILL
    assert records.members(record) == []  # without a kernel: never the kernel's own threads


@pytest.mark.parametrize(
    ("console", "full", "said"),
    [
        (["Kernel panic - not syncing: Attempted to kill init!"], "", "the machine died; the last"),
        (["Out of memory: Killed process 1"], "", r"ran out of its memory \(64 MiB\)"),
        ([], "/dev/shm", "because /dev/shm, which holds its memory, is full"),
        ([], "", "died, without a word"),
    ],
)
def test_why_a_machine_died(console: list[str], full: str, said: str) -> None:
    died = broker.reason_of_death(console, 64, full)
    assert re.search(said, died["message"])
    assert died["hint"]
