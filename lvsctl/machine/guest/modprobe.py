"""modprobe's part, where the kernel asks for a module by a name or an alias of it.

The kernel starts the program in /proc/sys/kernel/modprobe for it, iptables does so too. Here it
is a script that tells names from the others at once (`ss -a` alone makes the kernel ask for
five kinds of socket that it does not have), and starts this module with Python, which takes a
tenth of a second, where there is something to load.
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
    """Have the kernel ask here for its modules, which are below ``directory``. Raises OSError."""
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
    """What modules are asked for by → the module's name. Raises OSError.

    Left out are what a shell would take for something else: patterns, all of hardware, and names
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
            # What the kernel calls by its file: 8021q, act_gact, nf_conntrack-2 are all spelt so.
            found[path.rpartition("/")[2].partition(".ko")[0]] = name_of(path)
    return found


def main(directory: str, name: str) -> bool:
    """Load what ``name`` asks for; whether all of it is there now. Raises OSError."""
    from lvsctl.machine.guest import modules

    module = names(directory)[name]
    return not modules.load(directory, lambda path: modules.name_of(path) == module)


def _quoted(word: str) -> str:
    """A word of a shell's, as shlex.quote has it, which imports more than all of this."""
    return "'" + word.replace("'", "'\"'\"'") + "'"


if __name__ == "__main__":
    sys.path.insert(0, os.path.abspath(f"{os.path.dirname(__file__)}/../../.."))
    raise SystemExit(not main(sys.argv[1], sys.argv[2]))
