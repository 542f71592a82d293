"""Removing labs: what is ours goes, what is not stays; also after kill -9 of anything."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from lvsctl.errors import LabError
from lvsctl.kernel import netns, paths, processes, registry
from lvsctl.kernel.apply import apply_plan
from lvsctl.kernel.worker import in_worker
from lvsctl.model.event import Emit, ignore
from lvsctl.plan.stages import Plan
from tests.kernel.by_hand import namespaces
from tests.kernel.dr_shape import dr_plan
from tests.kernel.test_execute import alive
from tests.kernel.test_execute import lab as lab  # noqa: PLC0414 (a fixture)


def up(plan: Plan) -> None:
    registry.begin(registry.Entry(lab=plan.lab, namespaces=plan.namespaces))
    apply_plan(plan, plan.lab, ignore)


def serve(ready: processes.Ready) -> None:
    """What a daemon does here."""
    ready(None)
    signal.pause()


def test_without_its_entry_a_lab_is_removed_all_the_same(lab: str) -> None:
    up(dr_plan(lab))
    paths.of(lab).registry.write_text("damaged")
    assert len(registry.remove(lab).namespaces) == 5


def test_without_its_mount_a_lab_is_removed_all_the_same(lab: str) -> None:
    """As after a reboot where /run is on a disk."""
    up(dr_plan(lab))
    subprocess.run(["umount", "--lazy", str(paths.of(lab).namespaces)], check=True)
    assert len(registry.remove(lab).namespaces) == 5


def test_mounted_twice_is_unmounted_twice(lab: str) -> None:
    up(dr_plan(lab))
    words = ["mount", "-t", "tmpfs", "again", str(paths.of(lab).namespaces)]
    subprocess.run(words, check=True)
    registry.remove(lab)


def test_a_daemon_whose_starter_died_is_ended(lab: str) -> None:
    paths.of(lab).directory.mkdir(parents=True)
    netns.mount_store(lab)

    pid = processes.daemon(lab, "something", serve)
    paths.of(lab).registry.unlink(missing_ok=True)
    assert registry.remove(lab).processes == 1
    assert not alive(pid)


def test_a_pid_file_that_nobody_locks_ends_nobody(lab: str) -> None:
    paths.of(lab).pids.mkdir(parents=True)
    (paths.of(lab).pids / "responder.pid").write_text(f"{os.getppid()}\n")
    assert processes.of_lab(lab) == set()
    assert registry.remove(lab).processes == 0


def test_a_daemon_holds_no_lock_of_the_command_that_started_it(lab: str) -> None:
    with registry.lock(lab):
        registry.begin(registry.Entry(lab=lab))
        pid = processes.daemon(lab, "something", serve)
        files = list(Path(f"/proc/{pid}/fd").iterdir())
        assert not any(fd.exists() and fd.samefile(paths.of(lab).lock) for fd in files)
    with registry.lock(lab, 0):
        pass


def test_an_interruption_of_a_daemons_start_is_that_interruption(
    lab: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exception comes when waitpid(2) has returned: the child is collected already."""
    wait = os.waitpid

    def interrupted(pid: int, options: int) -> tuple[int, int]:
        monkeypatch.setattr(os, "waitpid", wait)
        wait(pid, options)
        raise KeyboardInterrupt

    paths.of(lab).directory.mkdir(parents=True)
    monkeypatch.setattr(os, "waitpid", interrupted)
    with pytest.raises(KeyboardInterrupt):
        processes.daemon(lab, "something", serve)
    registry.remove(lab)


def test_a_daemon_whose_lab_goes_while_it_starts_says_so(
    lab: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where not all of the lab is gone yet; without a traceback."""
    # The daemon's own first step, before it opens anything.
    monkeypatch.setattr(gc, "freeze", lambda: shutil.rmtree(paths.of(lab).pids))
    with pytest.raises(LabError, match="was removed while its something started"):
        processes.daemon(lab, "something", serve)
    assert capfd.readouterr().err == ""
    registry.remove(lab)


def test_labs_at_once_do_not_meet(lab: str) -> None:
    """Six labs in parallel, each from a process of its own, as `lvsctl up` runs."""
    names = [f"{lab}x{i}" for i in range(6)]
    children = []
    for name in names:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with registry.lock(name):
                    up(dr_plan(name))
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(names)
    assert {entry.lab for entry in registry.labs()} >= set(names)
    for name in names:
        with registry.lock(name):
            assert len(registry.remove(name).namespaces) == 5


def test_two_commands_for_one_lab_come_one_after_the_other(lab: str) -> None:
    results: list[str] = []

    def start() -> None:
        with registry.lock(lab):
            try:
                up(dr_plan(lab))
                results.append("up")
            except LabError as error:
                results.append(error.message)

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(["up"] + [f"lab {lab} exists already"] * 2)


@pytest.mark.parametrize("steps", range(5))
def test_removal_that_was_killed_goes_on(lab: str, steps: int) -> None:
    """Removed partly, as far as a killed `down` got; then removed."""
    up(dr_plan(lab))
    if steps > 0:
        netns.unmount_store(lab)
    if steps > 1:
        (paths.NETNS / f"lvs-{lab}-client").unlink()
    if steps > 2:
        paths.of(lab).namespaces.rmdir()
    if steps > 3:
        paths.of(lab).registry.unlink()
    assert len(registry.remove(lab).namespaces) == (5 if steps < 2 else 4)
    assert not registry.remove(lab).existed


def test_namespaces_beneath_the_store_are_removed_too(lab: str) -> None:
    """Their mounts on the directory itself: the store was unmounted while they were made."""
    registry.begin(registry.Entry(lab=lab, namespaces=()))
    paths.of(lab).namespaces.mkdir()
    place = paths.of(lab).namespaces / f"lvs-{lab}-a"
    place.touch()
    with namespaces("theirs") as (theirs,):
        subprocess.run(["mount", "--bind", f"/run/netns/{theirs}", str(place)], check=True)
        assert registry.remove(lab).existed


def test_processes_of_the_initial_namespace_are_never_a_labs(tmp_path: Path) -> None:
    """Whoever gives it a name of ours: `down` would end everything on the host."""
    theirs = tmp_path / "lvs-dr-rs1"
    theirs.symlink_to("/proc/1/ns/net")
    assert processes.pids_in([theirs]) == set()


def test_an_interruption_while_the_worker_starts_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else what it makes would come after the undoing."""
    begun, done = threading.Event(), threading.Event()
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        begun.wait()
        raise KeyboardInterrupt

    def work(say: Emit, stop: threading.Event) -> None:
        begun.set()
        stop.wait(10)
        done.set()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_worker(work, ignore)
    assert done.is_set()
