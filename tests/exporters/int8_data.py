"""A data set whose objects are what a model finds: its own AP is 100, a worse one has less."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from maskwright.data.pixels.images import load_image
from maskwright.prediction.predictor import Predictor


def own_findings(folder: Path, predictor: Predictor, photos: Path, **options: Any) -> Path:
    """Write the photos as a COCO data set with the detections of a model as objects.

    The splits are the first two photos for training and all of them for validation.
    """
    files = sorted(photos.iterdir())
    for split, chosen in (("train", files[:2]), ("val", files)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image_id, file in enumerate(chosen, start=1):
            (folder / "images" / split).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / "images" / split / file.name)
            height, width = load_image(file).shape[:2]
            images.append(
                {"id": image_id, "file_name": file.name, "height": height, "width": width}
            )
            result = predictor(file, **options)
            for row, label in zip(result.to_coco(image_id), result.labels.tolist(), strict=True):
                if predictor.meta.names[label] is not None:
                    del row["score"]
                    area = row["bbox"][2] * row["bbox"][3]
                    extra = {"id": len(annotations) + 1, "area": area, "iscrowd": 0}
                    annotations.append(row | extra)
        categories = [{"id": predictor.meta.category_ids[0], "name": predictor.meta.names[0]}]
        text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"{split}.json").write_text(text)
    return folder
