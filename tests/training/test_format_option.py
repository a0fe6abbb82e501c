"""A wrong guess of what a folder is, corrected by `format=` in all commands alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from maskwright.comparing.entries import described
from maskwright.data import check_data, find_splits, open_dataset
from maskwright.errors import OptionError
from maskwright.tasks import task_of
from maskwright.tasks.detection.data_options import anchors
from maskwright.tasks.recipe import TrainRecipe
from maskwright.training.prepare import open_splits

MODEL = "retinanet_lite0_fpn"


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """Two images; YOLO's labels know one object of each, the table two of one."""
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    for k in range(2):
        Image.new("RGB", (40, 30), (k, 0, 0)).save(tmp_path / f"images/{k}.png")
        (tmp_path / f"labels/{k}.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    rows = ["images/0.png,cat,1,2,9,12", "images/0.png,dog,11,12,19,25", "images/1.png,,,,,"]
    (tmp_path / "train.csv").write_text("path,label,x1,y1,x2,y2\n" + "\n".join(rows))
    return tmp_path


def test_training_comparison_and_check(both: Path) -> None:
    task = task_of(MODEL)
    for format, objects, classes in (("yolo", 2, 1), ("csv", 2, 2)):
        recipe = task.recipe(data=both, model=MODEL, format=format, val_fraction=0)
        train, _ = open_splits(task, recipe)
        assert train.format == format and len(train.names) == classes
        assert train.objects_per_class().sum() == objects
        assert TrainRecipe.from_dict({"data": "x", "format": format}).format == format
        assert described(task, recipe, MODEL) == {"train": f"2 images, {task.counts(train)}"}
        stats = check_data(both, format=format).splits["train"]
        assert len(stats.per_class) == classes
    assert anchors(both, format="csv").boxes == 2


def test_files_too(both: Path) -> None:
    table, described_by = both / "train.csv", both / "data.yaml"
    described_by.write_text("train: images\nnames: [cat]\n")
    assert open_dataset(table, format="csv").format == "csv"
    assert open_dataset(described_by, format="yolo").names == ["cat"]
    for data, format in ((table, "yolo"), (described_by, "labelme"), (both, "voc")):
        with pytest.raises(ValueError, match=f"format={format}"):
            find_splits(data, format=format)
    with pytest.raises(OptionError, match="did you mean 'yolo'"):
        check_data(both, format="yollo")
