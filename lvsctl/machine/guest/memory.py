"""Memory that is mapped before it is used, in one go, where a page at a time is slow.

In User-Mode Linux each first touch of a page is a signal, two switches of context and a mapping
by the host: 50 to 90 µs, which made up half of the time that Python takes to import something.
Here the guest's kernel is asked to fill a whole range, and a change of its protection and back
makes User-Mode Linux map all of it at once: 1 µs a page. On any other kernel it does no harm.
"""

from __future__ import annotations

import ctypes

_READ, _WRITE, _EXECUTE = 1, 2, 4  # PROT_…
_POPULATE_READ, _POPULATE_WRITE = 22, 23  # MADV_…, from Linux 5.14
_TOP_PAD, _TRIM_THRESHOLD, _MMAP_THRESHOLD = -2, -1, -3  # M_… (mallopt(3))
_USUAL = 128 * 1024
"""Their default (mallopt(3))."""

_ALIGNMENT = 4096
_LARGE = 16 << 20

_libc = ctypes.CDLL(None, use_errno=True)


class _Arenas(ctypes.Structure):
    """PyObjectArenaAllocator (docs.python.org/3/c-api/memory.html)."""

    _fields_ = (
        ("ctx", ctypes.c_void_p),
        ("alloc", ctypes.c_void_p),  # void *alloc(void *ctx, size_t size)
        ("free", ctypes.c_void_p),  # void free(void *ctx, void *ptr, size_t size)
    )


class Ahead:
    """While entered, what Python and C allocate comes from ``size`` bytes mapped ahead.

        with Ahead(24 << 20):
            import …

    Python's own arenas come from the C library's heap meanwhile, which grows in one piece.
    Without the C library's or Python's part in it nothing happens.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._usual: _Arenas | None = None

    def __enter__(self) -> None:
        try:
            allocate = ctypes.cast(_libc.aligned_alloc, ctypes.c_void_p)
            # An arena that becomes free meanwhile is not given back: this does nothing.
            forget = ctypes.cast(_libc.labs, ctypes.c_void_p)
            set_option = _libc.mallopt
            usual = _Arenas()
            ctypes.pythonapi.PyObject_GetArenaAllocator(ctypes.byref(usual))
        except AttributeError:
            return
        set_option(_TOP_PAD, self._size)
        set_option(_TRIM_THRESHOLD, _LARGE)
        set_option(_MMAP_THRESHOLD, _LARGE)
        mine = _Arenas(_ALIGNMENT, allocate, forget)
        ctypes.pythonapi.PyObject_SetArenaAllocator(ctypes.byref(mine))
        self._usual = usual
        ctypes.create_string_buffer(2 * _USUAL)  # too large for what there is: the heap grows
        for start, end, protection, name in _mappings():
            if name == "[heap]":
                _map(max(start, end - self._size), end, protection)

    def __exit__(self, *_: object) -> None:
        if self._usual is None:
            return
        # Those made meanwhile are whole pages: their munmap leaves a hole in the heap, no more.
        ctypes.pythonapi.PyObject_SetArenaAllocator(ctypes.byref(self._usual))
        for option in (_TOP_PAD, _TRIM_THRESHOLD, _MMAP_THRESHOLD):
            _libc.mallopt(option, _USUAL)
        _libc.malloc_trim(0)


def map_code() -> None:
    """Map the interpreter's and the C library's code, of which a fork leaves nothing mapped."""
    mappings = _mappings()
    inside = [_address(ctypes.pythonapi.Py_GetVersion), _address(_libc.getpid)]
    files = {
        name for start, end, _, name in mappings if any(start <= place < end for place in inside)
    }
    for start, end, protection, name in mappings:
        if name in files and not protection & _WRITE:
            _map(start, end, protection)


def _address(function: object) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


def _mappings() -> list[tuple[int, int, int, str]]:
    """This process's private, readable mappings: from, to, protection and name."""
    found = []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            place, rights, _, _, _, *name = line.split(maxsplit=5)
            if rights[0] == "r" and rights[3] == "p":
                start, end = place.split("-")
                protection = _READ
                protection |= _WRITE if rights[1] == "w" else 0
                protection |= _EXECUTE if rights[2] == "x" else 0
                found.append(
                    (int(start, 16), int(end, 16), protection, name[0].rstrip() if name else "")
                )
    return found


def _map(start: int, end: int, protection: int) -> None:
    place, size = ctypes.c_void_p(start), ctypes.c_size_t(end - start)
    if _libc.madvise(place, size, _POPULATE_WRITE if protection & _WRITE else _POPULATE_READ):
        return
    # Never without a right that is in use: this very code may lie there.
    spare = _WRITE if protection == _READ | _EXECUTE else _EXECUTE
    _libc.mprotect(place, size, protection ^ spare)
    _libc.mprotect(place, size, protection)
