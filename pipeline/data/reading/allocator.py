"""Memory that decoding takes and frees for every image is kept by the process instead of going back to the kernel."""

from __future__ import annotations

import ctypes
import sys

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_LARGEST_FROM_HEAP = 32 * 1024 * 1024  # the most that glibc accepts
_KEPT_BYTES = 512 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Let the process keep up to 512 MiB of freed memory for its next allocations.

    A decoded 1024x2048 image passes through some 30 MB of short-lived buffers (Pillow's, the bytes, the array). By
    default glibc gives them back after every image and the kernel maps them again, page by page, zeroed: in a virtual
    machine that takes longer than decoding a JPEG does. What the process holds at its peak stays the same.

    Returns:
        Whether it could be set: only glibc knows these settings; elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    results = [mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES), mallopt(_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP)]
    return results == [1, 1]
