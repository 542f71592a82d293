"""Receive many frames of a packet socket with one system call: recvmmsg(2).

Python's ``recvmsg`` receives one frame at a time, and asks for the name of its device with another
system call. In User-Mode Linux system calls take longest of all that a capture does.

Sources: recvmmsg(2), packet(7), cmsg(3), socket.h of glibc and of the kernel.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from lvsctl.capture.sockets import (
    ANCILLARY,
    AUXDATA,
    PACKET_AUXDATA,
    SO_TIMESTAMPNS,
    SOL_PACKET,
    TIMESPEC,
)

FRAMES = 64
"""The most frames that are received at once."""


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("parts", ctypes.c_void_p),
        ("part_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("received", ctypes.c_uint))


_ADDRESS = struct.Struct("=HHiHBB8s")
"""struct sockaddr_ll: family, protocol, index of the device, hardware type, packet type …"""
_CONTROL = struct.Struct("@Nii")
"""struct cmsghdr: length, level, type."""
_ALIGNMENT = ctypes.sizeof(ctypes.c_size_t)
_RECEIVED, _CONTROL_LENGTH = struct.Struct("@I"), struct.Struct("@N")

# PyDLL: the call never blocks, and giving up the interpreter's lock would cost another thread's
# turn for each batch.
_libc = ctypes.PyDLL(None, use_errno=True)


class Received(NamedTuple):
    """A frame as its socket gave it.

    ``moment``: nanoseconds since the epoch. ``auxiliary``: the fields of struct tpacket_auxdata.
    """

    moment: int
    ifindex: int
    kind: int
    hardware: int
    data: bytes
    auxiliary: tuple[int, ...] | None


class BatchReceiver:
    """The buffers for a batch of frames of at most ``snaplen`` bytes."""

    def __init__(self, snaplen: int) -> None:
        self._snaplen = snaplen
        # Memory that is not touched is not used: hardly any frame is as long as it may be.
        self._data = mmap.mmap(-1, FRAMES * snaplen, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._addresses = bytearray(FRAMES * _ADDRESS.size)
        self._controls = bytearray(FRAMES * ANCILLARY)
        self._view = memoryview(self._data)
        data, addresses, controls = (
            _place(one) for one in (self._data, self._addresses, self._controls)
        )
        self._parts = (_Iovec * FRAMES)(
            *(_Iovec(data + one * snaplen, snaplen) for one in range(FRAMES))
        )
        parts = ctypes.addressof(self._parts)
        # The kernel writes lengths into the headers: they are copied from here before each call.
        self._template = bytes(
            (_Mmsghdr * FRAMES)(
                *(
                    _Mmsghdr(
                        _Msghdr(
                            addresses + one * _ADDRESS.size,
                            _ADDRESS.size,
                            parts + one * ctypes.sizeof(_Iovec),
                            1,
                            controls + one * ANCILLARY,
                            ANCILLARY,
                        )
                    )
                    for one in range(FRAMES)
                )
            )
        )
        self._headers = bytearray(self._template)
        self._pointer = ctypes.c_void_p(_place(self._headers))

    def receive(self, sock: socket.socket) -> list[Received]:
        """Return the frames that wait, ``FRAMES`` at most. Raises OSError; BlockingIOError: none.

        The socket has timestamps and auxiliary data.
        """
        self._headers[:] = self._template
        count = _libc.recvmmsg(sock.fileno(), self._pointer, FRAMES, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return [self._frame(one) for one in range(count)]

    def _frame(self, position: int) -> Received:
        header = position * ctypes.sizeof(_Mmsghdr)
        (size,) = _RECEIVED.unpack_from(self._headers, header + _Mmsghdr.received.offset)
        _, _, index, hardware, kind, _, _ = _ADDRESS.unpack_from(
            self._addresses, position * _ADDRESS.size
        )
        start = position * self._snaplen
        moment, auxiliary = 0, None
        for level, what, at in self._control_messages(position, header):
            if level == SOL_PACKET and what == PACKET_AUXDATA:
                auxiliary = AUXDATA.unpack_from(self._controls, at)
            elif level == socket.SOL_SOCKET and what == SO_TIMESTAMPNS:
                seconds, nanoseconds = TIMESPEC.unpack_from(self._controls, at)
                moment = seconds * 1_000_000_000 + nanoseconds
        data = bytes(self._view[start : start + size])
        return Received(moment, index, kind, hardware, data, auxiliary)

    def _control_messages(self, position: int, header: int) -> Iterator[tuple[int, int, int]]:
        """Yield the level, type and place of each."""
        (length,) = _CONTROL_LENGTH.unpack_from(
            self._headers, header + _Mmsghdr.header.offset + _Msghdr.control_length.offset
        )
        at = position * ANCILLARY
        end = at + length
        while at + _CONTROL.size <= end:
            size, level, what = _CONTROL.unpack_from(self._controls, at)
            if size < _CONTROL.size:
                return
            yield level, what, at + _aligned(_CONTROL.size)
            at += _aligned(size)


def _aligned(size: int) -> int:
    return (size + _ALIGNMENT - 1) & -_ALIGNMENT


def _place(buffer: bytearray | mmap.mmap) -> int:
    """Return the address of a buffer whose size never changes."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
