"""`lvsctl down --wait`: when it returns, the kernel has taken the lab's namespaces apart."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsctl.errors import LabError
from lvsctl.kernel import netns, netns_cleanup, paths, registry
from lvsctl.kernel.apply import apply_plan
from lvsctl.model.event import ignore
from tests.kernel.by_hand import eventually
from tests.kernel.dr_shape import dr_plan
from tests.kernel.test_execute import lab as lab  # noqa: PLC0414 (a fixture)

ROOT = Path(__file__).parents[2]
SERVERS = 20


def up(lab: str, servers: int = 2) -> None:
    plan = dr_plan(lab, servers)
    registry.begin(registry.Entry(lab=lab, namespaces=plan.namespaces))
    apply_plan(plan, lab, ignore)


def ip(netns: str, words: str) -> str:
    command = ["ip", "-n", netns, *words.split()]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def cable_into(netns: str) -> Iterator[str]:
    """The witness stands outside: one end of a cable, whose other end goes with its namespace.

    watcher: near ──── far: netns
    """
    watcher = f"watch-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", watcher], check=True)
    try:
        for words in (
            f"link add near type veth peer name far netns {netns}",
            "link set near up",
        ):
            ip(watcher, words)
        assert "near@" in ip(watcher, "link")
        yield watcher
    finally:
        subprocess.run(["ip", "netns", "del", watcher], check=True)


def test_a_cable_that_led_into_the_lab_is_gone(lab: str) -> None:
    up(lab, SERVERS)
    with cable_into(f"lvs-{lab}-rs{SERVERS}") as watcher:
        with netns_cleanup.wait_for_cleanup(lab):
            registry.remove(lab)
        assert "near" not in ip(watcher, "link")


def test_the_command_returns_when_the_last_has_let_go(lab: str) -> None:
    """As typed, while this test holds one of the namespaces; then it lets go."""
    up(lab)
    command = [sys.executable, "-m", "lvsctl", "down", lab, "--wait", "--where", "host"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    held = netns.open_namespace(paths.of(lab).namespaces / f"lvs-{lab}-rs1")
    with (
        cable_into(f"lvs-{lab}-rs1") as watcher,
        subprocess.Popen(command, env=environment) as down,
        contextlib.ExitStack() as holding,
    ):
        holding.callback(os.close, held)
        eventually(lambda: not paths.of(lab).directory.exists() or down.poll() is not None)
        with pytest.raises(subprocess.TimeoutExpired):
            down.wait(timeout=1)  # all is removed: without waiting, it would end at once
        assert "near@" in ip(watcher, "link")
        holding.close()
        assert down.wait(timeout=netns_cleanup.SECONDS) == 0
        assert "near" not in ip(watcher, "link")


def test_without_waiting_it_may_still_be_there(lab: str) -> None:
    """The control for the test above: it is the waiting that makes the difference."""
    up(lab, SERVERS)
    held = netns.open_namespace(paths.of(lab).namespaces / f"lvs-{lab}-rs1")
    try:
        registry.remove(lab)
        netns.in_thread(lambda: netns.setns(held))  # it exists: it can be entered
    finally:
        os.close(held)


def test_who_is_still_held_is_named(lab: str) -> None:
    up(lab)
    held = netns.open_namespace(paths.of(lab).namespaces / f"lvs-{lab}-rs1")
    try:
        with (
            pytest.raises(LabError, match=f"has not released everything: lvs-{lab}-rs1(\n|$)"),
            netns_cleanup.wait_for_cleanup(lab, seconds=2),
        ):
            registry.remove(lab)
    finally:
        os.close(held)


def test_nothing_to_wait_for(lab: str) -> None:
    with netns_cleanup.wait_for_cleanup(lab):
        pass


def test_what_goes_wrong_meanwhile_is_told_and_no_thread_stays(lab: str) -> None:
    up(lab)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), netns_cleanup.wait_for_cleanup(lab, seconds=0.1):
        raise ZeroDivisionError
    assert threading.active_count() == before
    assert Path(paths.NETNS / f"lvs-{lab}-rs1").is_symlink()
