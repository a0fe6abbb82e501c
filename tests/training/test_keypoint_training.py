"""Keypoints from the annotation file to the checkpoint, the metrics and the pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from test_train import interrupt_at
from tiny_runs import table, tiny_options

from maskwright.data.discover import open_dataset
from maskwright.data.records import Dataset
from maskwright.hub.loading import start_model
from maskwright.models import Detector, Meta, PostProcess, build
from maskwright.models.registry import get_entry
from maskwright.prediction.load import load
from maskwright.prediction.predictor import Predictor
from maskwright.prediction.val import val
from maskwright.storage.checkpoint import load_checkpoint, save_checkpoint
from maskwright.structures import Images, Instances, Resize, Skeleton
from maskwright.training.train import train

MODEL = "keypoint_rcnn_resnet50_fpn"
JOINTS = ["nose", "left_tip", "right_tip"]
# Smaller than the smallest instance of the family.
TINY = {
    **{k: v for k, v in (get_entry(MODEL).tiny or {}).items() if k != "num_keypoints"},
    "backbone": "test_efficientnet",
    "imgsz": 64,
}


def draw_kite(pen: ImageDraw.ImageDraw, nose: np.ndarray, size: float) -> np.ndarray:
    """Draw a triangle that points up: a white nose, a red left tip, a green right tip."""
    points = nose + size * np.array([[0, 0], [-0.5, 1], [0.5, 1]])
    pen.polygon([tuple(p) for p in points.tolist()], fill=(90, 90, 200))
    radius = max(size / 7, 1.5)
    for (x, y), colour in zip(points, ("white", "red", "lime"), strict=True):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return points


def make_split(root: Path, split: str, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    folder = root / "images" / split
    folder.mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        picture = Image.new("RGB", (96, 72), (25, 25, 30))
        pen = ImageDraw.Draw(picture)
        images.append({"id": number, "file_name": f"{number}.png", "height": 72, "width": 96})
        # The last image has no object at all.
        for side in (0, 1) if number < count else ():
            size = float(rng.uniform(26, 36))
            nose = np.array([rng.uniform(22, 28) + 48 * side, rng.uniform(8, 24)])
            points = draw_kite(pen, nose, size)
            shown = np.array([2, 2, 1])
            if len(annotations) == 1:
                shown[:] = 0  # an object of which nobody labelled the keypoints
            keypoints = np.concatenate([points * (shown > 0)[:, None], shown[:, None]], 1)
            x, y = points.min(0) - 3
            w, h = np.ptp(points, 0) + 6
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 4,
                    "bbox": [x, y, w, h],
                    "area": w * h / 2,
                    "iscrowd": 0,
                    "segmentation": [points.ravel().tolist()],
                    "keypoints": keypoints.ravel().tolist(),
                    "num_keypoints": int((shown > 0).sum()),
                }
            )
        picture.save(folder / f"{number}.png")
    category = {"id": 4, "name": "kite", "keypoints": JOINTS, "skeleton": [[1, 2], [1, 3]]}
    content = {"images": images, "annotations": annotations, "categories": [category]}
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(content))
    for annotation in annotations:
        del annotation["keypoints"], annotation["num_keypoints"]
    del category["keypoints"], category["skeleton"]
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kites")
    make_split(root, "train", 5, seed=0)
    make_split(root, "val", 3, seed=1)
    return root


def options(data: Path, folder: Path, **others: Any) -> dict[str, Any]:
    base = tiny_options(data, folder / "runs")
    return {**base, "model": MODEL, "model_args": TINY, "epochs": 1, **others}


def test_a_run_from_training_to_pictures(data: Path, tmp_path: Path) -> None:
    """Two steps and one more after a resume; the checkpoint knows the keypoints of the data."""
    model = "mask_" + MODEL
    result = train(**options(data, tmp_path, model=model, steps=2))
    meta = load_checkpoint(result.dir).meta
    assert meta.keypoints == Skeleton(tuple(JOINTS), ((0, 1), (0, 2)))
    assert meta.args["num_keypoints"] == 3
    rows = table(result.dir)
    assert float(rows[0]["train/roi/keypoints"]) > 0
    assert {"val/keypoints/AP", "val/keypoints/AP_large", "val/mask/AP"} <= set(rows[0])
    for name in ("keypoints_pr.png", "train_batch0.jpg", "val_batch0_labels.jpg", "results.png"):
        assert (result.dir / name).is_file(), name
    metrics = val(result.dir, data, device="cpu", workers=0)
    assert metrics["keypoints/AP"] == pytest.approx(result.metrics["keypoints/AP"], abs=1e-9)
    predictor = load(result.dir, device="cpu")
    with pytest.warns(UserWarning, match="max_det=5 was reached"):
        found = predictor(data / "images/val/1.png", conf=0.0, max_det=5)
    assert found.keypoints is not None and found.keypoints.shape == (len(found), 3, 3)
    assert len(found.to_coco(1)[0]["keypoints"]) == 9 and found.skeleton == meta.keypoints
    assert json.loads(found.to_json())["keypoint_names"] == JOINTS
    drawn = np.asarray(found.plot())
    assert drawn.shape == (72, 96, 3)


@pytest.mark.slow
def test_resume_goes_on_to_the_bit(data: Path, tmp_path: Path) -> None:
    whole = train(**options(data, tmp_path / "a", epochs=1))
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, 2)
        part = train(**options(data, tmp_path / "b", epochs=1))
    assert part.interrupted
    train(resume=part.dir, workers=0)
    ours, theirs = (load_checkpoint(run.last).model for run in (part, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_what_does_not_fit_is_said(data: Path, tmp_path: Path) -> None:
    boxes = data / "annotations" / "instances_train.json"
    with pytest.raises(ValueError, match=r"needs keypoints, but .*instances_train\.json has none"):
        train(**options(boxes, tmp_path))
    with pytest.raises(ValueError, match=r"num_keypoints=4, but .* has 3"):
        train(**options(data, tmp_path, model_args={**TINY, "num_keypoints": 4}))
    assert open_dataset(data, "train").skeleton is None
    assert open_dataset(data, "train", keypoints=True).skeleton is not None


class Perfect(Detector):
    """Returns the objects of a data set image by image, its keypoints in an order of its own."""

    num_keypoints = 4

    def __init__(self, truth: Dataset, names: list[str]) -> None:
        super().__init__(1, mean=(0.0,) * 3, std=(1.0,) * 3, resize=Resize(None, 160))
        self.task = "keypoints"
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.truth = truth
        self.names = names
        self.done = 0
        self.off = 0.0  # pixels

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        assert len(images) == 1 and self.truth.skeleton is not None
        record = self.truth[self.done]
        self.done += 1
        count = len(record.boxes)
        scale = images.sizes[0].flip(0) / torch.tensor(record.size[::-1])
        boxes = torch.from_numpy(record.boxes)
        points = torch.zeros(1, count, 4, 3)
        for k, name in enumerate(self.truth.skeleton.names):
            own = torch.from_numpy(record.keypoints[:, k])
            centre = boxes.view(-1, 2, 2).mean(1)  # for those that nobody labelled
            xy = torch.where(own[:, 2:] > 0, own[:, :2], centre) * scale + self.off
            points[0, :, self.names.index(name), :2] = xy
        valid = torch.ones(1, count, dtype=torch.bool)
        labels = torch.zeros(1, count, dtype=torch.int64)
        return Instances(
            boxes[None] * scale.repeat(2), labels, valid, valid * 0.9, keypoints=points
        )


def test_keypoints_are_matched_by_name(data: Path) -> None:
    """A model that knows more keypoints, in another order, is scored on those of the data."""
    names = ["tail", "right_tip", "nose", "left_tip"]
    detector = Perfect(open_dataset(data, "val", keypoints=True), names)
    meta = Meta(MODEL, {}, ["kite"], keypoints=Skeleton(tuple(names)))
    predictor = Predictor(detector, meta, device="cpu")
    metrics = val(predictor, data, workers=0)
    assert metrics["keypoints/AP"] == pytest.approx(1.0)
    assert metrics["keypoints/AP"] == metrics["keypoints/AP/kite"]
    detector.off = 2.0
    for sigma, expected in ((0.2, 1.0), (1e-3, 0.0)):
        detector.done = 0
        metrics = val(predictor, data, workers=0, sigmas=(sigma,) * 3)
        assert metrics["keypoints/AP"] == pytest.approx(expected)
    meta.keypoints = Skeleton(("nose", "left_tipp", "right_tip", "tail"))
    with pytest.raises(ValueError, match="does not know: left_tip; did you mean 'left_tipp'"):
        val(predictor, data, workers=0)


def test_description_survives_the_checkpoint() -> None:
    meta = Meta("m", {}, ["a"], keypoints=Skeleton(("x", "y"), ((0, 1),)))
    assert Meta.from_dict(json.loads(json.dumps(meta.to_dict()))) == meta
    damaged = meta.to_dict() | {"keypoints": {"names": ["x"]}}
    with pytest.raises(ValueError, match="incomplete"):
        Meta.from_dict(damaged)


def test_weights_go_over_by_keypoint_name(tmp_path: Path) -> None:
    names = ("right_tip", "nose", "navel", "left_tip")
    args = {**(get_entry(MODEL).tiny or {}), "num_keypoints": 3}
    first = build(MODEL, 1, **args)
    meta = Meta(MODEL, args, ["kite"])
    meta.keypoints = Skeleton(tuple(JOINTS))
    path = save_checkpoint(tmp_path / "a.safetensors", meta, first.state_dict())
    detector, _, report = start_model(
        MODEL,
        ["kite"],
        weights=path,
        options={"num_keypoints": 4},
        described={"keypoints": Skeleton(names)},
    )
    assert "3 of 4 keypoints" in report
    old, new = first.state_dict(), detector.state_dict()
    key = "roi_heads.keypoint_head.logits."
    for i, name in enumerate(names):
        rows = old[key + "weight"].unbind(1)
        same = [torch.equal(new[key + "weight"][:, i], row) for row in rows]
        assert same == [name == other for other in JOINTS]


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    make_split(tmp_path, "train", 25, seed=2)
    make_split(tmp_path, "val", 9, seed=3)
    recipe = options(
        tmp_path,
        tmp_path,
        model_args={**TINY, "backbone": "resnet18", "imgsz": 96, "keypoint_width": 64},
        epochs=25,
        batch=4,
        lr=2e-3,
        optimizer="adamw",
        val_every=25,
        flip=0.5,
    )
    result = train(**recipe)
    assert result.metrics["box/AP50"] > 0.8
    assert result.metrics["keypoints/AP50"] > 0.8
