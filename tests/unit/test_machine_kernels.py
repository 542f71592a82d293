"""Kernels for QEMU: what people call them, what is in their files, what of it a machine keeps."""

from __future__ import annotations

import lzma
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from lvsctl.errors import HostError, UsageError
from lvsctl.machine import kernel_files, kernels, packages
from lvsctl.machine.guest import modules

KNOWN = (
    "linux-image-amd64",
    "linux-image-6.1.0-9-amd64",
    "linux-image-6.1.0-56-amd64",
    "linux-image-6.1.0-57-amd64-unsigned",
    "linux-image-6.1.0-57-amd64-dbg",
    "linux-image-6.1.0-57-cloud-amd64",
    "linux-image-6.1.0-57-rt-amd64",
    "linux-image-6.12.9+bpo-amd64",
    "linux-image-6.12.48+deb13-amd64",
    "linux-image-6.12.48+deb13-cloud-amd64",
)


@pytest.mark.parametrize(
    ("wanted", "package"),
    [
        ("linux-image-amd64", "linux-image-amd64"),
        ("linux-image-6.1.0-57-cloud-amd64", "linux-image-6.1.0-57-cloud-amd64"),
        ("6.1.0-9-amd64", "linux-image-6.1.0-9-amd64"),
        ("6.1", "linux-image-6.1.0-56-amd64"),
        ("6.1.0", "linux-image-6.1.0-56-amd64"),
        ("6.12", "linux-image-6.12.48+deb13-amd64"),
        ("6", None),
        ("6.2", None),
        ("trixie", None),
    ],
)
def test_what_a_word_means(
    wanted: str, package: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "ARCHITECTURE", "amd64")
    assert packages.kernel_package(wanted, KNOWN) == package


@pytest.mark.parametrize("word", ["-o", "", "6.1 6.2", "..", "LINUX", "6.12;true"])
def test_a_word_that_can_be_no_name_never_reaches_apt(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageError, match="is not the name of a kernel") as raised:
        packages.fetch_kernel(word, tmp_path, print)
    assert "a suite (trixie)" in raised.value.hint


def test_without_apt_a_file_is_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(HostError, match="apt-get is missing: lvsctl cannot download the kernel"):
        kernels.ensure("6.1", print)


# Files.

NOTE = struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8)
PLAIN = b"\x7fELF" + bytes(2000) + NOTE


def an_image(payload: bytes, release: str = "6.1.0-56-amd64") -> bytes:
    """A kernel file as Documentation/arch/x86/boot.rst has it, with one sector of set-up."""
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x100)
    text = f"{release} (debian) #1 SMP".encode() + b"\0"
    head[0x300 : 0x300 + len(text)] = text
    # The length of the plain kernel follows the compressed one and counts as payload.
    struct.pack_into("<II", head, 0x248, 16, len(payload) + 4)
    return bytes(head) + bytes(16) + payload + struct.pack("<I", len(PLAIN)) + b"rest"


def test_the_plain_kernel_is_found_in_its_file() -> None:
    gzip = zlib.compressobj(wbits=31)
    for packed in (lzma.compress(PLAIN), gzip.compress(PLAIN) + gzip.flush()):
        image = an_image(packed)
        assert kernel_files.image_release(image, "x") == "6.1.0-56-amd64"
        assert kernel_files.uncompressed(image) == PLAIN


def test_a_kernel_without_pvh_entry_is_started_as_it_is() -> None:
    assert kernel_files.uncompressed(an_image(lzma.compress(b"\x7fELF" + bytes(2000)))) is None


def test_what_is_no_kernel_is_refused() -> None:
    with pytest.raises(HostError, match="/etc/passwd is not a kernel"):
        kernel_files.image_release(b"root:x:0:0" * 200, "/etc/passwd")


def a_module(*needs: str, softly: str = "") -> bytes:
    soft = f"\0softdep=pre: {softly}".encode() if softly else b""
    return b"\x7fELF..\0license=GPL\0depends=" + ",".join(needs).encode() + soft + b"\0name=x\0"


def a_system(
    root: Path, *, without: str = "", image: bytes | None = None
) -> tuple[Path, dict[str, bytes]]:
    """A root with a kernel in /boot and its modules, two of them compressed."""
    tree = {
        "drivers/virtio/virtio.ko": a_module(),
        "drivers/virtio/virtio_pci.ko": a_module("virtio"),
        "drivers/char/virtio_console.ko": a_module("virtio"),
        "net/9p/9pnet.ko": a_module(),
        "net/9p/9pnet_virtio.ko": a_module("9pnet", "virtio"),
        "fs/9p/9p.ko.xz": a_module("9pnet"),
        "crypto/crc32c_generic.ko": a_module(),
        "lib/libcrc32c.ko": a_module(softly="crc32c"),
        "net/netfilter/ipvs/ip_vs.ko.xz": a_module("libcrc32c"),
        "drivers/gpu/huge.ko": a_module(),
    }
    directory = root / "lib/modules/6.1.0-56-amd64"
    for path, content in tree.items():
        if without and without in path:
            continue
        file = directory / "kernel" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(lzma.compress(content) if path.endswith(".xz") else content)
    kernel = root / "boot/vmlinuz-6.1.0-56-amd64"
    kernel.parent.mkdir()
    kernel.write_bytes(image or an_image(lzma.compress(PLAIN)))
    return kernel, tree


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def test_a_prepared_kernel_is_plain_with_the_modules_that_labs_use(root: Path) -> None:
    image, tree = a_system(root)
    told: list[str] = []
    assert kernels.find(str(image)) is None
    kernel = kernels.ensure(str(image), told.append)
    assert kernel == kernels.ensure(str(image), told.append) == kernels.find(str(image))
    assert len(told) == 1  # the second time it is there
    assert kernel.release == "6.1.0-56-amd64"
    assert kernel.program.read_bytes() == PLAIN
    found = {
        path.relative_to(kernel.modules / "kernel").as_posix(): path.read_bytes()
        for path in kernel.modules.rglob("*.ko")
    }
    wanted = {path.removesuffix(".xz"): content for path, content in tree.items()}
    del wanted["drivers/gpu/huge.ko"]
    assert found == wanted
    names = [*map(modules.name_of, kernels.first_modules(kernel.modules))]
    assert names == ["virtio", "virtio_pci", "virtio_console", "9pnet", "9pnet_virtio", "9p"]


def test_modules_dep_is_as_the_guest_reads_it(root: Path) -> None:
    """Also what a module only asks for softly, by the name of an algorithm."""
    kernel = kernels.ensure(str(a_system(root)[0]), print)
    order = modules.load_order((kernel.modules / "modules.dep").read_text())
    assert [modules.name_of(p) for p in order] == ["crc32c_generic", "libcrc32c", "ip_vs"]


def test_a_kernel_that_cannot_reach_the_host_is_refused_before_it_starts(root: Path) -> None:
    image, _ = a_system(root, without="9p")
    with pytest.raises(HostError, match="it lacks 9pnet_virtio, 9p") as raised:
        kernels.ensure(str(image), print)
    assert "-cloud- kernels lack these" in raised.value.hint
    assert not list(kernels.directory().glob("[!n]*"))  # and nothing is left of the attempt


def test_what_is_built_in_is_not_missing(root: Path) -> None:
    image, _ = a_system(root, without="9p")
    builtin = root / "lib/modules/6.1.0-56-amd64/modules.builtin"
    builtin.write_text("kernel/net/9p/9pnet_virtio.ko\nkernel/fs/9p/9p.ko\n")
    kernel = kernels.ensure(str(image), print)
    assert "9p" not in {modules.name_of(p) for p in kernels.first_modules(kernel.modules)}


def test_a_kernel_without_its_modules_is_named(root: Path) -> None:
    image, _ = a_system(root, image=an_image(b"", "9.9.9"))
    with pytest.raises(HostError, match=r"the modules of .* \(kernel 9\.9\.9\) are missing"):
        kernels.ensure(str(image), print)
    with pytest.raises(HostError, match="the kernel /nonexistent/vmlinuz does not exist"):
        kernels.ensure("/nonexistent/vmlinuz", print)


def test_a_rebuilt_kernel_is_another(root: Path) -> None:
    image, _ = a_system(root)
    first = kernels.ensure(str(image), print)
    image.write_bytes(image.read_bytes() + b"newer")
    assert kernels.find(str(image)) is None
    assert kernels.ensure(str(image), print) != first


def test_every_boot_module_is_looked_for() -> None:
    assert set(kernel_files.BOOT_MODULES) == {"virtio_pci", "virtio_console", "9pnet_virtio", "9p"}


@pytest.mark.parametrize(
    ("words", "loaded"),
    [
        (("-q", "--", "ipt_multiport"), "ipt_multiport"),  # the kernel
        (("ip_tables", "-q"), "ip_tables"),  # iptables
        (("-q", "--", "unknown"), ""),
    ],
)
def test_modprobe_is_called_as_the_kernel_and_iptables_do(
    words: tuple[str, ...], loaded: str, tmp_path: Path
) -> None:
    (tmp_path / "modules.alias").write_text("alias ipt_multiport xt_multiport\n")
    (tmp_path / "modules.dep").write_text("kernel/net/ipv4/netfilter/ip_tables.ko:\n")
    program = tmp_path / "modprobe"
    program.write_text(modules.modprobe_script(str(tmp_path), "/bin/echo"))
    program.chmod(0o755)
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert done.stdout.split()[-1:] == ([loaded] if loaded else [])
    assert done.returncode == (0 if loaded else 1)
