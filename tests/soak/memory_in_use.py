"""What this process holds, exactly: resident memory follows the allocators' habits by some MiB either way."""

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
    """Blocks of Python's own allocator, and bytes of the C library's, which the native core and large objects take."""

    blocks: int
    malloc_bytes: int | None
    """``None`` where the C library does not tell."""

    def __str__(self) -> str:
        told = "" if self.malloc_bytes is None else f" and {self.malloc_bytes / 2**20:.2f} MiB of malloc"
        return f"{self.blocks:,} blocks{told}"


def in_use() -> InUse:
    """Of now, without garbage. Asked while nothing is queued, it says what stays."""
    gc.collect()
    tell = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
    if tell is None:
        return InUse(sys.getallocatedblocks(), None)
    tell.restype = _MallocInfo
    info = tell()
    return InUse(sys.getallocatedblocks(), info.uordblks + info.hblkhd)
