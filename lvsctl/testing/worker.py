"""One pytest process (one of xdist's workers, or all of pytest), its labs, and its notes.

Notes become lines of the terminal's summary; xdist's workers send theirs to the controller.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lvsctl.api.command import Command
from lvsctl.cli.where import Where, inside_machine, why_not_here
from lvsctl.errors import HostError
from lvsctl.testing import labs
from lvsctl.testing.guard import OWNER, Guard, Order
from lvsctl.testing.labs import Labs, WatchedLab

TEST_MISTAKES = (NameError, SyntaxError, ImportError, TypeError, AttributeError)
"""Errors of the test itself: the labs are not verified and diagnosed for them."""


class Worker:
    """Runs this process's labs and removes them.

    They run on the host's kernel if it can run labs, otherwise in a machine of this process:
    every xdist worker has its own, because a machine has one CPU, and a test may break it. It
    ends with the process. If LVSCTL_MACHINE names a machine, all workers use that one, and it
    keeps running.
    """

    def __init__(self, config: pytest.Config, where: str, reports: Path) -> None:
        self.token = secrets.token_hex(3)
        self.reports = reports
        self._config = config
        self._labs = 0
        self._skipped = 0
        self._error: HostError | None = None
        self._touched: list[WatchedLab] = []
        self._guard: Guard | None = None
        try:
            self._reason = _reason_for_machine(where)
            place = "host" if self._reason is None else "machine"
            own = place == "machine" and not os.environ.get("LVSCTL_MACHINE")
            environment = {"LVSCTL_WHERE": place, OWNER: self.token}
            if own:
                environment["LVSCTL_MACHINE"] = f"pytest-{self.token}"
            self.command = Command(environment=environment)
            order = Order(os.getpid(), self.token, environment, machine=own)
            self._guard = Guard(order)
            if place == "machine":
                # A shared machine must not have our token: the guard terminates what has it.
                starts = self.command if own else Command(where="machine")
                starts.run("machine", "start")
        except HostError as error:
            self._error = error
        except BaseException:
            self.finish()
            raise

    # Ability.

    def require(self, how: str) -> None:
        """Fail or skip the test (``how``) if labs cannot run."""
        if self._error is None:
            return
        hint = f"\n  → {self._error.hint}" if self._error.hint else ""
        said = f"this host cannot run labs: {self._error.message}{hint}"
        if how == "skip":
            self._skipped += 1
            pytest.skip(said)
        pytest.fail(said, pytrace=False)

    # Labs.

    def labs(self, request: pytest.FixtureRequest) -> Labs:
        """Create the value of a fixture."""
        places = [self._config.rootpath]
        path: Path | None = getattr(request.node, "path", None)
        if path is not None and path != self._config.rootpath:
            places.insert(0, path if path.is_dir() else path.parent)
        token = f"{self.token}{secrets.token_hex(1)}"
        return Labs(self, self.command, token, places)

    def begins(self, lab: str) -> None:
        """Tell the guard before the lab is created."""
        if self._guard is not None:
            self._guard.tell("up", lab)

    def came_up(self, lab: WatchedLab) -> None:
        """Note that the running test has a new lab."""
        self._labs += 1
        self.touched(lab)

    def touched(self, lab: WatchedLab) -> None:
        """Note that the running test uses a lab."""
        if lab not in self._touched:
            lab.forget()
            self._touched.append(lab)

    def gone(self, lab: str) -> None:
        """Tell the guard that the lab was removed."""
        if self._guard is not None:
            self._guard.tell("down", lab)

    # pytest's hooks: registered with the first lab, so that other runs are not affected.

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        """Forget the previous test's labs."""
        self._touched.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add sections about its labs to the report of a failed test."""
        report = yield
        mistake = call.excinfo is not None and issubclass(call.excinfo.type, TEST_MISTAKES)
        if report.failed and call.when != "teardown" and self._touched and not mistake:
            directory = self.reports / labs.report_directory(item.nodeid)
            sections, written = labs.failure_report(list(self._touched), directory)
            report.sections += sections
            if written:
                where = ("lvsctl report", str(directory))
                report.user_properties.append(where)
                item.user_properties.append(where)  # JUnit XML takes those of the teardown
        return report

    # The end.

    def finish(self) -> None:
        """Remove everything and add the result to the summary."""
        complaints = self._guard.finish() if self._guard is not None else []
        self._guard = None
        note: dict[str, Any] = {"labs": self._labs, "skipped": self._skipped}
        if self._labs:
            note["place"] = "this host's kernel"
            if self._reason is not None:
                note["place"] = f"the throwaway kernel ({self._reason})"
        if self._skipped and self._error is not None:
            hint = f" → {self._error.hint}" if self._error.hint else ""
            note["skipped_for"] = f"{self._error.message}{hint}"
        leave_note(self._config, note)
        for complaint in complaints:
            leave_note(self._config, {"complaint": f"left behind: {complaint}"})


def _reason_for_machine(where: str) -> str | None:
    """Why labs are in the machine; None: they are on the host. Raises HostError."""
    try:
        wanted = Where(where or os.environ.get("LVSCTL_WHERE") or "auto")
    except ValueError:
        raise pytest.UsageError(f"{where!r} is neither auto nor host nor machine") from None
    if wanted is Where.MACHINE and not inside_machine():
        return "as requested"
    reason = why_not_here()
    if reason is not None and (wanted is Where.HOST or inside_machine()):
        raise HostError(reason, hint="--lvs-where=machine takes the throwaway kernel")
    return reason


NOTES = pytest.StashKey[list[Mapping[str, Any]]]()
"""Of this process and, in xdist's controller, of its workers: the fields of a worker's note."""

WORKER_OUTPUT = "lvsctl"
"""Key under which an xdist worker leaves its notes for the controller."""


def leave_note(config: pytest.Config, note: Mapping[str, Any]) -> None:
    """Add a note, and send it to the controller if this is an xdist worker."""
    config.stash.setdefault(NOTES, []).append(note)
    output = getattr(config, "workeroutput", None)
    if output is not None:
        output[WORKER_OUTPUT] = config.stash[NOTES]


def summary(notes: Sequence[Mapping[str, Any]], how: str) -> Iterator[tuple[str, bool]]:
    """Yield lines of the summary, and whether each is important. ``how`` is the option's name."""
    for place, count in _counted(notes, "place").items():
        labs = sum(note.get("labs", 0) for note in notes if note.get("place") == place)
        workers = f" (by {count} workers, each in its own)" if count > 1 else ""
        yield f"{labs} lab{'' if labs == 1 else 's'} on {place}{workers}", False
    for reason in _counted(notes, "skipped_for"):
        skipped = sum(note["skipped"] for note in notes if note.get("skipped_for") == reason)
        tests = f"{skipped} test{' was' if skipped == 1 else 's were'}"
        yield f"{tests} SKIPPED: this host cannot run labs: {reason}", True
        yield f"{how}=fail makes that a failure, as it is where CI is set", True
    for complaint in _counted(notes, "complaint"):
        yield complaint, True


def _counted(notes: Sequence[Mapping[str, Any]], key: str) -> Counter[str]:
    return Counter(note[key] for note in notes if note.get(key))
