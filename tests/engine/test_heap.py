"""Memory that stays with the process: counted by the pages that the system has to map."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from maskwright.engine.heap import SWITCH, _glibc

# Allocates, fills and frees 64 MB again and again, in a process of its own: the setting is global.
PROBE = """
import resource, sys
import torch
from maskwright.engine.heap import keep_memory

def faults(times):
    for _ in range(20):  # until the heap is large enough
        torch.ones(2 ** 24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(2 ** 24)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // times

print(faults(5), keep_memory(), faults(5))
"""
glibc_only = pytest.mark.skipif(_glibc() is None, reason="needs glibc")


def probe(**environment: str) -> list[str]:
    # The suite switches it off in its own process (tests/conftest.py).
    inherited = {name: value for name, value in os.environ.items() if name != SWITCH}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**inherited, "THP_MEM_ALLOC_ENABLE": "0", **environment},
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


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from maskwright.engine import heap

    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr("platform.libc_ver", lambda: ("musl", "1.2"))
    _glibc.cache_clear()
    try:
        assert not heap.keep_memory()
    finally:
        _glibc.cache_clear()
