"""Writer of plain folders of label maps: images/ + masks/ in folders of splits, and classes.txt."""

from __future__ import annotations

import shutil
from pathlib import Path

from maskwright.drawing.label_maps import label_picture, voc_palette
from maskwright.files import writing
from maskwright.paths import takes_paths

from ...records import Dataset
from ..folders import read_lines
from ..outgoing import refuse_written
from .classes import read_table


@takes_paths
def write_maps(dataset: Dataset, folder: str | Path) -> Path:
    """Write a split as images and PNGs of class numbers with VOC's palette; 255 is ignored.

    Args:
        dataset: images with label maps.
        folder: where images/, masks/ and classes.txt go; other splits may be there already.

    Returns:
        The folder of the label maps.

    Raises:
        ValueError: if it exists, the data set has no label maps, the other splits have other
            classes, or a name would be read as something else.
    """
    root = Path(folder)
    images, maps = root / "images" / dataset.split, root / "masks" / dataset.split
    if dataset.records != "maps":
        raise ValueError(f"{dataset.source} has no label maps: open it with records='maps'")
    refuse_written(maps, dataset)
    listing = root / "classes.txt"
    if listing.exists() and read_lines(listing) != dataset.names:
        raise ValueError(f"{listing} names other classes than {dataset.source}")
    with writing(root):
        images.mkdir(parents=True, exist_ok=True)
        maps.mkdir(parents=True)
        listing.write_text("".join(f"{name}\n" for name in dataset.names), encoding="utf-8")
        table = read_table(listing)
        if table is None or list(table.names) != dataset.names:
            raise ValueError(f"these class names cannot be written a line each: {dataset.names}")
        taken: set[str] = set()
        for index in range(len(dataset)):
            file, labels = dataset[index].path, dataset.label_map(index)
            assert labels is not None
            names = (file.stem, *(f"{file.stem}_{n}" for n in range(1, len(dataset) + 1)))
            stem = next(name for name in names if name not in taken)
            taken.add(stem)
            shutil.copyfile(file, images / f"{stem}{file.suffix}")
            label_picture(labels, voc_palette()).save(maps / f"{stem}.png")
    return maps
