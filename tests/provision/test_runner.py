"""The action, and docs/ci.md's examples for other systems, where their runners would run them.

Each job is a user of a clean Debian root, with sudo or without, on this host's kernel: without IPVS
everywhere but where the host has it. `make test-vm` runs the action on a kernel with IPVS.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from tests.e2e.test_ci_verify import BROKEN
from tests.provision.root import CHECKOUT, SOURCE, Root, make
from tests.provision.runner import Job, run_action

pytestmark = pytest.mark.provision

Done = subprocess.CompletedProcess[str]

FAILED, HOST_CANNOT = 1, 69
WORKSPACE = "/home/runner/work"
PACKAGES = "git python3 python3-venv sudo ca-certificates"
"""What the images of runners have: python:3.13-bookworm, or a virtual machine's."""

PREPARE = f"""
set -e
apt-get -q update
apt-get -q -y --no-install-recommends install {PACKAGES}
useradd --create-home runner
useradd --create-home admin
echo 'admin ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/admin
echo 'Defaults env_keep += "PIP_CERT"' >/etc/sudoers.d/certificates # as the runner's image trusts
mkdir -p {WORKSPACE}/topologies
cp {SOURCE}/topologies/dr.yaml {WORKSPACE}/topologies/production.yaml
cd {SOURCE}
git init -q
git add -A
git -c user.name=x -c user.email=x commit -qm x
git config --system safe.directory '*'
chmod -R a+rX {SOURCE}
"""


@pytest.fixture(scope="module")
def root() -> Iterator[Root]:
    """A clean system with what runners have."""
    if os.geteuid() != 0:
        pytest.fail("making a root needs root: sudo make test-provision")
    with tempfile.TemporaryDirectory(prefix="lvsctl-runner-") as directory:
        system = make("bookworm", Path(directory) / "root")
        prepared = system.run("sh", "-c", PREPARE)
        assert prepared.returncode == 0, prepared.stderr
        (system.path / f".{WORKSPACE}/mine.yaml").write_text(BROKEN)
        yield system


def as_user(root: Root, user: str, script: str, environment: Mapping[str, str]) -> Done:
    """Run a script as a user, in the workspace, which is that user's."""
    settings = {"HOME": f"/home/{user}", **environment}
    words = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    job = f"cd {WORKSPACE} && env {' '.join(words)} sh -c {shlex.quote(script)}"
    own = f"chown -R {user} {WORKSPACE}; setpriv --reuid={user} --regid={user} --init-groups"
    return root.run("sh", "-c", f"{own} sh -c {shlex.quote(job)}")


def github(root: Root, user: str, **inputs: str) -> Job:
    """The action in a job of a user's."""
    return run_action(
        CHECKOUT / "action.yml",
        inputs,
        {"action_path": SOURCE},
        lambda script, environment: as_user(root, user, script, environment),
    )


def reports(root: Root, directory: str, name: str) -> set[str]:
    """The kinds of verdict in a report that is complete."""
    place = root.path / f".{WORKSPACE}" / directory / name
    assert (place / "report.html").read_text().startswith("<!doctype html>")
    cases = ET.parse(place / "junit.xml").iter("testcase")  # noqa: S314  our own report
    return {child.tag for case in cases for child in case} - {"system-out"}


def test_without_rights(root: Root) -> None:
    """In the throwaway kernel, with one lab that works and one that does not."""
    job = github(root, "runner", topology="mine.yaml dr", where="auto")
    assert job.status == FAILED, job.log
    (shown,) = job.annotations
    assert shown.level == "error"
    assert shown.properties == {"file": "mine.yaml", "title": "lvsctl verify"}
    assert shown.text.startswith("mine: not working, 2 causes\n\n1. rs1: arp_ignore is not set")
    assert "dr: pass" in job.summary
    assert "mine: fail" in job.summary
    uploaded = job.used["actions/upload-artifact"]
    assert uploaded["path"] == uploaded["name"] == "lvsctl-reports"
    assert "failure" in reports(root, uploaded["path"], "mine")
    assert not reports(root, uploaded["path"], "dr")


def test_no_artifact_where_none_is_wanted(root: Root) -> None:
    job = github(root, "runner", topology="no-such", where="machine", artifact="")
    assert job.failed
    assert not job.used
    assert "the topology 'no-such' does not exist" in job.annotations[0].text


def test_the_hosts_kernel_must_have_ipvs(root: Root) -> None:
    """Without sudo at once, with sudo after the installation."""
    refused = github(root, "runner", topology="dr", where="host")
    assert refused.status == HOST_CANNOT, refused.log
    assert "LVSCTL_WHERE=host needs root or sudo" in refused.log
    assert "needs root or sudo" in refused.annotations[0].text
    job = github(root, "admin", topology="dr", where="host")
    has_ipvs = Path("/proc/net/ip_vs").exists()
    assert job.status == (0 if has_ipvs else HOST_CANNOT), job.log
    assert has_ipvs or "labs cannot run on this kernel" in job.log
    assert has_ipvs or "tools/provision failed" in job.annotations[0].text


def test_with_sudo(root: Root) -> None:
    """Installed in the system; the reports are the user's."""
    job = github(root, "admin", topology="dr", where="auto", report="out")
    assert job.status == 0, job.log
    assert not job.annotations
    assert not reports(root, "out", "dr")
    owners = as_user(root, "admin", "find out -not -user admin", {})
    assert owners.stdout == ""


def example(heading: str, language: str) -> str:
    """The first block of a language under a heading of docs/ci.md."""
    text = (CHECKOUT / "docs/ci.md").read_text().partition(f"\n## {heading}\n")[2]
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found is not None, heading
    return found[1]


def test_gitlabs_example(root: Root) -> None:
    """GitLab's runner runs all lines of ``script`` in one shell, which ends at the first error."""
    job = yaml.safe_load(example("GitLab", "yaml"))["lvs"]
    script = "\n".join(["set -eo pipefail", *job["script"]])
    environment = {"LVSCTL_REPOSITORY": f"file://{SOURCE}", "CI": "true", "GITLAB_CI": "true"}
    done = as_user(root, "runner", f"bash -c {shlex.quote(script)}", environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "production: pass" in done.stdout or "dr: pass" in done.stdout
    assert "::error" not in done.stdout
    workspace = root.path / f".{WORKSPACE}"
    (junit,) = workspace.glob(job["artifacts"]["reports"]["junit"])
    assert junit.is_relative_to(workspace / job["artifacts"]["paths"][0])


def test_jenkins_example(root: Root) -> None:
    """A Pipeline's ``sh`` steps, each in a shell of its own that prints what it runs."""
    pipeline = example("Jenkins", "groovy")
    steps = re.findall(r"^ +sh '(.*)'$", pipeline, re.MULTILINE)
    assert steps
    (variables,) = re.findall(r"environment \{(.*)\}", pipeline)
    environment = dict(re.findall(r"(\w+) = '(.*?)'", variables))
    environment |= {"LVSCTL_REPOSITORY": f"file://{SOURCE}", "JENKINS_URL": "x"}
    as_user(root, "runner", "rm -rf reports", {})
    for step in steps:
        done = as_user(root, "runner", f"sh -xe -c {shlex.quote(step)}", environment)
        assert done.returncode == 0, done.stdout + done.stderr
    workspace = root.path / f".{WORKSPACE}"
    for pattern in re.findall(r"(?:junit|artifacts:) '([^']*)'", pipeline):
        assert list(workspace.glob(pattern)), pattern
