"""Memory that stays with the process: counted by the pages that the system has to map."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskwright.terminal.heap import SWITCH, _glibc

# Allocates, fills and frees 40 MB again and again, in a process of its own: the setting is global.
PROBE = """
import resource
from statistics import median
import numpy as np
from maskwright.terminal.heap import keep_memory

def faults():
    # The median: the heap grows for the first eight or nine, and a small block that lands behind a
    # large one may cost that one its place later.
    counts = []
    for _ in range(50):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(10 * 2**20, np.float32)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return round(median(counts))

print(faults(), keep_memory(), faults())
"""
glibc_only = pytest.mark.skipif(_glibc() is None, reason="needs glibc")


def probe(code: str = PROBE, **environment: str) -> list[str]:
    # The suite switches it off in its own process (tests/conftest.py).
    inherited = {name: value for name, value in os.environ.items() if name != SWITCH}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "NUMPY_MADVISE_HUGEPAGE": "0", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@glibc_only
def test_kept_memory_costs_no_pages() -> None:
    before, kept, during = probe()
    assert kept == "True"
    assert int(before) > 0  # how many depends on the size of the system's pages
    assert int(during) < int(before) / 100


@glibc_only
def test_the_environment_switches_it_off() -> None:
    before, kept, during = probe(**{SWITCH: "0"})
    assert kept == "False"
    assert int(during) > int(before) / 2


SECOND = """
import os
import numpy as np
from maskwright.terminal.heap import give_back, keep_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

assert keep_memory()
blocks = [np.ones(2**20, np.float32) for _ in range(100)]  # 400 MB
last = np.ones(1000, np.float32)  # behind them, so that the heap cannot just shrink
full = resident()
del blocks
kept = resident()
give_back()
print(full, kept, resident())
"""


@glibc_only
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_kept_memory_can_be_given_back() -> None:
    full, kept, after = map(int, probe(SECOND))
    assert kept > full - 50
    assert after < full - 350


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from maskwright.terminal import heap

    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr("platform.libc_ver", lambda: ("musl", "1.2"))
    _glibc.cache_clear()
    try:
        assert not heap.keep_memory()
        heap.give_back()  # nothing to do
    finally:
        _glibc.cache_clear()


THREADS = """
import os
import threading
import numpy as np
from maskwright.terminal.heap import keep_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

def work():
    blocks = [np.ones(2**20, np.float32) for _ in range(100)]  # 400 MB
    peaks.append(resident())

assert keep_memory()
peaks = [resident()]
for _ in range(3):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
print(*peaks)
"""


@glibc_only
def test_what_one_thread_has_freed_serves_another() -> None:
    before, first, *later = map(int, probe(THREADS))
    assert first - before > 390
    assert max(later) - first < 40
