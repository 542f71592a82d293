"""The modules of a distribution's kernel that a machine uses, uncompressed, with what they need.

Packages come without modules.dep (depmod writes it when they are installed), and newer ones
compressed, which a guest would have to undo at every boot. So this is done once, on the host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lvsctl.machine.guest.modules import name_of, wanted
from lvsctl.machine.kernel_image import decompressed

BOOT = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p")
"""What QEMU's guest must have before it can read a file of the host's."""

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_SOFTLY = re.compile(rb"\0softdep=pre: ([^\0]*)\0")


class Modules:
    """The modules below ``directory`` (a /lib/modules/RELEASE), read when first needed."""

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
        """Those that are neither modules nor built in."""
        return [n for n in names if n not in self._paths and n not in self._builtin]

    def copy(self, target: Path) -> None:
        """Write what a machine loads below ``target``, with its modules.dep."""
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
        """A module and all that it needs, in the order of loading."""
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
                # An algorithm (crc32c) is asked for by its alias; its module is called so.
                if (found := name_of(one)) in self._paths
                or (found := f"{name_of(one)}_generic") in self._paths
            ]
        return self._needs[name]


def _plain(path: Path) -> Path:
    return path.with_name(path.name.partition(".ko")[0] + ".ko")


def boot_order(modules_dep: str) -> Iterator[str]:
    """Paths of the modules for the guest's first program, what they need first."""
    needs = {}
    for line in modules_dep.splitlines():
        path, _, rest = line.partition(":")
        needs[name_of(path)] = [*reversed(rest.split()), path]
    yield from dict.fromkeys(path for name in BOOT for path in needs.get(name, ()))
