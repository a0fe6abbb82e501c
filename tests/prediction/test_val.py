from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from maskwright.channels import AllChannels
from maskwright.data.discover import open_dataset
from maskwright.data.formats.voc.write import write_voc
from maskwright.data.records import Dataset
from maskwright.models.detection.base import Detector, PostProcess
from maskwright.models.meta import Meta
from maskwright.prediction.predictor import Predictor
from maskwright.prediction.reading import Reading
from maskwright.prediction.val import val
from maskwright.structures import Images, Instances, Resize, Skeleton
from maskwright.tasks.detection.evaluate import (
    DetectionEvaluator,
    capped_notes,
    match_classes,
    score,
)
from maskwright.tasks.detection.reporting.pictures import load_detections
from maskwright.tasks.detection.settings import DetectionSettings
from maskwright.tasks.detection.task import TASK
from maskwright.tasks.evaluation import evaluate
from maskwright.tasks.views import Views

# Boxes xywh and class names by image size, which is how the oracle below recognises an image.
SCENES: dict[tuple[int, int], list[tuple[tuple[int, int, int, int], str]]] = {
    (60, 80): [((5, 6, 40, 30), "cat"), ((50, 20, 25, 36), "dog")],
    (70, 50): [((10, 12, 34, 50), "dog")],
    (40, 96): [],
}
IDS = {"cat": 7, "dog": 3}  # dog comes first in the data set, which sorts by id


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A COCO data set with filled rectangles, split val."""
    root = tmp_path / "data"
    images, annotations = [], []
    (root / "images" / "val").mkdir(parents=True)
    for number, ((height, width), objects) in enumerate(SCENES.items()):
        picture = Image.new("RGB", (width, height), (20, 30, 40))
        pen = ImageDraw.Draw(picture)
        file = f"{number}.png"
        images.append({"id": 50 + number, "file_name": file, "height": height, "width": width})
        for (x, y, w, h), name in objects:
            pen.rectangle((x, y, x + w - 1, y + h - 1), fill=(200, 80 * IDS[name] % 255, 90))
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": 50 + number,
                    "category_id": IDS[name],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [outline],
                }
            )
        picture.save(root / "images" / "val" / file)
    categories = [{"id": i, "name": name} for name, i in IDS.items()]
    (root / "annotations").mkdir()
    (root / "annotations" / "val.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return root


class Oracle(Detector):
    """Knows the scenes by their size, and returns what it is told to find."""

    def __init__(self, names: list[str | None], *, masks: bool = True, copies: int = 1) -> None:
        super().__init__(
            len(names), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), resize=Resize(None, 160)
        )
        self.task = "segment" if masks else "detect"
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.names = names
        self.masks = masks
        self.copies = copies

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        slots = 4 * self.copies
        shape = (len(images), slots)
        boxes, labels = torch.zeros(*shape, 4), torch.zeros(shape, dtype=torch.int64)
        scores, valid = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
        for i, (height, width) in enumerate(images.original_sizes.tolist()):
            ratio = images.sizes[i].flip(0) / torch.tensor([width, height])
            for k, ((x, y, w, h), name) in enumerate(SCENES[height, width] * self.copies):
                box = torch.tensor([x, y, x + w, y + h], dtype=torch.float32)
                boxes[i, k] = box * ratio.repeat(2)
                labels[i, k] = self.names.index(name)
                scores[i, k], valid[i, k] = 0.9 - 0.1 * k, True
        crops = torch.ones(*shape, 28, 28) if self.masks else None
        assert post is not None
        return Instances(boxes, labels, valid, scores, mask_crops=crops)


def run(
    detector: Oracle,
    dataset: Dataset,
    *,
    post: PostProcess | None = None,
    views: Views | None = None,
    loader: object = None,
    stop: object = lambda: False,
    gather: object = lambda share: [share],
    skeleton: Skeleton | None = None,
    **options: object,
) -> object:
    meta = Meta("oracle", {}, detector.names, keypoints=skeleton)
    settings = DetectionSettings(post or PostProcess(0.001, 0.5, 100), views)
    return evaluate(
        DetectionEvaluator(detector, dataset, meta, settings, **options),  # type: ignore[arg-type]
        detector,
        loader or TASK.eval_loader(detector, dataset, batch=2),  # type: ignore[arg-type]
        total=len(dataset),
        stop=stop,  # type: ignore[arg-type]
        gather=gather,  # type: ignore[arg-type]
    )


def test_perfect_detections_score_one(data: Path) -> None:
    dataset = open_dataset(data, "val")
    detector = Oracle(["cat", None, "zebra", "dog"])  # more classes, in another order
    detector.train()
    result = run(detector, dataset)
    for key in ("box/AP", "mask/AP", "box/AP50", "mask/AP75", "mask/AP/cat", "box/AP/dog"):
        assert result.metrics[key] == pytest.approx(1.0), key
    assert result.fitness == pytest.approx(1.0)
    assert result.capped == [] and result.ms > 0
    assert detector.training  # put back
    assert {row["image_id"] for row in result.detections} == {50, 51}


def test_metrics_equal_pycocotools(data: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    dataset = open_dataset(data, "val")
    result = run(Oracle(["dog", "cat"], copies=2), dataset)
    wrong = [{**row, "score": 0.95, "bbox": [0, 0, 9, 9]} for row in result.detections[:1]]
    gt = COCO()
    gt.dataset = result.gt
    gt.createIndex()
    reference = COCOeval(gt, gt.loadRes(result.detections), "bbox")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    assert result.metrics["box/AP"] == pytest.approx(reference.stats[0])
    assert wrong[0]["category_id"] in (1, 2)


def test_boxes_only(data: Path) -> None:
    result = run(Oracle(["dog", "cat"], masks=False), open_dataset(data, "val"))
    assert result.metrics["box/AP"] == pytest.approx(1.0)
    assert not any(key.startswith("mask/") for key in result.metrics)
    assert result.fitness == pytest.approx(1.0)


def test_classes_are_matched_by_name() -> None:
    assert match_classes(["a", None, "b", "c"], ["c", "a"]) == {0: 1, 3: 0}
    with pytest.raises(ValueError, match="does not know: nuclei; did you mean 'nucleus'"):
        match_classes(["nucleus", "cell"], ["cell", "nuclei"])


def test_class_that_the_model_lacks_is_an_error(data: Path) -> None:
    with pytest.raises(ValueError, match="does not know: cat"):
        run(Oracle(["dog", "zebra"]), open_dataset(data, "val"))


def test_full_images_are_reported(data: Path) -> None:
    dataset = open_dataset(data, "val")
    result = run(Oracle(["dog", "cat"]), dataset, post=PostProcess(0.001, 0.5, max_det=2))
    assert result.capped == [50]


def test_full_images_with_few_objects_are_none(data: Path) -> None:
    """Good detections up to the limit: what has half as many objects has lost none of them."""
    dataset = open_dataset(data, "val")
    for copies, limit, capped in (
        (2, 4, []),
        (2, 2, [50]),
        (1, 2, [50]),
        (4, 3, []),
        (1, 1, [50, 51]),
    ):
        post = PostProcess(0.001, 1.0, max_det=limit)
        result = run(Oracle(["dog", "cat"], copies=copies), dataset, post=post)
        assert result.capped == capped, (copies, limit)
        notes = capped_notes(result)
        assert len(notes) == bool(capped)
        assert not notes or f"{len(capped)} of 3 images reached max_det={limit}" in notes[0]
        assert not notes or "(up to 2)" in notes[0]


def test_detections_on_disk_fit_the_annotation_file_of_the_user(data: Path, tmp_path: Path) -> None:
    """Ids of images and categories are those of the file, which pycocotools reads beside them."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    file = data / "annotations" / "val.json"
    tree = json.loads(file.read_text())
    for annotation in tree["annotations"]:
        annotation["id"] += 1  # pycocotools takes an object with the id 0 for missed
    file.write_text(json.dumps(tree))
    detector = Oracle(["cat", "zebra", "dog"], copies=2)
    predictor = Predictor(detector, Meta("oracle", {}, ["cat", "zebra", "dog"]), device="cpu")
    metrics = val(predictor, data, iou=1.0, workers=0, save=True, project=tmp_path / "runs")
    found = json.loads((metrics.dir / "detections.json").read_text())
    assert {row["category_id"] for row in found} == set(IDS.values())
    assert {row["image_id"] for row in found} == {50, 51}
    dataset = open_dataset(data, "val")
    ours = tmp_path / "gt.json"
    ours.write_text(json.dumps(dataset.to_coco()))
    for truth in (file, ours):
        for kind, key in (("bbox", "box"), ("segm", "mask")):
            with contextlib.redirect_stdout(io.StringIO()):
                gt = COCO(str(truth))
                reference = COCOeval(gt, gt.loadRes(str(metrics.dir / "detections.json")), kind)
                reference.evaluate()
                reference.accumulate()
                reference.summarize()
            assert reference.stats[0] > 0.9
            assert metrics[f"{key}/AP"] == pytest.approx(reference.stats[0], abs=1e-12)
    by_label = load_detections(metrics.dir, dataset)
    again = score(dataset.to_coco(by_label=True), by_label, masks=True, max_det=100)
    assert again["mask/AP"] == metrics["mask/AP"]


def test_ids_of_classes_that_the_file_lacks_are_new(data: Path) -> None:
    dataset = open_dataset(data, "val", names=["zebra", "dog", "ant", "cat"])
    assert dataset.category_ids == [-1, 3, -1, 7] and dataset.own_ids == [8, 3, 9, 7]
    truth = dataset.to_coco()
    assert [c["id"] for c in truth["categories"]] == [8, 3, 9, 7]
    assert sorted({a["category_id"] for a in truth["annotations"]}) == [3, 7]
    assert {a["category_id"] for a in dataset.to_coco(by_label=True)["annotations"]} == {2, 4}


def test_stop_ends_without_a_result(data: Path) -> None:
    assert run(Oracle(["dog", "cat"]), open_dataset(data, "val"), stop=lambda: True) is None


def test_shares_of_several_processes_are_joined(data: Path) -> None:
    dataset = open_dataset(data, "val")
    detector = Oracle(["dog", "cat"])
    shares: list[object] = []
    for rank in range(2):
        run(
            detector,
            dataset,
            loader=TASK.eval_loader(detector, dataset, rank=rank, world=2),
            post=PostProcess(),
            gather=lambda share: [shares.append(share), share][1:],
        )
    whole = run(detector, dataset, gather=lambda _: shares)
    assert whole.metrics["mask/AP"] == pytest.approx(1.0)
    # An image that a loader repeats to fill its last share counts once.
    again = run(detector, dataset, gather=lambda _: [*shares, shares[0]])
    assert len(again.detections) == len(whole.detections)


def test_val_of_a_predictor_writes_its_folder(data: Path, tmp_path: Path) -> None:
    names: list[str | None] = ["dog", "cat"]
    predictor = Predictor(Oracle(names), Meta("oracle", {}, names), device="cpu")
    metrics = val(predictor, data, workers=0, save=True, project=tmp_path / "runs")
    assert metrics["mask/AP"] == pytest.approx(1.0)
    folder = tmp_path / "runs" / "val" / "val"
    assert metrics.dir == folder
    for file in (
        "args.yaml",
        "report.html",
        "detections.json",
        "class_ap.png",
        "f1.png",
        "errors.png",
        "calibration.png",
        "metrics.json",
        "confusion_matrix.png",
        "box_pr.png",
        "mask_pr.png",
        "val_batch0_labels.jpg",
        "val_batch0_pred.jpg",
    ):
        assert (folder / file).stat().st_size > 0, file
    stored = json.loads((folder / "metrics.json").read_text())
    assert stored["mask/AP"] == metrics["mask/AP"]
    assert all(stored[k] is None for k, v in metrics.items() if math.isnan(v))
    assert not (folder / "worst").exists()  # nothing is wrong
    # Boxes and masks are as given, so every number behind the AP is known.
    found = stored["diagnostics"]
    assert found["objects"] == {"dog": 2, "cat": 1}
    assert found["confusion_matrix"]["counts"] == [[2, 0, 0], [0, 1, 0], [0, 0, 0]]
    for kind in ("box", "mask"):
        assert found[kind]["best"]["f1"] == 1
        assert found[kind]["errors"]["AP50"] == 1
        assert set(found[kind]["errors"]["count"].values()) == {0}
        # Scores 0.9, 0.8 and 0.9 of right detections: they promise too little.
        assert found[kind]["calibration"]["error"] == pytest.approx((0.1 + 0.2 + 0.1) / 3)
        assert found[kind]["calibration"]["bias"] == pytest.approx(-(0.1 + 0.2 + 0.1) / 3)
    assert [row["f1"] for row in found["images"]["worst_first"]] == [1, 1, 1]


def test_boundary_ap_is_scored_on_demand(data: Path) -> None:
    names: list[str | None] = ["dog", "cat"]
    predictor = Predictor(Oracle(names), Meta("oracle", {}, names), device="cpu")
    metrics = val(predictor, data, workers=0, boundary=True)
    for key in ("boundary/AP", "boundary/AP75", "boundary/AP/cat"):
        assert metrics[key] == pytest.approx(1.0), key
    assert not any(key.startswith("boundary") for key in val(predictor, data, workers=0))
    boxes = Predictor(Oracle(names, masks=False), Meta("oracle", {}, names), device="cpu")
    with pytest.raises(ValueError, match="boundary=true scores masks"):
        val(boxes, data, workers=0, boundary=True)


def test_pascal_voc_is_scored_as_voc_does(data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(data, "val")
    write_voc(dataset, tmp_path / "voc", masks=False)
    for file in (tmp_path / "voc/Annotations").iterdir():
        # The dog in the image of both is difficult.
        text = file.read_text()
        if ">cat<" in text:
            one, two = text.rsplit("<difficult>0", 1)
            file.write_text(f"{one}<difficult>1{two}")
    names: list[str | None] = ["dog", "cat"]
    predictor = Predictor(Oracle(names, masks=False), Meta("oracle", {}, names), device="cpu")
    metrics = val(predictor, tmp_path / "voc", workers=0, save=True, project=tmp_path / "runs")
    keys = [key for key in metrics if "VOC" in key]
    assert keys == [
        f"box/{title}{end}" for title in ("VOC_AP50", "VOC07_AP50") for end in ("", "/dog", "/cat")
    ]
    assert all(metrics[key] == 1.0 for key in keys)
    assert metrics["box/AP50"] == pytest.approx(1.0)
    assert metrics.dir is not None
    assert "box VOC07_AP50" in (metrics.dir / "report.html").read_text()
    assert not any("VOC" in key for key in val(predictor, tmp_path / "voc", workers=0, voc=False))
    # On other data by wish; there the cat is elsewhere.
    file = data / "annotations/val.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [60, 2, 12, 12]
    del content["annotations"][0]["segmentation"]
    file.write_text(json.dumps(content))
    assert not any("VOC" in key for key in val(predictor, data, workers=0))
    metrics = val(predictor, data, workers=0, voc=True)
    assert metrics["box/VOC_AP50"] == metrics["box/VOC07_AP50"] == 0.5
    assert (metrics["box/VOC_AP50/cat"], metrics["box/VOC07_AP50/dog"]) == (0.0, 1.0)


def test_zero_ap_is_explained(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Blind(Oracle):
        def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
            found = super().forward(images, post)
            return Instances(
                found.boxes,
                found.labels,
                torch.zeros_like(found.valid),
                found.scores,
                mask_crops=found.mask_crops,
            )

    names: list[str | None] = ["dog", "cat"]
    metrics = val(Predictor(Blind(names), Meta("b", {}, names), device="cpu"), data, workers=0)
    assert metrics["mask/AP"] == 0
    assert "no predictions" in capsys.readouterr().err


def test_the_pictures_draw_what_the_data_says(data: Path, tmp_path: Path) -> None:
    names: list[str | None] = ["dog", "cat"]
    predictor = Predictor(Oracle(names), Meta("oracle", {}, names), device="cpu")
    val(predictor, data, workers=0, save=True, project=tmp_path, name="a")
    shown = np.asarray(Image.open(tmp_path / "val" / "a" / "val_batch0_labels.jpg"))
    found = np.asarray(Image.open(tmp_path / "val" / "a" / "val_batch0_pred.jpg"))
    assert shown.shape == found.shape
    # Below the name tags, which differ by the score, perfect masks give the same picture.
    part = slice(330, 515)
    assert np.ptp(shown[part].astype(int)) > 150  # there are masks
    assert (np.abs(shown[part].astype(int) - found[part]).max(-1) > 60).mean() < 0.001


def test_data_of_other_channels_is_told_what_the_model_was_trained_with(data: Path) -> None:
    colours = open_dataset(data, split="val")
    every, some = AllChannels(range(4)), (4, 0, 2)
    for reading, told in (
        (Reading(None, every, 4, "mine", every), r"\.png has 3 channels.*mine was trained with"),
        (
            Reading(None, some, 3, "mine", some),
            r"but channels=4,0,2 .*mine was trained with 3 chan",
        ),
        (Reading(None, None, 4, "mine", None), r"\.png has 3 channels, and mine was trained with"),
    ):
        with pytest.raises(ValueError, match=told):
            reading.apply(colours)
