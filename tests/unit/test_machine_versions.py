"""A machine that another version of lvsctl has started: it can be ended, and nothing else."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsctl.errors import LabError
from lvsctl.machine import frames
from lvsctl.machine.connection import connect
from lvsctl.machine.runtime_files import RuntimeFiles

WELCOME = frames.frame(frames.WELCOME, 0, json.dumps({"protocol": frames.PROTOCOL + 1}).encode())


@pytest.fixture
def newer() -> Iterator[RuntimeFiles]:
    """Where a broker of a later version welcomes two clients."""
    with tempfile.TemporaryDirectory(prefix="lvv.") as directory:
        where = RuntimeFiles(Path(directory), "newer")
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(where.socket))
        server.listen()

        def welcome_two() -> None:
            with server:
                for _ in range(2):
                    client, _address = server.accept()
                    with client:
                        client.sendall(WELCOME)

        broker = threading.Thread(target=welcome_two)
        broker.start()
        yield where
        broker.join()


def test_it_is_refused_for_everything_but_its_end(newer: RuntimeFiles) -> None:
    with pytest.raises(LabError, match="another version"):
        connect(newer)

    found = connect(newer, any_version=True)

    assert found is not None
    found.__exit__(None, None, None)
