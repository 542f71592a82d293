"""The hosts of an Ansible inventory, INI or YAML: their names, and how ssh reaches each.

Read are ``ansible_host``, ``ansible_port`` and ``ansible_user``, of hosts and of their groups.
Other variables, such as ``ansible_ssh_common_args``, could run programs: they are not used. What
ssh needs besides, a key or a jump host, belongs in ssh_config(5).

Source: docs.ansible.com, "How to build your inventory".
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from lvsctl.errors import Problem, TopologyError, quoted
from lvsctl.topology.problems import ProblemCollector
from lvsctl.topology.shipped import FileKind
from lvsctl.topology.tree import Entry, Mapping, Scalar, Tree
from lvsctl.topology.yaml_reader import parse_yaml

INVENTORY = FileKind("an inventory", "a text file with lines such as rs1 ansible_host=192.0.2.11")
MAX_HOSTS = 10_000
_USED = ("ansible_host", "ansible_port", "ansible_user")
_OLD = {"ansible_ssh_host": "ansible_host", "ansible_ssh_port": "ansible_port",
        "ansible_ssh_user": "ansible_user"}  # fmt: skip
_FORMS = {
    # A first character that is no dash: ssh takes what begins with one for an option.
    "ansible_host": (re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]{0,252}"), "a name or an address"),
    "ansible_port": (re.compile(r"[1-9][0-9]{0,4}"), "a port"),
    "ansible_user": (re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,63}"), "a user's name"),
}

Variables = dict[str, str]


@dataclass(frozen=True, slots=True)
class InventoryHost:
    """A host: its name in the inventory, and where ssh finds it (0, empty: as ssh decides)."""

    name: str
    address: str
    port: int = 0
    user: str = ""


@dataclass(slots=True)
class _Group:
    hosts: dict[str, Variables] = field(default_factory=dict)
    children: list[str] = field(default_factory=list)
    variables: Variables = field(default_factory=dict)


@dataclass(slots=True)
class _Inventory:
    source: str
    groups: dict[str, _Group] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def group(self, name: str) -> _Group:
        return self.groups.setdefault(name, _Group())

    def add(self, group: str, pattern: str, variables: Variables, line: int) -> None:
        for name in _expanded(pattern):
            self.lines.setdefault(name, line)
            if len(self.lines) > MAX_HOSTS:
                raise _wrong(self.source, line, f"more than {MAX_HOSTS} hosts", "a smaller range")
            self.group(group).hosts.setdefault(name, {}).update(variables)


def _wrong(source: str, line: int, message: str, hint: str = "") -> TopologyError:
    return TopologyError(source, [Problem(line, 0, "", message, hint)])


def read_inventory(text: bytes, source: str) -> tuple[InventoryHost, ...]:
    """Return the hosts of an inventory, in its order. Raises TopologyError."""
    found = _Inventory(source)
    decoded = text.decode(errors="replace")
    first = next((line for line in decoded.split("\n") if re.match(r"\s*[^\s#;]", line)), "")
    if re.match(r"---|[\w.-]+\s*:\s*(#.*)?$|\{", first):
        _read_yaml(text, found)
    else:
        _read_ini(decoded, found)
    if not found.lines:
        raise _wrong(source, 1, "the inventory has no host", "rs1 ansible_host=192.0.2.11")
    problems: list[Problem] = []
    hosts = [host for name in found.lines for host in _host(found, name, problems)]
    if problems:
        raise TopologyError(source, problems)
    return tuple(hosts)


def _host(found: _Inventory, name: str, problems: list[Problem]) -> Iterator[InventoryHost]:
    own = [group for group in found.groups.values() if name in group.hosts]
    # Nearer groups win, and the host's own variables before all; ``all`` is everyone's parent.
    variables = dict(found.group("all").variables)
    for group in (*reversed(_parents(found, name)), *own):
        variables |= group.variables
    for group in own:
        variables |= group.hosts[name]
    variables.setdefault("ansible_host", name)
    for key, (form, what) in _FORMS.items():
        value = variables.get(key)
        if value is not None and not form.fullmatch(value):
            message = f"{name}: {key} {quoted(value)} is not {what}"
            problems.append(Problem(found.lines[name], 0, "", message, "written out, no template"))
            return
    port = int(variables.get("ansible_port", "0"))
    yield InventoryHost(name, variables["ansible_host"], port, variables.get("ansible_user", ""))


def _parents(found: _Inventory, name: str) -> list[_Group]:
    """The groups above those that a host is in, the nearest first."""
    near = [group for group, one in found.groups.items() if name in one.hosts]
    above: list[str] = []
    while near:
        near = [
            group
            for group, one in found.groups.items()
            if group not in above and set(near) & set(one.children)
        ]
        above += near
    return [found.groups[group] for group in above]


def _expanded(pattern: str) -> Iterator[str]:
    """The names that a pattern stands for: ``web[01:10]`` for ten, ``db-[a:c]`` for three."""
    parts = re.split(r"\[([0-9]{1,6}|[a-zA-Z]):([0-9]{1,6}|[a-zA-Z])(?::([0-9]{1,4}))?\]", pattern)
    choices: list[list[str]] = [[parts[0]]]
    for first, last, step, after in zip(*(parts[n::4] for n in range(1, 5)), strict=True):
        by = int(step or 1) or 1
        if first.isdigit() and last.isdigit():
            numbers = range(int(first), int(last) + 1, by)[: MAX_HOSTS + 1]
            choices.append([str(n).zfill(len(first)) for n in numbers])
        else:
            choices.append([chr(n) for n in range(ord(first[0]), ord(last[0]) + 1, by)])
        choices.append([after])
    for words in product(*choices):
        yield "".join(words)


# ── INI ──────────────────────────────────────────────────────────────────────────────────────


def _read_ini(text: str, found: _Inventory) -> None:
    group, kind = "ungrouped", ""
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if section := re.fullmatch(r"\[\s*([^\]:]+?)\s*(?::(\w+))?\s*\]\s*(#.*)?", line):
            group, kind = section[1], section[2] or ""
            if kind not in ("", "vars", "children"):
                hint = "[name], [name:vars] or [name:children]"
                raise _wrong(found.source, number, f"{quoted(line)} is not a section", hint)
            found.group(group)
        elif kind == "vars":
            name, _, value = line.partition("=")
            found.group(group).variables.update(_used({name.strip(): value.strip()}))
        elif kind == "children":
            found.group(group).children.append(line.split()[0])
        else:
            _read_host_line(line, group, number, found)


def _read_host_line(line: str, group: str, number: int, found: _Inventory) -> None:
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        hint = "close the quotation mark"
        raise _wrong(found.source, number, f"the line cannot be read: {error}", hint) from None
    variables = _used(dict(word.partition("=")[::2] for word in words[1:]))
    name = words[0]
    if plain := re.fullmatch(r"([^:\[\]]+):([0-9]+)", name):  # rs1:2222, but no IPv6 address
        name = plain[1]
        variables.setdefault("ansible_port", plain[2])
    if not re.fullmatch(r"[\w.:%\[\]-]{1,255}", name) or name.startswith("-"):
        hint = "rs1 ansible_host=192.0.2.11"
        raise _wrong(found.source, number, f"{quoted(name)} is not a host's name", hint)
    found.add(group, name, variables, number)


def _used(variables: Variables) -> Variables:
    """Those variables that say how ssh reaches a host, by their new names."""
    named = {_OLD.get(key, key): value for key, value in variables.items()}
    return {key: value.strip("'\"") for key, value in named.items() if key in _USED}


# ── YAML ─────────────────────────────────────────────────────────────────────────────────────


def _read_yaml(text: bytes, found: _Inventory) -> None:
    # What a topology must not have, such as a tag (!vault), is no matter here.
    tree = parse_yaml(text, ProblemCollector(found.source))
    if not isinstance(tree, Mapping):
        hint = "all: {hosts: {rs1: {ansible_host: 192.0.2.11}}}"
        raise _wrong(found.source, tree.mark.line, "an inventory is a mapping of groups", hint)
    _read_groups(tree, "", found)


def _read_groups(tree: Mapping, parent: str, found: _Inventory) -> None:
    for name, entry in tree.entries.items():
        if parent:
            found.group(parent).children.append(name)
        group = found.group(name)
        parts = entry.value.entries if isinstance(entry.value, Mapping) else {}
        for host, one in _entries(parts.get("hosts")):
            if not re.fullmatch(r"[\w.:%\[\]-]{1,255}", host) or host.startswith("-"):
                raise _wrong(
                    found.source, one.key_mark.line, f"{quoted(host)} is not a host's name"
                )
            found.add(name, host, _variables(one.value), one.key_mark.line)
        variables = parts.get("vars")
        if variables is not None:
            group.variables.update(_variables(variables.value))
        children = parts.get("children")
        if children is not None and isinstance(children.value, Mapping):
            _read_groups(children.value, name, found)


def _entries(entry: Entry | None) -> list[tuple[str, Entry]]:
    value = None if entry is None else entry.value
    return list(value.entries.items()) if isinstance(value, Mapping) else []


def _variables(tree: Tree) -> Variables:
    if not isinstance(tree, Mapping):
        return {}
    return _used(
        {
            key: entry.value.text
            for key, entry in tree.entries.items()
            if isinstance(entry.value, Scalar)
        }
    )
