"""keepalived itself decides whether lvsctl reads keepalived.conf as it does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lvsctl.formats.ipvs_table import Rule, table
from lvsctl.kernel import state
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from tests.formats import corpus_files as corpus
from tests.kernel.by_hand import eventually, namespaces
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
