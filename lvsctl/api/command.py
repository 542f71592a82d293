"""The ``lvsctl`` command, run in a process of its own.

Not the ``app`` room called in this one: entering namespaces, handling signals and passing
streams to the machine are a process's business, and a caller's threads, signal handlers and
standard streams are none of ours. The command is the same one that a person would type.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lvsctl.errors import LvsctlError
from lvsctl.output.error_json import VARIABLE, error_from

Done = subprocess.CompletedProcess[bytes]

ENDING_TIMEOUT = 30.0
"""Seconds that an interrupted command has to undo what is half done."""

CLAIM_FAILED = 1
"""The exit status of a command that ran well and found something wrong (cli.exit_status)."""

_log = logging.getLogger("lvsctl")


def our_error(caught: Any) -> bool:
    """Whether pytest caught one of our errors: it says all, and our frames nothing more."""
    return caught is not None and issubclass(caught.type, LvsctlError)


__tracebackhide__ = our_error  # pytest's word for a module whose frames are left out


@dataclass(frozen=True, slots=True)
class Command:
    """How to call ``lvsctl``.

    ``where`` is what ``--where`` takes and ``machine`` a machine's name; empty: what the
    environment says. ``environment`` is set in addition to this process's own.
    """

    where: str = ""
    machine: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def json(self, *words: str, stdin: bytes | None = None) -> dict[str, Any]:
        """What the command reports with ``--format json``. Raises LvsctlError."""
        done = self.run(*words, "--format", "json", stdin=stdin)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def run(self, *words: str, stdin: bytes | None = None) -> Done:
        """Run the command to its end; what it says on the way is logged. Raises LvsctlError."""
        done = self.process(words, stdin=stdin)
        if done.returncode not in (0, CLAIM_FAILED):
            raise _error_of(done)
        for line in done.stderr.decode(errors="replace").splitlines():
            _log.info("%s", line.removeprefix("lvsctl: "))
        return done

    def process(
        self, words: Sequence[str], *, stdin: bytes | None = None, timeout: float | None = None
    ) -> Done:
        """Run the command to its end, however it ends.

        When this is interrupted, by Ctrl-C say, or takes longer than ``timeout`` seconds, the
        command is told to end, and what it has half done is undone, before the exception goes on.
        """
        # -P: the current directory's json.py is none of our modules.
        argv = [sys.executable, "-P", "-m", "lvsctl", *words]
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment(),
            process_group=0,  # a Ctrl-C of the terminal reaches it once: through this process
        )
        try:
            out, err = process.communicate(stdin, timeout)
        except BaseException:
            _end(process)
            raise
        return Done(argv, process.returncode, out, err)

    def _environment(self) -> dict[str, str]:
        given = {"LVSCTL_WHERE": self.where, "LVSCTL_MACHINE": self.machine, VARIABLE: "json"}
        return {
            **os.environ,
            **{key: value for key, value in given.items() if value},
            **self.environment,
        }


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=ENDING_TIMEOUT)
    except BaseException as error:
        process.kill()
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise


def said_error(done: Done) -> LvsctlError | None:
    """The error that lvsctl itself ended with; None where it said none."""
    last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    with suppress(ValueError, KeyError, TypeError):
        return error_from(json.loads(last))
    return None


def _error_of(done: Done) -> LvsctlError:
    """Why a command failed: the very error, where it could still say so."""
    error = said_error(done)
    if error is not None:
        return error
    command = " ".join(["lvsctl", *done.args[4:]])
    if done.returncode < 0:
        return LvsctlError(f"{command} was killed: {signal.strsignal(-done.returncode)}")
    said = done.stderr.decode(errors="replace").strip() or "(it said nothing)"
    return LvsctlError(f"{command} ended with status {done.returncode}: {said}")
