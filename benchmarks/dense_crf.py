"""Dense CRF against pydensecrf, the compiled one, in time and in memory.

    python benchmarks/dense_crf.py [--repeats 5] [--threads 1] [--only TEXT]

A photo of scikit-learn (375 x 500), random energies that change slowly, 10 iterations, kernels as
published: positions 3 beside 80/13 (pydensecrf's README), 121/5, 67/3 (DeepLab) and 160/3
(CRF-RNN). Each side is timed from energies and image to probabilities, building included, and all
must agree before; with one thread, as pydensecrf has, it is the time of the processor, which
others on the machine disturb less. Memory is what one call adds to the peak of a process of its
own. "numpy" is ours without torch. Without pydensecrf the columns of ours stand alone.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import machine, parse
from peak import peak_memory
from PIL import Image

from maskwright.crf import dense_crf

HEIGHT, WIDTH, ITERATIONS = 375, 500, 10
KERNELS = ((80, 13, 10), (121, 5, 4), (67, 3, 4), (160, 3, 5))
Kernel = tuple[float, float, float]


def scene(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return energies (C, H, W) and a photo (H, W, 3)."""
    from sklearn.datasets import load_sample_image

    photo = Image.fromarray(load_sample_image("china.jpg")).resize((WIDTH, HEIGHT))
    draw = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, classes, 24, 32, generator=draw) * 3
    fine = torch.randn(classes, HEIGHT, WIDTH, generator=draw) * 0.3
    slow = F.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
    return (slow[0] + fine).numpy(), np.array(photo)


def pydensecrf(unary: np.ndarray, image: np.ndarray, kernel: Kernel) -> np.ndarray:
    from pydensecrf.densecrf import DenseCRF2D

    classes, height, width = unary.shape
    model = DenseCRF2D(width, height, classes)
    model.setUnaryEnergy(unary.reshape(classes, -1))
    model.addPairwiseGaussian(sxy=3, compat=3)
    model.addPairwiseBilateral(sxy=kernel[0], srgb=kernel[1], rgbim=image, compat=kernel[2])
    return np.array(model.inference(ITERATIONS)).reshape(unary.shape)


def with_torch(unary: np.ndarray, image: np.ndarray, kernel: Kernel) -> np.ndarray:
    return with_numpy(torch.from_numpy(unary), image, kernel).numpy()


def with_numpy(unary: Any, image: np.ndarray, kernel: Kernel) -> Any:
    return dense_crf(unary, image, gaussian=(3, 3), bilateral=kernel, iterations=ITERATIONS)


SIDES: dict[str, Callable[[np.ndarray, np.ndarray, Kernel], np.ndarray]] = {
    "pydensecrf": pydensecrf,
    "torch": with_torch,
    "numpy": with_numpy,
}


def added_memory(side: str, classes: int, kernel: Kernel) -> int:
    """Return the MB that one call adds to the peak of this process, which must be new."""
    torch.set_num_threads(1)
    unary, image = scene(classes)
    SIDES[side](unary[:, :40, :40].copy(), image[:40, :40].copy(), kernel)  # what loads once
    before = peak_memory()
    SIDES[side](unary, image, kernel)
    return peak_memory() - before


def in_turns(sides: list[str], scene: Any, kernel: Kernel, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each side, a number per turn; each turn starts with another side."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(repeats):
        for side in sides[turn % len(sides) :] + sides[: turn % len(sides)]:
            start = clock()
            SIDES[side](*scene, kernel)
            seconds[side].append(clock() - start)
    return seconds


def row(title: str, sides: list[str], classes: int, kernel: Kernel, repeats: int) -> str:
    """Check, time and weigh one case, and return its row of the table."""
    given = scene(classes)
    found = [SIDES[side](*given, kernel) for side in sides]
    for other in found[1:]:
        # A point on the border of two simplices may count to either: a few pixels move a little.
        assert np.abs(other - found[0]).max() < 1e-2
        assert (other.argmax(0) != found[0].argmax(0)).mean() < 1e-4
    seconds = in_turns(sides, given, kernel, repeats)
    # A new process for each: memory that was freed once would not be counted again.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        memory = [pool.submit(added_memory, side, classes, kernel).result() for side in sides]
    cells = [f"{statistics.median(seconds[side]):.2f}" for side in sides]
    if sides[0] == "pydensecrf":
        pairs = zip(seconds["pydensecrf"], seconds["torch"], strict=True)
        ratios = [theirs / ours for theirs, ours in pairs]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        cells.append(f"{statistics.median(ratios):.2f} ({spread})")
    return " | ".join([f"| {title}", *cells, *map(str, memory)]) + " |"


def main() -> None:
    options = parse(__doc__, repeats=5)
    torch.set_num_threads(options.threads or 1)  # pydensecrf has one
    sides = list(SIDES)
    if find_spec("pydensecrf") is None:
        sides.remove("pydensecrf")
    print(machine())
    ratio = ["pydensecrf / torch (lowest to highest)"] if sides[0] == "pydensecrf" else []
    head = ["what", *(f"{s}, s" for s in sides), *ratio, *(f"{s}, MB" for s in sides)]
    print(f"| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}")
    for classes in (2, 21):
        for kernel in KERNELS:
            title = f"{kernel[0]}/{kernel[1]}, {classes} classes"
            if options.only in title:
                print(row(title, sides, classes, kernel, options.repeats), flush=True)


if __name__ == "__main__":
    main()
