"""Threads that wait for each other sleep early on a machine that other programs compute on too.

Threads that share the work of a layer wait for the slowest of them. GNU's OpenMP, which torch's
wheels for Linux bring, lets them turn in a loop for milliseconds before they sleep. On an idle
machine that is a little faster; on one whose cores are taken it keeps the thread that all wait for
from its core, and costs several times the time. The library reads how long to turn once, when it is
loaded.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

SETTING = "GOMP_SPINCOUNT"
FEW = "1000"  # turns, some microseconds; the library itself takes 300,000
_LOOKS, _APART = 5, 0.004  # and seconds between two of them
_PART = 4  # that many times fewer programs than cores make a machine a busy one


def share_cores() -> bool:
    """Let threads sleep early if others compute here at this moment; True where that is set.

    It must come before torch is imported. Only Linux tells how many programs run; a setting of
    GOMP_SPINCOUNT or OMP_WAIT_POLICY in the environment stays as it is.
    """
    told = {SETTING, "OMP_WAIT_POLICY"} & set(os.environ)
    if told or "torch" in sys.modules or others_running() * _PART < (os.cpu_count() or 1):
        return False
    os.environ[SETTING] = FEW
    return True


def others_running() -> int:
    """Return how many other programs run at this moment, the median of a few looks; 0: unknown."""
    counts = []
    for look in range(_LOOKS):
        if look:
            time.sleep(_APART)
        try:
            running = Path("/proc/loadavg").read_text().split()[3].split("/")[0]
            counts.append(int(running) - 1)  # without this one
        except (OSError, ValueError, IndexError):
            return 0
    return int(statistics.median(counts))
