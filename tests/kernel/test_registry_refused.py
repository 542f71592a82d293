"""EACCES: the registry's place is not this process's to write, or not even to look into.

Root may write everywhere only with CAP_DAC_OVERRIDE, which containers and services often lack
(capabilities(7), systemd.exec(5)); others have what a lab needs, CAP_NET_ADMIN and
CAP_SYS_ADMIN, and are not root. Whatever is refused, the error says where and what to type,
and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import struct
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lvsctl.engine.faults import inject_fault
from lvsctl.engine.labs import list_labs, running_lab, tear_down
from lvsctl.engine.up import bring_up
from lvsctl.errors import LvsctlError
from lvsctl.kernel import paths
from lvsctl.kernel.registry import State
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology
from tests.kernel.initial import differences, glance
from tests.kernel.labs import topology_of
from tests.kernel.natively import answers
from tests.kernel.natively import without_ipvs as without_ipvs  # noqa: PLC0414 (a fixture)
from tests.kernel.test_killed import untouched

pytestmark = pytest.mark.usefixtures("without_ipvs")

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
_VERSION, _KEEP = 0x20080522, 8  # _LINUX_CAPABILITY_VERSION_3, PR_SET_KEEPCAPS
NOBODY = 65534


def restrict(user: int) -> None:
    """Be ``user`` from now on, with every capability but those to pass over permissions."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_KEEP, 1, 0, 0, 0)
    os.setresuid(user, user, user)
    header = ctypes.create_string_buffer(struct.pack("Ii", _VERSION, 0))
    words = ctypes.create_string_buffer(24)
    assert libc.capget(header, words) == 0
    _, allowed, _, _, high, _ = struct.unpack("6I", words.raw)
    allowed &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    words = ctypes.create_string_buffer(struct.pack("6I", allowed, allowed, 0, high, high, 0))
    assert libc.capset(header, words) == 0, os.strerror(ctypes.get_errno())


def refusal(work: Callable[[], object], user: int = 0) -> tuple[str, str]:
    """The error's message and hint of ``work``, done by a restricted ``user``; empty: none.

    Anything but an error with words for the user is a bug, and fails the test.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        said: list[str] = []
        try:
            restrict(user)
            work()
            said = ["", ""]
        except LvsctlError as error:
            said = [error.message, error.hint]
        except BaseException:  # noqa: BLE001 (told to the parent)
            said = [traceback.format_exc()]
        finally:
            with os.fdopen(writing, "w") as pipe:
                json.dump(said, pipe)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = json.load(pipe)
    os.waitpid(child, 0)
    assert len(said) == 2, said[0]
    return said[0], said[1]


@contextlib.contextmanager
def permissions(place: Path, mode: int, owner: int = 0) -> Iterator[None]:
    """``place`` is a directory of others, or with fewer rights, meanwhile."""
    place.mkdir(exist_ok=True)
    before = place.stat()
    place.chmod(mode)
    os.chown(place, owner, -1)
    try:
        yield
    finally:
        place.chmod(before.st_mode & 0o7777)
        os.chown(place, before.st_uid, -1)


@pytest.fixture(autouse=True)
def imported(without_ipvs: None) -> None:
    """What is needed is imported while every file may be read: the checkout may be another's."""
    up()
    up(servers=3)
    inject_fault(running_lab("dr"), "arp-ignore-unset")
    tear_down("dr")


def up(**overrides: object) -> object:
    return bring_up(topology(), Overrides(**overrides))  # type: ignore[arg-type]


@functools.cache
def topology() -> Topology:
    return topology_of("dr")


def check_refused(told: tuple[str, str], place: Path) -> None:
    message, hint = told
    assert str(place) in message, message
    assert "Permission denied" in message, message
    assert f"namei -l {place}" in hint, hint


@pytest.mark.parametrize(
    ("place", "mode"),
    [(paths.RUN, 0o555), (paths.RUN, 0o644), (paths.NETNS, 0o555), (paths.NETNS, 0o644)],
)
def test_up_as_a_root_that_may_not_write(place: Path, mode: int) -> None:
    with untouched("dr") as before:
        with permissions(place, mode):
            check_refused(refusal(up), place)
        assert differences(before) == {}
        comes_and_goes(before)


def comes_and_goes(before: dict[str, object]) -> None:
    """Once it may, the lab comes up, answers, and goes without a trace."""
    up()
    assert answers("dr")
    tear_down("dr")
    assert differences(before) == {}


def test_up_as_a_user_who_has_every_right_but_to_write_there() -> None:
    with untouched("dr") as before:
        check_refused(refusal(up, NOBODY), paths.RUN)
        with permissions(paths.RUN, 0o755, NOBODY):
            check_refused(refusal(up, NOBODY), paths.NETNS)
        assert differences(before) == {}
        comes_and_goes(before)


@pytest.mark.parametrize(("mode", "owner"), [(0o555, 0), (0o755, NOBODY)])
def test_a_running_lab_whose_directory_is_closed(mode: int, owner: int) -> None:
    """Nothing about it can be noted: so it is not changed; and it goes when it may."""
    place = paths.of("dr").directory
    with untouched("dr") as before:
        up()
        with permissions(place, mode, owner):
            beside = glance()
            for work in (
                lambda: up(servers=4),
                lambda: inject_fault(running_lab("dr"), "arp-ignore-unset"),
            ):
                check_refused(refusal(work), place)
                assert differences(beside) == {}
            assert refusal(list_labs) == ("", "")
            assert [one.entry.state for one in list_labs()] == [State.UP]
            assert answers("dr")
            check_refused(refusal(lambda: tear_down("dr")), place)
            assert [one.entry.lab for one in list_labs()] == ["dr"]
        tear_down("dr")
        assert differences(before) == {}
        comes_and_goes(before)


def test_who_may_not_look_is_told() -> None:
    with untouched("dr"):
        up()
        with permissions(paths.RUN, 0o700):
            check_refused(refusal(list_labs, NOBODY), paths.RUN)
        with permissions(paths.RUN, 0o744):
            check_refused(refusal(list_labs, NOBODY), paths.RUN)
            check_refused(refusal(lambda: running_lab("dr"), NOBODY), paths.RUN)
