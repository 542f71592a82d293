"""Kernels for QEMU: named by the user, prepared once, kept in the user's directories.

A prepared kernel is a directory with ``vmlinux`` (or ``vmlinuz`` if it cannot be unpacked) and
``RELEASE/`` with its modules. The name that the user gave is a symbolic link to it, so that the
same name means the same kernel later, without the network.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lvsctl.errors import HostError, UsageError
from lvsctl.machine import directories, kernel_files, packages
from lvsctl.machine.config import Kernel
from lvsctl.machine.guest import modules as guest_modules
from lvsctl.machine.packages import Emit

USUAL = packages.DEFAULT_KERNEL
"""The package of the distribution's current kernel."""

_NAMES = "names"


def directory() -> Path:
    """Return the directory of prepared kernels."""
    return directories.cache_directory() / "qemu"


def find(wanted: str | None) -> Kernel | None:
    """Return the kernel of this name (see ``ensure``) if it has been prepared; else None.

    Raises HostError for a file that is not a kernel.
    """
    wanted = wanted or USUAL
    if _is_file(wanted):
        return _in(directory() / _key(*_files(Path(wanted))))
    return _named(directory() / _NAMES / wanted)


def ready() -> dict[str, Kernel]:
    """Return the kernels prepared from packages, by the names that the user gave."""
    found = {}
    for link in sorted((directory() / _NAMES).glob("*")):
        kernel = _named(link)
        if kernel is not None:
            found[link.name] = kernel
    return found


def ensure(wanted: str | None, emit: Emit) -> Kernel:
    """Return the kernel that ``wanted`` names, prepared if necessary.

    ``wanted`` is a file (if it contains a slash), or a package, a release, a version or a suite of
    the distribution (None: its current kernel). Raises HostError if no such kernel exists or it
    cannot access the host's files, UsageError for a malformed name.
    """
    kernel = find(wanted)
    if kernel is not None:
        reason = directories.damaged(kernel.program.parent)
        if not reason:
            return kernel
        emit(f"the kernel {kernel.release} is damaged: {reason}")
    wanted = wanted or USUAL
    place = directory()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with directories.scratch_directory(place) as scratch:
            if _is_file(wanted):
                image, modules = _files(Path(wanted))
                emit(f"preparing {wanted} in {place}")
            else:
                tree = packages.fetch_kernel(wanted, scratch, emit)
                image, modules = _in_tree(tree, wanted)
            target = place / _key(image, modules)
            if _in(target) is not None and directories.damaged(target):
                target.rename(scratch / "broken")
            if _in(target) is None:
                _prepare(image, modules, scratch / "prepared")
                _publish(scratch / "prepared", target)
            if not _is_file(wanted):
                _name(place / _NAMES, wanted, target)
    except OSError as error:
        raise HostError(
            f"cannot prepare the kernel {wanted} in {place}: {error.strerror or error}",
            hint="point XDG_CACHE_HOME at a directory with 600 MB of room",
        ) from error
    kernel = _in(target)
    if kernel is None:
        raise HostError(f"the kernel {wanted} was prepared and has disappeared: {target}")
    return kernel


def first_modules(modules: Path) -> list[str]:
    """Return the modules, as paths below ``modules``, that the guest's first program loads."""
    return list(kernel_files.boot_order((modules / "modules.dep").read_text(encoding="utf-8")))


def _is_file(wanted: str) -> bool:
    return "/" in wanted


def _in(place: Path) -> Kernel | None:
    """Return the prepared kernel in a directory."""
    found = sorted(place.glob("*/modules.dep"))
    images = [place / name for name in ("vmlinux", "vmlinuz") if (place / name).exists()]
    if not found or not images:
        return None
    return Kernel(images[0].resolve(), found[0].parent.resolve())


def _named(link: Path) -> Kernel | None:
    """Return the kernel behind a name, unless this lvsctl would prepare it differently."""
    return _in(link) if link.resolve().name.endswith(_recipe()) else None


def _files(image: Path) -> tuple[Path, Path]:
    """Return the kernel file and its modules. Raises HostError if either is missing."""
    if not image.is_file():
        raise HostError(
            f"the kernel {image} does not exist", hint="ls /boot lists the host's own kernels"
        )
    if not os.access(image, os.R_OK):
        raise HostError(
            f"you have no permission to read {image}",
            hint=f"sudo cp {image} . and sudo chown it, or let lvsctl download the package",
        )
    with image.open("rb") as file:
        release = kernel_files.image_release(file.read(64 * 1024), str(image))
    roots = (image.absolute().parent.parent, Path("/"))
    candidates = [
        image.absolute().parent,  # Fedora keeps the kernel among its modules
        *(root / lib / release for root in roots for lib in ("lib/modules", "usr/lib/modules")),
    ]
    for candidate in candidates:
        if (candidate / "kernel").is_dir():
            return image, candidate.resolve()
    raise HostError(
        f"the modules of {image} (kernel {release}) are missing\nlooked in: "
        + ", ".join(str(c) for c in dict.fromkeys(candidates)),
        hint=f"install its package, or let lvsctl download it: --kernel {release}",
    )


def _in_tree(tree: Path, wanted: str) -> tuple[Path, Path]:
    images = sorted(tree.glob("boot/vmlinuz-*"))
    if not images:
        raise HostError(f"the package of {wanted} does not contain a kernel", hint=_OTHER)
    return _files(images[0])


_OTHER = f"use the distribution's current one: --kernel {USUAL}"


def _key(image: Path, modules: Path) -> str:
    """Return a key that changes with the kernel: a release may be rebuilt under the same name."""
    found = image.stat()
    text = f"{found.st_size} {int(found.st_mtime)}"
    return f"{modules.name}.{hashlib.sha256(text.encode()).hexdigest()[:8]}.{_recipe()}"


def _recipe() -> str:
    """Return a key that changes with what is kept of a kernel, such as its modules."""
    sources = (guest_modules.__file__, kernel_files.__file__)
    text = b"".join(Path(source).read_bytes() for source in sources)
    return hashlib.sha256(text).hexdigest()[:8]


def _prepare(image: Path, modules: Path, target: Path) -> None:
    """Prepare a kernel. Raises HostError if it cannot access the host's files."""
    files = kernel_files.ModuleFiles(modules)
    missing = files.missing(kernel_files.BOOT_MODULES)
    if missing:
        raise HostError(
            f"the kernel {modules.name} cannot access the host's files: "
            f"it lacks {', '.join(missing)}",
            hint="-cloud- kernels lack these modules; " + _OTHER,
        )
    target.mkdir()
    files.copy(target / modules.name)
    data = image.read_bytes()
    plain = kernel_files.uncompressed(data)
    if plain is not None:
        (target / "vmlinux").write_bytes(plain)
    else:
        (target / "vmlinuz").write_bytes(data)


def _publish(made: Path, target: Path) -> None:
    try:
        directories.publish(made, target)
    except OSError:
        if _in(target) is None:  # nor has another process done it
            raise


def _name(names: Path, wanted: str, target: Path) -> None:
    if wanted in (".", ".."):
        raise UsageError(f"{wanted!r} is not the name of a kernel")
    names.mkdir(exist_ok=True)
    draft = names / f".{wanted}.{os.getpid()}"
    draft.unlink(missing_ok=True)
    draft.symlink_to(f"../{target.name}")
    draft.rename(names / wanted)
