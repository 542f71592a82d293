"""User-Mode Linux on processors with more registers than it saves."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lvsctl.machine import xstate

PTRACE_TRACEME, PTRACE_PEEKTEXT, PTRACE_DETACH = 0, 1, 17
PTRACE_GETREGSET, PTRACE_SETREGSET, NT_X86_XSTATE = 0x4204, 0x4205, 0x202

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="User-Mode Linux is x86")


class Registers(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


@contextmanager
def stopped_child() -> Iterator[int]:
    """A process that this one traces."""
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).ptrace(PTRACE_TRACEME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("compiler", ["the host's", "Debian's tcc"])
def test_the_registers_that_user_mode_linux_knows_can_be_set(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = shutil.which
    found = which("cc") if compiler == "the host's" else None
    monkeypatch.setattr(shutil, "which", lambda name: found if name == "cc" else which(name))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told: list[str] = []
    ptrace = ctypes.CDLL(str(xstate.ensure_library(told.append)), use_errno=True).ptrace
    assert xstate.ensure_library(told.append) == xstate.library()
    assert len([line for line in told if xstate.SOURCE.name in line]) == 1, "compiled once"
    ptrace.restype = ctypes.c_long
    ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    known = ctypes.create_string_buffer(xstate.KNOWN)
    registers = Registers(ctypes.addressof(known), len(known))
    text = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value
    assert text is not None
    with stopped_child() as child:
        for request in (PTRACE_GETREGSET, PTRACE_SETREGSET):
            done = ptrace(request, child, NT_X86_XSTATE, ctypes.byref(registers))
            assert done == 0, os.strerror(ctypes.get_errno())
        word = ptrace(PTRACE_PEEKTEXT, child, text, None)
        assert word == ctypes.c_long.from_address(text).value, "the word itself is returned"
        assert ptrace(PTRACE_GETREGSET, child, 0x999, ctypes.byref(registers)) == -1


@pytest.mark.parametrize(("frame", "needed"), [(3632, False), (11952, True)])
def test_a_signal_frame_tells_whether_it_is_needed(
    frame: int, needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sysconf", lambda _: frame)
    assert xstate.is_needed() is needed
