"""The throwaway kernel, booted for real: commands in it, and what is left when it dies.

Every test has machines of its own: an own runtime directory and an own name.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lvsctl.machine import process, records, runtime_files
from tests.patience import PATIENCE

pytestmark = [pytest.mark.machine, pytest.mark.slow]


NOBODY = 65534

DRIVER = """
import sys
from lvsctl.errors import LvsctlError
from lvsctl.machine import client
try:
    if sys.argv[1] == "exec":
        sys.exit(client.run(sys.argv[2:], kind="exec"))
    print(getattr(client, sys.argv[1])())
except LvsctlError as error:
    sys.exit(f"{type(error).__name__}: {error.message}")
"""


@dataclass(frozen=True)
class Machine:
    """A machine's name and the environment in which commands mean it."""

    where: runtime_files.RuntimeFiles
    env: dict[str, str]
    cwd: Path

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-c", DRIVER, *words]

    def call(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        keywords = {
            "capture_output": True,
            "text": True,
            "timeout": PATIENCE,
            **options,
        }
        keywords = {"cwd": self.cwd, "env": self.env, **keywords}
        return subprocess.run(self.argv(*words), check=False, **keywords)  # type: ignore[call-overload,no-any-return]

    def exec(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return self.call("exec", *words, **options)

    def spawn(self, *words: str, **options: object) -> subprocess.Popen[bytes]:
        keywords = {"cwd": self.cwd, "env": self.env, "stdout": subprocess.PIPE, **options}
        return subprocess.Popen(self.argv(*words), **keywords)  # type: ignore[call-overload,no-any-return]

    def record(self) -> records.Record:
        record = records.read(self.where.record)
        assert record is not None
        return record

    def broker(self) -> int:
        """The broker's process id, which holds the other end of the kernel's line."""
        return _parent(self.record().pid)

    def assert_nothing_left(self, record: records.Record) -> None:
        _wait(lambda: not self.where.lock.exists(), "the machine's lock to go")
        assert list(self.where.directory.iterdir()) == []
        assert not Path(record.work).exists()
        assert records.members(record) == []


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _wait(condition: object, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        select.select([], [], [], 0.02)


def _runtime() -> Path:
    # Not tmp_path: its names are too long for a socket.
    return Path(tempfile.mkdtemp(prefix="lvm."))


def _machine(runtime: Path) -> Machine:
    cwd = runtime / "cwd"
    cwd.mkdir()
    env = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "LVSCTL_MACHINE": "test"}
    root = str(Path(__file__).resolve().parents[2])
    env["PYTHONPATH"] = ":".join(filter(None, [root, env.get("PYTHONPATH", "")]))
    return Machine(runtime_files.RuntimeFiles(runtime / "lvsctl", "test"), env, cwd)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A running machine, shared by the tests that do it no harm."""
    runtime = _runtime()
    running = _machine(runtime)
    started = running.call("start")
    assert started.returncode == 0, started.stderr
    yield running
    assert running.call("stop").stdout == "True\n"
    shutil.rmtree(runtime)


@pytest.fixture
def fresh() -> Iterator[Machine]:
    """A machine that is not running yet, for a test that kills it."""
    runtime = _runtime()
    made = _machine(runtime)
    yield made
    made.call("stop")
    shutil.rmtree(runtime)


# Commands.


def test_it_is_another_kernel_with_ipvs(machine: Machine) -> None:
    result = machine.exec("sh", "-c", "uname -r; cat /proc/net/ip_vs; hostname")
    assert result.returncode == 0
    assert os.uname().release not in result.stdout
    assert "IP Virtual Server version" in result.stdout
    assert result.stdout.endswith("lvsctl\n")


@pytest.mark.parametrize(
    ("script", "status"), [("exit 7", 7), ("kill -TERM $$", 143), ("no-such-command", 127)]
)
def test_the_exit_status_passes_through(machine: Machine, script: str, status: int) -> None:
    assert machine.exec("sh", "-c", script).returncode == status


_SOCKETS = """
import socket, sys, threading
def loaded(): return {line.split()[0] for line in open("/proc/modules")}
before = loaded()
on_demand = "User Mode Linux" in open("/proc/cpuinfo").read()
kinds = [(socket.AF_INET, 132), (socket.AF_INET6, 132)]  # SCTP
made = [threading.Thread(target=socket.socket, args=(f, socket.SOCK_STREAM, p)) for f, p in kinds]
for one in made: one.start()
for one in made: one.join()
print("sctp" not in before or not on_demand, "sctp" in loaded())
try: socket.socket(21, socket.SOCK_SEQPACKET)  # RDS, of which this kernel has nothing
except OSError as error: print(error.strerror)
"""


def test_a_module_comes_when_the_kernel_asks_for_it(machine: Machine) -> None:
    """In User-Mode Linux; in QEMU it is there from the beginning."""
    found = machine.exec(sys.executable, "-I", "-S", "-c", _SOCKETS)
    assert found.stderr == ""
    assert found.stdout.splitlines() == ["True True", "Address family not supported by protocol"]


def test_a_command_that_does_not_exist_is_127_and_says_so(machine: Machine) -> None:
    result = machine.exec("no-such-command")
    assert (result.returncode, result.stdout) == (127, "")
    assert "no-such-command: command not found" in result.stderr


def test_stdout_and_stderr_stay_apart(machine: Machine) -> None:
    result = machine.exec("sh", "-c", "echo out; echo err >&2")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


def test_stdin_passes_whole_and_ends(machine: Machine) -> None:
    text = "".join(f"line {n}\n" for n in range(20_000))
    result = machine.exec("cat", input=text)
    assert result.stdout == text


def test_a_closed_stdin_is_an_empty_one(machine: Machine) -> None:
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *machine.argv("exec", "cat")]
    done = subprocess.run(
        shell, cwd=machine.cwd, env=machine.env, timeout=PATIENCE, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_much_output_arrives_whole(machine: Machine) -> None:
    result = machine.exec("sh", "-c", "seq 200000")
    assert result.stdout == "".join(f"{n}\n" for n in range(1, 200_001))


def test_commands_run_side_by_side_and_a_slow_reader_blocks_nobody(machine: Machine) -> None:
    stuck = machine.spawn("exec", "sh", "-c", "yes | head -c 3000000")
    assert stuck.stdout is not None
    assert os.read(stuck.stdout.fileno(), 1) == b"y"  # it runs, and nobody reads on
    others = [machine.spawn("exec", "sh", "-c", f"cat; echo {n}", stdin=-1) for n in range(4)]
    answers = [other.communicate(b"x" * 9000, timeout=PATIENCE)[0] for other in others]
    assert answers == [b"x" * 9000 + b"%d\n" % n for n in range(4)]
    assert len(stuck.communicate(timeout=PATIENCE)[0]) == 3_000_000 - 1
    assert stuck.returncode == 0


def test_a_command_that_never_reads_its_input_blocks_nobody(machine: Machine) -> None:
    deaf = machine.spawn("exec", "sh", "-c", "echo up; exec sleep 1000", stdin=subprocess.PIPE)
    assert deaf.stdout is not None
    assert deaf.stdin is not None
    assert deaf.stdout.readline() == b"up\n"
    os.set_blocking(deaf.stdin.fileno(), False)
    deaf.stdin.write(b"x" * 60_000)
    assert machine.exec("echo", "hi").stdout == "hi\n"
    deaf.send_signal(signal.SIGTERM)
    assert deaf.wait(PATIENCE) == 143
    deaf.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        deaf.stdin.close()


def test_ctrl_c_reaches_the_command_which_may_clean_up(machine: Machine) -> None:
    script = "trap 'echo cleaned; exit 9' INT; echo up; while :; do sleep 0.05; done"
    running = machine.spawn("exec", "sh", "-c", script)
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=PATIENCE)[0] == b"cleaned\n"
    assert running.returncode == 9


def test_a_broken_pipe_ends_the_command(machine: Machine) -> None:
    running = machine.spawn("exec", "yes")
    assert running.stdout is not None
    os.read(running.stdout.fileno(), 10)
    running.stdout.close()
    assert running.wait(PATIENCE) == 128 + signal.SIGPIPE


def test_output_that_cannot_be_written_is_no_success(machine: Machine) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = machine.exec("echo", "hi", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode != 0
    assert "cannot write the output: No space left on device" in done.stderr


def test_a_killed_client_takes_its_command_along(machine: Machine) -> None:
    running = machine.spawn("exec", "sh", "-c", "echo $$; exec sleep 1000")
    assert running.stdout is not None
    pid = running.stdout.readline().decode().strip()
    running.kill()
    running.wait(PATIENCE)
    running.stdout.close()
    gone = f"for i in $(seq 200); do [ -d /proc/{pid} ] || exit 0; sleep 0.05; done; exit 1"
    assert machine.exec("sh", "-c", gone).returncode == 0


def test_children_left_behind_do_not_hold_the_command_up(machine: Machine) -> None:
    result = machine.exec("sh", "-c", "sleep 1000 & echo done $!")
    assert result.stdout.startswith("done")
    pid = result.stdout.split()[1]
    assert machine.exec("sh", "-c", f"kill {pid}").returncode == 0  # and it lived on


def test_a_terminal_is_a_terminal_with_the_users_size(machine: Machine) -> None:
    output = _in_terminal(machine, "stty size; tty; read word; echo got $word", typed=b"hello\r")
    assert b"24 77" in output
    assert b"/dev/pts/" in output
    assert b"got hello" in output


def test_lines_end_once_in_a_terminal_that_is_not_raw(machine: Machine) -> None:
    wanted = b"one\r\ntwo\r\n"
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb") as screen, os.fdopen(theirs, "wb") as terminal:
        done = machine.exec(
            "sh", "-c", "test -t 1 && echo one && echo two",
            stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, capture_output=False,
        )  # fmt: skip
        assert done.returncode == 0
        shown = b""  # the terminal hands over what was written in one piece or in several
        while len(shown) < len(wanted) and select.select([screen], [], [], PATIENCE)[0]:
            shown += os.read(screen.fileno(), 100)
        assert shown == wanted


def test_ctrl_c_typed_in_a_terminal_interrupts(machine: Machine) -> None:
    script = "trap 'echo bye; exit' INT; echo up; while :; do sleep 0.05; done"
    output = _in_terminal(machine, script, typed=b"\x03")
    assert b"bye" in output


def _in_terminal(machine: Machine, script: str, typed: bytes) -> bytes:
    """What a command in a terminal shows; ``typed`` is typed when it shows something."""
    master, slave = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 77, 0, 0))
    before = termios.tcgetattr(slave)
    running = machine.spawn(
        "exec",
        "sh",
        "-c",
        script,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    output = b""
    deadline = time.monotonic() + PATIENCE
    while running.poll() is None or select.select([master], [], [], 0)[0]:
        assert time.monotonic() < deadline, output
        if select.select([master], [], [], 0.1)[0]:
            output += os.read(master, 4096)
            if typed and b"\n" in output:
                os.write(master, typed)
                typed = b""
    assert termios.tcgetattr(slave) == before  # the user's terminal is as it was
    os.close(master)
    os.close(slave)
    return output


# Files.


def test_the_current_directory_can_be_written_and_the_rest_cannot(machine: Machine) -> None:
    result = machine.exec(
        "sh", "-c", "umask 027; echo mine > result; echo no > /etc/lvsctl-was-here"
    )
    assert result.returncode != 0
    assert "Read-only file system" in result.stderr
    written = machine.cwd / "result"
    assert written.read_text() == "mine\n"
    assert written.stat().st_uid == os.geteuid()
    assert written.stat().st_mode & 0o777 == 0o640
    assert not Path("/etc/lvsctl-was-here").exists()


def test_a_removed_current_directory_is_no_obstacle(machine: Machine) -> None:
    gone = machine.cwd / "gone"
    gone.mkdir()
    shell = 'rmdir "$PWD"; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *machine.argv("exec", "pwd")],
        cwd=gone, env=machine.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "/\n")


def test_services_write_where_they_use_to_and_the_host_is_untouched(machine: Machine) -> None:
    script = "mkdir /var/lib/lvsctl-was-here && echo no > /var/log/lvsctl-was-here"
    done = machine.exec("sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert not Path("/var/lib/lvsctl-was-here").exists()
    assert not Path("/var/log/lvsctl-was-here").exists()


def test_a_file_in_tmp_that_is_named_is_seen(machine: Machine) -> None:
    with tempfile.NamedTemporaryFile("w", dir="/tmp", prefix="lvm.", suffix=".yaml") as file:
        file.write("seen\n")
        file.flush()
        assert machine.exec("cat", file.name).stdout == "seen\n"


def test_a_named_namespace_is_there_for_the_next_command(machine: Machine) -> None:
    assert machine.exec("ip", "netns", "add", "one").returncode == 0
    shown = machine.exec("ip", "netns", "exec", "one", "ip", "-o", "link")
    assert "lo" in shown.stdout
    assert machine.exec("ip", "netns", "del", "one").returncode == 0
    assert machine.exec("ls", "/run/netns").stdout == ""


# Life and death.


def test_commands_that_start_it_at_once_get_one_machine(fresh: Machine) -> None:
    both = [fresh.spawn("exec", "cat", "/proc/sys/kernel/random/boot_id") for _ in range(2)]
    boots = {one.communicate(timeout=PATIENCE)[0] for one in both}
    assert len(boots) == 1
    assert len(boots.pop()) == 37


def test_code_in_the_current_directory_is_none_of_ours(fresh: Machine) -> None:
    package = fresh.cwd / "lvsctl" / "machine"
    package.mkdir(parents=True)
    for directory in (package.parent, package):
        (directory / "__init__.py").touch()
    (package / "broker.py").write_text("open('ran', 'w').close()")
    assert fresh.exec("true").returncode == 0
    assert not (fresh.cwd / "ran").exists()


def test_stop_leaves_nothing(fresh: Machine) -> None:
    fresh.call("start")
    record = fresh.record()
    assert fresh.call("stop").stdout == "True\n"
    fresh.assert_nothing_left(record)
    assert fresh.call("status").stdout == "None\n"
    assert fresh.call("stop").stdout == "False\n"


@pytest.mark.parametrize("victim", ["broker", "kernel"])
def test_a_kill_is_noticed_and_leaves_nothing(fresh: Machine, victim: str) -> None:
    waiting = fresh.spawn("exec", "sh", "-c", "echo up; exec sleep 1000", stderr=subprocess.PIPE)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == b"up\n"
    record = fresh.record()
    os.kill(fresh.broker() if victim == "broker" else record.pid, signal.SIGKILL)
    _, complaint = waiting.communicate(timeout=PATIENCE)
    assert b"HostError: the machine" in complaint
    assert b"died" in complaint
    fresh.assert_nothing_left(record)


def test_everything_killed_at_once_is_swept_by_the_next_command(fresh: Machine) -> None:
    fresh.call("start")
    record, broker = fresh.record(), fresh.broker()
    for pid in (_parent(broker), broker, record.pid):  # shepherd, broker, kernel
        os.kill(pid, signal.SIGKILL)
    _wait(lambda: not Path(f"/proc/{broker}").exists() or _dead(broker), "the broker to die")
    assert fresh.call("status").stdout == "None\n"
    fresh.assert_nothing_left(record)


def _dead(pid: int) -> bool:
    return records.start_time(pid) is None or " Z " in Path(f"/proc/{pid}/stat").read_text()


def test_a_panic_shows_the_console(fresh: Machine) -> None:
    result = fresh.exec("sh", "-c", "echo c > /proc/sysrq-trigger")
    assert "HostError: the machine died" in result.stderr
    assert "panic" in result.stderr


def test_a_machine_that_hangs_can_be_left_and_stopped(fresh: Machine) -> None:
    running = fresh.spawn("exec", "sh", "-c", "echo up; exec sleep 1000", stderr=subprocess.PIPE)
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    record = fresh.record()
    os.kill(record.pid, signal.SIGSTOP)
    running.send_signal(signal.SIGINT)
    _, complaint = running.communicate(timeout=PATIENCE)
    assert b"the machine does not respond" in complaint
    assert fresh.call("stop").stdout == "True\n"
    fresh.assert_nothing_left(record)


def test_it_needs_no_root_and_files_are_the_users(fresh: Machine) -> None:
    if os.geteuid() != 0:
        return  # then every test here has shown it
    runtime = fresh.cwd.parent
    for path in (runtime, fresh.cwd):
        os.chown(path, NOBODY, NOBODY)
    # The interpreter of the tests may lie in root's home; the distribution's does not.
    python = next(p for p in ("/usr/bin/python3", sys.executable) if Path(p).exists())
    command = [python, "-B", *fresh.argv("exec", "sh", "-c", "id -u; echo mine > result")[1:]]
    env = {**fresh.env, "HOME": str(runtime)}
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    done = subprocess.run(  # type: ignore[call-overload]
        command, cwd=fresh.cwd, env=env, capture_output=True, text=True, check=False, **user
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert (fresh.cwd / "result").stat().st_uid == NOBODY
    # As Debian's nginx leaves them: only its own user may read its log and enter its directory.
    with _closed_to_others() as (log, place):
        script = f"id > {log} && touch {place}/new/body && ls -A {place}/new; stat -c %a {log}"
        command = [python, "-B", *fresh.argv("stop")[1:]]
        subprocess.run(command, cwd=fresh.cwd, env=env, check=True, capture_output=True, **user)  # type: ignore[call-overload]
        command = [python, "-B", *fresh.argv("exec", "sh", "-c", script)[1:]]
        done = subprocess.run(  # type: ignore[call-overload]
            command, cwd=fresh.cwd, env=env, capture_output=True, text=True, check=False, **user
        )
        assert (done.stdout, done.stderr) == ("body\n640\n", "")
        assert log.read_text() == "secret\n"
    status = [python, "-B", *fresh.argv("status")[1:]]
    told = subprocess.run(status, env=env, check=True, capture_output=True, text=True, **user)  # type: ignore[call-overload]
    assert process.USUAL in told.stdout
    stop = [python, "-B", *fresh.argv("stop")[1:]]
    subprocess.run(stop, env=env, check=True, capture_output=True, **user)  # type: ignore[call-overload]
    assert list(fresh.where.directory.iterdir()) == []


@contextlib.contextmanager
def _closed_to_others() -> Iterator[tuple[Path, Path]]:
    """A log and a directory of root's in the places of services, which others cannot read."""
    log, place = (Path(f"/var/{kind}/lvsctl-test-{os.getpid()}") for kind in ("log", "lib"))
    try:
        log.mkdir()
        (log / "error.log").write_text("secret\n")
        (log / "error.log").chmod(0o640)
        (place / "new").mkdir(parents=True)
        (place / "new" / "secret").touch()
        (place / "new").chmod(0o700)
        yield log / "error.log", place
    finally:
        shutil.rmtree(log, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)


def test_status_tells(machine: Machine) -> None:
    shown = machine.call("status").stdout
    assert shown.startswith("MachineStatus(name='test'")
    assert "complaints=()" in shown
    assert json.loads(machine.where.record.read_text())["pid"] > 0
