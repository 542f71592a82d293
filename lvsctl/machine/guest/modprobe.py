"""Load kernel modules on demand, as modprobe(8) does.

The kernel and iptables start the program in /proc/sys/kernel/modprobe with a module's name or
alias. Here it is a shell script that ignores unknown names (`ss -a` alone causes five) and starts
this module with Python, which is slow, only if there is a module to load.
"""

from __future__ import annotations

import os
import sys

PROGRAM = "/run/modprobe"

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.,:/+")

_SCRIPT = """#!/bin/sh
# Written by lvsctl: loads the module that the last argument names.
for name; do :; done
case $name in
{names}) exec {python} -I -S {this} {modules} "$name" ;;
esac
exit 1
"""


def install(directory: str) -> None:
    """Set the kernel's modprobe program, for the modules below ``directory``. Raises OSError."""
    script = _SCRIPT.format(
        names="|".join(sorted(names(directory))),
        python=_quoted(sys.executable),
        this=_quoted(os.path.abspath(__file__)),
        modules=_quoted(directory),
    )
    with open(PROGRAM, "w", encoding="utf-8") as file:
        file.write(script)
    os.chmod(PROGRAM, 0o755)
    with open("/proc/sys/kernel/modprobe", "w", encoding="ascii") as file:
        file.write(PROGRAM)


def names(directory: str) -> dict[str, str]:
    """Return the names and aliases of modules → the module's name. Raises OSError.

    Without those that have a meaning for the shell: patterns, which are all of hardware, and names
    of ciphers with parentheses.
    """
    from lvsctl.machine.guest.modules import name_of

    found = {}
    with open(f"{directory}/modules.alias", encoding="utf-8") as file:
        for line in file:
            word, *rest = line.split()
            if word == "alias" and not set(rest[0]) - _PLAIN:
                found[rest[0]] = rest[1]
    with open(f"{directory}/modules.dep", encoding="utf-8") as file:
        for line in file:
            path = line.partition(":")[0]
            found[name_of(path)] = name_of(path)
            # The kernel uses the file's spelling too: 8021q, act_gact, nf_conntrack-2.
            found[path.rpartition("/")[2].partition(".ko")[0]] = name_of(path)
    return found


def main(directory: str, name: str) -> bool:
    """Load the module ``name`` and its dependencies; return success. Raises OSError."""
    from lvsctl.machine.guest import modules

    module = names(directory)[name]
    return not modules.load(directory, lambda path: modules.name_of(path) == module)


def _quoted(word: str) -> str:
    """Quote a word for the shell, as shlex.quote does, whose import is slow on this kernel."""
    return "'" + word.replace("'", "'\"'\"'") + "'"


if __name__ == "__main__":
    sys.path.insert(0, os.path.abspath(f"{os.path.dirname(__file__)}/../../.."))
    raise SystemExit(not main(sys.argv[1], sys.argv[2]))
