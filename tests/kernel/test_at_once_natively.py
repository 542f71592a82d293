"""Many at once on any kernel: labs by as many commands; connections to one lab's real servers."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsctl.kernel import netns, processes
from lvsctl.model.lab import Lab
from lvsctl.topology import shipped
from tests.kernel import natively
from tests.kernel.by_hand import eventually
from tests.kernel.labs import lab_up
from tests.kernel.natively import without_ipvs as without_ipvs  # noqa: PLC0414 (a fixture)
from tests.kernel.test_at_once import check_labs_at_once

pytestmark = pytest.mark.usefixtures("without_ipvs")

WIDE = shipped.text_of("dr").replace("10.10.0.0/24", "10.10.0.0/16")
"""dr with room for a thousand real servers."""

EACH = 10
"""Connections to each real server."""


def answers(lab: str) -> bool:
    assert natively.answers(lab), lab
    return True


def test_twenty_labs_at_once() -> None:
    check_labs_at_once(20, answers, lambda labs: all(map(answers, labs)))


@contextlib.contextmanager
def files_allowed() -> Iterator[None]:
    """As many open files as this process may have, meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connected(lab: Lab, opened: contextlib.ExitStack) -> list[tuple[str, socket.socket]]:
    """``EACH`` connections to every real server, each from within, and the server's name."""
    found = []
    for server in lab.services[0].real_servers:
        with netns.enter(lab.netns(server.node)):
            for _ in range(EACH):
                sock = socket.create_connection((str(server.rip), server.port), timeout=60)
                found.append((server.node, opened.enter_context(sock)))
    return found


def one_answer(lab: Lab) -> None:
    """One connection, until the responder has closed it."""
    (server, *_) = lab.services[0].real_servers
    with (
        netns.enter(lab.netns(server.node)),
        socket.create_connection((str(server.rip), server.port), timeout=60) as sock,
    ):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while sock.recv(4096):
            pass


@pytest.mark.parametrize("servers", [100, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_one_process_answers_for_all_real_servers_at_once(servers: int) -> None:
    """All connections are open before the first of them is asked anything."""
    with files_allowed(), lab_up(WIDE, servers=servers) as lab:
        (pid,) = processes.daemons(lab.name).values()
        files = Path(f"/proc/{pid}/fd")
        netns.in_thread(lambda: one_answer(lab))  # from here on it has all that it needs itself
        before = len(list(files.iterdir()))
        with contextlib.ExitStack() as opened:
            clients = netns.in_thread(lambda: connected(lab, opened))
            assert len(clients) == servers * EACH
            eventually(lambda: len(list(files.iterdir())) == before + len(clients), seconds=60)
            for _, sock in clients:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            for node, sock in clients:
                head, _, body = sock.recv(4096).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                assert body.startswith(f"{node} answered on ".encode())
        eventually(lambda: len(list(files.iterdir())) == before, seconds=60)
