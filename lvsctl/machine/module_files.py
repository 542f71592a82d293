"""The modules of a distribution's kernel that a machine uses, and their dependencies.

Packages have no modules.dep (depmod writes it at installation), and newer ones have compressed
modules. Both are prepared once, on the host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lvsctl.machine.guest.modules import name_of, wanted
from lvsctl.machine.kernel_image import decompressed

BOOT = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p")
"""The modules that QEMU's guest needs to read files of the host."""

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_SOFTLY = re.compile(rb"\0softdep=pre: ([^\0]*)\0")


class Modules:
    """The modules below ``directory`` (a /lib/modules/RELEASE)."""

    def __init__(self, directory: Path) -> None:
        self._paths = {
            name_of(path.name): path.relative_to(directory)
            for path in sorted(directory.glob("kernel/**/*.ko*"))
        }
        self._directory = directory
        self._content: dict[str, bytes] = {}
        self._needs: dict[str, list[str]] = {}
        builtin = directory / "modules.builtin"
        lines = builtin.read_text(encoding="utf-8").split() if builtin.exists() else []
        self._builtin = {name_of(line) for line in lines}

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those that are neither modules nor built in."""
        return [n for n in names if n not in self._paths and n not in self._builtin]

    def copy(self, target: Path) -> None:
        """Write the modules that a machine loads, and their modules.dep, below ``target``."""
        lines = []
        roots = [name for name, path in self._paths.items() if wanted(str(path)) or name in BOOT]
        for name in dict.fromkeys(dep for root in roots for dep in self._closure(root)):
            path = _plain(self._paths[name])
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(self._content[name])
            # Closest first, as depmod has it.
            below = [_plain(self._paths[d]) for d in reversed(self._closure(name)) if d != name]
            lines.append(f"{path}: {' '.join(map(str, below))}\n")
        (target / "modules.dep").write_text("".join(lines), encoding="utf-8")

    def _closure(self, name: str) -> list[str]:
        """Return a module and its dependencies, in the order of loading."""
        found: dict[str, None] = {}
        for below in self._needed_by(name):
            found.update(dict.fromkeys(self._closure(below)))
        return [*found, name]

    def _needed_by(self, name: str) -> list[str]:
        if name not in self._needs:
            content = decompressed((self._directory / self._paths[name]).read_bytes())
            match = _DEPENDS.search(content)
            needs = match[1].decode().split(",") if match and match[1] else []
            softly = _SOFTLY.search(content)
            needs += softly[1].decode().split() if softly else []
            self._content[name] = content
            self._needs[name] = [
                found
                for one in needs
                # An algorithm (crc32c) is requested by its alias; its module has this name.
                if (found := name_of(one)) in self._paths
                or (found := f"{name_of(one)}_generic") in self._paths
            ]
        return self._needs[name]


def _plain(path: Path) -> Path:
    return path.with_name(path.name.partition(".ko")[0] + ".ko")


def boot_order(modules_dep: str) -> Iterator[str]:
    """Yield the paths of the modules for the guest's first program, dependencies first."""
    needs = {}
    for line in modules_dep.splitlines():
        path, _, rest = line.partition(":")
        needs[name_of(path)] = [*reversed(rest.split()), path]
    yield from dict.fromkeys(path for name in BOOT for path in needs.get(name, ()))
