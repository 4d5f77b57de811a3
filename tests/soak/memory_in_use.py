"""Exact memory use of this process; resident memory differs from it by some MiB because of the allocators."""

import ctypes
import gc
import sys
from dataclasses import dataclass


class _MallocInfo(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "fsmblks", "usmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


@dataclass(frozen=True)
class InUse:
    """Blocks of Python's allocator, and bytes of the C library's allocator, used by the native core and for large objects."""

    blocks: int
    malloc_bytes: int | None
    """``None`` if the C library does not report it."""

    def __str__(self) -> str:
        malloc = "" if self.malloc_bytes is None else f" and {self.malloc_bytes / 2**20:.2f} MiB of malloc"
        return f"{self.blocks:,} blocks{malloc}"


def in_use() -> InUse:
    """Return the current memory use after a garbage collection."""
    gc.collect()
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
    if mallinfo is None:
        return InUse(sys.getallocatedblocks(), None)
    mallinfo.restype = _MallocInfo
    info = mallinfo()
    return InUse(sys.getallocatedblocks(), info.uordblks + info.hblkhd)
