"""Threads sleep early where others compute, as the OpenMP library says of its own settings."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from maskwright.terminal import waiting
from maskwright.terminal.waiting import others_running, share_cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc, and GNU's OpenMP")

PROBE = """
import sys
from maskwright.terminal import waiting
waiting.others_running = lambda: {others}
print(waiting.share_cores())
import torch
"""


def probe(others: int) -> tuple[str, str]:
    """Return what `share_cores` says, and the turns that the library of torch takes."""
    plain = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(others=others)],
        env={**plain, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split("'")[1] for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if not lines:
        pytest.skip("this torch has another OpenMP library")
    return done.stdout.strip(), lines[-1]


def test_the_library_takes_it_on_a_busy_machine() -> None:
    assert probe(os.cpu_count() or 1) == ("True", "1000")


def test_the_users_setting_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "others_running", lambda: 999)
    assert not share_cores()  # torch is there already
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("GOMP_SPINCOUNT", "77")
    assert not share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == "77"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setattr(waiting, "others_running", lambda: 0)
    assert not share_cores()
    assert "GOMP_SPINCOUNT" not in os.environ


@contextmanager
def computing(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_programs_that_compute_are_seen() -> None:
    with computing(3):
        assert others_running() >= 3
