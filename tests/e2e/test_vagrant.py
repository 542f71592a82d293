"""The Vagrantfile, judged by Vagrant and by each provider's own rules; no VM is started.

`tools/setup vagrant` unpacks Vagrant where it is not installed. VirtualBox is in no Debian
archive: a stand-in that tells a version, and can do nothing else, lets Vagrant read that part.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PROVIDERS = ("virtualbox", "libvirt")

Validate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def validate(tmp_path: Path) -> Validate:
    """`vagrant validate` of a Vagrantfile, for a provider, with settings in the environment."""
    vagrant = shutil.which("vagrant")
    if vagrant is None:
        pytest.fail("vagrant is not installed: type tools/setup vagrant")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "VBoxManage").write_text("#!/bin/sh\necho 7.0.20r163906\n")
    (tools / "VBoxManage").chmod(0o755)
    project = tmp_path / "lvsctl"
    project.mkdir()

    def run(
        provider: str, text: str | None = None, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        shutil.copy(CHECKOUT / "Vagrantfile", project)
        if text is not None:
            (project / "Vagrantfile").write_text(text)
        return subprocess.run(
            [vagrant, "validate"],
            cwd=project,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("LVSCTL_VM_")},
                "PATH": f"{os.environ['PATH']}:{tools}",
                "VAGRANT_DEFAULT_PROVIDER": provider,
                **settings,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_vagrantfile_is_valid(validate: Validate, provider: str) -> None:
    done = validate(
        provider,
        LVSCTL_VM_BOX="debian/trixie64",
        LVSCTL_VM_BOX_VERSION="13.20260101",
        LVSCTL_VM_MEMORY="4096",
        LVSCTL_VM_CPUS="4",
        LVSCTL_VM_SYNC="rsync" if provider == "libvirt" else "virtualbox",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout


@pytest.mark.parametrize(
    "provider", ["virtualbox", pytest.param("libvirt", marks=pytest.mark.exhaustive)]
)
def test_the_validation_reads_each_providers_part(validate: Validate, provider: str) -> None:
    """The counter-experiment: a setting that the provider does not have."""
    right = (CHECKOUT / "Vagrantfile").read_text()
    before, after = right.split(f'config.vm.provider "{provider}"')
    wrong = f'{before}config.vm.provider "{provider}"' + after.replace("vm.cpus =", "vm.cpuz =", 1)
    done = validate(provider, wrong)
    assert done.returncode == 1
    assert "cpuz" in done.stdout + done.stderr


def test_sizes_must_be_numbers(validate: Validate) -> None:
    done = validate("libvirt", LVSCTL_VM_MEMORY="1g")
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "LVSCTL_VM_MEMORY=1g is not a whole number: try LVSCTL_VM_MEMORY=1024" in said
