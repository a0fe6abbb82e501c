"""Writer of Parquet tables as Hugging Face's Hub has them: an image and its objects in a row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskwright.files import replacing, writing
from maskwright.paths import takes_paths

from ...records import ANY_CLASS, Dataset
from ..outgoing import image_bytes, objects_of, refuse_written
from .tables import BATCH, PARQUET, class_names, columns_of, require_pyarrow


@takes_paths
def write_huggingface(dataset: Dataset, folder: str | Path) -> Path:
    """Write the boxes of a split as a Parquet table, with the files of the images inside.

    Boxes are x, y, width, height, `area` is that of the box, classes are `ClassLabel`s. Regions
    that count neither way get `iscrowd` or `ignore`; the class of one of none is -1.

    Args:
        dataset: the images and objects; masks and keypoints are not written.
        folder: where data/SPLIT-00000-of-00001.parquet goes, validation for val; other splits may
            be there already.

    Returns:
        The table.

    Raises:
        ValueError: if the folder has this split or other classes already, or pyarrow is missing.
    """
    split = "validation" if dataset.split == "val" else dataset.split
    file = Path(folder) / "data" / f"{split}-00000-of-00001{PARQUET}"
    arrow = require_pyarrow(file)
    refuse_written(file, dataset)
    for other in file.parent.glob(f"*{PARQUET}"):
        if class_names(columns_of(other)[1]) != dataset.names:
            raise ValueError(
                f"{other} has other classes than {dataset.source}: choose another folder"
            )
    schema = _schema(arrow, dataset.names)
    with writing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing(file) as temporary,
            arrow.parquet.ParquetWriter(temporary, schema) as writer,
        ):
            rows: list[dict[str, Any]] = []
            for record, objects in objects_of(dataset):
                height, width = record.size
                image = {"bytes": image_bytes(record), "path": record.path.name}
                found: dict[str, list[Any]] = {name: [] for name in OBJECTS}
                for one in objects:
                    x1, y1, x2, y2 = one.box
                    found["id"].append(int(record.ann_ids[one.k]))
                    found["bbox"].append([x1, y1, x2 - x1, y2 - y1])
                    found["area"].append((x2 - x1) * (y2 - y1))
                    found["category"].append(-1 if one.label == ANY_CLASS else one.label)
                    found["iscrowd"].append(int(one.crowd))
                    found["ignore"].append(int(one.ignored))
                rows.append(
                    {"image": image, "image_id": record.image_id, "width": width}
                    | {"height": height, "objects": found}
                )
                if len(rows) == BATCH:
                    writer.write_table(arrow.Table.from_pylist(rows, schema))
                    rows.clear()
            writer.write_table(arrow.Table.from_pylist(rows, schema))
    return file


OBJECTS = ("id", "bbox", "area", "category", "iscrowd", "ignore")
FLOATS = ("area",)


def _schema(arrow: Any, names: list[str]) -> Any:
    """Return the columns, with the features that `datasets` reads in their metadata."""
    sides = arrow.list_(arrow.float64())
    kinds = {name: arrow.float64() if name in FLOATS else arrow.int64() for name in OBJECTS}
    kinds["bbox"] = sides
    fields = [(name, arrow.list_(kind)) for name, kind in kinds.items()]
    columns = [
        ("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])),
        *((name, arrow.int64()) for name in ("image_id", "width", "height")),
        ("objects", arrow.struct(fields)),
    ]
    number, real = _value("int64"), _value("float64")
    inner: dict[str, Mapping[str, Any]] = {
        name: real if name in FLOATS else number for name in OBJECTS
    }
    inner["bbox"] = {"feature": real, "length": 4, "_type": "Sequence"}
    inner["category"] = {"names": names, "_type": "ClassLabel"}
    features = {
        "image": {"_type": "Image"},
        **dict.fromkeys(("image_id", "width", "height"), number),
        "objects": {"feature": inner, "_type": "Sequence"},
    }
    noted = json.dumps({"info": {"features": features}})
    return arrow.schema(columns).with_metadata({"huggingface": noted})


def _value(kind: str) -> dict[str, str]:
    return {"dtype": kind, "_type": "Value"}
