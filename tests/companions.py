"""One pytest run, worked on by several pytests side by side.

Tests under tests/kernel need root; those marked `ipvs` need the kernel's real IPVS as
well. Where this process has what a test needs, nothing special happens. The others are
run by other pytests inside machines, started at once so that all work side by side;
their reports come back line by line and are reported here as if they were ours.
No test is skipped for want of IPVS: without a machine they all fail, and say why.
LVSCTL_MACHINE_KIND and LVSCTL_MACHINE_KERNEL, as for every command, choose the machine.

A whole run has one more: tests/unit and tests/plan need neither, and run beside the tests that
start commands and machines, which take longest and stay here.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from lvsctl.kernel import probe

INSIDE = "LVSCTL_IN_MACHINE"
SENDS = "LVSCTL_TEST_SENDS"
"""Set where a pytest hands its reports to another one."""

MARK = "\x1elvsctl-report "
"""In front of a report on a companion's standard output; cannot be confused with text."""

MACHINES = int(os.environ.get("LVSCTL_TEST_MACHINES", "3"))
"""How many throwaway kernels share the tests: each has one CPU, and many tests mostly wait."""

CHOSEN = bool(os.environ.get("LVSCTL_MACHINE_KIND") or os.environ.get("LVSCTL_MACHINE_KERNEL"))
"""Whether the tests are meant for a certain throwaway kernel, whatever the host's can do."""

TESTS = Path(__file__).parent
KERNEL_TESTS = TESTS / "kernel"
QUICK_TESTS = TESTS / "unit", TESTS / "plan"
MACHINE = (sys.executable, "-m", "lvsctl", "machine")


def needs_a_machine(item: pytest.Item) -> bool:
    """Whether this process lacks what a test needs."""
    if INSIDE in os.environ:
        return False
    needs_ipvs = item.get_closest_marker("ipvs") is not None
    needs_root = needs_ipvs or item.path.is_relative_to(KERNEL_TESTS)
    if CHOSEN:
        return needs_root
    return (needs_root and not probe.has_root()) or (needs_ipvs and not probe.has_ipvs())


def is_quick(item: pytest.Item) -> bool:
    """Whether a test needs neither root nor a kernel."""
    return any(item.path.is_relative_to(directory) for directory in QUICK_TESTS)


class Companion:
    """Another pytest, ``within`` a machine or beside this one, and its reports so far."""

    def __init__(
        self,
        config: pytest.Config,
        node_ids: Sequence[str],
        within: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._config = config
        self._reports: dict[str, list[pytest.TestReport]] = {}
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as this)
        options = ["-p", "no:cacheprovider", "-q", "--tb", config.getoption("tbstyle")]
        options += ["-m", ""]  # which tests run is decided: addopts would leave some of them out
        # The tests here run one after the other, and so end last: they go first.
        # Those of a machine's kernel come next, for they are judged by time.
        niceness = "5" if within else "15"
        words = [
            "nice",
            "-n",
            niceness,
            *within,
            sys.executable,
            "-m",
            "pytest",
            *options,
            *node_ids,
        ]
        self._process = subprocess.Popen(
            words,
            cwd=config.rootpath,
            env={**os.environ, SENDS: "1", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._talk: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # A pipe holds 64 KiB: without somebody who reads, the companion would soon wait.
        # Not closed before the end: tests look at which files this process has open.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.decode(errors="replace"))
        self._lines.put(None)

    def reports_of(self, node_id: str) -> list[pytest.TestReport]:
        """What the companion reported of a test; waits until it has."""
        while not any(r.when == "teardown" for r in self._reports.get(node_id, ())):
            line = self._lines.get()
            if line is None:
                self._lines.put(None)  # for the next one who asks
                break
            self._take(line)
        return self._reports.get(node_id, [])

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
        """What the companion and its machine had to say, for a test without a report."""
        status = self._process.wait()
        self._errors.seek(0)
        said = "".join(self._talk[-40:]) + self._errors.read().decode(errors="replace")
        return f"the pytest that runs these tests ended with status {status}:\n{said}"

    def end(self) -> None:
        """End the companion."""
        self._process.terminate()
        self._process.wait()
        self._errors.close()
        assert self._process.stdout is not None
        if not self._reader.is_alive():
            self._process.stdout.close()


class Inside(Companion):
    """A companion inside a machine of its own."""

    def __init__(self, config: pytest.Config, node_ids: Sequence[str], number: int) -> None:
        self._machine = {"LVSCTL_MACHINE": f"tests-{os.getpid()}-{number}"}
        super().__init__(config, node_ids, (*MACHINE, "run", "--"), self._machine)

    def end(self) -> None:
        """End the companion and its machine."""
        super().end()
        environment = {**os.environ, **self._machine}
        subprocess.run([*MACHINE, "stop"], env=environment, check=False, capture_output=True)


COMPANIONS = pytest.StashKey[dict[str, Companion]]()
"""Who runs each test that does not run here, by its node id."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ours first: the companions work meanwhile."""
    items.sort(key=lambda item: (needs_a_machine(item), is_quick(item)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the companions, where some are needed."""
    if session.config.getoption("collectonly") or SENDS in os.environ:
        return
    in_machines = [item.nodeid for item in session.items if needs_a_machine(item)]
    quick = [item.nodeid for item in session.items if is_quick(item)]
    who: dict[str, Companion] = {}
    session.config.stash[COMPANIONS] = who
    for number in range(min(MACHINES, len(in_machines))):
        mine = in_machines[number::MACHINES]
        who.update(dict.fromkeys(mine, Inside(session.config, mine, number)))
    others = len(session.items) - len(in_machines) - len(quick)
    # Whoever runs these alone may want a debugger in them.
    if quick and others and in_machines and not session.config.getoption("usepdb"):
        who.update(dict.fromkeys(quick, Companion(session.config, quick)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Report what happened to a test that a companion runs."""
    companion = item.config.stash.get(COMPANIONS, {}).get(item.nodeid)
    if companion is None:
        return None
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in companion.reports_of(item.nodeid) or [_lost(item, companion.complaint())]:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _lost(item: pytest.Item, why: str) -> pytest.TestReport:
    return pytest.TestReport(
        item.nodeid, item.location, dict.fromkeys(item.keywords, 1), "failed", why, "call"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Nothing of them stays."""
    for companion in set(config.stash.get(COMPANIONS, {}).values()):
        companion.end()


class Sender:
    """In a companion: hands every report to the pytest that has started it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        # Tests replace and capture standard output; that pytest reads the real one.
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
    """In a companion, send."""
    if SENDS in os.environ:
        config.pluginmanager.register(Sender(config))
