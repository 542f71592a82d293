"""Namespaces made with ip(8) and asked through ip, ss and ipvsadm: independent witnesses."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvsctl.kernel.probe import which
from tests.patience import FACTOR
from tests.witness import witness

if TYPE_CHECKING:
    from collections.abc import Iterator


FALLBACK_DEVICES = frozenset(
    ["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"]
)
"""What each new namespace has where the tunnels' modules are loaded, unless the host's
net.core.fb_tunnels_only_for_init_net is set."""


def run(command: str, *, netns: str = "") -> str:
    """What a command prints; it must succeed."""
    words = shlex.split(command)
    if netns:
        words = ["ip", "netns", "exec", netns, *words]
    words[0] = which(words[0]) or words[0]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def ip_json(netns: str, words: str) -> list[dict[str, Any]]:
    """What `ip -j <words>` says in a namespace."""
    found: list[dict[str, Any]] = json.loads(run(f"ip -n {netns} -j {words}") or "[]")
    return found


@contextlib.contextmanager
def namespaces(*nodes: str) -> Iterator[tuple[str, ...]]:
    """Namespaces with names that nobody else has, `lo` up; gone afterwards."""
    token = uuid.uuid4().hex[:8]
    names = tuple(f"t{token}-{node}" for node in nodes)
    with contextlib.ExitStack() as undo:
        for name in names:
            run(f"ip netns add {name}")
            undo.callback(run, f"ip netns del {name}")
            run(f"ip -n {name} link set lo up")
        yield names


def cable(one: str, one_device: str, other: str, other_device: str, index: int = 10) -> None:
    """A veth pair between two namespaces, both ends up, with different indexes.

    `name` and `dev` are not optional: ip(8) takes a device `a` for `address`.
    """
    run(
        f"ip -n {one} link add name {one_device} index {index} type veth"
        f" peer name {other_device} index {index + 500} netns {other}"
    )
    run(f"ip -n {one} link set dev {one_device} up")
    run(f"ip -n {other} link set dev {other_device} up")
    carries_frames(one, one_device)
    carries_frames(other, other_device)


def carries_frames(netns: str, device: str) -> None:
    """Wait until ``device`` is operational: a busy kernel takes a second, and drops until then."""
    show = f"ip -n {netns} -o link show dev {device}"
    eventually(lambda: " state UP " in run(show))


@contextlib.contextmanager
def process(command: str, *, netns: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs meanwhile; it must say that it is ready with a line of output."""
    words = ["ip", "netns", "exec", netns, *shlex.split(command)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            ready = select.select([child.stdout], [], [], 30 * FACTOR)[0]
            assert ready, f"{command}: not ready after {30 * FACTOR:g} s"
            assert child.stdout.readline(), f"{command}: ended early"
            yield child
        finally:
            child.terminate()


def kill(pid: int) -> None:
    """Kill a process at once, and wait until it is gone: a signal is only on its way."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert select.select([handle], [], [], 30)[0], f"process {pid} lives after SIGKILL"
    finally:
        os.close(handle)


def descriptors() -> set[str]:
    """The open descriptors of this process."""
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def eventually(condition: Any, *, seconds: float = 10) -> None:
    """Wait until ``condition()`` holds; ``seconds`` are those of a machine that is not emulated."""
    deadline = time.monotonic() + seconds * FACTOR
    while not condition():
        assert time.monotonic() < deadline, "still not so"
        select.select([], [], [], 0.02)


def _keepalived_in(netns: str) -> list[int]:
    """The processes of keepalived in a namespace."""
    found = []
    for pid in run(f"ip netns pids {netns}").split():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "keepalived":
                found.append(int(pid))
    return found


def end_keepalived(netns: str) -> None:
    """End what keepalived runs in a namespace; it takes its VIPs and virtual servers away."""
    for pid in _keepalived_in(netns):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    eventually(lambda: not _keepalived_in(netns))


def install_iptables(place: Path) -> None:
    """Write iptables and its companions into a directory, under the names of their package."""
    for name in ("iptables", "iptables-save", "ip6tables", "ip6tables-save"):
        program = place / name
        program.write_text(f'#!/bin/sh\nexec {witness("xtables-legacy-multi")} {name} "$@"\n')
        program.chmod(0o755)
