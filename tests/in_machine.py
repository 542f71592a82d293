"""Kernel tests run where they can: here, or in the throwaway kernel, as part of one pytest run.

Tests under tests/kernel need root; those marked `ipvs` need the kernel's real IPVS as
well. Where this process has what a test needs, nothing special happens. The others are
run by other pytests inside machines, started at once so that all work side by side;
their reports come back line by line and are reported here as if they were ours.
No test is skipped for want of IPVS: without a machine they all fail, and say why.
LVSCTL_MACHINE_KIND and LVSCTL_MACHINE_KERNEL, as for every command, choose the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import pytest

from lvsctl.kernel import probe

INSIDE = "LVSCTL_IN_MACHINE"
MARK = "\x1elvsctl-report "
"""In front of a report on the inner pytest's standard output; cannot be confused with text."""

MACHINES = int(os.environ.get("LVSCTL_TEST_MACHINES", "3"))
"""How many throwaway kernels share the tests: each has one CPU, and many tests mostly wait."""

CHOSEN = bool(os.environ.get("LVSCTL_MACHINE_KIND") or os.environ.get("LVSCTL_MACHINE_KERNEL"))
"""Whether the tests are meant for a certain throwaway kernel, whatever the host's can do."""

KERNEL_TESTS = Path(__file__).parent / "kernel"


def must_be_forwarded(item: pytest.Item) -> bool:
    """Whether this process lacks what a test needs."""
    if INSIDE in os.environ:
        return False
    needs_ipvs = item.get_closest_marker("ipvs") is not None
    needs_root = needs_ipvs or item.path.is_relative_to(KERNEL_TESTS)
    if CHOSEN:
        return needs_root
    return (needs_root and not probe.has_root()) or (needs_ipvs and not probe.has_ipvs())


class Inner:
    """A pytest inside a machine, and the reports that it has sent so far."""

    def __init__(self, config: pytest.Config, number: int, node_ids: list[str]) -> None:
        self._config = config
        self._machine = {"LVSCTL_MACHINE": f"tests-{os.getpid()}-{number}"}
        self._reports: dict[str, list[pytest.TestReport]] = {}
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as this)
        options = ["-p", "no:cacheprovider", "-q", "--tb", config.getoption("tbstyle")]
        options += ["-m", ""]  # which tests run is decided: addopts would leave some of them out
        # The tests here run one after the other, and so end last: they go first.
        lvsctl = ["nice", "-n", "5", sys.executable, "-m", "lvsctl", "machine", "run", "--"]
        self._process = subprocess.Popen(
            [*lvsctl, sys.executable, "-m", "pytest", *options, *node_ids],
            cwd=config.rootpath,
            env={**os.environ, **self._machine},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._talk: list[str] = []

    def reports_of(self, node_id: str) -> list[pytest.TestReport]:
        """What the inner pytest reported of a test; waits until it has."""
        while not any(r.when == "teardown" for r in self._reports.get(node_id, ())):
            line = self._next_line()
            if line is None:
                break
            self._take(line)
        return self._reports.get(node_id, [])

    def _next_line(self) -> str | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return line.decode(errors="replace") if line else None

    def _take(self, line: str) -> None:
        if not line.startswith(MARK):
            self._talk.append(line)
            return
        report = self._config.hook.pytest_report_from_serializable(
            config=self._config, data=json.loads(line.removeprefix(MARK))
        )
        if isinstance(report, pytest.TestReport):
            if isinstance(report.longrepr, list):  # why it was skipped: a tuple, but JSON has none
                report.longrepr = tuple(report.longrepr)
            self._reports.setdefault(report.nodeid, []).append(report)
        else:
            self._talk.append(f"{report.longrepr}\n")

    def complaint(self) -> str:
        """What the inner pytest and the machine had to say, for a test without a report."""
        status = self._process.wait()
        self._errors.seek(0)
        said = "".join(self._talk[-40:]) + self._errors.read().decode(errors="replace")
        return f"the tests in the machine ended with status {status}:\n{said}"

    def end(self) -> None:
        """End the inner pytest and its machine."""
        if self._process.poll() is None and self._process.stdout is not None:
            self._process.terminate()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()
        self._errors.close()
        stop = [sys.executable, "-m", "lvsctl", "machine", "stop"]
        environment = {**os.environ, **self._machine}
        subprocess.run(stop, env=environment, check=False, capture_output=True)


INNER = pytest.StashKey[dict[str, Inner]]()
"""Who runs each forwarded test, by its node id."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ours first: the machine works meanwhile."""
    items.sort(key=must_be_forwarded)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the inner pytest, where one is needed."""
    forwarded = [item.nodeid for item in session.items if must_be_forwarded(item)]
    if forwarded and not session.config.getoption("collectonly"):
        runners: dict[str, Inner] = {}
        session.config.stash[INNER] = runners
        for number in range(min(MACHINES, len(forwarded))):
            mine = forwarded[number::MACHINES]
            runners.update(dict.fromkeys(mine, Inner(session.config, number, mine)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Report what happened to a test inside the machine."""
    inner = item.config.stash.get(INNER, {}).get(item.nodeid)
    if inner is None:
        return None
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in inner.reports_of(item.nodeid) or [_lost(item, inner.complaint())]:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _lost(item: pytest.Item, why: str) -> pytest.TestReport:
    return pytest.TestReport(
        item.nodeid, item.location, dict.fromkeys(item.keywords, 1), "failed", why, "call"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Nothing of the machine stays."""
    for inner in set(config.stash.get(INNER, {}).values()):
        inner.end()


class Sender:
    """Inside the machine: hands every report to the outer pytest."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        # Tests replace and capture standard output; the outer pytest reads the real one.
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")

    def send(self, report: Any) -> None:
        """Write one report, on a line of its own."""
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._out.write(f"\n{MARK}{json.dumps(data)}\n")
        self._out.flush()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Every phase of every test."""
        self.send(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """What could not be imported."""
        if report.failed:
            self.send(report)


def pytest_configure(config: pytest.Config) -> None:
    """Inside the machine, send; outside, receive."""
    if INSIDE in os.environ:
        config.pluginmanager.register(Sender(config))
