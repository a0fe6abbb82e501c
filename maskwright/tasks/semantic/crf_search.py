"""`val crf=search`: which parameters of the dense CRF suit a model on images with truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data.pixels.resizing import collate_images
from ...data.records import Dataset
from ...files import write_whole
from ...metrics.crf_search import CrfTrial, search_crf
from ...models.inference import fast_network
from ...models.semantic.base import Segmenter
from ...reports.page import REPORT
from ...reports.page_parts import number, table
from ...reports.report import Step, write_page
from ...structures import Resize
from ...terminal import console
from ...text import to_json
from ..base import Study
from ..crf import ITERATIONS, CrfSettings
from ..scaling import scale_photos
from .settings import SemanticSettings
from .views import look, to_maps

MOST = 40  # images that are looked at, drawn at random: DeepLab took a hundred
SHOWN = 20  # rows of the table
# Coarser than DeepLab's grid, and wider: a CRF is slow, and images are not all photos of objects.
WEIGHTS, SXY, SRGB = (2.0, 4.0, 8.0), (15.0, 30.0, 60.0, 120.0), (3.0, 6.0, 13.0)


def crf_study(model: Segmenter, data: Dataset, resize: Resize) -> Study:
    """Search the appearance kernel, on images that the model should have been trained on.

    Args:
        model: the model itself.
        data: images with label maps, in the model's numbers.
        resize: how images are resized.
    """
    chosen = np.random.default_rng(0).permutation(len(data))[:MOST].tolist()
    total = len(chosen) * len(WEIGHTS) * len(SXY) * len(SRGB)
    with console.progress("search", total=total, unit="crf") as bar:
        done = 0

        def progress(count: int) -> None:
            nonlocal done
            bar.update(count - done)
            done = count

        trials = search_crf(
            _samples(model, data, resize, chosen),
            weights=WEIGHTS,
            sxy=SXY,
            srgb=SRGB,
            iterations=ITERATIONS,
            progress=progress,
        )
    alone = next(trial.mean_iou for trial in trials if trial.bilateral is None)
    best = next(trial for trial in trials if trial.bilateral is not None)
    assert best.bilateral is not None
    metrics = {
        "mIoU": best.mean_iou,
        "mIoU/without": alone,
        "crf/weight": float(best.bilateral.weight),
        "crf/sxy": float(best.bilateral.sxy),  # type: ignore[arg-type]
        "crf/srgb": float(best.bilateral.srgb),  # type: ignore[arg-type]
    }

    def write(folder: Path, title: str, options: Mapping[str, Any], device: str) -> list[str]:
        return _write(folder, trials, len(chosen), title, options, device)

    return Study(metrics, write)


def _samples(
    model: Segmenter, data: Dataset, resize: Resize, chosen: Sequence[int]
) -> Iterator[tuple[torch.Tensor, np.ndarray, np.ndarray]]:
    """Yield probabilities, image and truth of each image."""
    network = fast_network(model.eval())
    settings = SemanticSettings(probs=True)
    for index in chosen:
        photo, truth = data.photo(index), data.label_map(index)
        assert truth is not None
        scaled = scale_photos([photo], resize)
        images = collate_images(scaled, model.size_divisor, model.buckets).to(model.mean.device)
        with torch.no_grad():
            (found,) = to_maps(look(network, [images], settings), settings)
        assert found.probs is not None
        yield torch.from_numpy(found.probs), photo, truth


def _write(
    folder: Path,
    trials: Sequence[CrfTrial],
    images: int,
    title: str,
    options: Mapping[str, Any],
    device: str,
) -> list[str]:
    """Write page and numbers into a folder, and return what to say of them."""
    alone = next(trial.mean_iou for trial in trials if trial.bilateral is None)
    best = trials[0]
    rows = [[_named(trial), number(trial.mean_iou, "–")] for trial in trials]
    if best.bilateral is None:
        verdict = f"no CRF of {len(trials) - 1} is better than none: mean IoU {alone:.4f}"
        step = Step("Leave the CRF out", verdict)
    else:
        verdict = f"crf={_named(best)}: mean IoU {best.mean_iou:.4f}, without {alone:.4f}"
        step = Step(
            "Predict with this CRF",
            f"{verdict}, on {images} images. Whether it helps on others, `val` tells with "
            f"crf={_named(best)} on images that were not searched on.",
        )
    numbers = [{"crf": _named(trial), "mIoU": trial.mean_iou} for trial in trials]
    write_whole(folder / "metrics.json", to_json({"trials": numbers}) + "\n")
    write_page(
        folder,
        title,
        figures=[
            (number(best.mean_iou, "–"), "mean IoU, best"),
            (number(alone, "–"), "without"),
            (f"{images:,}", "images"),
        ],
        steps=[step],
        sections=[("Parameters", [table(["weight,sxy,srgb", "mean IoU"], rows[:SHOWN])])],
        options=options,
        device=device,
    )
    return [verdict, f"report: {folder / REPORT}"]


def _named(trial: CrfTrial) -> str:
    """Return a place on the grid as the option `crf` takes it."""
    if trial.bilateral is None:
        return "none"
    return CrfSettings.of(trial.bilateral).option
