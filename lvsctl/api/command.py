"""Run the ``lvsctl`` command in a process of its own.

The engine is not called in this process, because entering namespaces, handling signals and passing
streams to the machine would affect the caller's threads, signal handlers and standard streams.
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

from lvsctl.errors import JSON_VARIABLE, LvsctlError, error_from

Done = subprocess.CompletedProcess[bytes]

ENDING_TIMEOUT = 30.0
"""Seconds for an interrupted command to roll back."""

CLAIM_FAILED = 1
"""The exit status of a command that ran and found a problem (cli.failure)."""

_log = logging.getLogger("lvsctl")


def is_lvsctl_error(caught: Any) -> bool:
    """Return whether pytest caught an error of lvsctl's, whose message is sufficient."""
    return caught is not None and issubclass(caught.type, LvsctlError)


__tracebackhide__ = is_lvsctl_error  # read by pytest: hides this module's frames


@dataclass(frozen=True, slots=True)
class Command:
    """How to call ``lvsctl``.

    ``where`` is a value of ``--where`` and ``machine`` a machine's name; if empty, the
    environment decides. ``environment`` is added to this process's own.
    """

    where: str = ""
    machine: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def json(self, *words: str, stdin: bytes | None = None) -> dict[str, Any]:
        """Run the command with ``--format json`` and return its report. Raises LvsctlError."""
        done = self.run(*words, "--format", "json", stdin=stdin)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def run(self, *words: str, stdin: bytes | None = None) -> Done:
        """Run the command and log its messages. Raises LvsctlError."""
        done = self.process(words, stdin=stdin)
        if done.returncode not in (0, CLAIM_FAILED):
            raise _error_of(done)
        for line in done.stderr.decode(errors="replace").splitlines():
            _log.info("%s", line.removeprefix("lvsctl: "))
        return done

    def process(
        self, words: Sequence[str], *, stdin: bytes | None = None, timeout: float | None = None
    ) -> Done:
        """Run the command, whatever its exit status.

        If this is interrupted, for example by Ctrl-C, or takes longer than ``timeout`` seconds,
        the command is terminated and rolls back before the exception is raised.
        """
        # -P: do not import modules from the current directory.
        argv = [sys.executable, "-P", "-m", "lvsctl", *words]
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment(),
            process_group=0,  # the terminal's Ctrl-C reaches it once, through this process
        )
        try:
            out, err = process.communicate(stdin, timeout)
        except BaseException:
            _end(process)
            raise
        return Done(argv, process.returncode, out, err)

    def _environment(self) -> dict[str, str]:
        given = {"LVSCTL_WHERE": self.where, "LVSCTL_MACHINE": self.machine, JSON_VARIABLE: "json"}
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


def error_in(done: Done) -> LvsctlError | None:
    """Return the error that lvsctl printed; None if it printed none."""
    last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    with suppress(ValueError, KeyError, TypeError):
        return error_from(json.loads(last))
    return None


def _error_of(done: Done) -> LvsctlError:
    """Return the error of a failed command: the printed one, else one made from its status."""
    error = error_in(done)
    if error is not None:
        return error
    command = " ".join(["lvsctl", *done.args[4:]])
    if done.returncode < 0:
        return LvsctlError(f"{command} was killed: {signal.strsignal(-done.returncode)}")
    output = done.stderr.decode(errors="replace").strip() or "(no error message)"
    return LvsctlError(f"{command} ended with status {done.returncode}: {output}")
