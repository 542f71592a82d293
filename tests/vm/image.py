"""A disk image with Debian or Ubuntu, made from packages alone: mmdebstrap, then mke2fs.

No loop device, no bootloader: QEMU starts the kernel that the image's /boot has. The image has
what a cloud's or Vagrant's has (systemd, sshd, an ordinary user with sudo), and two directories
that stand for the network, which the virtual machine does not have: ``/srv/packages``, an apt
repository with the packages that tools/provision and tools/setup install, and ``/srv/wheels``, from
which pip installs. Both are asked as the archives are, by apt and pip; only the address differs.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
USER = "vagrant"
"""The ordinary user; Vagrant's boxes call it so."""

DISK_SIZE = "8G"
"""The file is sparse: it takes as much as is in it."""

PYTHON = {"bookworm": "3.11", "trixie": "3.13", "noble": "3.12"}
"""Each suite's Python, for which wheels are collected."""

UBUNTU = frozenset({"noble"})
_UBUNTU_KEYRING = "usr/share/keyrings/ubuntu-archive-keyring.gpg"
_UBUNTU_SOURCES = """\
deb [signed-by={keyring}] http://archive.ubuntu.com/ubuntu {suite} main universe
deb [signed-by={keyring}] http://archive.ubuntu.com/ubuntu {suite}-updates main universe
"""

SYSTEM = (
    *("apt", "systemd-sysv", "dbus", "libpam-systemd"),
    *("openssh-server", "sudo", "rsync", "ca-certificates"),
    *("netbase", "nftables"),  # as a host with a firewall has
    *("git", "make"),  # what README.md says that one needs
)
"""What the image has installed, besides a kernel."""

CONFIGURE = rf"""
set -eu
useradd --create-home --shell /bin/bash --groups sudo {USER}
echo '{USER} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/{USER}
install -d -m 700 -o {USER} -g {USER} /home/{USER}/.ssh
install -m 600 -o {USER} -g {USER} /srv/key.pub /home/{USER}/.ssh/authorized_keys
echo vm >/etc/hostname
echo '127.0.0.1 localhost vm' >/etc/hosts
echo '/dev/vda / ext4 defaults 0 1' >/etc/fstab
printf '[Match]\nName=en* eth*\n[Network]\nDHCP=ipv4\n' >/etc/systemd/network/all.network
systemctl --quiet enable systemd-networkd.service ssh.service
# They would look for updates, where there is no network.
systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer
printf '[global]\nno-index = true\nfind-links = /srv/wheels\n' >/etc/pip.conf
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/packages ./' >/etc/apt/sources.list
"""


@dataclass(frozen=True, slots=True)
class Image:
    """What QEMU needs to start the system, and the key that its user accepts."""

    directory: Path

    @property
    def disk(self) -> Path:
        """The file system."""
        return self.directory / "disk"

    @property
    def kernel(self) -> Path:
        """The distribution's kernel."""
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Its initramfs."""
        return self.directory / "initrd"

    @property
    def key(self) -> Path:
        """The private key of the user."""
        return self.directory / "key"


def ensure(suite: str) -> Image:
    """Return the image of ``suite``, made once for each version of what it is made from."""
    directory = CHECKOUT / ".tools/vm" / suite
    made_from = _fingerprint(suite)
    stamp = directory / "made-from"
    if not stamp.exists() or stamp.read_text() != made_from:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        _make(suite, directory)
        stamp.write_text(made_from)
    return Image(directory)


def _fingerprint(suite: str) -> str:
    inputs = (Path(__file__), CHECKOUT / "pyproject.toml", *_scripts())
    text = b"".join(path.read_bytes() for path in inputs)
    return f"{CHECKOUT} {suite} {hashlib.sha256(text).hexdigest()}"


def _scripts() -> tuple[Path, ...]:
    return CHECKOUT / "tools/provision", CHECKOUT / "tools/setup"


def packages() -> list[str]:
    """Return the names of the packages that tools/provision and tools/setup install."""
    provision, setup = (path.read_text() for path in _scripts())
    first = re.search(r"^packages='(.*?)[^\\]'$", provision, re.DOTALL | re.MULTILINE)
    second = re.search(r"^witnesses='(.*?)[^\\]'$", setup, re.DOTALL | re.MULTILINE)
    assert first is not None
    assert second is not None
    names = [line.split(":")[0] for line in first[1].splitlines()]
    names += [line.split(":")[1] for line in second[1].splitlines()]
    return [*dict.fromkeys(names), "python3", "python3-venv"]


def requirements() -> list[str]:
    """Return what pip has to find: lvsctl's libraries, its tests', and what builds it."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    return [
        *project["project"]["dependencies"],
        *(requirement for extra in extras.values() for requirement in extra),
        *project["build-system"]["requires"],
        "editables",  # hatchling asks for it when it installs an editable package
    ]


def _make(suite: str, directory: Path) -> None:
    root = directory / "root"
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / "key")]
    subprocess.run(keygen, check=True)
    subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase"),
            f"--include={','.join((*SYSTEM, *_kernel(suite)))}",
            *("--skip=cleanup/apt/cache", f"--customize-hook={_download_hook(suite)}"),
            f"--customize-hook=copy-in {shlex.quote(str(directory / 'key.pub'))} /srv",
            f'--customize-hook=chroot "$1" sh -c {shlex.quote(CONFIGURE)}',
            *(suite, str(root)),
            *(["-"] if suite in UBUNTU else []),
        ],
        check=True,
        input=_sources(suite, directory),
        text=True,
    )
    _collect_packages(root)
    _collect_wheels(suite, root / "srv/wheels")
    for name, start in (("vmlinuz", "vmlinuz-"), ("initrd", "initrd.img-")):
        (found,) = (root / "boot").glob(f"{start}*")
        shutil.copy(found, directory / name)
    disk = str(directory / "disk")
    subprocess.run(["mke2fs", "-qq", "-t", "ext4", "-d", str(root), disk, DISK_SIZE], check=True)
    shutil.rmtree(root)


def _kernel(suite: str) -> tuple[str, ...]:
    """Return the packages of a virtual machine's kernel."""
    return ("linux-image-virtual", "initramfs-tools") if suite in UBUNTU else ("linux-image-amd64",)


def _sources(suite: str, directory: Path) -> str:
    """Return what apt's list of sources has for Ubuntu; nothing where mmdebstrap knows it.

    The key of Ubuntu's archive comes from Debian's, where this host does not have it.
    """
    if suite not in UBUNTU:
        return ""
    own = Path("/", _UBUNTU_KEYRING)
    keys = directory / "keys"
    if not own.exists():
        extract = ["mmdebstrap", "--quiet", "--variant=extract", "--include=ubuntu-archive-keyring"]
        subprocess.run([*extract, "trixie", str(keys)], check=True)
        own = keys / _UBUNTU_KEYRING
    return _UBUNTU_SOURCES.format(keyring=own, suite=suite)


def _download_hook(suite: str) -> str:
    words = "apt-get -q -y --no-install-recommends --download-only install"
    # Where Ubuntu's small kernel has no IPVS, tools/provision installs the rest of its modules.
    extra = "linux-modules-extra-$(ls $1/boot | sed -n s/^vmlinuz-//p)" if suite in UBUNTU else ""
    return f'chroot "$1" {words} {" ".join(packages())} {extra} >/dev/null'


def _collect_packages(root: Path) -> None:
    """Make an apt repository of what apt has downloaded."""
    target = root / "srv/packages"
    target.mkdir()
    entries = []
    for deb in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        moved = target / deb.name.replace("%3a", ":")  # apt asks for a file by its name unquoted
        deb.rename(moved)
        command = ["dpkg-deb", "-f", str(moved)]
        field = subprocess.run(command, check=True, capture_output=True, text=True)
        digest = hashlib.sha256(moved.read_bytes()).hexdigest()
        size = moved.stat().st_size
        entries.append(f"{field.stdout}Filename: ./{moved.name}\nSize: {size}\nSHA256: {digest}\n")
    (target / "Packages").write_text("\n".join(entries))


def _collect_wheels(suite: str, target: Path) -> None:
    options = ["-qq", "--only-binary=:all:", f"--python-version={PYTHON[suite]}"]
    pip = [sys.executable, "-m", "pip", "download", "--dest", str(target), *options]
    subprocess.run([*pip, *requirements()], check=True)
