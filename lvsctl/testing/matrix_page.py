"""The page that ``--lvs-matrix`` writes, by the process that the tests report to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lvsctl.output import matrix_markdown, safe_files

CELL = "lvsctl-cell"
"""The property of a test that holds a cell: fault, topology and text, as JSON."""


class MatrixPage:
    """Collects the cells of a campaign's tests, wherever they ran, and writes them at its end."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._cells: matrix_markdown.Cells = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the cell of a test."""
        for name, value in report.user_properties:
            if name == CELL and report.when == "call":
                fault, topology, said = json.loads(str(value))
                self._cells[fault, topology] = said

    def pytest_sessionfinish(self) -> None:
        """Write the page; other cells of an older one are kept."""
        before = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        cells = {**matrix_markdown.read(before), **self._cells}
        with safe_files.opened(self._file) as stream:
            stream.write(matrix_markdown.page(cells).encode())
