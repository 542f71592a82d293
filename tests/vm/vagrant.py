"""A host with Vagrant and libvirt: a clean root in namespaces of its own, and a box for it.

libvirt's networks, its DHCP server and its rules are in a network namespace of their own; its
processes in a process namespace, so that they end with it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.provision.root import copy_checkout
from tests.vm.image import Image

BOX = "lvsctl/test"
PROJECT = "/root/lvsctl"
"""Where the host has the checkout."""

PACKAGES = (
    *("vagrant", "vagrant-libvirt", "rsync", "openssh-client"),
    *("libvirt-daemon-system", "qemu-system-x86", "qemu-utils", "dnsmasq-base", "iptables"),
    *("iproute2", "procps"),
)

_START = r"""
root=$1
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
ip link set lo up
exec chroot "$root" sh -c '
    mkdir -p /run/lock
    printf "user = \"root\"\ngroup = \"root\"\ncgroup_controllers = []\nnamespaces = []\n" \
        >/etc/libvirt/qemu.conf
    echo "auth_unix_rw = \"none\"" >/etc/libvirt/libvirtd.conf
    virtlogd --daemon && libvirtd --daemon && echo ready && exec sleep infinity
'
"""

_VAGRANTFILE = """
Vagrant.configure("2") do |config|
  config.ssh.private_key_path = File.expand_path("key", __dir__)
  config.ssh.insert_key = false
  config.vm.boot_timeout = 900
  config.vm.provider "libvirt" do |vm|
    vm.kernel = File.expand_path("vmlinuz", __dir__)
    vm.initrd = File.expand_path("initrd", __dir__)
    vm.cmd_line = "root=/dev/vda rw console=ttyS0 no_timer_check"
    ACCELERATION
  end
end
"""
"""The box's own: it has no bootloader, and says whether the CPU is emulated."""

_EMULATED = 'vm.driver, vm.cpu_mode, vm.cpu_model = "qemu", "custom", "qemu64"'


@dataclass(frozen=True, slots=True)
class VagrantHost:
    """The root at ``path``, entered by the process that holds its namespaces."""

    path: Path
    holder: int

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command in the project's directory."""
        settings = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "LVSCTL_VM_BOX": BOX,
            "VAGRANT_DEFAULT_PROVIDER": "libvirt",
            **environment,
        }
        enter = [f"--target={self.holder}", "--mount", "--net", "--pid", "--root"]
        words = [f"{name}={value}" for name, value in settings.items()]
        return subprocess.run(
            ["nsenter", *enter, f"--wdns={PROJECT}", "env", "-i", *words, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


@contextlib.contextmanager
def host() -> Iterator[VagrantHost]:
    """A host with libvirt running."""
    with tempfile.TemporaryDirectory(prefix="lvsctl-vagrant-") as directory:
        root = Path(directory) / "root"
        include = f"--include={','.join(PACKAGES)}"
        make = ["mmdebstrap", "--quiet", "--variant=minbase", include, "bookworm", str(root)]
        subprocess.run(make, check=True)
        copy_checkout(root / PROJECT.removeprefix("/"))
        spaces = ["--net", "--mount", "--pid", "--fork", "--kill-child"]
        process = subprocess.Popen(
            ["unshare", *spaces, "sh", "-ec", _START, "sh", str(root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", "libvirt does not start"
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            yield VagrantHost(root, int(children.split()[0]))
        finally:
            process.kill()
            process.wait()


def add_box(vagrant: VagrantHost, image: Image, accelerator: str) -> None:
    """Make a box of ``image``: its disk, its kernel, its key and a Vagrantfile."""
    box = vagrant.path / "srv/box"
    box.mkdir()
    for file in (image.kernel, image.initrd, image.key):
        shutil.copy(file, box)
    subprocess.run(["cp", "--sparse=always", image.disk, vagrant.path / "srv/disk"], check=True)
    made = vagrant.run("qemu-img", "convert", "-O", "qcow2", "/srv/disk", "/srv/box/box.img")
    assert made.returncode == 0, made.stderr
    about = {"provider": "libvirt", "format": "qcow2", "virtual_size": 8}
    (box / "metadata.json").write_text(json.dumps(about))
    how = _EMULATED if accelerator == "tcg" else ""
    (box / "Vagrantfile").write_text(_VAGRANTFILE.replace("ACCELERATION", how))
    vagrant.run("tar", "-C", "/srv/box", "-cf", "/srv/lvsctl.box", ".")
    added = vagrant.run("vagrant", "box", "add", "--name", BOX, "/srv/lvsctl.box")
    assert added.returncode == 0, added.stdout + added.stderr
