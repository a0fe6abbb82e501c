"""A data set in another format: each split is read and written, and what is lost is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maskwright.errors import OptionError, checked_options
from maskwright.paths import takes_paths

from .outlines import checked_tolerance
from .writing import RewriteReport, new_folder, open_splits, write_splits, written, written_row


@checked_options
@takes_paths
def convert_data(
    data: str | Path | Mapping[str, Any],
    to: str,
    out: str | Path,
    *,
    polygons: float | None = None,
    format: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> RewriteReport:
    """Write all splits of a data set in another format, with copies of the images.

    What both formats can hold is kept; the writers say how precisely. All splits get the same
    classes: those of the training split, then those that only others have.

    Args:
        data: what is read: a folder, a file, a YAML file.
        to: format to write: coco, voc, yolo, labelme, cvat, labelstudio, supervisely, instances,
            crowdhuman, kitti, openimages, huggingface, geo, shapefile, via, createml or
            retinanet; maps, folders or csv for label maps and labels of images.
        out: a new or empty folder to write into.
        polygons: write masks as polygons that stray at most so many pixels from them, for tools in
            which people move corners (labelme, cvat, labelstudio, supervisely) and those that want
            polygons (coco, yolo, via); 0: exact, with many corners. None: masks stay masks.
        format: read `data` as this format, where it is taken for another.
        progress: called with what is done, images done and images in all.

    Raises:
        OptionError: if nothing writes the format, it holds no polygons but they are wanted, or the
            folder is not empty.
        ValueError: if the data cannot be read, or not be written in that format.
    """
    row = written_row(to)
    if polygons is not None:
        polygons = checked_tolerance(polygons)
        if not row.outlined:
            those = ", ".join(name for name, one in written().items() if one.outlined)
            raise OptionError(f"polygons={polygons:g} is for {those}, not for to={to}")
    folder = new_folder(out)
    splits, to = open_splits(data, to, format)
    return write_splits(splits, folder, to, progress, polygons=polygons)
