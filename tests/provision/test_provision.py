"""tools/provision from end to end: in a clean root, then every shipped topology on that root.

`make test-provision` runs these, and nothing else does: each root takes minutes, and needs root
and the distribution's archive. The script runs natively, where there is a network; the labs run
on the machine's kernel, where there is IPVS, by the lvsctl that the script installed and with
the programs that it installed.

SUITES="bookworm trixie" says which systems; Ubuntu's names where the archive can be reached.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lvsctl.topology import shipped
from tests.provision.root import SOURCE, Root, make

pytestmark = pytest.mark.provision

SUITES = os.environ.get("SUITES", "bookworm trixie").split()
PROVISION = f"{SOURCE}/tools/provision"
HOST_CANNOT = 69
MADE = (
    "/opt/lvsctl",
    "/usr/local/bin/lvsctl",
    "/usr/local/share/bash-completion/completions/lvsctl",
    "/usr/local/share/zsh/site-functions/_lvsctl",
    "/usr/local/share/fish/vendor_completions.d/lvsctl.fish",
    "/etc/modules-load.d/lvsctl.conf",
)
MADE_FOR_HOST = ("/etc/profile.d/lvsctl.sh", "/etc/sudoers.d/lvsctl")


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A root, and how the script's first run in it went."""

    root: Root
    first: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """A machine of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LVSCTL_MACHINE", f"provision-{os.getpid()}")
        yield
        stop = [sys.executable, "-m", "lvsctl", "machine", "stop"]
        subprocess.run(stop, check=False, capture_output=True)


@pytest.fixture(scope="module", params=SUITES)
def system(request: pytest.FixtureRequest) -> Iterator[Provisioned]:
    """A clean root after one run of the script."""
    if os.geteuid() != 0:
        pytest.fail("making a root needs root: sudo make test-provision")
    if shutil.which("mmdebstrap") is None:
        pytest.fail("mmdebstrap is not installed: type tools/setup roots")
    with tempfile.TemporaryDirectory(prefix=f"lvsctl-{request.param}-") as directory:
        path = Path(directory) / "root"
        root = make(request.param, path)
        assert not root.exists("/usr/bin/python3"), "a clean root has no Python yet"
        yield Provisioned(root, root.run(PROVISION))


@pytest.fixture
def root(system: Provisioned) -> Root:
    """The root, where the first run went well."""
    assert system.first.returncode == 0, system.first.stderr
    return system.root


def test_the_first_run_says_what_it_installs_and_why(system: Provisioned) -> None:
    said = system.first.stderr
    assert system.first.returncode == 0, said
    assert "ipvsadm: shows the IPVS table" in said
    assert "lvsctl needs Python 3.11 or newer" in said
    assert f"The modules of the running kernel ({os.uname().release}) are not here" in said
    assert "Traceback" not in said
    for path in MADE:
        assert system.root.exists(path), path
    assert not any(map(system.root.exists, MADE_FOR_HOST))
    assert "ip_vs" in system.root.text("/etc/modules-load.d/lvsctl.conf").splitlines()


def test_the_second_run_installs_lvsctl_alone(root: Root) -> None:
    before = root.text("/var/log/dpkg.log")
    again = root.run(PROVISION)
    assert again.returncode == 0, again.stderr
    assert "Installing packages" not in again.stderr
    assert "Installing lvsctl" in again.stderr
    assert root.text("/var/log/dpkg.log") == before


def test_an_interrupted_run_is_made_good(root: Root) -> None:
    (root.path / "opt/lvsctl/bin/python").unlink()
    again = root.run(PROVISION)
    assert again.returncode == 0, again.stderr
    assert root.run("lvsctl", "topologies").returncode == 0


def test_what_it_did_not_make_is_left_alone(root: Root) -> None:
    command = root.path / "usr/local/bin/lvsctl"
    command.unlink()
    command.write_text("somebody's own")
    refused = root.run(PROVISION)
    own = command.read_text()
    command.unlink()
    command.symlink_to("/opt/lvsctl/bin/lvsctl")
    assert refused.returncode == HOST_CANNOT
    assert "was made by something else" in refused.stderr
    assert own == "somebody's own"


def test_a_python_that_is_too_old_is_named(root: Root) -> None:
    refused = root.run(PROVISION, LVSCTL_PYTHON="/bin/false")
    assert refused.returncode == HOST_CANNOT
    assert "LVSCTL_PYTHON=/bin/false is not Python 3.11 or newer" in refused.stderr


def test_bash_completes(root: Root) -> None:
    asked = (
        ". /usr/share/bash-completion/bash_completion; _completion_loader lvsctl; "
        "COMP_WORDS=(lvsctl up dr-) COMP_CWORD=2; _lvsctl_completion lvsctl; "
        'echo "${COMPREPLY[@]}"'
    )
    done = root.run("bash", "-c", asked, LVSCTL_WHERE="host")
    assert done.stdout.split() == [n for n in shipped.names() if n.startswith("dr-")], done.stderr


def test_zsh_finds_its_mark_in_the_first_line(root: Root) -> None:
    assert root.text(MADE[3]).startswith("#compdef lvsctl\n")


def test_for_the_hosts_kernel_it_insists_on_ipvs(root: Root) -> None:
    has_ipvs = Path("/proc/net/ip_vs").exists()
    done = root.run(PROVISION, "--host")
    assert done.returncode == (0 if has_ipvs else HOST_CANNOT), done.stderr
    assert has_ipvs or "lvsctl is installed, but labs cannot run on this kernel" in done.stderr
    shell = root.run("bash", "-lc", "echo $LVSCTL_WHERE")
    assert shell.stdout == "host\n"


def test_doctor_finds_all_that_labs_need(root: Root) -> None:
    done = root.run_in_machine("lvsctl", "doctor", "--where", "host")
    assert done.returncode == 0, done.stdout + done.stderr
    missing = [line for line in done.stdout.splitlines() if line.startswith("  missing")]
    assert not missing, done.stdout


@pytest.mark.parametrize("topology", shipped.names())
def test_topology(root: Root, topology: str) -> None:
    """Up, every claim proved, what people type by hand, and down."""
    script = f"""
        set -ex
        test -z "$LVSCTL_IN_MACHINE"
        export LVSCTL_WHERE=host
        lvsctl up {topology}
        lvsctl verify {topology}
        ip netns exec lvs-{topology}-director ipvsadm -Ln
        ip netns exec lvs-{topology}-client ping -c 1 -W 5 127.0.0.1
        lvsctl down {topology}
        test -z "$(ip netns)"
    """
    done = root.run_in_machine("sh", "-c", script)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert f"{topology}: pass" in done.stdout
    assert "starting the throwaway kernel" not in said


def test_it_takes_away_what_it_made(root: Root) -> None:
    """The last one: afterwards lvsctl is gone."""
    done = root.run(PROVISION, "--remove")
    assert done.returncode == 0, done.stderr
    left = [path for path in (*MADE, *MADE_FOR_HOST) if root.exists(path)]
    assert not left
    assert root.exists("/usr/sbin/ipvsadm")
