"""A clean Debian or Ubuntu root: made by mmdebstrap, entered natively or in the machine.

Natively there is the network (for apt and pip); in the machine there is IPVS. In the machine
the root is read-only beneath an overlay in memory, so that no test there changes it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
SOURCE = "/src/lvsctl"
"""Where the root has the checkout."""

_LOCAL_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ENTER = """
root=$1; shift
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
exec chroot "$root" "$@"
"""
_ENTER_IN_MACHINE = f"""
mkdir -p /tmp/over # in a mount namespace of its own
mount -t tmpfs tmpfs /tmp/over
mkdir /tmp/over/up /tmp/over/work /tmp/over/root
mount -t overlay overlay -o lowerdir="/run/host$1",upperdir=/tmp/over/up,workdir=/tmp/over/work \
    /tmp/over/root
shift
set -- /tmp/over/root "$@"
{_ENTER}
"""


@dataclass(frozen=True, slots=True)
class Root:
    """The root at ``path``."""

    path: Path

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command in the root, on this kernel, with the network of this host."""
        return self._run(["sh", "-ec", _ENTER], command, environment)

    def run_in_machine(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the root, on the machine's kernel, which has IPVS and no network.

        To lvsctl there it is a host like others: it does not know that it is in a machine.
        """
        machine = [sys.executable, "-m", "lvsctl", "machine", "run", "--"]
        return self._run(["sh", "-ec", _ENTER_IN_MACHINE], command, {}, before=machine)

    def exists(self, path: str) -> bool:
        """Whether the root has a file (or a link, dangling or not)."""
        return os.path.lexists(f"{self.path}{path}")

    def text(self, path: str) -> str:
        """The content of a file."""
        return Path(f"{self.path}{path}").read_text()

    def _run(
        self,
        enter: list[str],
        command: tuple[str, ...],
        environment: dict[str, str],
        before: list[str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        # pip does not ask the system which certificates to trust.
        if any(_LOCAL_CERTIFICATES.glob("*.crt")):
            environment = {"PIP_CERT": "/etc/ssl/certs/ca-certificates.crt", **environment}
        settings = {"PATH": _PATH, "HOME": "/root", "TERM": "dumb", **environment}
        clean = ["env", "-i", *(f"{name}={value}" for name, value in settings.items())]
        return subprocess.run(
            [
                *(before or []),
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", *enter),
                *("sh", str(self.path), *clean, *command),
            ],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def make(suite: str, path: Path) -> Root:
    """A minimal system of ``suite`` (bookworm, …) with a copy of the checkout's files."""
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", suite, path], check=True)
    # What this host trusts and how it resolves names, the root has to as well.
    for certificate in _LOCAL_CERTIFICATES.glob("*.crt"):
        target = path / str(_LOCAL_CERTIFICATES).removeprefix("/")
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(certificate, target)
    (path / "etc/resolv.conf").unlink(missing_ok=True)
    shutil.copy("/etc/resolv.conf", path / "etc")
    copy_checkout(path / SOURCE.removeprefix("/"))
    return Root(path)


def copy_checkout(target: Path) -> None:
    """Copy what is, or is to be, in version control."""
    list_files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(list_files, cwd=CHECKOUT, check=True, capture_output=True, text=True)
    for name in filter(None, files.stdout.split("\0")):
        if (CHECKOUT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name)
