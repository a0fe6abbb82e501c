"""Prediction: boxes come back to the original image, streams stay lazy, errors name the file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.data import open_dataset
from maskwright.data.pixels.images import image_header
from maskwright.devices import pick_device
from maskwright.errors import OptionError
from maskwright.models import Meta, PostProcess, build_tiny
from maskwright.models.detection.base import Detector
from maskwright.ops import SoftNMS
from maskwright.prediction.predict import predict
from maskwright.prediction.predictor import Predictor
from maskwright.prediction.sources import list_sources
from maskwright.structures import Images, Instances, Resize
from maskwright.tasks.detection.result import Result
from maskwright.tasks.detection.views import to_detections


class QuarterDetector(Detector):
    """Finds in every image its middle half, something beyond its border, and nothing else."""

    task = "segment"

    def __init__(self, resize: Resize | None = None, keypoints: bool = False) -> None:
        zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        super().__init__(2, mean=zero, std=one, resize=resize or Resize(None, 64))
        self.keypoints = keypoints
        self.seen: list[Images] = []
        self.posts: list[PostProcess | None] = []

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        self.seen.append(images)
        self.posts.append(post)
        count = len(images)
        height, width = images.sizes[:, 0].float(), images.sizes[:, 1].float()
        boxes = torch.zeros(count, 4, 4)
        boxes[:, 0] = torch.stack([width / 4, height / 4, width * 3 / 4, height * 3 / 4], 1)
        boxes[:, 2] = torch.stack([-width, height / 2, width * 2, height * 2], 1)
        valid = torch.tensor([True, False, True, False]).expand(count, 4)
        points = boxes[:, :, None, :2].expand(-1, -1, 3, -1)
        return Instances(
            boxes=boxes,
            labels=torch.tensor([1, 0, 0, 0]).expand(count, 4),
            valid=valid,
            scores=torch.tensor([0.4, 0.9, 0.8, 0.0]).expand(count, 4),
            mask_crops=torch.ones(count, 4, 8, 8),
            keypoints=torch.cat([points, torch.ones(count, 4, 3, 1)], -1)
            if self.keypoints
            else None,
        )


def make(**options: object) -> tuple[Predictor, QuarterDetector]:
    detector = QuarterDetector(**options)  # type: ignore[arg-type]
    meta = Meta("quarter", {}, ["cell", None], [5, 9])
    return Predictor(detector, meta, device="cpu"), detector  # type: ignore[arg-type]


def picture(height: int = 50, width: int = 100) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, (rows + columns) % 256], -1).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    for i, size in enumerate([(50, 100), (40, 40), (30, 90), (64, 20)]):
        Image.fromarray(picture(*size)).save(path / f"{i}.{'jpg' if i == 1 else 'png'}")
    return path


@pytest.mark.parametrize("size", [(50, 100), (33, 97), (200, 41), (7, 640), (1, 1)])
@pytest.mark.parametrize("imgsz", [None, 64, (20, 50), "1.7x"])
def test_boxes_come_back_to_the_original_image(size: tuple[int, int], imgsz: object) -> None:
    predictor, detector = make(keypoints=True)
    result = predictor(picture(*size), imgsz=imgsz)
    height, width = size
    assert result.boxes.tolist() == [
        pytest.approx([0, height / 2, width, height], abs=1e-3),
        pytest.approx([width / 4, height / 4, width * 3 / 4, height * 3 / 4], abs=1e-3),
    ]
    assert result.scores.tolist() == pytest.approx([0.8, 0.4])
    assert result.labels.tolist() == [0, 1]
    assert result.names == ["cell", "class 1"]
    assert result.detections.size == size and result.image.shape == (*size, 3)
    assert result.masks is not None and result.masks.shape == (2, *size)
    assert result.keypoints is not None
    assert result.keypoints[1, 0].tolist() == pytest.approx([width / 4, height / 4, 1], abs=1e-3)
    assert [row["category_id"] for row in result.to_coco(1)] == [5, 9]
    rule = Resize(None, 64) if imgsz is None else Resize.parse(imgsz)
    assert detector.seen[0].sizes.tolist() == [list(rule.target_size(*size))]
    assert all(side % 32 == 0 for side in detector.seen[0].pixels.shape[2:])


def test_the_network_sees_what_pillow_resizes() -> None:
    predictor, detector = make(resize=Resize(None, 40))
    predictor(picture(50, 100))
    expected = np.array(Image.fromarray(picture()).resize((40, 20), Image.Resampling.BILINEAR))
    pixels = detector.seen[0].pixels
    assert pixels.shape == (1, 3, 32, 64) and pixels.dtype == torch.float32
    assert torch.equal(pixels[0, :, :20, :40], torch.from_numpy(expected).permute(2, 0, 1).float())
    assert not pixels[:, :, 20:].any() and not pixels[:, :, :, 40:].any()


def test_imgsz_keeps_the_conventions_of_the_model() -> None:
    predictor, _ = make(resize=Resize(800, 1333, rounding="floor", antialias=False))
    rule = predictor.resize_rule("400,600")
    assert rule == Resize(400, 600, rounding="floor", antialias=False)
    assert predictor.resize_rule() is predictor.detector.resize
    with pytest.raises(ValueError, match="imgsz is the long side"):
        predictor(picture(), imgsz="big")


def test_every_kind_of_image_gives_the_same(folder: Path) -> None:
    predictor, detector = make()
    path = folder / "0.png"
    with Image.open(path) as opened:
        results = [
            predictor(path),
            predictor(str(path)),
            predictor(picture()),
            predictor(opened),
            predictor(path.read_bytes()),
        ]
    for result, seen in zip(results, detector.seen, strict=True):
        assert torch.equal(seen.pixels, detector.seen[0].pixels)
        assert torch.equal(result.boxes, results[0].boxes)
    assert [result.path for result in results] == [str(path), str(path), None, str(path), None]


def test_a_list_gives_a_list_as_if_each_had_come_alone(folder: Path) -> None:
    predictor, detector = make()
    results = predictor([folder / "0.png", picture(30, 30)])
    assert isinstance(results, list) and [r.path for r in results] == [str(folder / "0.png"), None]
    assert [len(images) for images in detector.seen] == [1, 1]
    assert predictor([]) == []


def test_options_reach_the_model() -> None:
    predictor, detector = make()
    result = predictor(picture(), conf=0.1, iou=0.7, max_det=9)
    assert detector.posts == [PostProcess(0.1, 0.7, 9)]
    assert not predictor.detector.training
    assert list(result.speed) == ["load", "preprocess", "inference", "postprocess"]
    assert all(ms >= 0 for ms in result.speed.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conf": 1.5}, "conf lies between 0 and 1, got 1.5"),
        ({"iou": -0.1}, "iou lies between 0 and 1"),
        ({"max_det": 0}, "max_det must be at least 1, got 0"),
        ({"max_det": 2.5}, "max_det is a whole number, got 2.5"),
        ({"max_det": True}, "max_det is a whole number, got True"),
        ({"conf": "much"}, "conf='much': expected a number"),
    ],
)
def test_wrong_options(options: dict[str, float], message: str) -> None:
    predictor, _ = make()
    with pytest.raises(ValueError, match=message):
        predictor(picture(), **options)  # type: ignore[call-overload]


def test_max_det_warns_once_a_call() -> None:
    predictor, _ = make()
    with pytest.warns(UserWarning, match=r"max_det=2 was reached in image, image: .*max_det=10"):
        predictor([picture(), picture()], max_det=2)
    with pytest.warns(UserWarning, match="max_det=2") as caught:
        list(predict(predictor, [picture(), picture()], max_det=2))
    assert len(caught) == 1


def test_errors_name_the_image(folder: Path) -> None:
    predictor, _ = make()
    (folder / "bad.png").write_bytes(b"no png")
    with pytest.raises(ValueError, match=r"bad\.png"):
        predictor(folder / "bad.png")
    with pytest.raises(ValueError, match=r"did you mean .*0\.png"):
        predictor(folder / "0.jpg")
    with pytest.raises(ValueError, match="image 2: an image array holds real numbers"):
        predictor([picture(), picture().astype(np.complex64)])
    with pytest.raises(ValueError, match=r"maskwright\.predict"):
        predictor(folder)
    with pytest.raises(ValueError, match="got int"):
        predictor(3)


def test_to_detections_keeps_valid_slots_by_falling_score() -> None:
    torch.manual_seed(0)
    scores = torch.rand(3, 20)
    valid = torch.rand(3, 20) < 0.5
    valid[1] = False
    boxes = torch.rand(3, 20, 2).repeat(1, 1, 2) * 30
    boxes[..., 2:] += 5
    instances = Instances(boxes, torch.randint(5, (3, 20)), valid, scores)
    sizes = torch.tensor([[40, 40], [40, 20], [20, 40]])
    images = Images(torch.zeros(3, 3, 64, 64), sizes, sizes * 2)
    for i, found in enumerate(to_detections(instances, images)):
        kept = sorted((k for k in range(20) if valid[i, k]), key=lambda k: -scores[i, k].item())
        assert found.scores.tolist() == [scores[i, k].item() for k in kept]
        assert found.size == tuple((sizes[i] * 2).tolist())
        height, width = found.size
        for row, k in zip(found.boxes.tolist(), kept, strict=True):
            x1, y1, x2, y2 = (2 * boxes[i, k]).tolist()
            expected = [min(x1, width), min(y1, height), min(x2, width), min(y2, height)]
            assert row == pytest.approx(expected)
    with pytest.raises(ValueError, match="no scores"):
        to_detections(Instances(boxes, valid.long(), valid), images)


def test_stream_is_lazy_and_in_order(folder: Path) -> None:
    predictor, detector = make()
    stream = predict(predictor, folder)
    assert detector.seen == []
    first = next(stream)
    assert first.file_name == "0.png" and len(detector.seen) == 1
    assert [result.file_name for result in stream] == ["1.jpg", "2.png", "3.png"]


def test_batches_give_the_same_objects(folder: Path) -> None:
    predictor, detector = make()
    one = list(predict(predictor, folder))
    detector.seen.clear()
    three = list(predict(predictor, folder, batch=3))
    assert [len(images) for images in detector.seen] == [3, 1]
    for a, b in zip(one, three, strict=True):
        assert a.path == b.path and torch.equal(a.boxes, b.boxes)
        assert np.array_equal(a.image, b.image)


def test_names_and_options_are_checked_before_the_first_image(folder: Path) -> None:
    predictor, _ = make()
    with pytest.raises(ValueError, match="does not exist"):
        predict(predictor, folder / "nothing")
    with pytest.raises(ValueError, match="batch must be at least 1"):
        predict(predictor, folder, batch=0)
    with pytest.raises(ValueError, match="conf"):
        predict(predictor, folder, conf=2)
    with pytest.raises(ValueError, match="imgsz"):
        predict(predictor, folder, imgsz="x")


def test_one_bad_file_is_reported_and_passed_over(folder: Path) -> None:
    predictor, _ = make()
    (folder / "1b.png").write_bytes(b"")
    with pytest.warns(UserWarning) as caught:
        results = list(predict(predictor, folder))
    assert [result.file_name for result in results] == ["0.png", "1.jpg", "2.png", "3.png"]
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 2
    assert "skipped" in texts[0] and "1b.png is empty" in texts[0]
    assert texts[1] == "1 of 5 images could not be read and were skipped"
    with pytest.raises(ValueError, match=r"1b\.png is empty"):
        list(predict(predictor, folder / "1b.png"))


def test_all_bad_files_are_an_error(tmp_path: Path) -> None:
    predictor, _ = make()
    (tmp_path / "a.png").write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(ValueError, match="none of the 1 images could be read"),
    ):
        list(predict(predictor, tmp_path))


def test_save_writes_pictures_and_data(folder: Path, tmp_path: Path) -> None:
    predictor, _ = make()
    results = list(predict(predictor, folder, save=tmp_path / "out"))
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    saved = ["0.json", "0.png", "1.jpg", "1.json", "2.json", "2.png", "3.json", "3.png"]
    assert files == [*saved, "index.html", "originals"]  # as the command line writes
    for result in results:
        data = tmp_path / "out" / f"{Path(result.file_name).stem}.json"
        assert json.loads(data.read_text(encoding="utf-8"))["path"] == result.path
        with Image.open(tmp_path / "out" / result.file_name) as saved:
            assert saved.size == result.detections.size[::-1]


def test_labels_of_the_pictures_can_be_left_out(folder: Path, tmp_path: Path) -> None:
    predictor, _ = make()
    drawn = {}
    for labels in (True, False):
        out = tmp_path / str(labels)
        (result, *_) = list(predict(predictor, folder, save=out, labels=labels))
        name = Path(result.file_name).stem
        (file,) = [path for path in out.glob(f"{name}.*") if path.suffix in (".png", ".jpg")]
        with Image.open(file) as saved:
            drawn[labels] = np.asarray(saved.convert("RGB")).astype(int)
        plot = np.asarray(result.plot(labels=labels)).astype(int)
        assert abs(drawn[labels] - plot).mean() < 4  # as far as JPEG keeps it
        assert (tmp_path / str(labels) / f"{name}.json").is_file()
    assert (drawn[True] != drawn[False]).any()
    with pytest.raises(OptionError, match="labels=false is about pictures, but none is made"):
        predict(predictor, folder, labels=False)


def test_save_never_overwrites_the_images(folder: Path) -> None:
    predictor, _ = make()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="would overwrite the image"):
        list(predict(predictor, folder, save=folder))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_listed_sources_may_be_given(folder: Path) -> None:
    predictor, _ = make()
    assert len(list(predict(predictor, list_sources(folder)))) == 4


def test_pick_device() -> None:
    assert pick_device("cpu").type == "cpu"
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.backends.mps.is_available():
        assert pick_device("auto").type == expected
    with pytest.raises(ValueError, match="device is auto, cpu"):
        pick_device("gpu")
    with pytest.raises(ValueError, match=r"sees . CUDA devices; use device=cpu"):
        pick_device("cuda:77")
    with pytest.raises(ValueError, match=r"sees . CUDA devices"):
        pick_device(77)


@pytest.mark.parametrize("name", ["mask_rcnn_resnet50_fpn", "faster_rcnn_resnet50_fpn"])
def test_a_real_model_gives_what_its_forward_gives(name: str) -> None:
    torch.manual_seed(0)
    detector = build_tiny(name, 3)
    predictor = Predictor(detector, Meta(name, {}, ["a", "b", "c"]), device="cpu")
    image = picture(60, 96)  # at imgsz=96 neither resized nor scaled, only padded
    with pytest.warns(UserWarning, match="max_det=7"):
        found = predictor(image, conf=0.0, max_det=7)
    padded = torch.zeros(1, 3, 64, 96)
    padded[0, :, :60] = torch.from_numpy(image).permute(2, 0, 1).float()
    size = torch.tensor([[60, 96]])
    with torch.inference_mode():
        direct = detector(Images(padded, size, size), PostProcess(0.0, 0.5, 7))
    assert torch.allclose(found.boxes, direct.boxes[0], atol=1e-3)
    assert torch.allclose(found.scores, direct.scores[0], atol=1e-5)
    assert torch.equal(found.labels, direct.labels[0])
    assert (found.masks is None) == (name.startswith("faster"))


def test_soft_nms_reaches_the_detector() -> None:
    predictor, detector = make()
    for option, rule in {
        None: None,
        "linear": SoftNMS("linear"),
        "Gaussian": SoftNMS("gaussian", 0.5),
        "gaussian:0.3": SoftNMS("gaussian", 0.3),
        SoftNMS("linear", floor=0.1): SoftNMS("linear", floor=0.1),
    }.items():
        predictor(picture(), soft_nms=option)
        post = detector.posts[-1]
        assert post is not None and post.soft_nms == rule
    for text in ("cubic", "linear:0.5", "gaussian:", "gaussian:0", "gaussian:x", "gaussian:nan"):
        with pytest.raises(OptionError, match=f"soft_nms='{text}'"):
            predictor(picture(), soft_nms=text)


def test_a_predictor_computes_in_the_precision_it_was_given() -> None:
    torch.manual_seed(0)
    detector = build_tiny("faster_rcnn_resnet50_fpn", 1)
    meta = Meta("faster_rcnn_resnet50_fpn", {}, ["a"])
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    scores = {}
    for precision in ("float32", "bf16"):
        predictor = Predictor(detector, meta, device="cpu", precision=precision)
        dtypes = {weight.dtype for weight in predictor.network().parameters()}
        assert dtypes == {torch.float32 if precision == "float32" else torch.bfloat16}
        scores[precision] = predictor(image, conf=0.0, imgsz=64).scores
    torch.testing.assert_close(scores["bf16"], scores["float32"], rtol=0.05, atol=0.02)
    assert not torch.equal(scores["bf16"], scores["float32"])


def test_unknown_precisions_and_those_of_other_devices() -> None:
    detector, meta = QuarterDetector(), Meta("quarter", {}, ["a", "b"])
    with pytest.raises(OptionError, match="float32, bf16, fp16; got 'int4'"):
        Predictor(detector, meta, device="cpu", precision="int4")
    with pytest.raises(OptionError, match="precision=bf16"):
        Predictor(detector, meta, device="cpu", precision="fp16")


def test_the_iterator_says_how_to_use_it(folder: Path) -> None:
    predictor, _ = make()
    stream = predict(predictor, folder)
    assert isinstance(stream, Iterator) and iter(stream) is stream
    assert "over 4 images, 0 taken" in repr(stream) and "for result in results" in repr(stream)
    first = next(stream)
    assert "1 taken" in repr(stream) and stream.dir is None
    stream.close()
    assert list(stream) == []
    assert first._repr_png_().startswith(b"\x89PNG")
    assert repr(predictor).startswith("<Predictor ") and len(repr(predictor)) < 200


def test_save_true_makes_a_run_folder_with_a_page(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    predictor, _ = make()
    stream = predict(predictor, folder, save=True, project="p", name="n", formats="geojson")
    assert not Path("p").exists()  # not before there is something to keep
    list(stream)
    assert stream.dir == Path("p/predict/n") and stream.page == Path("p/predict/n/index.html")
    assert len(list(Path("p/predict/n").glob("*.geojson"))) == 4
    list(predict(predictor, folder, save=False))
    assert sorted(path.name for path in Path().iterdir() if path != folder) != []
    for options, message in (
        ({"formats": "geojson"}, "save=false writes none"),
        ({"weights": "coco"}, "has its own"),
        ({"name": "x"}, "give save=true"),
    ):
        with pytest.raises(OptionError, match=message):
            predict(predictor, folder, **options)  # type: ignore[arg-type]


def test_labels_for_tools_say_what_the_results_say(folder: Path, tmp_path: Path) -> None:
    """All formats at once, read again: classes, boxes and masks of the results."""
    predictor, _ = make()
    out, formats = (
        tmp_path / "out",
        ("coco", "voc", "yolo", "labelme", "cvat", "labelstudio", "supervisely", "geo"),
    )
    every = (*formats, "instances", "geojson")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = list(predict(predictor, folder, save=out, formats=every, polygons=0))
    said = [str(entry.message) for entry in caught]
    assert any("formats=voc: 8 objects that share pixels" in text for text in said)
    assert not any("boxes" in text for text in said if "formats=geo" in text)  # the network's own
    assert len(list(out.glob("*.geojson"))) == 4
    for format in formats:
        data = open_dataset(out / format)
        assert data.format == format and data.names == ["cell", "class 1"] and len(data) == 4
        places = {data[i].path.stem: i for i in range(4)}
        for result in results:
            assert isinstance(result, Result)
            index = places[Path(str(result.path)).stem]
            record = data[index]
            assert record.size == result.size
            order = slice(None, None, -1 if format == "voc" else 1)  # the most certain on top
            assert record.labels.tolist() == result.labels.tolist()[order]
            np.testing.assert_allclose(record.boxes, result.boxes.numpy()[order], atol=1)
            assert result.masks is not None
            for k, mask in enumerate(result.masks.numpy()):
                if format != "voc":  # where a pixel belongs to one object
                    crop, (x1, y1, x2, y2) = data.mask(index, k)
                    np.testing.assert_array_equal(mask[y1:y2, x1:x2], crop)
    assert len(open_dataset(out / "instances")) == 4
    for result in results:  # each pixel is of the most certain object there
        assert isinstance(result, Result)
        file = out / f"instances/masks/train/{Path(str(result.path)).stem}.png"
        with Image.open(file) as stored:
            found, wanted = np.asarray(stored), result.label_image().astype(int)
        np.testing.assert_array_equal(found, np.where(wanted, len(result) + 1 - wanted, 0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(predict(predictor, folder, save=tmp_path / "c", formats="cvat,coco"))
    said = [str(entry.message) for entry in caught]
    assert any("formats=cvat" in one and "polygons within 0.75 pixels" in one for one in said)
    assert not any("score" in one for one in said)
    kinds = {name: open_dataset(tmp_path / "c" / name).polygons(0, 0) for name in ("cvat", "coco")}
    assert kinds["cvat"] is not None and kinds["coco"] is None
    for wrong, message in (({"polygons": 1}, "about labels"), ({"polygons": -1}, "from 0")):
        given = {"formats": "cvat"} if message == "from 0" else {}
        with pytest.raises(OptionError, match=message):
            predict(predictor, folder, save=out, **given, **wrong)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match=r"1 image.s. are no files.*formats=yolo has no labels"):
        list(
            predict(predictor, np.zeros((32, 32, 3), np.uint8), save=tmp_path / "b", formats="yolo")
        )
    with pytest.raises(OptionError, match=r"formats=yollo: there are .*did you mean 'yolo'"):
        predict(predictor, folder, save=out, formats="yollo")


def test_pages_and_animations_are_told(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 48), (40 * i, 0, 0)) for i in range(5)]
    for name, kind in (("a.tif", "TIFF"), ("b.gif", "GIF"), ("c.webp", "WEBP"), ("d.png", "PNG")):
        frames[0].save(tmp_path / name, kind, save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "e.mpo", "MPO", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "f.tif")
    predictor, _ = make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(list(predict(predictor, tmp_path))) == 6
    said = [str(entry.message) for entry in caught if "pages or frames" in str(entry.message)]
    for name in ("a.tif", "b.gif", "c.webp", "d.png"):
        assert any(
            f"{name} has 5 pages or frames: only the first is taken" in text for text in said
        )
    assert not any("e.mpo" in text or "f.tif" in text for text in said)
    assert said[-1].startswith("4 of 6 files have several pages")
    with Image.open(tmp_path / "b.gif") as opened:
        for image in (tmp_path / "a.tif", opened):
            with pytest.warns(UserWarning, match="has 5 pages or frames"):
                predictor(image)


def test_reduced_copies_in_a_tiff_are_no_pages(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as file:
        for level, side in enumerate((128, 64, 32)):
            pixels = np.zeros((side, side, 3), np.uint8)
            file.write(pixels, photometric="rgb", subfiletype=int(level > 0))
    assert image_header(tmp_path / "pyramid.tif").frames == 1


def test_names_of_several_folders_reach_results_and_files(tmp_path: Path) -> None:
    for part in ("left", "right"):
        (tmp_path / "in" / part).mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(tmp_path / "in" / part / "07.png")
    predictor, _ = make()
    stream = predict(predictor, f"{tmp_path}/in/**/*", save=tmp_path / "out")
    results = list(stream)
    assert [result.name for result in results] == ["left/07.png", "right/07.png"]
    assert [result.file_name for result in results] == ["07.png", "07.png"]
    found = {}
    for file in (tmp_path / "out").glob("*.json"):
        data = json.loads(file.read_text(encoding="utf-8"))
        found[data["name"]] = file.stem
    assert found == {"left/07.png": "07", "right/07.png": "07_2"}
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "left/07.png" in page and "right/07.png" in page
