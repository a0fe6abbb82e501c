"""Freed memory stays with the process, so that the next image need not ask the system for it again.

The C library of Linux gives every large tensor back to the system as soon as it is freed; the next
one gets new pages, which the system must clear and map one by one. At 800 x 1216 pixels that is
200,000 pages an image and a tenth of the time. `keep_memory` tells the library to keep what it has,
as torch itself does on a GPU: the process stays as large as it once was. `give_back` undoes that
once.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

# Parameters of mallopt(3): nothing is mapped outside the heap, the heap does not shrink, grows in
# larger steps, and is one for all threads, or each would keep what it once had, in pieces that grow
# in number for as long as a service runs.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20, _ARENA_MAX: 1}
# Set to 0 in the environment, the C library's own way stays.
SWITCH = "MASKWRIGHT_KEEP_MEMORY"


def keep_memory() -> bool:
    """Let the process keep the memory that it frees, from now on; True where that is possible.

    Only glibc, the C library of most Linux systems, has this; elsewhere nothing happens, nor if
    MASKWRIGHT_KEEP_MEMORY=0 stands in the environment.
    """
    library = None if os.environ.get(SWITCH) == "0" else _glibc()
    return library is not None and all(
        library.mallopt(name, value) == 1 for name, value in _KEEP.items()
    )


def give_back() -> None:
    """Give kept memory that is free back to the system, once.

    Call it before processes are forked: with a child, pages are shared until one of the two writes,
    and what was free here would stay in the child as it was, a second time.
    """
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") else None
