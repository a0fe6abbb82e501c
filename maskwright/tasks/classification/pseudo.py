"""`maskwright data pseudo`: boxes and masks from the heat maps of a classifier, to start labelling.

Nobody drew them: a labelling tool opens the COCO file, and people correct what is wrong.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data.formats.folders import Tree
from ...data.pixels.depth import to_pixels
from ...data.pixels.images import load_samples
from ...devices import pick_device
from ...errors import OptionError, checked_options
from ...files import write_whole
from ...hub.loading import load_model
from ...metrics.heatmap_boxes import CAM_THRESHOLD, GRADCAM_THRESHOLD, map_mask
from ...models.classification.base import Classifier
from ...nn.cam import explain
from ...ops.rle import encode_crop
from ...paths import nearest_path, takes_paths
from ...structures import Images
from ...terminal import console
from ...text import to_json
from ..evidence import check_method, on_image
from .settings import cut_rule
from .weak import squeeze

DEEPEST = 5  # folders below the source that are looked into


@dataclass(frozen=True)
class PseudoReport:
    """What was written.

    Attributes:
        file: the COCO file.
        images: how many images it has.
        found: objects by class name.
        empty: heat maps of classes that are there in which no place speaks more for the class than
            another, so that there is no object.
        skipped: images that could not be read, with the reason.
    """

    file: Path
    images: int
    found: dict[str, int]
    empty: int
    skipped: list[str]


@checked_options
@takes_paths
def pseudo(
    model: str | Path,
    source: str | Path,
    dst: str | Path,
    *,
    method: str = "gradcam",
    conf: float = 0.5,
    threshold: float | None = None,
    masks: bool = True,
    imgsz: int | None = None,
    device: str = "auto",
    weights: str | Path | None = None,
) -> PseudoReport:
    """Write boxes and masks from a classifier's heat maps as a COCO file.

    Each image has one object of its most probable class, or, of a model of several labels, one of
    each class that is probable enough. Images without any stay in the file, without an object.

    Args:
        model: checkpoint, run folder or registered name of a classifier.
        source: folder of images; those in folders below it are taken, too.
        dst: the COCO file, which ends in .json. Names of images are relative to its folder where
            they lie below it, else to the source.
        method: cam, gradcam or gradcam++.
        conf: smallest score, the probability of a class.
        threshold: share of the maximum of a map above which pixels belong to the object, such as
            `maskwright val localize=` chooses. None: 0.2 for cam, 0.15 for the others, as in their
            papers.
        masks: write outlines as well as boxes.
        imgsz: side of the square that images are resized to, pixels; a larger one has finer maps.
            None: that of the model.
        device: where to compute: auto, cpu, cuda, cuda:1, mps.
        weights: for a registered name: published weights such as imagenet, or a checkpoint.

    Returns:
        What was written.

    Raises:
        ValueError: if the model is no classifier, the folder has no image, or an option is wrong.
    """
    source, dst = Path(source), Path(dst)
    if dst.suffix.lower() != ".json":
        raise OptionError(f"dst={str(dst)!r}: a COCO file ends in .json")
    if not 0 <= conf <= 1:
        raise OptionError(f"conf must lie in [0, 1], got {conf}")
    if threshold is not None and not 0 <= threshold < 1:
        raise OptionError(
            "threshold is a share of the maximum of a map, from 0 up to 1 without 1; got "
            f"{threshold}"
        )
    if not source.is_dir():
        raise ValueError(f"source={str(source)!r} is no folder{nearest_path(source)}")
    tree = Tree()
    files = sorted(file for folder in tree.below(source, DEEPEST) for file in tree.images(folder))
    if not files:
        raise ValueError(f"source={str(source)!r} has no image")
    loaded, meta = load_model(model, weights=weights)
    network: Any = loaded
    if not isinstance(network, Classifier):
        raise OptionError(
            f"model={model} is a {meta.model}, which finds places by itself: predict with it; this "
            "is for classifiers"
        )
    check_method(method, network, meta.model, option="method")
    side = cut_rule(network, imgsz).preprocess.crop
    share = CAM_THRESHOLD if method == "cam" else GRADCAM_THRESHOLD
    names = [name or f"class {k}" for k, name in enumerate(meta.names)]
    network = network.eval().to(pick_device(device))
    root = dst.parent.resolve()
    inside = source.resolve() == root or root in source.resolve().parents
    content: dict[str, Any] = {
        "info": {"description": f"made by {method} of {meta.model}, not drawn by people"},
        "images": [],
        "annotations": [],
        "categories": [
            {"id": number, "name": name}
            for number, name in zip(meta.category_ids, names, strict=True)
        ],
    }
    skipped: list[str] = []
    empty = 0
    for file in console.track(files, "pseudo", unit="img"):
        try:
            photo = to_pixels(load_samples(file, channels=meta.taken), meta.window)
        except ValueError as error:
            skipped.append(str(error))
            continue
        name = os.path.relpath(file.resolve(), root if inside else source.resolve())
        image = len(content["images"]) + 1
        height, width = photo.shape[:2]
        row = {"id": image, "file_name": Path(name).as_posix(), "height": height, "width": width}
        content["images"].append(row)
        for label, score, heat in _maps(network, photo, side, method, conf):
            found = _object(heat, share if threshold is None else threshold, masks)
            if found is None:
                empty += 1
            else:
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": image,
                        "category_id": meta.category_ids[label],
                        **found,
                        "score": round(score, 4),
                    }
                )
    if not content["images"]:
        raise ValueError(f"none of the {len(files)} images could be read: {skipped[0]}")
    dst.parent.mkdir(parents=True, exist_ok=True)
    write_whole(dst, to_json(content) + "\n")
    called = dict(zip(meta.category_ids, names, strict=True))
    counts: dict[str, int] = {}
    for row in content["annotations"]:
        one = called[row["category_id"]]
        counts[one] = counts.get(one, 0) + 1
    return PseudoReport(dst, len(content["images"]), counts, empty, skipped)


def _maps(
    model: Classifier, photo: np.ndarray, side: int, method: str, conf: float
) -> list[tuple[int, float, np.ndarray]]:
    """Return class, probability and map (H, W) of the photo for each class that is there."""
    size = torch.tensor([[side, side]])
    images = Images(squeeze(photo, side)[None], size, size).to(model.mean.device)
    x = model.normalise(images)
    with torch.no_grad():
        probs = model.probabilities(model.network(x))[0].cpu()
    order = probs.argsort(descending=True, stable=True).tolist()
    there = [label for label in order if float(probs[label]) >= conf]
    if not model.multilabel:
        there = there[:1]
    if not there:
        return []
    maps = explain(model.network, x, torch.tensor([there], device=x.device), method)[0]
    height, width = photo.shape[:2]
    return [
        (label, float(probs[label]), on_image(heat, (height, width), (0, 0, width, height)))
        for label, heat in zip(there, maps, strict=True)
    ]


def _object(heat: np.ndarray, threshold: float, masks: bool) -> dict[str, Any] | None:
    """Return box, area and mask of a map as COCO has them; None for a map without anything."""
    mask = map_mask(heat, threshold)
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x1, y1, x2, y2 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    box = [int(x1), int(y1), int(x2 - x1), int(y2 - y1)]
    found: dict[str, Any] = {"bbox": box, "area": int(mask.sum()), "iscrowd": 0}
    if masks:
        frame = (int(x1), int(y1), int(x2), int(y2))
        height, width = mask.shape
        code = encode_crop(mask[y1:y2, x1:x2], frame, (height, width))
        counts = code["counts"]
        text = counts.decode("ascii") if isinstance(counts, bytes) else counts
        found["segmentation"] = {"size": [height, width], "counts": text}
    return found
