"""The pytest plugin, installed with lvsctl: labs for tests.

    def test_the_shop(lvs):
        lab = lvs.up("shop.yaml")        # a file beside this one; or a shipped name, dr
        assert lab.verify()
        assert lab.node("client").run(["curl", "-sf", "http://10.20.0.100/"]).returncode == 0

The labs are always removed afterwards. Every pytest in the same environment imports this
module, so that it imports nothing else until a test needs a lab.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lvsctl.testing.labs import Labs
    from lvsctl.testing.worker import Worker

_UNABLE = ("fail", "skip")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the group "lvsctl", and lvs_unable for pytest's configuration file."""
    group = parser.getgroup("lvsctl", "Linux Virtual Server labs")
    group.addoption(
        "--lvs-unable",
        choices=_UNABLE,
        help="Outcome of tests if this host cannot run labs (neither IPVS nor a throwaway "
        "kernel): fail or skip. Overrides the marker and lvs_unable. Default: fail if CI is set, "
        "else skip.",
    )
    group.addoption(
        "--lvs-where",
        choices=("auto", "host", "machine"),
        help="Where to run labs, as lvsctl --where: auto, host or machine. Default: LVSCTL_WHERE, "
        "else auto.",
    )
    group.addoption(
        "--lvs-report-dir",
        metavar="DIR",
        help="Directory for captures and HTML reports of failed tests. Default: pytest's "
        "directory for temporary files.",
    )
    group.addoption(
        "--lvs-shard",
        metavar="K/N",
        help="Run only the K-th of N parts of the tests: a CI's jobs run one part each.",
    )
    group.addoption(
        "--lvs-matrix",
        metavar="FILE",
        help="With --pyargs lvsctl.testing.campaign: write the fault matrix as Markdown.",
    )
    parser.addini("lvs_unable", "as --lvs-unable: fail or skip", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "lvs(unable): outcome of the test if this host cannot run labs: 'fail' or 'skip'",
    )
    if config.getini("lvs_unable") not in ("", *_UNABLE):
        raise pytest.UsageError("lvs_unable is neither fail nor skip")
    page = config.getoption("lvs_matrix")
    if page is not None and not hasattr(config, "workerinput"):  # xdist's workers have it
        from lvsctl.testing.matrix_page import MatrixPage  # only if it is wanted

        try:
            config.pluginmanager.register(MatrixPage(config.invocation_params.dir / page))
        except OSError as error:
            raise pytest.UsageError(f"--lvs-matrix: {page}: {error.strerror}") from error


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep one part of the tests, after all that order or deselect them."""
    wanted = config.getoption("lvs_shard")
    if wanted is None:
        return
    from lvsctl.errors import UsageError  # only if it is wanted
    from lvsctl.model.shard import Shard

    try:
        kept = list(Shard.parse(wanted).of(items))
    except UsageError as error:
        raise pytest.UsageError(f"--lvs-shard: {error.message}\n{error.hint}") from error
    others = set(items) - set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item in others])
    items[:] = kept


@pytest.fixture(scope="session")
def _lvs_worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    from lvsctl.testing.worker import Worker  # only if a test needs a lab

    config = request.config
    given = config.getoption("lvs_report_dir")
    if given is None:
        factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
        reports = factory.getbasetemp() / "lvsctl"
    else:
        reports = config.invocation_params.dir / Path(given)
    worker = Worker(config, config.getoption("lvs_where") or "", reports)
    config.pluginmanager.register(worker, "lvsctl-worker")
    try:
        yield worker
    finally:
        worker.finish()


def _labs(request: pytest.FixtureRequest, worker: Worker) -> Iterator[Labs]:
    worker.require(_unable(request))
    labs = worker.labs(request)
    try:
        yield labs
    finally:
        labs.down()


@pytest.fixture
def lvs(request: pytest.FixtureRequest, _lvs_worker: Worker) -> Iterator[Labs]:
    """Labs for one test: ``lab = lvs.up("dr")``; they are removed at its end."""
    yield from _labs(request, _lvs_worker)


@pytest.fixture(scope="module")
def lvs_module(request: pytest.FixtureRequest, _lvs_worker: Worker) -> Iterator[Labs]:
    """As ``lvs``, for fixtures of scope "module": labs that the tests of a file share."""
    yield from _labs(request, _lvs_worker)


@pytest.fixture(scope="session")
def lvs_session(request: pytest.FixtureRequest, _lvs_worker: Worker) -> Iterator[Labs]:
    """As ``lvs``, for fixtures of scope "session"."""
    yield from _labs(request, _lvs_worker)


def _unable(request: pytest.FixtureRequest) -> str:
    """Return ``fail`` or ``skip``: by the option, the marker, the configuration, or CI."""
    mark = request.node.get_closest_marker("lvs")
    marked = mark.kwargs.get("unable", *mark.args[:1]) if mark is not None else None
    if mark is not None and marked not in _UNABLE:
        raise pytest.UsageError(f"@pytest.mark.lvs(unable={marked!r}): 'fail' or 'skip'")
    default = "fail" if os.environ.get("CI", "").lower() not in ("", "0", "false") else "skip"
    return str(
        request.config.getoption("lvs_unable")
        or marked
        or request.config.getini("lvs_unable")
        or default
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the faults of a topology together, with ``--dist loadgroup``."""
    if config.getoption("dist") != "loadgroup":
        return None
    from lvsctl.testing.groups import GroupScheduling  # with xdist, which may be missing

    return GroupScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:  # noqa: ARG001 (xdist's names)
    """Take over the notes of an xdist worker that has ended."""
    output = getattr(node, "workeroutput", None) or {}
    if "lvsctl" in output:
        from lvsctl.testing import worker  # only if a test needed a lab

        for note in output[worker.WORKER_OUTPUT]:
            worker.leave_note(node.config, note)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Report where the labs ran, and what could not be done."""
    worker = sys.modules.get("lvsctl.testing.worker")
    if worker is None or worker.NOTES not in config.stash:
        return
    lines = list(worker.summary(config.stash[worker.NOTES], "--lvs-unable"))
    if lines:
        terminalreporter.section("lvsctl")
    for line, loud in lines:
        terminalreporter.write_line(line, **({"yellow": True, "bold": True} if loud else {}))
