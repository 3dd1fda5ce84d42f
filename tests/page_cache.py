"""What of a file is only in the kernel's memory: asked of the kernel, not of whoever wrote the file."""

import ctypes
import errno
import os
from pathlib import Path

# Linux has it since 6.5, under one number on every architecture.
_CACHESTAT = 451


class _Range(ctypes.Structure):
    """From where, and how much: 0 and 0 are the whole file."""

    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Counts(ctypes.Structure):
    """How many pages are in which state."""

    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


def unwritten_pages(path: Path) -> int | None:
    """Return how many pages of a file the disk does not have yet, None where the kernel cannot tell."""
    found = _Counts()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(_CACHESTAT, descriptor, ctypes.byref(_Range()), ctypes.byref(found), 0):
            number = ctypes.get_errno()
            if number in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
                return None
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
    return int(found.dirty) + int(found.writeback)
