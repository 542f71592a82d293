"""The command line as scripts and people see it: words in, text and an exit status out."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from lvsctl.cli import failure, where
from lvsctl.cli.commands import ROWS, command
from lvsctl.cli.failure import MEANINGS, ExitStatus, explain, status_of
from lvsctl.cli.help import CommandList
from lvsctl.cli.main import main
from lvsctl.cli.output import json_text
from lvsctl.errors import HostError, KernelError, LabError, LvsctlError, TopologyError, UsageError
from lvsctl.kernel import probe, registry
from lvsctl.kernel.registry import Entry, State
from lvsctl.resources.base import Resource
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.topology import shipped

NOBODY = 65534
ROOT = Path(__file__).parents[2]


def commands() -> list[tuple[str, ...]]:
    """Every command there is, machine's too."""
    found: list[tuple[str, ...]] = []
    for name, one in command().commands.items():
        if isinstance(one, CommandList):
            found += [(name, inner) for inner in one.commands]
        if not one.hidden:
            found.append((name,))
    return found


def lvsctl(
    *words: str, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """A run of lvsctl as a process, where no machine runs and no lab is."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "lvsctl", *words],
        env={**os.environ, "LVSCTL_MACHINE": "none-such", "PYTHONPATH": str(ROOT), **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


# ── help ─────────────────────────────────────────────────────────────────────────────────────


def test_without_words_it_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == ExitStatus.OK

    said = capsys.readouterr().out
    for name, *inner in commands():
        assert inner or f"\n  {name} " in said


def test_help_lists_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])

    said = capsys.readouterr().out
    assert all(f"{status:>3}  {meaning}" in said for status, meaning in MEANINGS)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_explains_itself(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == ExitStatus.OK

    said = capsys.readouterr().out
    assert f"Usage: lvsctl {' '.join(words)}" in said
    if words != ("machine",):
        examples = said.partition("\nExamples:\n")[2].splitlines()
        assert any(line.strip().startswith(("lvsctl", "sudo lvsctl")) for line in examples)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_example_is_a_valid_command_line(words: tuple[str, ...]) -> None:
    one = command().commands[words[0]]
    if isinstance(one, CommandList):
        one = one.commands[words[1]] if len(words) > 1 else one
    for line in (one.help or "").partition("Examples:")[2].splitlines():
        example = line.partition("  #")[0].partition("|")[0].partition(">")[0].partition("&&")[0]
        parts = example.strip().partition("    ")[0].split()
        if parts[:1] == ["lvsctl"]:
            context = command().make_context("lvsctl", parts[1:], resilient_parsing=False, obj=[])
            name, found, rest = command().resolve_command(context, parts[1:])
            assert found is not None
            found.make_context(name, rest, parent=context)


def test_the_list_of_commands_has_their_docstrings_summaries() -> None:
    for row in ROWS:
        summary = (command().commands[row.name].help or "").strip().partition("\n\n")[0]
        assert " ".join(summary.split()) == f"{row.summary}."


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == ExitStatus.OK
    assert capsys.readouterr().out.startswith("lvsctl 0.")


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["upp"], "no such command 'upp'. Did you mean 'up'?", "lvsctl --help"),
        (["start"], "no such command 'start'", "did you mean: lvsctl up TOPOLOGY"),
        (["ps"], "no such command 'ps'", "did you mean: lvsctl ls"),
        (["stop", "dr"], "no such command 'stop'", "did you mean: lvsctl down LAB"),
        (["machine", "strat"], "Did you mean 'start'", "lvsctl machine --help"),
        (["up"], "missing argument 'TOPOLOGY'", "lvsctl up --help"),
        (
            ["fault", "inject", "dr", "vip-missing"],
            "unexpected extra argument(s) (vip-missing)",
            "lvsctl fault inject FAULT --lab LAB",
        ),
        (["walk", "dr", "twice"], "unexpected extra argument(s) (twice)", "lvsctl walk --help"),
        (["up", "dr", "--wehre", "host"], "no such option: --wehre", "lvsctl up --help"),
        (["up", "dr", "--where", "moon"], "'moon' is not one of", "lvsctl up --help"),
        (["--where", "moon", "ls"], "'moon' is not one of", "lvsctl --help"),
        (["capture", "--seconds", "inf"], "inf is not in the range", "lvsctl capture --help"),
        (["capture", "--seconds", "nan"], "nan is not a number", "lvsctl capture --help"),
        (["watch", "-i", "nan"], "nan is not a number", "lvsctl watch --help"),
        (["up", "dr", "--servers", "0"], "0 is not in the range", "lvsctl up --help"),
        (["plan", "drr"], "the topology 'drr' does not exist", "did you mean 'dr'?"),
        (["plan", "./none.yaml"], "the file './none.yaml' does not exist", "dr-routed"),
        (["topologies", "natt"], "the topology 'natt' does not exist", "did you mean 'nat'?"),
        (["plan", "dr", "-o", "/none/such"], "cannot write /none/such", ""),
        (["exec", "client", "--"], "no command given", "lvsctl exec client -- ip addr"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_mistake_is_told_with_what_helps(
    words: list[str],
    message: str,
    hint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LVSCTL_IN_MACHINE", "1")
    monkeypatch.setattr("lvsctl.kernel.probe.has_root", lambda: True)  # as it is in there

    assert main(words) == ExitStatus.USAGE

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("lvsctl: ")
    assert message in said.err
    assert hint in said.err


def test_every_mistake_in_a_topology_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("version: 1\nname: Not A Name\n")

    assert main(["plan", str(file)]) == ExitStatus.BAD_TOPOLOGY

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"lvsctl: {file} has 4 mistakes:"
    assert sum(line.startswith(f"{file}:") for line in lines) == 4


def test_a_bad_environment_variable_is_a_usage_error() -> None:
    done = lvsctl("ls", env={"LVSCTL_WHERE": "moon"})

    assert done.returncode == ExitStatus.USAGE
    assert "'moon' is not one of 'auto', 'host', 'machine'" in done.stderr


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("x"), 2),
        (LabError("x"), 2),
        (TopologyError("x", []), 65),
        (HostError("x"), 69),
        (KernelError("x"), 69),
        (LvsctlError("x"), 70),
    ],
)
def test_whose_fault_it_is_decides_the_status(error: LvsctlError, status: int) -> None:
    assert status_of(error) == status


def _break(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(shipped, "summaries", broken)


def test_a_bug_is_kept_for_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _break(monkeypatch, ZeroDivisionError("oh"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("LVSCTL_DEBUG", raising=False)

    assert main(["topologies"]) == ExitStatus.BUG

    (report,) = (tmp_path / "lvsctl").iterdir()
    said = capsys.readouterr().err
    assert "this is a bug: ZeroDivisionError: oh" in said
    assert str(report) in said
    assert "Traceback" not in said
    assert "Traceback" in report.read_text()


def test_a_bug_is_shown_where_nothing_can_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _break(monkeypatch, ZeroDivisionError("oh"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")

    assert main(["topologies"]) == ExitStatus.BUG
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["schema", "up --help", "--version", "topologies"])
def test_output_that_cannot_be_written_is_no_success(words: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lvsctl", *words.split()],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == ExitStatus.HOST_CANNOT
    assert done.stderr == "lvsctl: cannot write the output: No space left on device\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("no-such-command", ExitStatus.USAGE),
        ("up no-such-topology", ExitStatus.USAGE),
        ("plan pyproject.toml", ExitStatus.BAD_TOPOLOGY),
    ],
)
@pytest.mark.parametrize("errors", ["text", "json"])
def test_a_failure_has_its_status_where_nobody_can_be_told(
    words: str, status: int, errors: str
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lvsctl", *words.split()],
            cwd=ROOT,
            env={**os.environ, "LVSCTL_ERRORS": errors},
            stdout=subprocess.PIPE,
            stderr=full,
            check=False,
        )

    assert done.returncode == status
    assert not done.stdout


@pytest.mark.parametrize("stream", ["0", "1", "2"])
def test_a_closed_standard_stream_is_an_empty_one(stream: str) -> None:
    done = lvsctl("ls", prefix=("sh", "-c", f'exec "$@" {stream}>&-', "sh"))

    assert done.returncode == ExitStatus.OK, done.stderr
    assert done.stderr == ""


def test_a_limit_of_open_files_that_is_too_low_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_argv: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/work")

    monkeypatch.setattr("lvsctl.cli.commands.run", full)
    assert main(["ls"]) == ExitStatus.HOST_CANNOT
    said = capsys.readouterr().err
    assert "files open: too few\n  → ulimit -n 1024\n" in said


def test_a_topology_from_a_closed_standard_input_is_empty() -> None:
    done = lvsctl("plan", "-", prefix=("sh", "-c", 'exec "$@" <&-', "sh"))

    assert done.returncode == ExitStatus.BAD_TOPOLOGY
    assert "the file is empty" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "lvsctl", "schema"],
        cwd=ROOT,
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)

    assert done.returncode == ExitStatus.BROKEN_PIPE
    assert done.stderr == ""


# ── without root and without a kernel ────────────────────────────────────────────────────────


def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
    setpriv = shutil.which("setpriv")
    if os.getuid() != 0:
        return lvsctl(*words)
    assert setpriv, "util-linux is always there"
    identity = (setpriv, "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
    return lvsctl(*words, prefix=(*identity, "--inh-caps=-all"), env={"HOME": "/nonexistent"})


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("schema",),
        ("topologies",),
        ("topologies", "nat"),
        ("plan", "tun"),
        ("plan", "dr", "--format", "json"),
        ("plan", "nat", "--format", "sh", "-s", "5"),
        ("ls", "--where", "host"),
    ],
    ids=" ".join,
)
def test_needs_no_root(words: tuple[str, ...]) -> None:
    done = as_nobody(*words)

    assert done.returncode == ExitStatus.OK, done.stderr
    assert done.stderr == ""
    assert done.stdout


def test_doctor_says_what_keeps_the_throwaway_kernel_from_starting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is what `lvsctl up` would stop at: no word of `machine install` where it fails, too."""
    for name in ("LVSCTL_IN_MACHINE", "LVSCTL_MACHINE_KIND", "LVSCTL_MACHINE_KERNEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("lvsctl.kernel.probe.has_root", lambda: False)
    monkeypatch.setattr("lvsctl.cli.where.machine_is_running", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name, **_: f"/bin/{name}" * (name != "linux.uml"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert main(["doctor"]) == ExitStatus.HOST_CANNOT
    assert (
        "kernel: its kernel is not installed: lvsctl machine install, or lvsctl up, fetches it"
        in capsys.readouterr().out
    )

    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "relative")
    assert main(["doctor"]) == ExitStatus.HOST_CANNOT
    assert "no home directory (set HOME, or XDG_CACHE_HOME," in capsys.readouterr().out


def test_labs_on_the_host_need_root_and_say_so() -> None:
    done = as_nobody("up", "dr", "--where", "host")

    assert done.returncode == ExitStatus.HOST_CANNOT
    assert "sudo lvsctl up dr --where host" in done.stderr
    assert "--where machine" in done.stderr


@pytest.mark.parametrize("name", shipped.names())
def test_topologies_print_what_ships(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topologies", name]) == ExitStatus.OK
    assert capsys.readouterr().out == shipped.text_of(name)


def test_json_has_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["topologies"], ["plan", "dr"]):
        assert main([*words, "--format", "json"]) == ExitStatus.OK
        assert json.loads(capsys.readouterr().out)["version"] == 2


def test_a_plan_goes_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "dr.sh"

    assert main(["plan", "dr", "--format", "sh", "-o", str(file)]) == ExitStatus.OK

    assert capsys.readouterr().out == ""
    assert file.read_text().startswith("#!/bin/sh\n")


def test_a_plan_that_does_not_fit_leaves_the_earlier_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "dr.sh"
    file.write_text("mine\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        status = main(["plan", "dr", "-o", str(file)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == ExitStatus.HOST_CANNOT
    assert "File too large" in capsys.readouterr().err
    assert file.read_text() == "mine\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_plan_goes_through_a_link_and_into_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")

    assert main(["plan", "dr", "-o", str(tmp_path / "link")]) == ExitStatus.OK

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text().startswith("plan of lab dr")
    assert lvsctl("plan", "dr", "-o", "/dev/stdout").stdout.startswith("plan of lab dr")


# ── where no machine runs ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("ls",), 0, "no lab is running"),
        (("ls", "--format", "json"), 0, '"labs": []'),
        (("down",), 2, "no lab is running"),
        (("down", "dr"), 2, "lab dr is not running"),
        (("down", "--all"), 0, "no lab is running"),
        (("verify",), 2, "start one: lvsctl up dr"),
        (("inspect", "nat"), 2, "start it: lvsctl up nat"),
        (("exec", "client", "--", "true"), 2, "no lab is running"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_no_machine_is_started_to_say_that_nothing_runs(
    words: tuple[str, ...], status: int, said: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    runtime = Path(f"/tmp/lvc{os.getpid()}")  # sockets need short names
    runtime.mkdir(mode=0o700)
    try:
        done = lvsctl(*words, env={"LVSCTL_WHERE": "machine", "XDG_RUNTIME_DIR": str(runtime)})
        left = list((runtime / "lvsctl").iterdir())
    finally:
        shutil.rmtree(runtime)

    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr
    assert left == []


def test_an_error_about_a_command_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = KernelError(
        "rs1: no such file\n    run lvs-dr-rs1 \033[2Kx", node="rs1", command="x", errno=2,
        hint="see \033[2K",
    )  # fmt: skip
    assert explain(failed) == ExitStatus.HOST_CANNOT
    said = capsys.readouterr().err
    assert said == "lvsctl: rs1: no such file\n    run lvs-dr-rs1 ?[2Kx\n  → see ?[2K\n"


def test_where_may_come_before_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LVSCTL_IN_MACHINE", raising=False)
    monkeypatch.setenv("LVSCTL_WHERE", "machine")  # restored, whatever the command line changes
    monkeypatch.setattr("lvsctl.kernel.probe.has_root", lambda: False)

    assert main(["--where", "host", "down", "dr"]) == ExitStatus.HOST_CANNOT

    assert "labs on this host's kernel need root" in capsys.readouterr().err


def test_no_hint_leads_from_the_machine_to_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSCTL_IN_MACHINE", "1")
    hints = [*IpvsService.HINTS.values(), *Resource.HINTS.values(), probe.MACHINE]
    for hint in hints:
        assert "--where machine" not in failure.remedy_here(hint)
    assert failure.remedy_here(probe.MACHINE) == probe.OTHER_KERNEL
    monkeypatch.delenv("LVSCTL_IN_MACHINE")
    assert failure.remedy_here(probe.MACHINE) == probe.MACHINE


DISCARDED = """
import gc, os, signal, sys
from lvsctl.cli import failure
class Discards:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 0)  # a call after which Python runs the handler
try:
    with failure.raise_on_signals():
        Discards()
        signal.pause()
except failure.Signalled as signalled:
    os.kill(os.getpid(), signal.SIGINT)  # a second Ctrl-C: ignored until the end
    print(signalled.status, flush=True)
"""


@pytest.mark.parametrize("state", [State.UP, State.COMING_UP])
def test_an_interruption_that_comes_too_late_for_up_says_that_the_lab_is_up(
    state: State, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> NoReturn:
        raise failure.Signalled(signal.SIGINT)

    monkeypatch.setenv("LVSCTL_IN_MACHINE", "1")
    monkeypatch.setattr("lvsctl.kernel.probe.has_root", lambda: True)
    monkeypatch.setattr("lvsctl.engine.up.bring_up", interrupted)
    monkeypatch.setattr(registry, "read", lambda lab: Entry(lab=lab, state=state))

    assert main(["up", "dr"]) == ExitStatus.INTERRUPTED

    said = capsys.readouterr().err
    assert ("lab dr is up; remove it: lvsctl down dr" in said) is (state is State.UP)


def test_a_signal_that_python_discards_is_raised_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DISCARDED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "130\n", "")


def test_a_child_that_is_forked_never_has_its_parents_handler() -> None:
    script = """
import os, signal
from lvsctl.cli import failure
from lvsctl.kernel import worker
with failure.raise_on_signals():
    pid = worker.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "-2\n", "")


def test_commands_share_a_new_directory_until_the_last_has_ended(tmp_path: Path) -> None:
    place = tmp_path / "captures"
    with where._directory_for(place):
        with where._directory_for(place):
            assert place.is_dir()
        assert place.is_dir()
    assert not place.exists()
    with where._directory_for(place), where._directory_for(place):
        (place / "dr.pcapng").touch()
    assert place.is_dir()


@pytest.mark.parametrize("sign", ["\x9b", "\u202e", "\u2028", "\udc80", "\U000e0001"])
def test_json_cannot_steer_the_terminal(sign: str) -> None:
    text = json_text(word=f"a{sign}b", fine="ä→")
    assert sign not in text
    assert json.loads(text)["word"] == f"a{sign}b"
    assert "ä→" in text
