"""Namespaces as ip(8) sees them; the caller's thread stays where it is."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsctl import linux
from lvsctl.errors import LabError, UsageError
from lvsctl.kernel import netns, paths, registry
from tests.kernel.by_hand import FALLBACK_DEVICES

HERE = "/proc/thread-self/ns/net"


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a lab of this test alone; nothing of it is left afterwards."""
    name = f"t{os.getpid()}-{abs(hash(request.node.name)) % 10**6}"
    before = Path(HERE).readlink()
    yield name
    registry.remove(name)
    assert not paths.of(name).directory.exists()
    assert Path(HERE).readlink() == before


def made(lab: str, *nodes: str) -> list[str]:
    """Namespaces of ``lab``, made by a thread of their own."""
    names = [f"lvs-{lab}-{node}" for node in nodes]
    paths.of(lab).directory.mkdir(parents=True, exist_ok=True)
    netns.mount_store(lab)

    def work() -> None:
        for name in names:
            os.close(netns.create(lab, name))

    netns.in_thread(work)
    return names


def output(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def test_ip_netns_sees_and_enters_them(lab: str) -> None:
    (name,) = made(lab, "a")
    assert name in output("ip", "netns", "list").split()
    links = json.loads(output("ip", "-j", "-n", name, "link"))
    assert {link["ifname"] for link in links} - FALLBACK_DEVICES == {"lo"}
    inside = output("ip", "netns", "exec", name, "readlink", "/proc/self/ns/net").strip()
    assert inside == netns.run_inside(name, lambda: str(Path(HERE).readlink()))
    assert inside != str(Path(HERE).readlink())


def test_the_callers_thread_stays_where_it_is_whatever_happens(lab: str) -> None:
    (name,) = made(lab, "a")
    before = Path(HERE).readlink()

    def fail() -> None:
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        netns.run_inside(name, fail)
    assert Path(HERE).readlink() == before
    seen: list[Path] = []
    with contextlib.suppress(RuntimeError), netns.enter(name):
        seen.append(Path(HERE).readlink())
        fail()
    assert seen != [before]
    assert Path(HERE).readlink() == before


def test_no_descriptor_stays_open(lab: str) -> None:
    (name,) = made(lab, "a")
    before = sorted(fd.name for fd in Path("/proc/self/fd").iterdir())
    netns.run_inside(name, lambda: None)
    with contextlib.suppress(LabError):
        netns.run_inside("lvs-none-such", lambda: None)
    assert sorted(fd.name for fd in Path("/proc/self/fd").iterdir()) == before


def test_a_missing_namespace_is_said_to_be_missing() -> None:
    with pytest.raises(LabError, match="namespace lvs-none-such does not exist"):
        netns.run_inside("lvs-none-such", lambda: None)


def test_one_removed_by_hand_is_told_apart(lab: str) -> None:
    (name,) = made(lab, "a")
    subprocess.run(["ip", "netns", "del", name], check=True)
    with pytest.raises(LabError, match="removed by hand"):
        netns.run_inside(paths.of(lab).namespaces / name, lambda: None)
    assert not netns.owned(lab, paths.NETNS / name)


def test_a_name_that_is_taken_is_never_touched(lab: str) -> None:
    name = f"lvs-{lab}-a"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        before = output("ip", "netns", "exec", name, "readlink", "/proc/self/ns/net")
        with pytest.raises(LabError, match="does not belong to lab"):
            netns.check_free(lab, [name])
        with pytest.raises(LabError, match="exists already"):
            made(lab, "a")
        registry.remove(lab)
        assert output("ip", "netns", "exec", name, "readlink", "/proc/self/ns/net") == before
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_letting_go_reaches_copies_of_the_mounts(lab: str) -> None:
    """A process with a mount namespace copied while the lab was up does not pin the lab."""
    made(lab, "a")
    words = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", "echo on; exec sleep 60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        mounts = Path(f"/proc/{other.pid}/mountinfo")
        assert f"lvs-{lab}-a" in mounts.read_text()
        registry.remove(lab)
        assert f"lvs-{lab}-a" not in mounts.read_text()
        assert other.poll() is None
        other.kill()


@pytest.fixture
def writable_etc(tmp_path: Path) -> Iterator[None]:
    """In the machine /etc is the host's, read-only: what a test writes there lies over it."""
    if "LVSCTL_IN_MACHINE" not in os.environ:
        yield
        return
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    layers = f"lowerdir=/etc,upperdir={upper},workdir={work}"
    linux.mount("overlay", "/etc", "overlay", options=layers)
    try:
        yield
    finally:
        linux.unmount("/etc")


@pytest.mark.usefixtures("writable_etc")
def test_exec_is_as_ip_netns_exec(lab: str, tmp_path: Path) -> None:
    (name,) = made(lab, "a")
    own = Path("/etc/netns") / name
    fresh = not own.parent.exists()
    own.mkdir(parents=True)
    try:
        (own / "hostname").write_text("from-etc-netns\n")
        script = "cat /etc/hostname; ls -d /sys/class/net/l*; echo $WHO; pwd"
        code = (
            "from lvsctl.kernel import netns; import os;"
            f"netns.exec_in({name!r}, ['sh', '-c', {script!r}],"
            f" {{**os.environ, 'WHO': 'me'}}, {str(tmp_path)!r})"
        )
        said = output(sys.executable, "-c", code).split("\n")
        assert said == ["from-etc-netns", "/sys/class/net/lo", "me", str(tmp_path), ""]
        assert Path("/etc/hostname").read_text() != "from-etc-netns\n"
    finally:
        (own / "hostname").unlink()
        own.rmdir()
        if fresh:
            own.parent.rmdir()


def test_a_node_has_a_host_name_of_its_own(lab: str) -> None:
    (name,) = made(lab, "a")
    before = socket.gethostname()
    code = (
        "from lvsctl.kernel import netns; import os;"
        f"netns.exec_in({name!r}, ['sh', '-c', 'hostname; getent hosts rs7; ls /sys/class'],"
        " os.environ, hostname='rs7')"
    )
    said = output(sys.executable, "-c", code).split()
    assert said[:3] == ["rs7", "127.0.1.1", "rs7"]
    assert "net" in said
    assert socket.gethostname() == before
    assert "rs7" not in Path("/etc/hosts").read_text()


def test_exec_of_a_missing_command_says_so_before_it_moves(lab: str) -> None:
    (name,) = made(lab, "a")
    with pytest.raises(UsageError, match="no-such-command: command not found"):
        netns.exec_in(name, ["no-such-command"], {"PATH": "/usr/bin"})
