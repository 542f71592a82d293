"""The broker's end of the serial link."""

from __future__ import annotations

import asyncio

from lvsctl.machine import frames


class SerialLink:
    """The serial link to the guest. Never holds more than a window of unread bytes."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._window = frames.Credit(frames.LINK_WINDOW)
        self._room = asyncio.Event()
        # asyncio's locks are fair: sessions alternate frame by frame.
        self._turn = asyncio.Lock()

    async def send(self, data: bytes) -> None:
        """Send one whole frame."""
        async with self._turn:
            while data:
                taken = self._window.spend(len(data))
                if taken:
                    self._writer.write(data[:taken])
                    data = data[taken:]
                else:
                    self._room.clear()
                    await self._room.wait()

    def acknowledged(self, amount: int) -> None:
        """Record that the guest has read ``amount`` bytes."""
        self._window.grant(amount)
        self._room.set()
