"""The filter in front of every packet socket: classic BPF, run by the kernel.

A namespace has devices whose frames begin with Ethernet and tunnel devices whose
frames begin with IP, and one socket hears both. So a filter expression is compiled
twice, and a few instructions in front choose by the device's hardware type.

Sources: Documentation/networking/filter.rst, linux/filter.h, pcap-filter(7).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import struct
import subprocess

from lvsctl.errors import HostError, UsageError
from lvsctl.model.frame import LinkType

ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772

_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, if false, operand
_LOAD_WORD, _JUMP_IF_EQUAL, _JUMP, _RETURN = 0x20, 0x15, 0x05, 0x06
_HARDWARE_TYPE = 0xFFFFF000 + 28  # SKF_AD_OFF + SKF_AD_HATYPE
_MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_SO_ATTACH_FILTER = 26
_PCAP_HEADER = struct.Struct("=IHHiIII")
_PATIENCE = 20.0  # seconds; a host name in the expression is asked of the DNS


def program(expression: str, *, snaplen: int, loopback: bool) -> bytes:
    """What keeps frames for which ``expression`` (pcap-filter(7)) holds; '' keeps all.

    ``snaplen`` bytes of each are kept. Frames of ``lo`` are dropped unless ``loopback``.
    An expression that can only be asked of Ethernet (``arp``) keeps nothing of tunnel
    devices. VLAN tags are not seen: the kernel has taken them off by then.

    Raises UsageError where the expression is wrong, HostError without tcpdump.
    """
    if expression.strip():
        ethernet = _compiled(expression, LinkType.ETHERNET, snaplen)
        try:
            raw = _compiled(expression, LinkType.RAW, snaplen)
        except UsageError:
            raw = [(_RETURN, 0, 0, 0)]
    else:
        ethernet = raw = [(_RETURN, 0, 0, snaplen)]
    choose = [
        (_LOAD_WORD, 0, 0, _HARDWARE_TYPE),
        (_JUMP_IF_EQUAL, 0, 1, ARPHRD_LOOPBACK),
        (_JUMP, 0, 0, 2) if loopback else (_RETURN, 0, 0, 0),
        (_JUMP_IF_EQUAL, 1, 0, ARPHRD_ETHER),
        (_JUMP, 0, 0, len(ethernet)),
    ]
    whole = [*choose, *ethernet, *raw]
    if len(whole) > _MOST_INSTRUCTIONS:
        raise UsageError(f"the filter is too long: {len(whole)} instructions,"
                         f" the kernel takes {_MOST_INSTRUCTIONS}")  # fmt: skip
    return b"".join(_INSTRUCTION.pack(*one) for one in whole)


def attach(sock: socket.socket, instructions: bytes) -> None:
    """Put a program in front of ``sock``. Raises OSError."""
    kept = ctypes.create_string_buffer(instructions, len(instructions))
    count = len(instructions) // _INSTRUCTION.size
    # struct sock_fprog; the kernel copies the program before this returns.
    fprog = struct.pack("@HP", count, ctypes.addressof(kept))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def _compiled(expression: str, link: LinkType, snaplen: int) -> list[tuple[int, int, int, int]]:
    """tcpdump's translation, for frames that begin as ``link`` says."""
    tcpdump = shutil.which("tcpdump", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if tcpdump is None:
        raise HostError("filters need tcpdump, which is not installed",
                        hint="apt install tcpdump, or leave the filter out and let tshark -Y"
                             " choose from the file")  # fmt: skip
    # Reading an empty capture says the link type, and needs neither a device nor root.
    header = _PCAP_HEADER.pack(0xA1B2C3D4, 2, 4, 0, 0, snaplen, link)
    try:
        done = subprocess.run(
            [tcpdump, "-r", "-", "-ddd", "--", expression],
            input=header, capture_output=True, timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"tcpdump could not compile the filter {expression!r}: {error}") from error
    lines = done.stdout.decode(errors="replace").split("\n")
    if done.returncode or not lines[0].isdigit():
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1].removeprefix("tcpdump: ") if said else f"tcpdump ended {done.returncode}"
        raise UsageError(f"the filter {expression!r} is wrong: {why}",
                         hint="pcap-filter(7) has the syntax, such as 'tcp port 80 or arp'"
                         )  # fmt: skip
    rows = [[int(word) for word in line.split()] for line in lines[1 : 1 + int(lines[0])]]
    return [(code, yes, no, operand) for code, yes, no, operand in rows]
