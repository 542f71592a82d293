"""tools/ci-verify, the one step of a CI job: its verdicts, its reports, and what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools/ci-verify"
FAILED, USAGE, BAD_TOPOLOGY, HOST_CANNOT = 1, 2, 65, 69

BROKEN = """\
version: 1
name: mine
networks:
  lan: {ipv4: 10.10.0.0/24}
nodes:
  client:   {role: client,      networks: [lan]}
  director: {role: director,    networks: [lan]}
  rs:       {role: real-server, networks: [lan], count: 2,
             sysctls: {net.ipv4.conf.lan.arp_ignore: 0, net.ipv4.conf.all.arp_ignore: 0}}
services:
  - {name: web, vip: 10.10.0.100, port: 80, forward: dr, scheduler: rr, real_servers: [rs]}
"""

Step = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def step(tmp_path: Path) -> Iterator[Step]:
    """The step in a repository of its own, with the lvsctl of this checkout in the machine."""
    environment = {
        **os.environ,
        "LVSCTL": f"{sys.executable} -m lvsctl",
        "LVSCTL_WHERE": "machine",
        "LVSCTL_MACHINE": f"ci-{os.getpid()}",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }

    def run(*topologies: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPT, *topologies],
            cwd=tmp_path,
            env={**environment, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    yield run
    stop = [sys.executable, "-m", "lvsctl", "machine", "stop"]
    subprocess.run(stop, env=environment, check=False, capture_output=True)


@pytest.mark.machine
@pytest.mark.slow
def test_the_worst_verdict_is_the_jobs(step: Step, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(BROKEN)
    (tmp_path / "typo.yaml").write_text(BROKEN.replace("real_servers", "real_severs"))

    done = step("mine.yaml", "dr", GITHUB_ACTIONS="true")
    assert done.returncode == FAILED, done.stderr
    assert "dr.only-director-answers-arp" in done.stdout
    assert "arp_ignore" in done.stdout.partition("mine: fail")[2], "diagnose says why"
    assert "dr: pass" in done.stdout

    for topology, verdicts in (("mine", {"failure"}), ("dr", set())):
        report = tmp_path / "reports" / topology
        assert (report / "report.html").read_text().startswith("<!doctype html>")
        cases = ET.parse(report / "junit.xml").iter("testcase")  # noqa: S314  our own report
        assert {child.tag for case in cases for child in case} - {"system-out"} == verdicts
    assert "dr: pass" in (tmp_path / "summary").read_text()

    (annotation,) = (line for line in done.stdout.splitlines() if line.startswith("::"))
    assert annotation.startswith("::error file=mine.yaml,title=lvsctl verify::mine: not working")
    assert "%0A1. rs1: arp_ignore is not set" in annotation

    typo = step("typo.yaml", GITHUB_ACTIONS="true")
    assert typo.returncode == BAD_TOPOLOGY
    assert "::error file=typo.yaml,line=11,col=73::services[0].real_severs: unknown" in typo.stdout
    assert "::" not in step("typo.yaml", GITHUB_ACTIONS="").stdout
    left = subprocess.run(
        [sys.executable, "-m", "lvsctl", "ls", "--where", "machine", "--format", "json"],
        env={**os.environ, "LVSCTL_MACHINE": f"ci-{os.getpid()}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"labs": []' in left.stdout


def test_an_unknown_place_is_named(step: Step) -> None:
    done = step("dr", LVSCTL="", LVSCTL_WHERE="moon")
    assert done.returncode == USAGE
    assert "LVSCTL_WHERE=moon: auto, host or machine" in done.stderr
