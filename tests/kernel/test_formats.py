"""keepalived itself decides whether lvsctl reads keepalived.conf as it does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lvsctl.engine.inspect import diagnose_lab, verify_lab
from lvsctl.engine.preview import preview
from lvsctl.engine.up import bring_up
from lvsctl.faults import FAULTS
from lvsctl.faults.injector import FaultInjector
from lvsctl.formats import writers
from lvsctl.formats.ipvs_table import Rule, table
from lvsctl.kernel import state
from lvsctl.model.claim import Verdict
from lvsctl.plan import planner
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from tests.formats import corpus_files as corpus
from tests.kernel.by_hand import eventually, namespaces, run
from tests.kernel.labs import lab_up, topology_of
from tests.witness import witness

pytestmark = pytest.mark.ipvs

USUAL = ("nat-basic", "one-line-blocks", "sequence", "group-addresses", "full-vrrp", "fwmark")
"""Rows of every run: the others are of the same kind."""


def rows() -> Iterator[object]:
    for path in corpus.FILES:
        marks = () if path.stem in USUAL else (pytest.mark.exhaustive,)
        yield pytest.param(path, id=path.stem, marks=marks)


@pytest.fixture(scope="module")
def director() -> Iterator[str]:
    with namespaces("director") as (name,):
        yield name


@contextlib.contextmanager
def keepalived(file: Path, netns: str, directory: Path) -> Iterator[Path]:
    """keepalived's virtual servers alone, running with ``file``; yields its log."""
    log = directory / "log"
    words = [witness("keepalived"), "--dont-fork", "--log-console", "--check", "-f", str(file)]
    words += ["--pid", str(directory / "pid"), "--checkers_pid", str(directory / "checkers")]
    words += ["--config-id", corpus.CONFIG_ID]
    with log.open("wb") as out:
        child = subprocess.Popen(
            ["ip", "netns", "exec", netns, *words],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield log
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def rules_in(netns: str) -> frozenset[Rule]:
    """The IPVS table of a namespace."""
    found = state.node_state(netns, sysctls=(), director=True)
    return frozenset((*IpvsService.from_state(found), *IpvsRealServer.from_state(found)))


def equals(netns: str, wanted: frozenset[Rule]) -> Callable[[], bool]:
    return lambda: rules_in(netns) == wanted


@pytest.mark.parametrize("file", [*rows()])
def test_keepalived_makes_the_table_that_lvsctl_reads(
    file: Path, director: str, tmp_path: Path
) -> None:
    wanted = frozenset(table(corpus.configuration_of(file).services, director))
    with keepalived(file, director, tmp_path) as log:
        try:
            eventually(equals(director, wanted), seconds=8)
        except AssertionError:
            found = rules_in(director)
            text = log.read_text(errors="replace")
            pytest.fail(f"missing: {wanted - found}\nextra: {found - wanted}\n{text}")
    eventually(equals(director, frozenset()), seconds=8)


@pytest.mark.parametrize("file", corpus.RULES, ids=lambda file: file.stem)
def test_ipvsadm_makes_the_table_that_lvsctl_reads(file: Path, director: str) -> None:
    wanted = frozenset(table(corpus.configuration_of(file).services, director))
    run("ipvsadm -C", netns=director)
    # It refuses comments, which scripts have.
    run(f"""sh -c 'grep -v "^#" {file} | ipvsadm -R'""", netns=director)
    found = rules_in(director)
    run("ipvsadm -C", netns=director)
    assert found == wanted


def planned(name: str, netns: str) -> tuple[frozenset[Rule], dict[writers.Target, str]]:
    """The table of a shipped topology's director, in another namespace; and what is exported."""
    lab = planner.load_lab(topology_of(name))
    resources = planner.plan_for(lab).resources
    texts = {
        target: next(iter(writers.export(lab, resources, target).values()))
        for target in (writers.Target.KEEPALIVED, writers.Target.IPVSADM)
    }
    return frozenset(_moved(resources, netns)), texts


def _moved(resources: Iterable[object], netns: str) -> Iterator[Rule]:
    for one in resources:
        if isinstance(one, IpvsService):
            yield replace(one, netns=netns)
        elif isinstance(one, IpvsRealServer):
            yield replace(one, netns=netns, real_server=replace(one.real_server, node=""))


@pytest.mark.parametrize(
    "name",
    [
        "dr-limits",
        *(
            pytest.param(name, marks=pytest.mark.exhaustive)
            for name in ("nat", "tun-gre", "tun-gue", "dr-weighted")
        ),
    ],
)
def test_what_is_exported_makes_the_same_table(name: str, director: str, tmp_path: Path) -> None:
    wanted, texts = planned(name, director)
    rules = tmp_path / "rules"
    rules.write_text(texts[writers.Target.IPVSADM])
    run(f"sh -c 'ipvsadm -R < {rules}'", netns=director)
    assert rules_in(director) == wanted
    run("ipvsadm -C", netns=director)
    file = tmp_path / "keepalived.conf"
    # No interface of the lab is here, and no real server answers its check.
    file.write_text(texts[writers.Target.KEEPALIVED].replace("retry 3", "retry 30"))
    with keepalived(file, director, tmp_path):
        eventually(equals(director, wanted), seconds=8)
    eventually(equals(director, frozenset()), seconds=8)


KEEPALIVED = """
version: 1
name: ka
networks:
  lan: {{ipv4: 10.10.0.0/24}}
nodes:
  client:   {{role: client, networks: [lan]}}
  director: {{role: director, networks: [lan], keepalived: {file}}}
  rs:       {{role: real-server, networks: [lan], count: 2}}
services:
  - {{name: web, vip: 10.10.0.100, port: 80, forward: dr, scheduler: rr, real_servers: [rs]}}
"""


# On a busy machine keepalived may take out the other real server, too, for a moment.
@pytest.mark.exhaustive
def test_a_real_server_that_keepalived_takes_out_is_no_cause(tmp_path: Path) -> None:
    """The file is exported, its own check accepts it, and it decides what is expected."""
    file = tmp_path / "keepalived.conf"
    text = KEEPALIVED.format(file=file)
    lab = planner.load_lab(topology_of(text))
    resources = planner.plan_for(lab).resources
    exported = writers.export(lab, resources, writers.Target.KEEPALIVED)["keepalived.conf"]
    for setting in ("delay_loop 6", "connect_timeout 3", "delay_before_retry 3"):
        exported = exported.replace(setting, f"{setting.split()[0]} 1")
    file.write_text(exported)
    witness("keepalived")
    with lab_up(text):
        director = lab.netns("director")
        run(f"keepalived -t -f {file}", netns=director)
        eventually(lambda: not preview(lab).changed)
        assert not bring_up(topology_of(text)).changed
        FaultInjector(lab).inject(FAULTS["service-stopped"], "rs1")
        eventually(lambda: "10.10.0.11" not in run("ipvsadm -Ln", netns=director), seconds=20)
        verified = verify_lab(lab)
        assert {finding.verdict for finding in verified.findings} == {Verdict.PASS}
        diagnosed = diagnose_lab(lab)
        assert diagnosed.healthy, diagnosed.causes
        assert diagnosed.remarks == (
            "rs1: nothing listens on a real server; keepalived sends it no requests",
            "director: rs1 is not in the table: keepalived removed it",
        )
