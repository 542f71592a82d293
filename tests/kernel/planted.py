"""Things of another user's, with names like a lab's, in every place that a lab could spoil.

Where the tables are empty, nothing shows that they were left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lvsctl.kernel import netns, probe
from lvsctl.kernel.probe import which
from lvsctl.kernel.processes import holder
from tests.companions import INSIDE
from tests.kernel.by_hand import eventually, run
from tests.kernel.initial import FIREWALLS, firewalls, has_ipv6, initial_namespace, ip_batch

DEVICE = "lvs-dr-lan"
TABLES = (
    f"link add {DEVICE} type bridge",
    f"addr add 198.51.100.1/24 dev {DEVICE}",
    f"link set {DEVICE} addrgenmode none",  # an address of its own would be tentative first
    f"link set {DEVICE} up",
    f"neigh add 198.51.100.7 lladdr 02:00:00:00:00:07 nud permanent dev {DEVICE}",
    f"neigh add proxy 198.51.100.8 dev {DEVICE}",
    "rule add pref 31999 from 198.51.100.0/24 lookup 319",
    "route add blackhole 203.0.113.0/24 table 319",
)
"""Something of another user's in each of a namespace's tables."""

ADDRESS6 = "2001:db8:319::1"

BACK = (
    "rule del pref 31999",
    "route flush table 319",
    f"link del {DEVICE}",
)

IPVS = (
    "ipvsadm -A -t 198.51.100.1:80 -s rr",
    "ipvsadm -a -t 198.51.100.1:80 -r 192.0.2.11:8080 -m -w 7",
)
IPVS_BACK = "ipvsadm -D -t 198.51.100.1:80"
NFTABLES = "nft add table inet theirs"


@contextlib.contextmanager
def tables_planted() -> Iterator[None]:
    """The initial namespace's tables have something in them, which is the same afterwards.

    On a host, where others may be looking at the initial namespace, one made for the test
    plays it meanwhile: the calling thread's, and so that of all which that starts.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    alone = INSIDE in os.environ
    undo = ["ip -6 rule del pref 31999"]
    try:
        if not alone:
            netns.unshare()
            run("ip link set lo up")
        ip_batch(TABLES)
        if has_ipv6():
            run(f"ip addr add {ADDRESS6}/64 dev {DEVICE} nodad")
            # A work queue's step, even where there is no DAD to wait for (addrconf_dad_begin).
            eventually(lambda: f"local {ADDRESS6} " in run("ip -6 route show table local"))
            run("ip -6 rule add pref 31999 from 2001:db8:319::/64 lookup 319")
        if probe.has_ipvs():
            undo.append(IPVS_BACK)
            for command in IPVS:
                run(command)
        if FIREWALLS[0] in firewalls() and has_nftables():
            run(NFTABLES)
            undo.append("nft delete table inet theirs")
        before = initial_namespace()
        yield
        after = initial_namespace()
        assert after == before, {k: (before[k], after[k]) for k in before if after[k] != before[k]}
    finally:
        if alone:
            ip_batch(BACK, "-force")
            for command in undo:
                with contextlib.suppress(AssertionError):
                    run(command)
        else:
            netns.setns(home)
        os.close(home)


@functools.cache
def has_nftables() -> bool:
    """Whether nft(8) can make a table: where it cannot, it lists none without an error."""
    words = ["unshare", "--net", which("nft") or "nft", *NFTABLES.split()[1:]]
    asked = subprocess.run(words, capture_output=True, text=True, check=False)
    assert asked.returncode == 0 or "not supported" in asked.stderr, asked.stderr
    return asked.returncode == 0


@contextlib.contextmanager
def namespace_planted(name: str) -> Iterator[None]:
    """Another user's namespace, with a link of the lab's name; the very same afterwards."""

    def look() -> tuple[int, str]:
        return Path("/run/netns", name).stat().st_ino, run(f"ip -n {name} -d addr")

    run(f"ip netns add {name}")
    try:
        run(f"ip -n {name} link add {DEVICE} type bridge")
        run(f"ip -n {name} addr add 10.10.0.100/24 dev {DEVICE}")
        before = look()
        yield
        assert look() == before, name
    finally:
        with contextlib.suppress(AssertionError):
            run(f"ip netns del {name}")


@contextlib.contextmanager
def responder_planted(file: Path) -> Iterator[None]:
    """A process like a lab's responder, that no lab has; it lives on.

    It has the same command line, is in the initial namespace, and has ``file`` locked.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(writing)
            lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.lockf(lock, fcntl.LOCK_EX)
            os.write(lock, f"{os.getpid()}\n".encode())
            os.read(reading, 1)  # until its parent lets go, or is no more
        finally:
            os._exit(0)
    try:
        eventually(lambda: file.exists() and file.read_text() == f"{child}\n")
        yield
        assert holder(file) == child, "another user's process was ended"
    finally:
        os.close(reading)
        os.close(writing)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def process_planted(namespace: str) -> Iterator[None]:
    """A process in another user's namespace; it lives on."""
    with subprocess.Popen(["ip", "netns", "exec", namespace, "sleep", "3600"]) as process:
        try:
            own = Path("/proc/thread-self/ns/net").stat().st_ino
            entered = Path(f"/proc/{process.pid}/ns/net")
            eventually(lambda: entered.stat().st_ino != own)
            yield
            assert process.poll() is None, "another user's process was ended"
        finally:
            process.kill()


@contextlib.contextmanager
def files_planted(lab: str) -> Iterator[Path]:
    """Files with names as lvsctl gives them; as they were afterwards. A directory among them."""
    run_directory = Path("/run/lvsctl")
    run_directory.mkdir(exist_ok=True)
    directory = run_directory / "Not a lab"
    files = (
        directory / "registry.json",
        run_directory / f"{lab}.notes",
        Path(f"/tmp/lvsctl-{lab}-{os.getpid()}"),
        Path(f"/tmp/lvsctl-machine-{os.getpid()}"),
    )
    try:
        directory.mkdir()
        for file in files:
            file.write_text("theirs")
        yield directory
        assert {file.read_text() for file in files} == {"theirs"}
    finally:
        for file in files:
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            directory.rmdir()
            run_directory.rmdir()


@contextlib.contextmanager
def planted(lab: str) -> Iterator[None]:
    """Things of another user's with names as lvsctl gives them; they must be there afterwards."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(tables_planted())
        directory = stack.enter_context(files_planted(lab))
        for name in (f"lvs-{lab}-theirs", f"lvs-{lab}", "lvs-other-director"):
            stack.enter_context(namespace_planted(name))
        stack.enter_context(process_planted(f"lvs-{lab}-theirs"))
        stack.enter_context(responder_planted(directory / "responder.pid"))
        yield
