"""Threads of a service beside the one that computes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from ..data.pixels.pillow import leave_warnings


def single_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Return a pool of threads in each of which operators of torch use one core.

    OpenMP gives each thread that has computed on several cores helpers of its own for as long as it
    lives. Where all these are more than there are cores, they sleep between any two operators, and
    a network takes a quarter longer.

    Args:
        count: of the threads; all of them are there when this returns.
        name: what they are called.
    """
    # Taking Pillow's warnings aside is for one thread alone.
    pool = ThreadPoolExecutor(count, name, initializer=leave_warnings)
    before = torch.get_num_threads()
    there = threading.Barrier(count)  # none takes the work of two

    def begin() -> None:
        there.wait()
        torch.get_num_threads()  # or the first operator would take the number of the process
        torch.set_num_threads(1)

    for one in [pool.submit(begin) for _ in range(count)]:
        one.result()
    torch.set_num_threads(before)  # the number that threads to come begin with
    return pool
