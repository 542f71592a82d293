"""Which kind of machine is taken, by whose wish, and what is said where none can be."""

from __future__ import annotations

import itertools
import json
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from lvsctl.errors import HostError, UsageError
from lvsctl.machine import directories, host_cpu, initramfs, kinds, launch, qemu, uml
from lvsctl.machine.config import (
    ANYTHING,
    Kernel,
    MachineConfig,
    MachineRequest,
    request_from_environment,
)

TCG = MachineConfig(
    kind="qemu",
    kernel=Kernel(Path("/cache/vmlinux"), Path("/cache/6.1.0")),
    memory=512,
    cpus=2,
    accelerator="tcg",
    writable=(),
    path=(),
    fingerprint="",
)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A host on which each kind has the obstacle that a test puts in here."""
    obstacles = dict.fromkeys(kinds.KINDS, "")
    for name, kind in kinds.KINDS.items():
        monkeypatch.setattr(type(kind), "obstacle", lambda _, name=name: obstacles[name])
    return obstacles


def test_what_needs_least_is_taken_where_nothing_is_said(host: dict[str, str]) -> None:
    assert kinds.choose_kind(ANYTHING).name == "uml"


def test_the_other_kind_is_taken_where_the_first_cannot(host: dict[str, str]) -> None:
    host["uml"] = "it does not exist for arm"
    assert kinds.choose_kind(ANYTHING).name == "qemu"


def test_a_kernel_that_is_named_is_for_qemu(host: dict[str, str]) -> None:
    assert kinds.choose_kind(MachineRequest(kernel="6.12")).name == "qemu"
    with pytest.raises(UsageError, match=r"cannot run 6\.12") as raised:
        kinds.choose_kind(MachineRequest(kind="uml", kernel="6.12")).find("6.12")
    assert raised.value.hint == "--kind qemu --kernel 6.12"


@pytest.mark.parametrize(("memory", "is_little"), [(64, True), (192, False), (None, False)])
def test_too_little_memory_is_said_before_the_start(
    memory: int | None,
    is_little: bool,
    host: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uml.Uml, "kernel", lambda *_: TCG.kernel)
    said: list[str] = []
    launch.choose_config(MachineRequest(memory=memory), (), "", said.append)
    assert any("64 MiB of memory may be too little" in line for line in said) is is_little


def test_a_kind_that_is_named_is_never_replaced(host: dict[str, str]) -> None:
    host["qemu"] = "it is not installed"
    with pytest.raises(HostError, match="this host cannot run QEMU: it is not installed"):
        kinds.choose_kind(MachineRequest(kind="qemu"))
    with pytest.raises(UsageError, match="unknown kind of machine 'xen'"):
        kinds.choose_kind(MachineRequest(kind="xen"))


def test_where_none_can_be_all_reasons_are_told(host: dict[str, str]) -> None:
    host.update(uml="no apt-get", qemu="not installed")
    with pytest.raises(HostError, match="uml: no apt-get\nqemu: not installed"):
        kinds.choose_kind(ANYTHING)


def test_qemu_that_is_not_installed_is_an_obstacle_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "sudo apt-get install qemu-system-x86" in kinds.KINDS["qemu"].obstacle()


def test_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSCTL_MACHINE_KIND", "qemu")
    monkeypatch.setenv("LVSCTL_MACHINE_KERNEL", "6.12")
    monkeypatch.setenv("LVSCTL_MACHINE_MEMORY", "300")
    monkeypatch.setenv("LVSCTL_MACHINE_CPUS", "4")
    said = request_from_environment()
    assert ANYTHING.or_else(said) == MachineRequest("qemu", "6.12", 300, 4)
    # User-Mode Linux has no kernel to choose: what goes together is taken together.
    assert MachineRequest(kind="uml", cpus=1).or_else(said) == MachineRequest("uml", None, 300, 1)


def test_nonsense_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSCTL_MACHINE_CPUS", "many")
    with pytest.raises(UsageError, match="LVSCTL_MACHINE_CPUS='many'"):
        request_from_environment()


def test_how_many_cpus_each_kind_gives() -> None:
    uml, other = kinds.KINDS["uml"], kinds.KINDS["qemu"]
    assert (uml.cpus(None), other.cpus(None), other.cpus(4)) == (1, 1, 4)
    with pytest.raises(UsageError, match="one CPU"):
        uml.cpus(2)
    with pytest.raises(UsageError, match="1000 CPUs are too many"):
        other.cpus(1000)


# QEMU and KVM.


def test_a_machine_gets_the_cpu_that_the_fewest_others_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = {1_000_001, 1_000_002}  # no machine of this host has them
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: numbers)
    with ExitStack() as claims:

        def claimed() -> host_cpu.HostCpu:
            one = host_cpu.claim()
            assert one is not None
            claims.enter_context(one.claim)
            return one

        first, second, third, fourth = (claimed() for _ in range(4))
        assert {first.number, second.number} == {third.number, fourth.number} == numbers
        fourth.claim.close()
        assert claimed().number == fourth.number


def test_qemu_is_told_what_the_plan_says() -> None:
    line = qemu.command_line(TCG, Path("/dev/shm/x"), 7)
    pairs = set(itertools.pairwise(line))
    assert {("-smp", "2"), ("-m", "512M"), ("-accel", "tcg,thread=multi")} <= pairs
    assert ("-chardev", "socket,id=link,fd=7") in pairs
    assert ("-kernel", "/cache/vmlinux") in pairs
    shares = [word for word in line if word.startswith("local,")]
    writable = [word for word in shares if not word.endswith("readonly=on")]
    assert [word.split(",")[1] for word in writable] == ["id=export"]


def test_an_emulated_cpu_has_avx2_and_bmi2_or_neither() -> None:
    """libgcrypt, and so apt, crashes with BMI2 alone: no CPU is like that."""
    (emulated,) = [word for word in qemu.machine_arguments("tcg") if word.startswith("max,")]
    off = {word.removesuffix("=off") for word in emulated.split(",") if word.endswith("=off")}
    assert len(off & {"avx2", "bmi2"}) != 1, emulated


def a_qemu(tmp_path: Path, script: str) -> str:
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def kvm_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host with a device that opens, and a cache of our own."""
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(qemu, "KVM_DEVICE", str(device))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return device


def test_kvm_works_where_the_firmware_speaks(kvm_device: Path, tmp_path: Path) -> None:
    speaks = a_qemu(tmp_path, "echo SeaBIOS; exec sleep 1000")
    assert qemu.why_no_kvm([speaks]) == ""


def test_a_qemu_that_ends_is_quoted(kvm_device: Path, tmp_path: Path) -> None:
    ends = a_qemu(tmp_path, "echo hello; echo 'qemu-system-x86_64: error: no MSR' >&2; exit 1")
    assert qemu.why_no_kvm([ends]) == "error: no MSR"


def test_a_guest_that_hangs_is_not_waited_for(
    kvm_device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu, "KVM_TIMEOUT", 0.05)
    assert "hangs in its firmware" in qemu.why_no_kvm([a_qemu(tmp_path, "exec sleep 1000")])


def test_without_the_device_nothing_is_tried(kvm_device: Path) -> None:
    kvm_device.unlink()
    assert qemu.why_no_kvm(["/nonexistent"]) == f"{kvm_device} does not exist"


def test_a_kernel_that_did_not_start_by_kvm_is_emulated_and_that_is_remembered(
    kvm_device: Path, tmp_path: Path
) -> None:
    by_kvm = TCG._replace(accelerator="kvm")
    second = kinds.KINDS["qemu"].fallback(by_kvm)
    assert second is not None
    assert second[0] == TCG
    assert "emulating" in second[1]
    assert kinds.KINDS["qemu"].fallback(TCG) is None
    speaks = a_qemu(tmp_path, "echo SeaBIOS; exec sleep 1000")
    assert "6.1.0 does not start, although firmware does" in qemu.why_no_kvm([speaks])
    memory = directories.cache_directory() / "kvm.json"
    memory.write_text(json.dumps({"boot": "an earlier one", "reason": "x"}))
    assert qemu.why_no_kvm([speaks]) == ""


# The initramfs.


def test_the_initramfs_holds_what_its_first_program_needs(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/9p.ko").write_bytes(b"module")
    (tmp_path / "modules.dep").write_text("kernel/9p.ko:\n")
    files = unpacked(initramfs.content(tmp_path, ["kernel/9p.ko"]))
    assert files["modules/kernel/9p.ko"] == b"module"
    assert files["modules/first"] == b"kernel/9p.ko"
    python, *_, line = initramfs.arguments("/dev/vport0p1")
    assert line == "/dev/vport0p1"
    assert files[python.lstrip("/")].startswith(b"\x7fELF")
    modules = "lvsctl/machine/guest/"
    ours = {name.partition(modules)[2] for name in files if modules in name}
    assert {"early.py", "agent.py", "mounts.py"} <= ours
    assert [name for name in files if "/libc.so" in name or "/ld-musl" in name]


def unpacked(archive: bytes) -> dict[str, bytes]:
    """Path → content of the regular files of a cpio archive (newc), read by its definition."""
    files: dict[str, bytes] = {}
    position = 0
    while True:
        header = archive[position : position + 110]
        assert header[:6] == b"070701", position
        fields = [int(header[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[position + 110 : position + 110 + name_size - 1].decode()
        start = (position + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return files
        parent = os.path.dirname(name)  # noqa: PTH120 - a name in an archive
        assert not parent or parent in files, f"{name} comes before its directory"
        files[name] = archive[start : start + size] if mode & 0o170000 != 0o040000 else b""
        position = (start + size + 3) // 4 * 4
