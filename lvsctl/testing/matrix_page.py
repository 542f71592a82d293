"""The page that ``--lvs-matrix`` writes, by the process that the tests report to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lvsctl.output import matrix_markdown, safe_files

CELL = "lvsctl-cell"
"""The property of a test that holds a cell: fault, topology and text, as JSON."""


class MatrixPage:
    """Takes the cells of a campaign's tests, wherever they ran, and keeps those of an older page.

    Each is written at once: what was tried is kept if the campaign is interrupted.
    """

    def __init__(self, file: Path) -> None:
        """Raises OSError if the file cannot be read or written."""
        self._file = file
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        self._cells = matrix_markdown.read(before)
        self._write()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the cell of a test."""
        for name, value in report.user_properties:
            if name == CELL and report.when == "call":
                fault, topology, said = json.loads(str(value))
                self._cells[fault, topology] = said
                self._write()

    def _write(self) -> None:
        with safe_files.opened(self._file) as stream:
            stream.write(matrix_markdown.page(self._cells).encode())
