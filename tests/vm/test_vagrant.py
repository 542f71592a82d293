"""`vagrant up` and what follows, with this project's Vagrantfile, libvirt and QEMU.

Part of `make test-vm`. The box is the image of the other tests, so that inside it apt and pip find
in directories what they would find in the archives. VirtualBox is in no Debian archive.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.vm import image
from tests.vm.vagrant import PROJECT, VagrantHost, add_box, host
from tests.vm.vm import accelerator

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def vagrant() -> Iterator[VagrantHost]:
    """A host with a box, and no virtual machine yet."""
    box = image.ensure("bookworm")
    with host() as made:
        add_box(made, box, accelerator(box))
        yield made


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a command printed, which succeeded."""
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    return text


def test_up(vagrant: VagrantHost) -> None:
    text = said(vagrant.run("vagrant", "up"))
    assert "provision: Running lvsctl doctor:" in text
    assert "lvsctl is ready; labs run on this VM's own kernel" in text
    assert "running (libvirt)" in said(vagrant.run("vagrant", "status"))


def test_ssh(vagrant: VagrantHost) -> None:
    typed = "sudo lvsctl up dr && sudo lvsctl verify dr && sudo lvsctl down dr"
    text = said(vagrant.run("vagrant", "ssh", "-c", typed))
    assert "dr: pass" in text
    assert "throwaway kernel" not in text


def test_a_change_is_used_after_rsync(vagrant: VagrantHost) -> None:
    topologies = vagrant.path / PROJECT.removeprefix("/") / "topologies"
    changed = (topologies / "dr.yaml").read_text().replace("name: dr\n", "name: changed\n")
    (topologies / "changed.yaml").write_text(changed)
    said(vagrant.run("vagrant", "rsync"))
    assert "changed" in said(vagrant.run("vagrant", "ssh", "-c", "lvsctl topologies"))


def test_provision_again(vagrant: VagrantHost) -> None:
    text = said(vagrant.run("vagrant", "provision"))
    assert "Installing packages" not in text
    assert "it runs from /vagrant" in text


def test_destroy(vagrant: VagrantHost) -> None:
    said(vagrant.run("vagrant", "destroy", "--force"))
    assert "not created (libvirt)" in said(vagrant.run("vagrant", "status"))
    virsh = vagrant.run("virsh", "--connect", "qemu:///system", "list", "--all", "--name")
    assert said(virsh).strip() == ""
