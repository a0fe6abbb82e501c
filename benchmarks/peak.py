"""The peak memory of this process."""

from __future__ import annotations

from pathlib import Path


def peak_memory() -> int:
    """Return the most memory that this process has had so far, in MB; Linux only.

    Not `ru_maxrss`: a process that another one starts begins with the peak of that one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024
